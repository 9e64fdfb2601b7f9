"""The local APIC of `pc` by the CPU's own instructions: CPUID, RDMSR and WRMSR, IA32_TSC_DEADLINE."""

from __future__ import annotations

import pytest

from emu.machine import Machine, MachineConfig, MachineExit, MachineStop, build_machine
from emu.x86.msrs import TSC_ADJUST
from emu.x86.registers import REGISTERS
from machines import rom, timer

#: `msr NUMBER, HIGH, LOW` writes one. Vector 40h and #GP tell the debug-exit port 40h and 13.
BEGIN = """
%macro msr 3
    mov ecx, %1
    mov edx, %2
    mov eax, %3
    wrmsr
%endmacro
    mov ss, ax
    mov sp, 0x7000
    mov word [0x40*4], due
    mov word [0x40*4+2], cs
    mov word [13*4], refused
    mov word [13*4+2], cs
"""
HANDLERS = """
due:
    rdtsc
    mov [0x600], eax
    mov [0x604], edx
    mov al, 0x40
    out 0xf4, al
    hlt
refused:
    mov al, 13
    out 0xf4, al
    hlt
"""
#: x2APIC mode, switched on, its timer in TSC-deadline mode with vector 40h (SDM vol. 3A, 11.12.1, 11.5.4.1).
X2APIC = """
    msr 0x1b, 0, 0xfee00d00
    msr 0x80f, 0, 0x1ff
    msr 0x832, 0, 0x40040
"""


def guest(body: str, **config: object) -> tuple[Machine, MachineExit]:
    firmware = rom(BEGIN + body, HANDLERS)
    options: dict[str, object] = {"machine": "pc", "memory": 2 << 20, **config}
    machine = build_machine(MachineConfig(firmware=firmware, **options))  # type: ignore[arg-type]
    return machine, machine.run(3_000_000)


def tsc_at_interrupt(machine: Machine) -> int:
    return int.from_bytes(machine.memory.read(0x600, 8), "little")


def test_the_deadline_is_one_of_the_counter_that_the_guest_wrote():
    """SDM vol. 3A, 11.5.4.1: the interrupt comes when the time-stamp counter has reached the value."""
    machine, end = guest(X2APIC + "msr 0x10, 5, 0\nmsr 0x6e0, 5, 0x100000\nsti\nhlt")
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x40)
    assert 0x500100000 <= tsc_at_interrupt(machine) < 0x500100000 + 100
    assert 0x100000 <= machine.clock.now < 0x100000 + 1000


def test_a_counter_set_past_the_deadline_is_due_at_once():
    machine, end = guest(X2APIC + "msr 0x6e0, 9, 0\nsti\nmsr 0x10, 9, 5\nmov cx, 100\nloop $\nhlt")
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x40)
    assert machine.clock.now < 2000


def test_a_deadline_reached_reads_0_and_one_ahead_its_value():
    body = (
        X2APIC
        + """
    msr 0x6e0, 9, 1
    rdmsr
    mov ebx, eax
    add ebx, edx
    msr 0x6e0, 0, 1
    rdmsr
    or eax, edx
    add eax, ebx
    out 0xf4, al
    hlt
    """
    )
    _, end = guest(body)
    assert end.code == 10


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("mov ecx, 0x802\nrdmsr", "an x2APIC register in xAPIC mode (SDM vol. 3A, 11.12.2)"),
        ("msr 0x1b, 0, 0xfee00500", "x2APIC without the APIC (11.12.1)"),
        (X2APIC + "msr 0x1b, 0, 0xfee00900", "back to xAPIC without switching off (11.12.5)"),
        (X2APIC + "msr 0x803, 0, 0", "the version register is read-only (table 11-6)"),
        (X2APIC + "msr 0x80b, 0, 1", "EOI takes 0 only (11.12.1.3)"),
        ("msr 0x6e0, 0, 0\nmov ecx, 0x900\nrdmsr", "behind the last of them"),
    ],
)
def test_what_is_refused_raises_general_protection(body: str, why: str):
    _, end = guest(body + "\nmov al, 1\nout 0xf4, al\nhlt")
    assert end.code == 13, why


@pytest.mark.parametrize(
    ("machine", "cpu", "edx", "ecx"),
    [
        ("pc", "max", 1, 3),
        ("pc", "pentium2", 1, 0),
        ("pc", "qemu64", 1, 0),
        ("pc", "486", 0, 0),
        ("isapc", "max", 0, 0),
    ],
)
def test_cpuid_names_the_local_apic_where_there_is_one(machine: str, cpu: str, edx: int, ecx: int):
    """CPUID.1: EDX bit 9, ECX bit 21 (x2APIC) and 24 (TSC-deadline) (SDM vol. 2A, tables 3-10, 3-11)."""
    body = """
    mov eax, 1
    cpuid
    shr edx, 9
    and edx, 1
    mov eax, ecx
    shr eax, 21
    and eax, 9
    imul eax, 16
    or eax, edx
    out 0xf4, al
    hlt
    """
    _, end = guest(body, machine=machine, cpu=cpu)
    assert end.code == edx | 16 * (ecx & 1 | (ecx & 2) << 2)


def test_a_486_takes_the_8259s_interrupts_without_a_local_apic():
    body = f"""
    mov word [0x20*4], tick
    mov word [0x20*4+2], cs
    {timer(32, 0x20)}
    sti
    hlt
    mov al, 1
    out 0xf4, al
    hlt
tick:
    mov al, 0x20
    out 0xf4, al
    hlt
    """
    machine, end = guest(body, cpu="486")
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x20)
    assert machine.board.chipset is not None and machine.board.chipset.lapic.mmio_base is None


def test_the_debugger_s_apic_base_is_the_local_apic_s():
    machine, _ = guest("msr 0x1b, 0, 0xfed20900\njmp $")
    state = machine.cpu_state()
    register = REGISTERS["apic_base"]
    assert register.get(state) == 0xFED20900
    register.set(state, 0xFEE00900)
    machine.load_cpu(state)
    assert register.get(machine.cpu_state()) == 0xFEE00900
    assert machine.executor.read_msr(0x1B) == 0xFEE00900
    machine.reset()
    assert register.get(machine.cpu_state()) == 0xFEE00900


def test_a_counter_set_by_the_debugger_moves_the_deadline():
    """With its deadline hours ahead the CPU is stopped in a loop, and the counter set to just before it."""
    machine, end = guest(X2APIC + "msr 0x6e0, 5, 0\nsti\njmp $")
    assert end.reason is MachineStop.LIMIT
    state = machine.cpu_state()
    state.msrs[TSC_ADJUST] = (5 << 32) - machine.clock.now - 1000
    machine.load_cpu(state)
    end = machine.run(machine.executor.retired + 10_000)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x40)
    assert 5 << 32 <= tsc_at_interrupt(machine) < (5 << 32) + 1000
