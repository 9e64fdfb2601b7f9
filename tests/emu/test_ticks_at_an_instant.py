"""What else happens at the very instant of a tick of counter 0, in runs that go on behind ticks: in the portable
loop's order, where each edge is a timer and ends the run. Edges come first, then limits and stops asked for, then the
interrupt, then breakpoints on what it has come before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from emu.debugger import Debugger
from emu.stops import BreakKind
from run_loops import needs_helper
from tick_programs import HANDLERS, LIMIT, made_in, plain, to_the_end

#: What the ticks meet, by its name: the code of a turn.
MET = {
    "loops": "mov cx, 400\nloop $\n",
    "strings": "push di\nmov di, 0x3000\nmov cx, 500\nrep stosb\npop di\n",
    "strings out": "mov dx, 0x80\nmov si, 0x1000\nmov cx, 300\nrep outsb\n",
    "shadows of STI": "cli\nnop\nnop\nsti\nnop\nnop\n" * 40,
    "shadows of SS": "mov ax, ss\n" + "mov ss, ax\nnop\n" * 120,
    "the stack": "push ax\npop ax\n" * 200,
    "POPF": "pushf\ncli\nnop\npopf\nnop\nnop\n" * 40,
    "HLT": "mov cx, 90\nloop $\nhlt\n",
    "exceptions": "int3\nnop\n" * 40,
    "masks": "mov al, 1\nout 0x21, al\nnop\nmov al, 0\nout 0x21, al\nnop\n" * 30,
    "its count": "mov cx, 90\nloop $\nmov al, 11\nout 0x40, al\nmov al, 0\nout 0x40, al\n",
    "its reads": "mov al, 0\nout 0x43, al\nin al, 0x40\nin al, 0x40\nmov al, 0xE2\nout 0x43, al\nin al, 0x40\n" * 12,
    "its status": "cli\nmov cx, 150\nloop $\nmov al, 0xE2\nout 0x43, al\nsti\nmov cx, 150\nloop $\nin al, 0x40\n",
    "another interrupt": "mov cx, 90\nloop $\nmov dx, 0x3F9\nmov al, 2\nout dx, al\nmov al, 0\nout dx, al\n",
}  # fmt: skip
TURNS, COUNT = 20, 9


def edges(monkeypatch: pytest.MonkeyPatch, body: str) -> list[tuple[int, int]]:
    """How many instructions have retired at each change of IRQ 0 in the portable loop, and the linear PC there."""
    made, found = made_in("gate", body), []
    machine = made.machine
    drive = machine.board.pit._irq0

    def told(level: bool) -> None:
        found.append((machine.executor.retired, machine.executor.linear_pc))
        drive(level)

    monkeypatch.setattr(machine.board.pit, "_irq0", told)
    made.begin_continue()
    made.run()
    machine.close()
    return found


# -- what comes at an instant: `at` instructions retired, the linear PC `pc`. What each sees is compared.


def a_limit(made: Debugger, at: int, pc: int) -> Iterator[object]:
    made.machine.run(at)
    yield made.machine.executor.linear_pc, made.machine.interrupt_due, made.machine.clock.next_deadline()


def single_steps(made: Debugger, at: int, pc: int) -> Iterator[object]:
    made.machine.run(at - 2)
    for _ in range(5):
        made.begin_step()
        stop = made.run()
        yield stop.kind, stop.retired, made.machine.executor.linear_pc


def steps_into_handlers(made: Debugger, at: int, pc: int) -> Iterator[object]:
    made.step_into_interrupts = True
    yield from single_steps(made, at, pc)


def a_breakpoint(made: Debugger, at: int, pc: int) -> Iterator[object]:
    """On what the interrupt comes before, or comes back to, and one that passes."""
    met: list[int] = []
    made.machine.run(max(0, at - 150))
    made.add_breakpoint(BreakKind.EXECUTE, pc)
    made.add_breakpoint(BreakKind.EXECUTE, pc, passes=True, action=lambda: met.append(made.machine.executor.retired))
    for _ in range(12):
        made.begin_continue()
        stop = made.run()
        yield stop.kind, stop.retired, made.machine.executor.linear_pc, tuple(met)
    for id in list(made._breakpoints):
        made.remove_breakpoint(id)


def a_breakpoint_that_passes(made: Debugger, at: int, pc: int) -> Iterator[object]:
    met: list[int] = []
    point = made.add_breakpoint(
        BreakKind.EXECUTE, pc, passes=True, action=lambda: met.append(made.machine.executor.retired)
    )
    made.machine.run(max(0, at - 150))
    made.set_limit(at + 150)
    made.begin_continue()
    yield made.run().text, tuple(met)
    made.set_limit(LIMIT)
    made.remove_breakpoint(point.id)


def a_watchpoint(made: Debugger, at: int, pc: int) -> Iterator[object]:
    """On the stack, which the instruction before may touch and the interrupt does."""
    made.machine.run(at - 900)
    handler = 0xF0000 + int.from_bytes(made.read_linear(0x20 * 4, 2), "little")

    def look() -> None:
        made.machine.devices()  # while the interrupt before is in service

    looks = made.add_breakpoint(BreakKind.EXECUTE, handler, passes=True, action=look)
    made.set_limit(at - 4)
    made.begin_continue()
    yield made.run().text
    made.set_limit(LIMIT)
    made.remove_breakpoint(looks.id)
    point = made.add_breakpoint(BreakKind.ACCESS, 0x6FF0, 16)
    for _ in range(8):
        made.begin_continue()
        stop = made.run()
        made.machine.service()
        yield stop.kind, stop.text, stop.retired, made.machine.interrupt_due
    made.remove_breakpoint(point.id)


def a_trace(made: Debugger, at: int, pc: int) -> Iterator[object]:
    told: list[tuple[int, int]] = []
    executor = made.machine.executor

    def step() -> bool:
        told.append((executor.retired, executor.linear_pc))
        return len(told) < 12

    made.machine.run(at - 3)
    made.follow(step)
    made.set_limit(at + 40)
    made.begin_continue()
    yield made.run().text, tuple(told)
    made.set_limit(LIMIT)


def a_request(made: Debugger, at: int, pc: int) -> Iterator[object]:
    """A stop that was asked for before the run, and one when the instruction before has been executed."""
    machine = made.machine
    machine.run(at - 1)
    machine.request_stop()
    yield machine.run(LIMIT).reason, machine.executor.retired
    made.follow(lambda: machine.request_stop() or False)  # type: ignore[func-returns-value]
    made.begin_continue()
    yield made.pump(1), machine.executor.retired, machine.interrupt_due
    made.stop()


def a_state(made: Debugger, at: int, pc: int) -> Iterator[object]:
    """Saved there, gone on from, and restored."""
    machine = made.machine
    machine.run(at)
    state = machine.save()
    machine.run(at + 400)
    there = machine.save()
    yield there.cpu, there.clock, there.devices
    machine.restore(state)
    yield machine.executor.linear_pc, machine.interrupt_due, machine.save().devices


def interrupts_caught(made: Debugger, at: int, pc: int) -> Iterator[object]:
    """From there on, then no more."""
    machine, caught = made.machine, []
    machine.run(at)
    machine.caught_interrupt = lambda vector: caught.append((vector, machine.executor.retired))
    machine.run(at + 500)
    machine.caught_interrupt = None
    yield tuple(caught)


ENDS: tuple[Callable[[Debugger, int, int], Iterator[object]], ...] = (
    a_limit, single_steps, steps_into_handlers, a_breakpoint, a_breakpoint_that_passes, a_watchpoint, a_trace,
    a_request, a_state, interrupts_caught,
)  # fmt: skip


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("met", MET)
def test_what_comes_at_the_instant_of_an_edge_comes_in_one_order(monkeypatch: pytest.MonkeyPatch, met: str) -> None:
    chance = random.Random(met)
    body = plain(COUNT, TURNS, HANDLERS[chance.randrange(len(HANDLERS))], MET[met])
    instants = edges(monkeypatch, body)
    assert len(instants) > 7
    for end in ENDS:
        for at, pc in chance.sample(instants[2:], 2):
            shift = chance.choice((0, 0, 0, 1, -1))
            seen = []
            for name in ("gate", "fast"):
                made = made_in(name, body)
                seen.append([list(end(made, at + shift, pc)), to_the_end(made)])
            assert seen[0] == seen[1], (end.__name__, at, shift)
