"""Quiet steps and looks: what C does for a debugger's client is what Python does."""

from __future__ import annotations

import pytest

from asm import assemble
from emu import machine
from emu.clock import NS_PER_INSTRUCTION
from emu.debugger import BreakKind
from emu.unicorn_engine import HELPER
from emu.until import parse_until
from machines import TIMER_100US, debugger, rom, seabios_debugger
from quietly import ENDED, MADE, REFUSED, begin, look, same, step_plainly, step_quietly

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason="the helper was not built here")

#: Ports that Python answers, a software interrupt, an exception, HLT, a timer every 100 us, a far jump, REP.
BUSY = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [0*4], divided
    mov word [0*4+2], 0xf000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
    mov word [0x40*4], called
    mov word [0x40*4+2], 0xf000
{TIMER_100US}
    sti
main:
    inc dword [0x500]
    in al, 0x61
    out 0x80, al
    int 0x40
    xor dx, dx
    mov bx, dx
    div bx
    mov al, 0x70
    out 0x70, al
    in al, 0x71
    mov di, 0x600
    mov cx, 5
    rep stosw
    jmp 0xf000:next
next:
    test byte [0x500], 7
    jnz main
    hlt
    jmp main
divided:
    push bp
    mov bp, sp
    add word [bp+2], 2
    pop bp
    iret
called:
    rdtsc
    iret
tick:
    push ax
    inc dword [0x504]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)


#: A boot sector.
HALTS = assemble("hlt")


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_quiet_steps_leave_what_plain_steps_leave(piece: int) -> None:
    plain, quiet = debugger(BUSY), debugger(BUSY)
    for _ in range(8):
        step_plainly(plain, 500)
        came = step_quietly(quiet, 500, piece)
        same(plain, quiet)
    assert came[MADE] > 400
    assert plain.read_linear(0x504, 4) != bytes(4)  # the timer has interrupted


@pytest.mark.parametrize("retired", [0, 600_000, 6_000_000])
def test_so_they_do_in_seabios(retired: int) -> None:
    plain, quiet = seabios_debugger(HALTS), seabios_debugger(HALTS)
    for session in (plain, quiet):
        if retired:
            session.set_until(parse_until(f"insns:{retired}"))
            session.begin_continue()
            session.run()
    step_plainly(plain, 3000)
    step_quietly(quiet, 3000, 500)
    same(plain, quiet)


def test_behind_each_quiet_step_the_next_timer_is_still_to_come() -> None:
    firmware = rom(f"{TIMER_100US}\nsti\ntimes 10000 nop")
    plain, quiet = debugger(firmware), debugger(firmware)
    for session in (plain, quiet):
        step_plainly(session, 30)
    steps = begin(quiet).left
    quiet.end_quiet(False)
    deadline = quiet.machine.clock.next_deadline()
    assert deadline is not None
    step_plainly(plain, steps)
    assert step_quietly(quiet, steps, steps) == {MADE: steps}
    assert quiet.virtual_ns < deadline <= quiet.virtual_ns + NS_PER_INSTRUCTION
    same(plain, quiet)
    step_plainly(plain)
    assert step_quietly(quiet, 1, 1) == {REFUSED: 1}
    assert quiet.machine.clock.next_deadline() != deadline
    same(plain, quiet)


def test_a_cpu_that_is_halted_behind_quiet_steps_has_been_awake_until_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """For how long it may idle counts from there: 40 us of steps put off by a tick, 100 us, when that is over."""
    monkeypatch.setattr(machine, "IDLE_LIMIT_NS", 180_000)
    firmware = rom(f"{TIMER_100US}\nmov al, 0xfd\nout 0x21, al\nsti\ntimes 10000 nop")  # the keyboard alone may wake
    plain, quiet = debugger(firmware), debugger(firmware)
    for session in (plain, quiet):
        session.machine.board.holds_back = lambda timer: False  # type: ignore[method-assign]
        step_plainly(session, 30)
    step_plainly(plain, 4000)
    assert step_quietly(quiet, 4000, 4000)[MADE] == 4000
    for session in (plain, quiet):
        state = session.cpu().copy()
        state.halted = True
        session.load_cpu(state)
        session.begin_continue()
        assert "no interrupt for an hour" in session.run().text
    assert plain.virtual_ns > 250_000
    same(plain, quiet)


