"""A clock that a test moves: device timers fire at their deadlines, in order."""

from __future__ import annotations

from emu.clock import Clock


class VirtualTime:
    """`clock` is what devices are built on."""

    def __init__(self) -> None:
        self.clock = Clock(lambda: 0)

    def advance(self, ns: int) -> None:
        """Let `ns` of virtual time pass."""
        self.until(self.clock.now + ns)

    def until(self, now: int) -> None:
        while (deadline := self.clock.next_deadline()) is not None and deadline <= now:
            self.clock.skip_to(deadline)
            self.clock.run_due()
        self.clock.skip_to(now)

    def step(self) -> bool:
        """To the next deadline; False when none is armed."""
        deadline = self.clock.next_deadline()
        if deadline is not None:
            self.until(deadline)
        return deadline is not None
