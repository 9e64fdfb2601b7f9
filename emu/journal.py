"""Typed events of a run (mode switch, interrupt, fault, I/O, stop) in a ring, stamped with retired instructions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from emu.record import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is one word (interrupt, exception, int, bios, mode, reset, input, stop); `text` says it in words."""

    retired: int
    kind: str
    text: str


#: No count that is ever reached.
NEVER = 1 << 62


class Journal:
    """The last `size` events, oldest first."""

    def __init__(self, size: int = 256) -> None:
        self.added = 0  #: events ever
        self.due = NEVER  #: when so many have been added `on_due` is called, once
        self.on_due: Callable[[], None] = lambda: None
        #: called before an event is added: there are some to be added before it that nobody was told of yet
        self.before: Callable[[], None] | None = None
        self.first: Callable[[], None] | None = None  #: the same, and comes before `before`
        self._kept: Event | None = None
        self._events: deque[Event | tuple[int, str, str | Callable[[], str]]] = deque(maxlen=size)

    def add(self, retired: int, kind: str, text: str) -> None:
        self._come_first()
        self.added += 1
        self._events.append((retired, kind, text))
        if self.added >= self.due:
            self._ring()

    def add_lazy(self, retired: int, kind: str, text: Callable[[], str]) -> None:
        """As `add`; `text` is called when somebody looks, and gives the same at any time."""
        self._come_first()
        self.added += 1
        self._events.append((retired, kind, text))
        if self.added >= self.due:
            self._ring()

    def keep(self, retired: int, kind: str, text: str) -> None:
        """As `add`; it stays, as the oldest event, until there is another one that does: what is said of a storm is not
        to drown in it."""
        self._come_first()
        self._kept = Event(retired, kind, text)
        self.added += 1
        self._events.append(self._kept)

    def add_steps(self, first: int, last: int) -> None:
        """A stop behind a step at each of these counts of retired instructions."""
        self.added += last + 1 - first
        size = self._events.maxlen or 0
        self._events.extend((retired, "stop", "step") for retired in range(max(first, last + 1 - size), last + 1))
        if self.added >= self.due:
            self._ring()

    def add_lost(self, count: int) -> None:
        """As `add_untold`, of so many events that later ones push out."""
        self.added += count

    def add_untold(self, retired: int, kind: str, text: str | Callable[[], str]) -> None:
        """As `add` or `add_lazy`, of an event that nobody was told of when it happened: `before` adds it."""
        self.added += 1
        self._events.append((retired, kind, text))
        if self.added >= self.due:
            self._ring()

    def _come_first(self) -> None:
        if self.first is not None:
            self.first()
        if self.before is not None:
            self.before()

    def _ring(self) -> None:
        self.due = NEVER
        self.on_due()

    def __iter__(self) -> Iterator[Event]:
        return iter(self._told())

    def _told(self) -> tuple[Event, ...]:
        told = tuple(
            e if isinstance(e, Event) else Event(e[0], e[1], e[2] if isinstance(e[2], str) else e[2]())
            for e in self._events
        )
        return told if self._kept is None or self._kept in told else (self._kept, *told)

    def __len__(self) -> int:
        return len(self._events)

    def last(self, count: int) -> tuple[Event, ...]:
        return self._told()[-count:]

    def put(self, events: Sequence[Event]) -> None:
        """Hold `events`, and no others."""
        if self._kept not in events:
            self._kept = None
        self._events.clear()
        self._events.extend(events)

    def clear(self) -> None:
        self._kept = None
        self._events.clear()
