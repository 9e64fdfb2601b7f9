"""Breakpoints that never stop: each execution counts once, however the guest is driven, and the run is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.debugger import BreakKind, Debugger, StopKind
from emu.views import FingerprintView
from machines import debugger, rom, timer

COUNT = 500
#: Counts at 500h, while a timer interrupts it a dozen times and its handler counts at 504h; ends by code 0.
ROM = rom(
    f"""
        mov ss, ax
        mov sp, 0x1000
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], 0xf000
        {timer(2)}
        sti
        jmp again
    times 0x100-($-$$) nop
    again:
        inc word [0x500]
    next:
        nop
        cmp word [0x500], {COUNT}
        jne again
        cli
        xor al, al
        out 0xf4, al
        hlt
    times 0x140-($-$$) nop
    tick:
        inc word [0x504]
        push ax
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
    """
)
AGAIN, NEXT, TICK = 0xF0100, 0xF0104, 0xF0140


def word(made: Debugger, address: int) -> int:
    return int.from_bytes(made.read_linear(address, 2), "little")


def to_the_end(made: Debugger) -> None:
    made.begin_continue()
    assert made.run().kind is StopKind.EXIT


@pytest.fixture(scope="module")
def plain() -> FingerprintView:
    """The ROM's end without breakpoints, which is the same in both loops."""
    made = debugger(ROM)
    to_the_end(made)
    found = made.fingerprint()
    made.machine.close()
    return found


def in_pieces(made: Debugger) -> None:
    made.begin_continue()
    while (stop := made.pump(7)) is None:
        pass
    assert stop.kind is StopKind.EXIT


def by_steps(made: Debugger) -> None:
    for _ in range(900):
        made.begin_step()
        made.run()
    to_the_end(made)


def into_handlers(made: Debugger) -> None:
    made.step_into_interrupts = True
    by_steps(made)


def by_counted_steps(made: Debugger) -> None:
    made.begin_step(900)
    made.run()
    to_the_end(made)


def by_ranges(made: Debugger) -> None:
    for _ in range(200):
        made.begin_range(AGAIN, AGAIN + 4)
        made.run()
    to_the_end(made)


def by_overs(made: Debugger) -> None:
    for _ in range(400):
        made.begin_over()
        made.run()
    to_the_end(made)


def to_addresses(made: Debugger) -> None:
    for address in (AGAIN, TICK, NEXT) * 5:
        made.begin_until(address)
        made.run()
    to_the_end(made)


def with_stops(made: Debugger) -> None:
    """A breakpoint on the same place, and a watchpoint whose stops come right before the other one."""
    made.add_breakpoint(BreakKind.EXECUTE, AGAIN)
    made.add_breakpoint(BreakKind.WRITE, 0x500, 2)
    stops = 0
    while True:
        made.begin_continue()
        if made.run().kind is StopKind.EXIT:
            break
        stops += 1
    assert stops == 2 * COUNT


def with_interruptions(made: Debugger) -> None:
    made.begin_continue()
    while True:
        for _ in range(5):
            if (stop := made.pump(11)) is not None:
                assert stop.kind is StopKind.EXIT
                return
        made.stop()
        made.begin_continue()


WAYS: tuple[Callable[[Debugger], None], ...] = (
    to_the_end, in_pieces, by_steps, into_handlers, by_counted_steps, by_ranges, by_overs, to_addresses, with_stops,
    with_interruptions,
)  # fmt: skip


@pytest.mark.slow_variants
@pytest.mark.parametrize("drive", WAYS, ids=lambda way: way.__name__)
def test_each_execution_counts_once_and_nothing_else_changes(
    drive: Callable[[Debugger], None], run_loop: str, plain: FingerprintView
) -> None:
    traced = debugger(ROM)
    met: dict[int, list[tuple[int, int]]] = {AGAIN: [], NEXT: [], TICK: []}

    def note(address: int) -> None:
        met[address].append((word(traced, 0x500), word(traced, 0x504)))

    for address in met:
        traced.add_breakpoint(
            BreakKind.EXECUTE,
            address,
            passes=True,
            action=lambda address=address: note(address),  # type: ignore[misc]
        )
    drive(traced)
    ticks = word(traced, 0x504)
    assert ticks > 8
    # What is seen is memory before the instruction: the first INC finds 0.
    assert [count for count, _ in met[AGAIN]] == list(range(COUNT))
    assert [count for count, _ in met[NEXT]] == list(range(1, COUNT + 1))
    assert [tick for _, tick in met[TICK]] == list(range(ticks))
    assert traced.fingerprint() == plain
    traced.machine.close()


