"""Virtual time and the event queue.

Virtual time is `retired * NS_PER_INSTRUCTION + skipped`, in nanoseconds: it advances with instructions and jumps
when an idle CPU (HLT) is carried to its next event. Nothing here looks at the host's clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from emu.record import dataclass, field

#: The virtual CPU retires 100 million instructions a second.
NS_PER_INSTRUCTION = 10


@dataclass(slots=True)
class ClockState:
    """`skipped` in ns; `timers` maps a timer's name to its deadline in ns, only those armed."""

    skipped: int = 0
    timers: dict[str, int] = field(default_factory=dict)


class Timer:
    """One deadline of one device. `callback(deadline_ns)` runs at the first instruction boundary at or after it."""

    __slots__ = ("_clock", "callback", "deadline", "host", "name", "order", "wakes")

    def __init__(self, clock: Clock, name: str, order: int, callback: Callable[[int], None], host: bool) -> None:
        self._clock, self.name, self.order, self.callback, self.host = clock, name, order, callback, host
        self.deadline: int | None = None  #: absolute, ns; None while not armed
        self.wakes = True  #: False: it only looks, and cannot make a device interrupt an idle CPU

    def arm(self, deadline: int) -> None:
        """Fire at virtual time `deadline` (ns, absolute); replaces an earlier arming."""
        self.deadline = deadline
        self._clock._armed(self)

    def move(self, deadline: int) -> None:
        """As `arm`, where the slice that is running was planned for that already."""
        if deadline != self.deadline:
            self.deadline = deadline
            self._clock._expects(self)

    def cancel(self) -> None:
        self.deadline = None


class Clock:
    """Virtual time and its timers. `retired` returns the exact instruction count at any instant."""

    def __init__(self, retired: Callable[[], int]) -> None:
        self._retired = retired
        self.skipped = 0
        self.on_skip: Callable[[int], None] = lambda skipped: None  #: told `skipped` when it has changed
        self._timers: dict[str, Timer] = {}
        self._heap: list[tuple[int, int, Timer]] = []
        self.horizon: int | None = None  #: the deadline the running slice was planned for, ns
        self.on_replan: Callable[[], None] = lambda: None  #: called when a timer is armed before `horizon`

    @property
    def now(self) -> int:
        """Virtual time in ns."""
        return self._retired() * NS_PER_INSTRUCTION + self.skipped

    def timer(self, name: str, callback: Callable[[int], None], *, host: bool = False) -> Timer:
        """A timer under a name unique in the machine. Timers due at one instant fire in the order of creation.

        A `host` timer belongs to an observer (a screen watcher, replayed input): it is no part of the saved state and
        its callback must not change the guest except as recorded input.
        """
        if name in self._timers:
            raise ValueError(f"timer {name!r} exists already")
        timer = self._timers[name] = Timer(self, name, len(self._timers), callback, host)
        return timer

    def _expects(self, timer: Timer) -> None:
        assert timer.deadline is not None
        heapq.heappush(self._heap, (timer.deadline, timer.order, timer))

    def _armed(self, timer: Timer) -> None:
        self._expects(timer)
        assert timer.deadline is not None
        if self.horizon is None or timer.deadline < self.horizon:
            self.on_replan()

    def next_deadline(self) -> int | None:
        """The earliest armed deadline, ns."""
        heap = self._heap
        while heap and heap[0][2].deadline != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def next_deadline_besides(self, timer: Timer) -> int | None:
        """The earliest deadline of the others, ns."""
        first = self.next_deadline()
        if first is None or self._heap[0][2] is not timer:
            return first
        entry = heapq.heappop(self._heap)
        try:
            return self.next_deadline()
        finally:
            heapq.heappush(self._heap, entry)

    def can_wake(self, held_back: Callable[[str], bool] = lambda name: False) -> bool:
        """True when a timer is armed that may make something happen to an idle CPU, and is not `held_back`, which is
        asked by its name."""
        for timer in self._timers.values():
            if timer.deadline is not None and timer.wakes and not held_back(timer.name):
                return True
        return False

    def run_due(self) -> None:
        """Fire what is due at `now`, in order of deadline, then of creation."""
        while (deadline := self.next_deadline()) is not None and deadline <= self.now:
            timer = heapq.heappop(self._heap)[2]
            timer.deadline = None
            timer.callback(deadline)

    def skip_to(self, deadline: int) -> None:
        """Jump to `deadline` (ns) without executing; never backwards."""
        self.skipped += max(0, deadline - self.now)
        self.on_skip(self.skipped)

    def save(self) -> ClockState:
        timers = {n: t.deadline for n, t in self._timers.items() if t.deadline is not None and not t.host}
        return ClockState(self.skipped, timers)

    def restore(self, state: ClockState) -> None:
        """Raises KeyError when the state names a timer this machine lacks."""
        self.skipped = state.skipped
        self.on_skip(self.skipped)
        self._heap = [entry for entry in self._heap if entry[2].host]
        heapq.heapify(self._heap)
        for timer in self._timers.values():
            if not timer.host:
                timer.deadline = None
        for name, deadline in state.timers.items():
            self._timers[name].arm(deadline)
