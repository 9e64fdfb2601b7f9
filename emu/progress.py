"""Notices a guest that gets nowhere while it runs: by a few values at the ends of slices, and closely only when these
say that it may be worth it, ever more rarely. What it finds is `emu.stuck`'s to say; it never changes the run.

Two counts of the guest's own say when to look: its time, and its faults and interrupts. Each of those takes the host
as long as a thousand instructions, so that a guest which does nothing else would not come to the end of a second.
"""

from __future__ import annotations

from emu.journal import NEVER
from emu.machine import Machine
from emu.runaway import glance
from emu.storms import Raging, raging, storm
from emu.views import StuckView


class Watch:
    """Notices a guest that gets nowhere. `sample` is called at the ends of slices."""

    #: Instructions between two samples at least; virtual ns for which all of them must be alike.
    INTERVAL, PERIOD = 1_000_000, 1_000_000_000
    PAGES = 16  #: of code that a loop with what it calls may be in
    BUSY = 2000  #: more events than one in so many instructions are looked at, too
    #: Events of the journal between two looks for a storm; how many of these, one behind the other, must see the same
    #: exception or interrupt, or the same INT n, which programs may poll with.
    EVENTS, STORM, CALLS = 20_000, 4, 100

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._due = machine.journal.added + self.EVENTS
        machine.journal.on_due = machine.request_stop
        self.noticed: StuckView | None = None  #: what the guest is stuck in, if it is
        self.samples = self.looks = 0
        self.forget()

    def forget(self) -> None:
        """The guest is somewhere else."""
        self._pages: set[int] = set()
        self._since = self._machine.clock.now
        self._next = self._machine.executor.retired + self.INTERVAL
        self._patience = self.PERIOD
        self._sent = self._added = self._told = -1
        self._written: int | None = None  # pages, halfway through the patience
        self._awaited: tuple[tuple[int, int], ...] = ()  # memory that it seems to wait for
        self._held: list[bytes] = []  # and what that held, at virtual time `_asked`
        self._asked = 0
        self._raging: Raging | None = None
        self._raged, self._calls, self._storms = 0, self.CALLS, self.STORM
        self.noticed = None

    def arm(self, on: bool) -> None:
        """While it is on, the machine is asked to stop, which the guest does not see, where a storm is to be looked
        for."""
        self._machine.journal.due = self._due if on else NEVER

    def rests(self, events: int) -> bool:
        """So many events more wake nobody."""
        return self._machine.journal.added + events < self._due

    def sample(self) -> StuckView | None:
        """Called where the guest may be looked at; what has just been noticed, if anything."""
        machine = self._machine
        if machine.journal.added >= self._due and (found := self._crowded()) is not None:
            return found
        retired = machine.executor.retired
        if retired < self._next:
            if self._next - retired > self.INTERVAL:
                self.forget()  # of another time
            return None
        self.samples += 1
        instructions = retired - self._next + self.INTERVAL
        self._next = retired + self.INTERVAL
        if glance(machine):
            return self._ran_off()
        sent, added = sum(machine.outputs.total.values()), machine.journal.added
        busy = self._added >= 0 and (added - self._added) * self.BUSY > instructions
        self._pages.add(machine.executor.linear_pc >> 12)
        if sent != self._sent or (len(self._pages) > self.PAGES and not busy):
            self._sent, self._added = sent, added
            self._pages = {machine.executor.linear_pc >> 12}
            self._since, self._patience, self.noticed = machine.clock.now, self.PERIOD, None
            self._written, self._awaited = None, ()
            return None
        self._added = added
        if self._awaited:
            return self._wait_on()
        alike = machine.clock.now - self._since
        if self.noticed is not None or 2 * alike < self._patience:
            return None
        if self._written is None:
            self._written = machine.memory.written
        if alike < self._patience:
            return None
        self._patience *= 2
        before, self._written = self._written, None
        if machine.memory.written > before:
            return None  # it fills memory, as what unpacks something does: a loop goes over the same pages
        view = self._look()
        if not view.stuck:
            return None
        if view.awaited:
            self._awaited, self._held, self._asked = view.awaited, self._read(view.awaited), machine.clock.now
            return None
        self.noticed = view
        return view

    def _wait_on(self) -> StuckView | None:
        """It waits for memory with interrupts on: a handler may count there, so that it gets on all the same."""
        if self._read(self._awaited) != self._held:
            self._awaited = ()
            return None
        if self._machine.clock.now - self._asked < self.PERIOD:
            return None
        self._awaited = ()
        view = self._look()
        if not view.stuck:
            return None
        self.noticed = view
        return view

    def _read(self, places: tuple[tuple[int, int], ...]) -> list[bytes]:
        return [self._machine.read_physical(at, length) for at, length in places]

    def _crowded(self) -> StuckView | None:
        """So many events have come that it may be a storm."""
        machine = self._machine
        self._due = machine.journal.added + self.EVENTS
        found, sent = raging(machine), sum(machine.outputs.total.values())
        before, self._raging = self._raging, found
        told, self._told = self._told, sent
        if found is None or before is None or found[:2] != before[:2] or sent != told:
            self._raged, self._calls, self._storms = 1, self.CALLS, self.STORM
            return None
        self._raged += 1
        if self.noticed is not None or self._raged < (self._calls if found.kind == "int" else self._storms):
            return None
        if found.kind == "interrupt":
            self.noticed = storm(machine)
            return self.noticed
        self._calls *= 2
        self._storms *= 2
        view = self._look()
        if view.stuck:
            self.noticed = view
        return self.noticed

    def _ran_off(self) -> StuckView | None:
        """The CPU may have run off into zeros, which are in more pages than any loop."""
        if self.noticed is not None and self.noticed.verdict == "zeros":
            return None
        view = self._look()
        if view.verdict != "zeros":
            return None
        self.noticed = view
        return view

    def _look(self) -> StuckView:
        self.looks += 1
        self.arm(False)  # what a look ahead meets does not count
        from emu.stuck import explain  # most runs never look

        return explain(self._machine)