@pytest.fixture(scope="module")
def course() -> dict[int, int]:
    """Where the CPU of ROM is by what it has retired, as single steps into handlers show it."""
    made, found = debugger(ROM), {}
    made.step_into_interrupts = True
    while made.last_stop.kind is not StopKind.EXIT:
        found[made.machine.executor.retired] = made.machine.executor.linear_pc
        made.begin_step()
        made.run()
    made.machine.close()
    return found


@pytest.mark.slow_variants
@pytest.mark.parametrize("drive", WAYS, ids=lambda way: way.__name__)
def test_who_follows_is_told_of_each_instruction_once_and_nothing_else_changes(
    drive: Callable[[Debugger], None], run_loop: str, course: dict[int, int]
) -> None:
    """Nine instructions behind each arrival at the handler, and at a place of the loop when its count is a multiple of
    50; a timer interrupts some of them."""
    plain, traced = debugger(ROM), debugger(ROM)
    to_the_end(plain)
    executor = traced.machine.executor
    wanted, told = set(), []
    left = 0

    def met() -> None:
        nonlocal left
        if executor.linear_pc == TICK or not word(traced, 0x500) % 50:
            left = 9
            wanted.update(range(executor.retired + 1, executor.retired + 10))
            traced.follow(step)

    def step() -> bool:
        nonlocal left
        left -= 1
        told.append((executor.retired, executor.linear_pc))
        return left > 0

    for address in (NEXT, TICK):
        traced.add_breakpoint(BreakKind.EXECUTE, address, passes=True, action=met)
    drive(traced)
    last = executor.retired
    assert [retired for retired, _ in told] == sorted(at for at in wanted if at <= last)
    interrupted = 0
    for retired, pc in told:
        expected = course.get(retired, pc)  # the last instruction ends the guest
        if pc != expected:  # before an interrupt, whose first instruction a step into it shows
            assert expected == TICK
            interrupted += 1
    assert interrupted < 20
    assert len(told) > 150
    assert traced.fingerprint() == plain.fingerprint()
    for made in (plain, traced):
        made.machine.close()


def test_a_restored_machine_is_followed_no_more() -> None:
    made = debugger(ROM)
    told: list[int] = []

    def step() -> bool:
        told.append(made.machine.executor.retired)
        return True

    saved = made.save()
    made.follow(step)
    made.begin_step(3)
    made.run()
    made.restore(saved)
    made.begin_step(3)
    made.run()
    assert told == [1, 2, 3]
    made.machine.close()


def test_after_a_reset_they_count_again() -> None:
    made = debugger(ROM)
    met: list[int] = []
    made.add_breakpoint(BreakKind.EXECUTE, 0xFFFFFFF0, passes=True, action=lambda: met.append(0))
    made.add_breakpoint(BreakKind.EXECUTE, AGAIN, passes=True, action=lambda: met.append(1))
    for _ in range(2):
        made.begin_until(NEXT)
        made.run()
        made.reset()
    assert met.count(1) == 2
    made.machine.close()


#: REP of 100 iterations, then REPNE SCASB that is gone back to by LOOP.
REPEATS = rom(
    """
        mov es, ax
        mov si, 0x1000
        mov di, 0x3000
        mov cx, 100
    times 0x40-($-$$) nop
        rep movsb
        mov di, 0x3000
        mov byte [0x3014], 1
        mov cx, 40
        mov al, 1
    times 0x60-($-$$) nop
    again:
        repne scasb
        jcxz done
        loop again
    done:
        xor al, al
        out 0xf4, al
    """
)
MOVES, SCANS = 0xF0040, 0xF0060


def stopped_within(made: Debugger) -> None:
    made.begin_continue()
    while True:
        if made.pump(7) is not None:
            return
        made.stop()
        made.begin_continue()


@pytest.mark.parametrize(
    "drive", [to_the_end, by_steps, by_counted_steps, stopped_within], ids=lambda way: way.__name__
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_repeated_instruction_counts_when_it_begins(
    drive: Callable[[Debugger], None], whole: bool, run_loop: str
) -> None:
    made = debugger(REPEATS)
    made.step_whole_repeats = whole
    met: list[int] = []
    for address in (MOVES, SCANS):
        made.add_breakpoint(
            BreakKind.EXECUTE,
            address,
            passes=True,
            action=lambda address=address: met.append(address),  # type: ignore[misc]
        )
    if drive in (by_steps, by_counted_steps):
        while made.last_stop.kind is not StopKind.EXIT:
            made.begin_step(1 if drive is by_steps else 9)
            made.run()
    else:
        drive(made)
    assert met == [MOVES, SCANS, SCANS]
    made.machine.close()
