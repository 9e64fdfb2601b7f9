"""Programs with ticks of counter 0, driven by a debugger in any way and stopped by a thread: both run loops show the
same."""

from __future__ import annotations

import random
import threading
import time

import pytest

from emu.debugger import Debugger
from emu.stops import BreakKind, StopKind
from machines import rom
from run_loops import needs_helper
from tick_programs import COUNTS, ending, made_in, program, to_the_end

OPERATIONS = ("stop", "pass", "watch", "remove", "remove", "steps", "catch", "save", "restore", "-", "-")


def driven(made: Debugger, seed: int, places: tuple[int, ...], count: int = 120) -> list[object]:
    """What a debugger sees that does this and that, on the handler's instructions and where it has been before."""
    chance, machine, told = random.Random(seed), made.machine, []
    executor, points, recent, saved = machine.executor, [], [], []

    def note(address: int) -> None:
        told.append(("passed", address, executor.retired))

    for _ in range(count):
        pc = executor.linear_pc
        recent = [*recent[-10:], pc]
        match chance.choice(OPERATIONS):
            case "stop" if len(points) < 10:
                points.append(made.add_breakpoint(BreakKind.EXECUTE, chance.choice([pc, *recent, *places])).id)
            case "pass" if len(points) < 10:
                at = chance.choice([pc, *recent, *places])
                point = made.add_breakpoint(
                    BreakKind.EXECUTE,
                    at,
                    passes=True,
                    action=lambda at=at: note(at),  # type: ignore[misc]
                )
                points.append(point.id)
            case "watch" if len(points) < 10:
                kind = chance.choice((BreakKind.WRITE, BreakKind.ACCESS))
                points.append(made.add_breakpoint(kind, chance.choice((0x500, 0x502, 0x504, 0x6FFC, 0x6FFA)), 2).id)
            case "remove" if points:
                made.remove_breakpoint(points.pop(chance.randrange(len(points))))
            case "steps":
                made.step_into_interrupts, made.step_whole_repeats = chance.random() < 0.5, chance.random() < 0.5
            case "catch":
                on = chance.random() < 0.5
                machine.caught_interrupt = (lambda vector: told.append((vector, executor.retired))) if on else None
            case "save":
                saved.append(machine.save())
            case "restore" if saved:
                made.restore(chance.choice(saved))
        match chance.randrange(9):
            case 0 | 1:
                made.begin_step(chance.choice((1, 1, 2, 5, 40)))
            case 2:
                made.begin_over()
            case 3:
                made.begin_range(pc, pc + chance.randrange(1, 8))
            case 4:
                made.begin_until(chance.choice([*recent, *places]))
            case _:
                made.begin_continue()
        if (stop := made.pump(chance.choice((1, 2, 7, 20, 50, 100, 300, 1000, 3000)))) is None:
            stop = made.stop()
        told.append((stop.kind, stop.text, stop.retired, executor.linear_pc, stop.breakpoints, stop.met))
        if stop.kind in (StopKind.EXIT, StopKind.LIMIT, StopKind.DEADLOCK):
            break
    for id in points:
        made.remove_breakpoint(id)
    machine.caught_interrupt = None
    return told


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize(
    "seed", [*range(100, 110), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(110, 140))]
)
def test_a_debugger_sees_the_same_of_ticks_in_both_loops(seed: int) -> None:
    body = program(seed)
    start = 0xF0000 + rom(body).index(COUNTS)
    places = tuple(start + offset for offset in (0, 1, 5, 7))  # of `timer`
    seen = []
    for name, length in (("gate", None), ("fast", None), ("fast", 97)):
        made = made_in(name, body, slice=length)
        seen.append((driven(made, seed, places), to_the_end(made)))
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


@needs_helper
@pytest.mark.parametrize("seed", range(140, 146))
def test_stops_that_a_thread_asks_for_change_nothing(seed: int) -> None:
    body, chance = program(seed), random.Random(seed)
    expected = to_the_end(made_in("fast", body))
    asked = 0
    while asked <= 3:  # a run may be over before the thread has had its turn
        made, over = made_in("fast", body), threading.Event()

        def ask(made=made, over=over) -> None:
            nonlocal asked
            while not over.is_set():
                made.machine.request_stop()
                asked += 1
                time.sleep(chance.random() / 5000)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            made.begin_continue()
            stop = made.run()
        finally:
            over.set()
            thread.join()
        made.machine._stop = False
        assert (stop.kind, stop.text, ending(made)) == expected
