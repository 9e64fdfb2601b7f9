"""Whether the handler of an interrupt that comes again and again changes memory that a loop waits for: found by letting
it come ahead, on the machine itself with devices only looked at, as `emu.loops` finds the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from emu.engine import ExitReason
from emu.machine import Machine
from emu.named import NamedTuple
from emu.pending import TICK, tick_comes, vector_of

#: Times that an interrupt is let come, and instructions from one to the next: more than most handlers have.
TIMES, APART = 4096, 2000
#: Runs of the engine in all, which end at each breakpoint and watchpoint: twice as many as TIMES needs.
RUNS = 4 * TIMES
#: Accesses to devices in all, each of which is a call of Python.
ACCESSES = 1 << 15
#: So often an interrupt has come among the last events of the journal where it comes again and again.
SEEN = 3
#: The keyboard and the mouse, whose handlers would be given again what was read before.
BY_HAND = (1, 12)
_GOES_ON = frozenset(
    (ExitReason.BUDGET, ExitReason.REQUEST, ExitReason.WATCHPOINT, ExitReason.EVENT, ExitReason.BREAKPOINT)
)


class Writer(NamedTuple):
    """The interrupt with `vector` has come so many `times` when its handler changes what is awaited."""

    vector: int
    times: int


def writer_of(machine: Machine, awaited: Sequence[tuple[int, int]]) -> Writer | None:
    """Whose handler changes the (physical address, length) of memory. None: none is seen to, or a stop is requested
    meanwhile. Nothing of the guest changes."""
    look = _Look(machine, awaited)
    return next((found for v in _coming(machine) if (found := look.let_come(v))), None)


def _coming(machine: Machine) -> list[int]:
    """The vectors of the interrupts that come again and again."""
    seen = Counter(e.text for e in machine.journal.last(256) if e.kind == "interrupt")
    typed = {vector_of(machine, irq) for irq in BY_HAND}
    found = [v for text, times in seen.most_common() if times >= SEEN and (v := int(text.split()[1], 16)) not in typed]
    if machine.board.chipset is None and tick_comes(machine):
        found.append(vector_of(machine, TICK))
    return list(dict.fromkeys(found))


class _Look:
    """Lets interrupts come, and counts what that costs."""

    def __init__(self, machine: Machine, awaited: Sequence[tuple[int, int]]) -> None:
        self._machine, self._awaited = machine, awaited
        self._runs, self._accesses, self._first = RUNS, ACCESSES, True

    def _met(self, _place: int, _size: int, _value: int, _write: bool) -> None:
        self._accesses -= 1

    def let_come(self, vector: int) -> Writer | None:
        """The interrupt with `vector`, again and again."""
        machine = self._machine
        saved, events, added = machine.save(), tuple(machine.journal), machine.journal.added
        caught, machine.caught_fault = machine.caught_fault, lambda fault: None
        machine.look(self._met, self._met)
        try:
            return self._until_changed(vector)
        finally:
            machine.look(None, None)
            machine.caught_fault = caught
            machine.look_back(saved)
            machine.journal.put(events)
            machine.journal.added = added

    def _until_changed(self, vector: int) -> Writer | None:
        held, self._first = self._held(), True
        times, goes_on = 0, True
        while goes_on and times < TIMES and self._accesses > 0:
            self._machine.executor.set_interrupt(vector)
            before = times
            came, goes_on = self._once()
            times += came
            if self._held() != held:
                return Writer(vector, times)
            goes_on = goes_on and times > before  # it is let in
        return None

    def _once(self) -> tuple[int, bool]:
        """Run APART instructions, or to a HLT, which the next interrupt ends: how many interrupts have been delivered,
        and whether more may come."""
        executor, came, left = self._machine.executor, 0, APART
        while left > 0:
            if self._runs <= 0:
                return came, False
            self._runs -= 1
            exit = executor.run(left, skip_breakpoint=True)
            left -= max(exit.executed, 1)
            delivered = executor.take_interrupt() is not None
            came += delivered
            if exit.reason is ExitReason.HALT:
                break
            if exit.reason is ExitReason.REQUEST and not delivered and not (self._first and not exit.executed):
                self._runs = 0  # somebody waits for the prompt, and what was asked for before the look is passed
            self._first = False
            if exit.reason not in _GOES_ON:
                return came, False
        return came, True

    def _held(self) -> list[bytes]:
        return [self._machine.read_physical(at, length) for at, length in self._awaited]
