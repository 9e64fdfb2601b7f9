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


class _Met:
    """Counts accesses to devices."""

    def __init__(self) -> None:
        self.left = ACCESSES

    def told(self, _place: int, _size: int, _value: int, _write: bool) -> None:
        self.left -= 1


def writer_of(machine: Machine, awaited: Sequence[tuple[int, int]]) -> Writer | None:
    """Whose handler changes the (physical address, length) of memory. None: none is seen to. Nothing of the guest
    changes."""
    return next((found for v in _coming(machine) if (found := _let_come(machine, v, awaited))), None)


def _coming(machine: Machine) -> list[int]:
    """The vectors of the interrupts that come again and again."""
    seen = Counter(e.text for e in machine.journal.last(256) if e.kind == "interrupt")
    typed = {vector_of(machine, irq) for irq in BY_HAND}
    found = [v for text, times in seen.most_common() if times >= SEEN and (v := int(text.split()[1], 16)) not in typed]
    if machine.board.chipset is None and tick_comes(machine):
        found.append(vector_of(machine, TICK))
    return list(dict.fromkeys(found))


def _let_come(machine: Machine, vector: int, awaited: Sequence[tuple[int, int]]) -> Writer | None:
    executor, met = machine.executor, _Met()
    saved, events, added = machine.save(), tuple(machine.journal), machine.journal.added
    held = [machine.read_physical(at, length) for at, length in awaited]
    caught, machine.caught_fault = machine.caught_fault, lambda fault: None
    machine.look(met.told, met.told)
    try:
        times, goes_on = 0, True
        while goes_on and times < TIMES and met.left > 0:
            executor.set_interrupt(vector)
            before, left = times, APART
            while goes_on and left > 0:
                exit = executor.run(left, skip_breakpoint=True)
                left -= max(exit.executed, 1)
                goes_on = exit.reason in _GOES_ON
                times += executor.take_interrupt() is not None
            if [machine.read_physical(at, length) for at, length in awaited] != held:
                return Writer(vector, times)
            goes_on = goes_on and times > before  # it is let in
        return None
    finally:
        machine.look(None, None)
        machine.caught_fault = caught
        machine.look_back(saved)
        machine.journal.put(events)
        machine.journal.added = added
