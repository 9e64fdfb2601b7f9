"""Execution where neither memory nor a device is: the bus gives FFh, and FF FF is #UD (SDM vol. 2D, table A-6, group
5).

The portable loop ends there with a sentence, as both do where a device would be read (docs/fidelity.md).
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import RAM, BareCpu, bare_cpu
from emu.catches import Catch, CatchKind
from emu.debugger import Debugger
from emu.engine import Change, Exit, ExitReason
from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.stops import BreakKind, StopKind
from emu.stuck import explain
from emu.unicorn_helper import HELPER
from emu.x86.classes import InstructionClass
from run_loops import SLICES, loop

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

#: The handler counts in EBX, and goes on at the third #UD.
THREE = f"""
        mov dword [0x30], handler + 0x80000
        mov dword [0x34], 0x8E00
        mov ecx, {RAM:#x}
        jmp ecx
handler:
        inc ebx
        cmp ebx, 3
        je out
        iretd
out:    hlt
"""


def began(source: str = THREE, bits: int = 32) -> BareCpu:
    cpu = bare_cpu(source, bits)
    state = cpu.engine.state()
    state.idtr.limit = 0x7FF
    cpu.engine.load(state)
    return cpu


@pytest.mark.parametrize("size", SLICES)
def test_it_is_undefined_again_and_again_at_every_slice(size: int) -> None:
    cpu = began()
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert [(f.vector, f.linear, f.rip, f.retired) for f in cpu.faults] == [(6, RAM, RAM, n) for n in (4, 9, 14)]
    assert (cpu.engine.retired, cpu.engine.state().regs[3]) == (19, 3)
    assert {fault.hint for fault in cpu.faults} == {"no RAM or ROM is there"}


def test_nobody_is_asked_what_is_there_to_read() -> None:
    """A read would be an exit, or on the tape of a lockstep."""
    cpu = began()
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.mmio == []


def test_a_breakpoint_is_met_before_it_and_a_step_ends_in_the_handler() -> None:
    cpu = began()
    cpu.engine.set_breakpoints([RAM])
    assert cpu.engine.run(100) == Exit(ExitReason.BREAKPOINT, 4)
    assert cpu.faults == []
    assert cpu.engine.run(1, skip_breakpoint=True) == Exit(ExitReason.BUDGET, 1)
    assert len(cpu.faults) == 1
    assert cpu.engine.run(100) == Exit(ExitReason.BREAKPOINT, 4)


def test_an_interrupt_comes_before_it() -> None:
    cpu = began(THREE.replace("jmp ecx", "mov dword [0x100], late + 0x80000\nmov dword [0x104], 0x8E00\nsti\njmp ecx")
                + "late: pop eax\nhlt")  # fmt: skip
    cpu.engine.set_interrupt(0x20)
    for _ in range(4):
        if cpu.engine.run(100).reason is ExitReason.HALT:
            break
        cpu.engine.set_interrupt(None)
    assert cpu.engine.state().regs[0] == RAM
    assert cpu.faults == []


def test_its_bytes_are_not_those_at_the_beginning_of_ram() -> None:
    """A stop at HLT, which is at 100h and below, is none where the offset in the page is the same."""
    cpu = began(THREE.replace(f"mov ecx, {RAM:#x}", f"mov ecx, {RAM + 0x100:#x}"))
    cpu.write(0x80, b"\xf4" * 0x100)
    cpu.engine.set_event_stops(InstructionClass.HLT, [0x100, 0xFF], Change.NONE)
    exit = cpu.run()
    assert exit.reason in (ExitReason.BREAKPOINT, ExitReason.EVENT)
    assert cpu.read(cpu.engine.linear_pc, 1) == b"\xf4"
    assert [fault.linear for fault in cpu.faults] == [RAM + 0x100] * 3


def test_in_the_portable_loop_the_run_ends_with_a_sentence() -> None:
    with loop("gate"):
        cpu = began()
        exit = cpu.run()
    assert (exit.reason, exit.executed) == (ExitReason.FAILURE, 4)
    assert exit.detail == f"the instruction at linear {RAM:#x} cannot be fetched: no RAM or ROM is there"


# -- machines


def machine(source: str) -> Debugger:
    """With a disk whose boot sector that is, and the built-in BIOS."""
    code = assemble(f"bits 16\norg 0x7c00\n{source}\ntimes 510-($-$$) db 0\ndw 0xaa55")
    disk = Disk.from_bytes(code.ljust(1 << 20, b"\0"))
    run = Debugger(build_machine(MachineConfig(firmware=builtin_bios(), bios=True, memory=1 << 20, disks=[disk])))
    run.set_limit(20_000_000)
    return run


#: To protected mode, with an IDT of no gates, and off.
OFF = """
        cli
        lgdt [gdtr]
        lidt [none]
        mov eax, cr0
        inc ax
        mov cr0, eax
        jmp dword 8:0x8000000
gdtr:   dw 15
        dd gdt
none:   dw 0
        dd 0
gdt:    dq 0, 0x00CF9A000000FFFF
"""


#: Behind the MiB of RAM that there is.
BEHIND = "in al, 0x92\nor al, 2\nand al, 0xFE\nout 0x92, al\njmp 0xFFFF:0x8000"


def test_without_a_handler_the_stop_says_what_it_was() -> None:
    run = machine(OFF)
    run.begin_continue()
    stop = run.run()
    assert stop.kind is StopKind.SHUTDOWN
    assert "#UD at 0008:8000000 (no RAM or ROM is there)" in stop.text
    run.machine.close()


def test_a_handler_that_returns_is_a_loop_of_faults_that_says_so() -> None:
    """Vector 6 of the BIOS is an IRET."""
    run = machine(BEHIND)
    run.add_breakpoint(BreakKind.EXECUTE, 0x7C00)
    run.begin_continue()
    assert run.run().kind is StopKind.BREAKPOINT
    run.set_limit(1000)
    run.begin_continue()
    assert run.run().kind is StopKind.LIMIT
    view = explain(run.machine)
    assert view.verdict == "faults"
    assert "no RAM or ROM is there" in view.summary
    run.machine.close()


def test_a_catch_of_the_exception_says_so_too() -> None:
    run = machine(BEHIND)
    run.add_catch(Catch(CatchKind.EXCEPTION, 6, 6))
    run.begin_continue()
    stop = run.run()
    assert "ffff:8000 (no RAM or ROM is there)" in stop.text
    run.machine.close()
