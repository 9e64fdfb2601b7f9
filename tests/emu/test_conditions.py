"""Conditions and actions of breakpoints: asked once for each arrival, whatever comes between, and nothing changes."""

from __future__ import annotations

import pytest

from emu.debugger import BreakKind, Debugger, StopKind
from emu.stops import Condition, ConditionFailed, Met
from emu.unicorn_helper import HELPER, Helper
from machines import TIMER_100US, debugger, rom

#: A PIT interrupt each 100 us counts at 600h; the main loop counts at 500h, at F000:0100, and calls F000:0200.
TICKING = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
{TIMER_100US}
    sti
    jmp main
    times 0x100 - ($ - $$) nop
main:
    inc word [0x500]
    call routine
    jmp main
    times 0x200 - ($ - $$) nop
routine:
    ret
tick:
    push ax
    inc word [0x600]
    call routine
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)
MAIN, ROUTINE = 0xF0100, 0xF0200
END = 50_000


@pytest.fixture(params=["fast", pytest.param("gate", marks=pytest.mark.slow)])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fast" and not isinstance(HELPER, Helper):
        pytest.skip("the C helper is not there")
    monkeypatch.setenv("V2E_ENGINE", "gate" if request.param == "gate" else "")
    return str(request.param)


def word(guest: Debugger, address: int) -> int:
    return int.from_bytes(guest.read_linear(address, 2), "little")


@pytest.mark.parametrize(
    "slice", [pytest.param(None, marks=pytest.mark.slow), 997, pytest.param(13, marks=pytest.mark.slow)]
)
def test_a_condition_is_asked_once_for_each_arrival(loop: str, slice: int | None) -> None:
    guest = debugger(TICKING, slice=slice)
    asked = {MAIN: 0, ROUTINE: 0}

    def never(address: int) -> bool:
        asked[address] += 1
        assert guest.machine.executor.linear_pc == address
        return False

    for address in asked:
        guest.add_breakpoint(
            BreakKind.EXECUTE, address, condition=Condition("", lambda address=address: never(address))
        )
    guest.set_limit(END)
    guest.begin_continue()
    assert guest.run().kind is StopKind.LIMIT
    turns, ticks = word(guest, 0x500), word(guest, 0x600)
    assert ticks > 3
    # The limit may fall between an arrival and what the instruction does.
    assert turns <= asked[MAIN] <= turns + 1
    assert turns + ticks - 2 <= asked[ROUTINE] <= turns + ticks + 1
    told = guest.fingerprint()
    plain = debugger(TICKING)
    plain.set_limit(END)
    plain.begin_continue()
    plain.run()
    assert plain.fingerprint() == told


def test_pieces_of_a_run_ask_no_condition_twice(loop: str) -> None:
    guest = debugger(TICKING)
    asked = []
    guest.add_breakpoint(
        BreakKind.EXECUTE, MAIN, condition=Condition("", lambda: bool(asked.append(guest.machine.executor.retired)))
    )
    guest.set_limit(3000)
    guest.begin_continue()
    while guest.pump(1) is None:  # each piece ends wherever it likes
        pass
    assert len(asked) == len(set(asked))
    assert word(guest, 0x500) <= len(asked) <= word(guest, 0x500) + 1


def test_counts_are_of_hits_whose_condition_holds(loop: str) -> None:
    guest = debugger(TICKING)
    point = guest.add_breakpoint(
        BreakKind.EXECUTE, MAIN, condition=Condition("", lambda: guest.glance(0x500, 1)[0] % 10 == 0)
    )
    point.ignore = 2
    guest.begin_continue()
    assert guest.run().kind is StopKind.BREAKPOINT
    assert word(guest, 0x500) == 20
    assert point.hits == 3


def test_an_action_is_done_instead_of_stopping(loop: str) -> None:
    guest = debugger(TICKING)
    seen: list[int] = []
    guest.add_breakpoint(BreakKind.EXECUTE, MAIN, action=lambda: seen.append(word(guest, 0x500)))
    guest.set_limit(5000)
    guest.begin_continue()
    assert guest.run().kind is StopKind.LIMIT
    assert seen[:5] == [0, 1, 2, 3, 4]


def test_what_cannot_be_evaluated_stops_and_says_why(loop: str) -> None:
    guest = debugger(TICKING)

    def fails() -> bool:
        raise ConditionFailed("there is no such thing")

    guest.add_breakpoint(BreakKind.EXECUTE, MAIN, condition=Condition("", fails))
    guest.begin_continue()
    stop = guest.run()
    assert stop.kind is StopKind.BREAKPOINT
    assert stop.failed
    assert stop.text == "breakpoint 1 at f000:0100; 1: there is no such thing"
    assert stop.happened == " at f000:0100"
    assert stop.met == (Met(1, "prompt", MAIN, "condition", "there is no such thing"),)


def test_running_to_an_address_passes_conditions_that_do_not_hold(loop: str) -> None:
    guest = debugger(TICKING)
    point = guest.add_breakpoint(BreakKind.EXECUTE, MAIN, condition=Condition("", lambda: False))
    for address in (ROUTINE, MAIN, ROUTINE):
        guest.begin_until(address)
        stop = guest.run()
        assert stop.text == f"reached {address:#x}"
    guest.begin_step(50)
    assert guest.run().kind is StopKind.STEP
    assert not point.hits


def test_a_watchpoint_s_condition_is_asked_behind_the_access(loop: str) -> None:
    guest = debugger(TICKING)
    guest.add_breakpoint(
        BreakKind.WRITE, 0x500, 2, condition=Condition("", lambda: guest.glance(0x500, 2) == b"\x07\x00")
    )
    guest.begin_continue()
    stop = guest.run()
    assert stop.kind is StopKind.WATCHPOINT
    assert word(guest, 0x500) == 7


def test_what_is_seen_live_is_what_a_copy_of_the_state_has(loop: str) -> None:
    guest = debugger(TICKING)
    guest.begin_step(37)
    guest.run()
    live, copy = guest.live_cpu(), guest.cpu()
    names = """rip rflags cr0 cr2 cr3 cr4 cr8 efer a20 linear_pc long64 cpl tr ldtr gdtr idtr dr fpu msrs es cs ss ds fs
    gs shadow nmi_pending nmi_blocked"""
    for name in names.split():
        assert getattr(live, name) == getattr(copy, name), name
    assert list(live.regs) == copy.regs
