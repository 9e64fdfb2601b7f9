"""IRQ 0 from counter 0 of the 8254 within a run: an engine passes the edges of OUT by itself and raises the interrupt
at its instant, where Python's timer would end the run for each (emu/native/shared_ports.c).

What the devices, the clock and the journal have to know of that they take back here, before anybody looks.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, pulses_at
from emu.devices.shared_ports import DELIVERIES, SharedPorts


class Ticks:
    """The edges of counter 0 that an engine passes in `shared`, which `pit` and `pic` have too. `told` hears of each
    interrupt that was taken meanwhile: how many instructions had retired, and its vector; `stop` ends the run."""

    def __init__(
        self,
        clock: Clock,
        pit: Pit8254,
        pic: Pic8259Pair,
        shared: SharedPorts,
        told: Callable[[int, int], None],
        stop: Callable[[], None],
    ) -> None:
        self._clock, self._pit, self._pic, self._shared = clock, pit, pic, shared
        self._told, self._stop = told, stop
        pit.before = pic.before = self.catch_up
        pic.unshared = self.withdraw

    def begin(self, room: int) -> bool:
        """A run begins, which may go on behind edges: the 8254's timer is not to end it. At most `room` interrupts may
        be taken in it before Python is told. False: it may not."""
        shared = self._shared
        if not (shared.ready and shared.edges_ready and shared.pic_ready) or room <= 0:
            return False
        if bool(shared.out) is not self._pic.tick:
            return False
        shared.room = min(room, DELIVERIES)
        shared.ticking = 1
        return True

    @property
    def deadline(self) -> int | None:
        """The earliest deadline of the other timers, ns."""
        return self._clock.next_deadline_besides(self._pit.timer)

    def end(self) -> None:
        """The run has ended."""
        self.catch_up()
        self._shared.ticking = 0

    def catch_up(self) -> None:
        """Have the devices know of all edges up to now."""
        shared = self._shared
        if not shared.ticking:
            return
        if (
            shared.ready and shared.edges_ready and shared.out and not shared.requests & 1
            and pulses_at(self._clock.now) >= shared.edge
        ):  # fmt: skip
            # a fall that the engine goes on behind, as nobody can tell while IR0 requests nothing
            shared.out = 0
            shared.edge += 1
            shared.passed += 1
        if not shared.passed:
            return
        shared.passed = 0
        self._pit.passed(shared.edge, bool(shared.out))
        rises, shared.rises = shared.rises, 0
        bits, shared.acknowledged = shared.acknowledged, 0
        self._pic.passed(bits, bool(shared.out), rises)
        if count := shared.logged:
            shared.logged = 0
            shared.room -= count  # the journal is to be looked at behind so many in the whole run
            for i in range(count):
                self._told(shared.taken_at[i], shared.taken[i])

    def withdraw(self) -> None:
        """Edges are not an engine's to pass any more: a run that goes on behind them ends, before the next."""
        if self._shared.ticking:
            self._shared.edges_ready = 0
            self._stop()
