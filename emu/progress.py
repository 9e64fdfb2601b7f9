"""Notices a guest that gets nowhere while it runs: by a few values at the ends of slices, and closely only when these
say that it may be worth it, ever more rarely. What it finds is `emu.stuck`'s to say; it never changes the run.
"""

from __future__ import annotations

from emu.machine import Machine
from emu.runaway import glance
from emu.views import StuckView


class Watch:
    """Notices a guest that gets nowhere. `sample` is called at the ends of slices."""

    #: Instructions between two samples at least; virtual ns for which all of them must be alike.
    INTERVAL, PERIOD = 1_000_000, 1_000_000_000
    PAGES = 3  #: of code that a loop with what it calls may be in
    BUSY = 2000  #: more events than one in so many instructions are looked at, too

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.noticed: StuckView | None = None  #: what the guest is stuck in, if it is
        self.samples = self.looks = 0
        self.forget()

    def forget(self) -> None:
        """The guest is somewhere else."""
        self._pages: set[int] = set()
        self._since = self._machine.clock.now
        self._next = self._machine.executor.retired + self.INTERVAL
        self._patience = self.PERIOD
        self._sent = self._added = -1
        self._written: int | None = None  # pages, halfway through the patience
        self.noticed = None

    def sample(self) -> StuckView | None:
        """Called where the guest may be looked at; what has just been noticed, if anything."""
        machine = self._machine
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
            self._written = None
            return None
        self._added = added
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
        self.noticed = view
        return view

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
        from emu.stuck import explain  # most runs never look

        return explain(self._machine)
