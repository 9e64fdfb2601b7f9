"""Typed events of a run (mode switch, interrupt, fault, I/O, stop) in a ring, stamped with retired instructions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from emu.record import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is one word (interrupt, exception, int, mode, reset, input, stop); `text` says it in the field's words."""

    retired: int
    kind: str
    text: str


class Journal:
    """The last `size` events, oldest first."""

    def __init__(self, size: int = 256) -> None:
        self._events: deque[Event] = deque(maxlen=size)

    def add(self, retired: int, kind: str, text: str) -> None:
        self._events.append(Event(retired, kind, text))

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def last(self, count: int) -> tuple[Event, ...]:
        return tuple(self._events)[-count:]

    def put(self, events: Sequence[Event]) -> None:
        """Hold `events`, and no others."""
        self._events.clear()
        self._events.extend(events)

    def clear(self) -> None:
        self._events.clear()
