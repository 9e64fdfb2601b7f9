"""System management mode, NMIs by the local APIC and CR8 on `pc`: a ROM prints what it prints under QEMU's TCG."""

from __future__ import annotations

import pytest

from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.x86.registers import REGISTERS
from machines import pc, rom
from oracles import OracleMissing, assemble_image, run_qemu


def ours(**config: object) -> Machine:
    options: dict[str, object] = {"cpu": "qemu64", "memory": 16 << 20, **config}
    machine = build_machine(MachineConfig(machine="pc", firmware=assemble_image("pc_smm"), **options))  # type: ignore[arg-type]
    end = machine.run(20_000_000)
    assert end.reason is MachineStop.EXIT and end.code == 0x10, (end, machine.debugcon_text())
    return machine


def test_the_probe_prints_what_it_prints_under_qemu():
    try:
        theirs = run_qemu(assemble_image("pc_smm"), machine="pc", cpu="qemu64").lines
    except OracleMissing as missing:
        pytest.skip(str(missing))
    assert ours().debugcon_text().splitlines() == list(theirs)


@pytest.mark.slow
def test_slices_leave_no_trace_and_both_run_loops_agree(monkeypatch):
    whole = ours()
    assert ours(slice=13).fingerprint() == whole.fingerprint()
    monkeypatch.setenv("V2E_ENGINE", "gate")
    gate = ours()
    assert (gate.debugcon_text(), gate.executor.retired) == (whole.debugcon_text(), whole.executor.retired)


def test_a_machine_saved_inside_the_handler_goes_on_elsewhere():
    one, other = ours(), ours()
    one.reset()
    assert one.run(13_000).reason is MachineStop.LIMIT and one.cpu_state().smm
    assert one.cpu_state().smbase == 0xA0000
    other.restore(one.save())
    for machine in (one, other):
        assert machine.run(20_000_000).code == 0x10
    assert one.fingerprint() == other.fingerprint()


HALTED = """
    mov ax, 0x3000
    mov es, ax
    mov dword [es:0x8000], 0x050006fe
    mov word [es:0x8004], 0xaa0f
    mov byte [0x500], 0
    hlt
    jmp $-1
"""


def halted() -> Machine:
    """A ROM that halts with interrupts off; its SMI handler is INC BYTE [500h] and RSM."""
    machine = pc(rom(HALTED), cpu="qemu64")
    assert machine.run(10_000).reason is MachineStop.DEADLOCK
    return machine


def test_an_smi_wakes_a_halted_cpu_and_rsm_halts_it_again():
    machine = halted()
    for count in (1, 2):
        machine.board.chipset.smm.smi()
        machine.service()
        assert machine.cpu_state().smm and not machine.cpu_state().halted
        assert machine.run(machine.executor.retired + 100).reason is MachineStop.DEADLOCK
        assert machine.read_physical(0x500, 1)[0] == count and machine.cpu_state().halted


def test_a_second_smi_waits_for_rsm_and_a_third_is_one_with_it():
    machine = halted()
    machine.board.chipset.smm.smi()
    machine.service()
    for _ in range(2):
        machine.board.chipset.smm.smi()
        machine.service()
    assert machine.run(machine.executor.retired + 100).reason is MachineStop.DEADLOCK
    assert machine.read_physical(0x500, 1)[0] == 2


@pytest.mark.parametrize(("offset", "value"), ((0xFF48, 1 << 32), (0xFF58, 1 << 31), (0xFF58, 1 << 29)))
def test_rsm_to_a_state_that_no_cpu_has_is_a_shutdown(offset, value):
    """SDM vol. 3C, "Exiting from SMM": reserved bits of CR4, PG without PE, NW without CD."""
    machine = halted()
    machine.board.chipset.smm.smi()
    machine.service()
    machine.memory.write(0x30000 + offset, value.to_bytes(8, "little"))
    end = machine.run(machine.executor.retired + 100)
    assert end.reason is MachineStop.SHUTDOWN and "RSM" in end.detail


def test_the_debugger_shows_system_management_mode():
    machine = halted()
    machine.board.chipset.smm.smi()
    machine.service()
    state = machine.cpu_state()
    assert (REGISTERS["smm"].get(state), REGISTERS["smbase"].get(state)) == (1, 0x30000)
    (view,) = (device for device in machine.devices() if device.name == "smm")
    assert view.fields[0].text == "the CPU is in it"
    (event,) = (event for event in machine.journal if event.kind == "smm")
    assert event.text.startswith("SMI at f000:") and event.text.endswith("SMBASE 0x30000")


WATCHDOG = """
    ; vector 2 at 0:8; the 8254 counts 1193 clocks and starts anew; the 8259 lets IRQ 0 through to LINT0, which is NMI
    mov word [8], handler
    mov word [10], 0xf000
    mov ax, ds
    mov bx, 0xffff
    mov fs, bx
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 4
    out 0x40, al
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 3
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov sp, 0x2000
    mov word [0x500], 0
    lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    mov ebx, 0xfee00000
    mov dword [fs:ebx + 0xf0], 0x1ff
    mov dword [fs:ebx + 0x350], 0x400
    hlt
    hlt
    hlt
    mov al, [0x500]
    out 0xf4, al
    hlt
handler:
    inc word [0x500]
    mov al, 0x20                ; EOI: the 8259's line falls when its request is taken, and may rise again
    out 0x20, al
    mov al, 0x0c
    out 0x20, al
    in al, 0x20
    iret
gdtr:
    dw 15
    dd 0xf0000 + gdt
gdt:
    dq 0, 0x00cf93000000ffff
"""


def test_the_8254_as_nmi_by_lint0_wakes_a_cpu_that_halts_with_interrupts_off():
    """As a kernel's NMI watchdog has it. The poll takes the request, so that INTR falls and rises again."""
    machine = pc(rom(WATCHDOG))
    end = machine.run(100_000)
    assert (end.reason, end.code) == (MachineStop.EXIT, 3), end
    assert machine.clock.now > 2_000_000  # ns: three periods of a millisecond, the first one begun
