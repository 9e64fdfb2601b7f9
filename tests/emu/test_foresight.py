"""The look ahead: it finds the instruction that makes a state enterable, and leaves no trace in the run."""

from __future__ import annotations

import pytest

import machines
from emu.debugger import Debugger
from emu.firmware import tour
from emu.foresight import foresee
from emu.journal import Event
from emu.machine import MachineStop
from emu.stops import BreakKind, StopKind
from emu.x86.vmentry import RULES, VTX, VTX2006
from reproducible import run_to

#: Into protected mode and back with a limit of 4 GiB in DS; then the stack gets a base that real mode does not give.
SWITCH = """
    mov bx, 0x1003
    mov ss, bx
    lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax                ; PE: CS and SS are still real mode's
    jmp 8:there
there:
    mov bx, 0x10
    mov ss, bx
    mov ds, bx
    and al, 0xfe
    mov cr0, eax                ; big real mode
    jmp 0xf000:back
back:
    xor ax, ax
    mov ss, ax
    mov ds, ax
    mov word [0x500], 0x1234
    out 0x80, al
    mov fs, ax
    hlt
    times 0x100-($-$$) nop
gdt:
    dq 0
    dw 0xffff, 0x0000, 0x9b0f, 0x0000
    dw 0xffff, 0x0000, 0x9300, 0x008f
gdtr:
    dw gdtr - gdt - 1
    dd 0xf0000 + gdt
"""


def at(source: str, steps: int) -> Debugger:
    made = machines.debugger(machines.rom(source))
    made.machine.run(steps)
    return made


@pytest.mark.parametrize("loop", ["fast", "gate"])
def test_the_far_jump_and_the_loads_behind_a_switch_are_found(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("V2E_ENGINE", loop)
    session = at(SWITCH, 10)
    assert session.why(VTX).broken == ()
    old = session.why(VTX2006)
    assert "SS.RPL 3 is not CS.RPL 0" in old.broken[0]
    assert old.ahead.startswith("`mov ss, bx` at 0xf00") and "loads SS: behind it" in old.ahead
    # behind it, it is enterable
    place = int(old.ahead.split(" at ")[1].split(" ")[0], 16)
    while session.machine.executor.linear_pc != place:
        session.machine.run(session.machine.executor.retired + 1)
    assert session.why(VTX2006).broken
    session.machine.run(session.machine.executor.retired + 1)
    session.forget()
    assert session.why(VTX2006).broken == ()


def test_what_only_a_device_could_tell_is_not_foreseen_and_the_device_is_not_asked() -> None:
    session = at("out 0x80, al\nin al, 0x60\nmov [0xa0000], al\nout 0xe9, al\nout 0x80, al\nhlt", 3)
    told: list[int] = []
    session.machine.ports.trace = lambda port, size, value, write: told.append(port)
    assert foresee(session.machine, lambda state: state.halted) is None
    assert told == [] and session.machine.debugcon_text() == ""
    session.machine.ports.trace = None
    assert session.machine.run(100).reason is MachineStop.DEADLOCK
    assert len(session.machine.debugcon_text()) == 1


def test_memory_that_the_look_ahead_writes_is_what_it_was() -> None:
    session = at("mov word [0x500], 1\nmov ax, 0x100\nmov es, ax\nout 0x80, al", 4)
    seen = foresee(session.machine, lambda state: state.es.selector == 0x100)
    assert seen is not None and seen.ahead == 2 and seen.loads() == ("es",)
    assert session.read_linear(0x500, 2) == b"\0\0"
    assert session.machine.executor.retired == 4


def test_a_breakpoint_and_a_watchpoint_do_not_end_it_and_still_hit_afterwards() -> None:
    session = at("mov word [0x500], 1\nmov ax, 0x100\nmov es, ax\nhlt", 4)
    session.add_breakpoint(BreakKind.EXECUTE, session.machine.executor.linear_pc + 9)
    session.add_breakpoint(BreakKind.WRITE, 0x500, 2)
    assert foresee(session.machine, lambda state: state.es.selector == 0x100) is not None
    session.begin_continue()
    assert session.run().kind is StopKind.WATCHPOINT
    session.begin_continue()
    assert session.run().kind is StopKind.BREAKPOINT


def happened(session: Debugger) -> list[Event]:
    return [event for event in session.machine.journal if event.kind != "stop"][-100:]  # the ring holds 256


@pytest.mark.parametrize(
    ("kind", "looks"),
    [("tour", 12), *(pytest.param(kind, 60, marks=pytest.mark.slow) for kind in ("tour", "seabios"))],
)
def test_looking_ahead_again_and_again_changes_nothing_of_the_run(kind: str, looks: int) -> None:
    def make() -> Debugger:
        if kind == "tour":
            return machines.debugger(tour.rom(), memory=4 << 20)
        return machines.seabios_debugger(bytes(510) + b"\x55\xaa")

    end = 80_000 if kind == "tour" else 600_000
    plain = make()
    run_to(plain, end)
    looked = make()
    for instant in range(1_003, end, end // looks):
        run_to(looked, instant)
        for rules in RULES.values():
            looked.why(rules)
        foresee(looked.machine, lambda state: False)
    run_to(looked, end)
    assert looked.fingerprint() == plain.fingerprint()
    assert happened(looked) == happened(plain)
    assert looked.machine.serial_text() == plain.machine.serial_text()
