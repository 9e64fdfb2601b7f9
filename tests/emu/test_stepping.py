"""How far a step goes: handlers of interrupts and repeated string instructions, by policy; the run is the same."""

from __future__ import annotations

import pytest

from emu.debugger import BreakKind, Debugger, StopKind
from machines import TIMER_100US, debugger, rom

#: A PIT interrupt each 100 us; its handler copies by REP as the main loop does.
COPYING = rom(
    f"""
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
{TIMER_100US}
    sti
main:
    mov si, 0x1000
    mov di, 0x3000
    mov cx, 0x1000
    times 0x80 - ($ - $$) nop
    call copy
    jmp main
    times 0x100 - ($ - $$) nop
copy:
    rep movsb
    ret
tick:
    pusha
    inc word [0x600]
    mov cx, 4
    call copy
    mov al, 0x20
    out 0x20, al
    popa
    iret
    """
)
CALL, COPY, BEHIND = 0xF0080, 0xF0100, 0xF0102


@pytest.fixture
def at_copy() -> Debugger:
    """Stopped before the first REP MOVSB of the main loop, with 4,096 iterations ahead; a tick comes each 10,000
    instructions, so within the third of them at the latest."""
    made = debugger(COPYING)
    made.begin_until(COPY)
    made.run()
    return made


def step(guest: Debugger) -> StopKind:
    guest.begin_step()
    return guest.run().kind


def ticks(guest: Debugger) -> int:
    return int.from_bytes(guest.read_linear(0x600, 2), "little")


def test_by_default_a_step_is_one_iteration(at_copy: Debugger) -> None:
    assert step(at_copy) is StopKind.STEP
    assert at_copy.cpu().linear_pc == COPY
    assert at_copy.cpu().regs[1] & 0xFFFF == 0xFFF


def test_a_whole_repeat_is_one_step_with_the_interrupts_that_come_in_it(at_copy: Debugger) -> None:
    at_copy.step_whole_repeats = True
    met = 0
    for _ in range(6):
        before = ticks(at_copy)
        assert step(at_copy) is StopKind.STEP
        assert at_copy.cpu().linear_pc == BEHIND
        assert at_copy.cpu().regs[1] & 0xFFFF == 0
        met += ticks(at_copy) > before
        at_copy.begin_until(CALL)
        at_copy.run()
        assert step(at_copy) is StopKind.STEP
        assert at_copy.cpu().linear_pc == COPY
    assert met >= 2


def test_a_breakpoint_behind_a_whole_repeat_is_met_once(at_copy: Debugger) -> None:
    at_copy.step_whole_repeats = True
    point = at_copy.add_breakpoint(BreakKind.EXECUTE, BEHIND)
    at_copy.begin_step(2)
    stop = at_copy.run()
    assert stop.kind is StopKind.BREAKPOINT
    assert point.hits == 1


def test_a_range_is_not_left_into_a_handler(at_copy: Debugger) -> None:
    for whole in (False, True):
        at_copy.step_whole_repeats = whole
        for _ in range(3):
            before = ticks(at_copy)
            at_copy.begin_range(COPY, BEHIND)
            stop = at_copy.run()
            assert stop.kind is StopKind.STEP
            assert at_copy.cpu().linear_pc == BEHIND
            assert at_copy.cpu().regs[4] & 0xFFFF == 0x6FFE
            at_copy.begin_until(COPY)
            at_copy.run()
            if at_copy.cpu().regs[4] & 0xFFFF != 0x6FFE:  # the handler's own
                at_copy.begin_until(CALL)
                at_copy.run()
                step(at_copy)
            assert ticks(at_copy) >= before


@pytest.mark.slow
def test_steps_of_either_kind_change_nothing_of_the_run(at_copy: Debugger) -> None:
    start = at_copy.save()
    at_copy.set_limit(60_000)
    at_copy.begin_continue()
    at_copy.run()
    plain = at_copy.fingerprint()
    for whole in (False, True):
        at_copy.restore(start)
        at_copy.step_whole_repeats = whole
        while at_copy.machine.executor.retired < 60_000:
            at_copy.begin_step(500)
            at_copy.run()
        assert at_copy.fingerprint() == plain


def test_a_single_step_is_a_step_and_leaves_the_same_machine() -> None:
    """Around two ticks and through their handlers, over STI and IRET, with a watchpoint that some instructions hit."""
    plain, quick = debugger(COPYING), debugger(COPYING)
    quicker = 0
    for guest in (plain, quick):
        guest.add_breakpoint(BreakKind.WRITE, 0x600, 2)
        guest.begin_until(COPY)
        guest.run()
    for _ in range(3):
        for _ in range(60):
            plain.begin_step()
            expected = plain.run()
            stop = quick.single_step()
            quicker += stop is not None
            if stop is None:
                quick.begin_step()
                stop = quick.run()
            assert stop == expected
            assert quick.last_stop == plain.last_stop
            assert quick.cpu_in_place().linear_pc == plain.cpu_in_place().linear_pc
        assert quick.fingerprint() == plain.fingerprint()
        for guest in (plain, quick):
            guest.begin_continue()
            guest.run()  # to the handler's count of ticks
    assert ticks(quick) == ticks(plain) == 3
    assert quicker > 150


def test_a_single_step_leaves_what_needs_more_than_an_instruction_to_others(at_copy: Debugger) -> None:
    at_copy.step_whole_repeats = True
    assert at_copy.single_step() is None
    at_copy.step_whole_repeats = False
    at_copy.set_limit(at_copy.machine.executor.retired + 1)
    assert at_copy.single_step() is None
    at_copy.set_limit(None)
    point = at_copy.add_breakpoint(BreakKind.EXECUTE, BEHIND, action=lambda: None, passes=True)
    assert at_copy.single_step() is None
    at_copy.remove_breakpoint(point.id)
    at_copy.begin_continue()
    assert at_copy.single_step() is None
    at_copy.stop()
    assert at_copy.single_step() is not None


def test_a_single_step_is_made_though_somebody_posts_just_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request between the look at what comes first and the instruction: nothing is done, and nothing is said done."""
    guest, plain = debugger(rom("times 100 nop")), debugger(rom("times 100 nop"))
    for one in (guest, plain):
        one.begin_step(3)
        one.run()
    machine = guest.machine
    undisturbed = machine._undisturbed

    def asked_for_just_then() -> bool:
        found = undisturbed()
        guest.request_stop()
        return found

    monkeypatch.setattr(machine, "_undisturbed", asked_for_just_then)
    assert guest.single_step() is None
    assert machine.executor.retired == 3
    guest.begin_step(5)
    plain.begin_step(5)
    assert guest.run() == plain.run()
    monkeypatch.undo()
    assert machine.executor.retired == 8
    assert guest.fingerprint() == plain.fingerprint()