def test_a_run_goes_on_behind_quiet_steps_as_behind_plain_ones() -> None:
    plain, quiet = debugger(BUSY), debugger(BUSY)
    step_plainly(plain, 333)
    step_quietly(quiet, 333, 50)
    for session in (plain, quiet):
        session.set_limit(session.retired + 100_000)
        session.begin_continue()
        session.run()
    same(plain, quiet)


def test_the_journal_hears_of_a_quiet_step_before_of_what_happened_in_the_next() -> None:
    session = debugger(rom("nop\nnop\nint 3\ntimes 16 nop"))
    step_plainly(session, 20)  # to the first NOP and further; the table is empty
    session.reset()
    step_quietly(session, 40, 40)
    retired = [event.retired for event in session.events()]
    assert retired == sorted(retired)


def test_a_quiet_step_that_meets_a_watchpoint_is_gone_on_with_and_says_so() -> None:
    plain, quiet = debugger(BUSY), debugger(BUSY)
    for session in (plain, quiet):
        session.add_breakpoint(BreakKind.WRITE, 0x500, 4)
        step_plainly(session)  # the watchpoint is placed
    step_plainly(plain, 400)
    came = step_quietly(quiet, 400, 400)
    assert came[ENDED] > 3
    same(plain, quiet)
    assert [p.hits for p in plain.breakpoint_list()] == [p.hits for p in quiet.breakpoint_list()] != [0]


def test_where_a_step_is_more_than_an_instruction_none_is_made() -> None:
    session = debugger(BUSY)
    assert begin(session).left > 0
    session.end_quiet(False)
    for change, back in (
        (lambda: session.set_limit(10**9), lambda: session.set_limit(None)),
        (lambda: setattr(session, "step_whole_repeats", True), lambda: setattr(session, "step_whole_repeats", False)),
        (session.request_stop, lambda: step_plainly(session)),
    ):
        change()
        assert step_quietly(session, 1, 1) == {REFUSED: 1}
        back()
    assert step_quietly(session, 1, 1) == {MADE: 1}


def test_an_interrupt_that_is_due_comes_as_before_a_plain_step() -> None:
    plain, quiet = debugger(BUSY), debugger(BUSY)
    for session in (plain, quiet):
        session.step_into_interrupts = True
    step_plainly(plain, 20_000)
    came = step_quietly(quiet, 20_000, 1000)
    assert came[REFUSED] > 3
    same(plain, quiet)


@pytest.mark.parametrize(("address", "length"), [(0x500, 4), (0x7FFF, 2), (0xF0000, 64), (0xFFFFFFF0, 16), (0, 1)])
def test_a_look_sees_what_python_sees(address: int, length: int) -> None:
    session = debugger(BUSY)
    step_plainly(session, 100)
    seen = session.read_linear(address, length)
    quiet = begin(session)
    assert look(quiet, address, length) == seen
    session.end_quiet(False)


@pytest.mark.parametrize(
    ("address", "length"),
    [(0xA0000, 1), (0x9FFFF, 2), (0xFFFFFFF0, 17), (0xFEE00000, 4), (1 << 32, 1), ((1 << 64) - 1, 1), (0x500, 1 << 63)],
)
def test_no_look_is_made_where_it_takes_more_than_memory(address: int, length: int) -> None:
    session = debugger(BUSY)
    quiet = begin(session)
    assert look(quiet, address, length) is None
    session.end_quiet(False)


def test_with_paging_or_without_address_bit_20_no_look_is_made() -> None:
    session = debugger(rom("in al, 0x92\nand al, 0xfd\nout 0x92, al\nhlt"))
    quiet = begin(session)
    assert look(quiet, 0x500, 1) is not None
    session.end_quiet(False)
    before = session.cpu().copy()
    for change in ({"a20": False}, {"cr0": before.cr0 | 0x80000001}):
        state = before.copy()
        for name, value in change.items():
            setattr(state, name, value)
        session.load_cpu(state)
        quiet = begin(session)
        assert look(quiet, 0x500, 1) is None
        session.end_quiet(False)
