"""Guest memory as the helper looks at it, in few packets: what one look needs is fetched once, and what the look before
it needed is fetched together. Knows no gdb."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

#: Bytes that are kept, and asked for again, together; and bytes that are fetched where nothing is known yet.
LINE, PAGE = 32, 256
#: Lines that are asked for in one packet, so that its answer stays small beside what a packet may have.
GATHERED = 1024

#: `fetch(linear, length)`: that memory, None where it cannot be read.
Fetch = Callable[[int, int], "bytes | None"]
#: `gather(ranges)`: what is there of each (linear, length) up to the first byte that cannot be read, in one packet;
#: None where the target has no such packet.
Gather = Callable[[Sequence[tuple[int, int]]], "Sequence[bytes] | None"]


class Memory:
    """Memory until the guest runs. Code that is stepped through is looked at in the same places at each stop."""

    def __init__(self, fetch: Fetch, gather: Gather) -> None:
        self._fetch, self._gather = fetch, gather
        self._lines: dict[int, bytes | None] = {}
        self._used: set[int] = set()  #: numbers of the lines that this look has read
        self._before: set[int] = set()  #: those of the last one, until they have been fetched again
        self._was: dict[int, bytes | None] = {}  #: what the last look has read

    def forget(self) -> None:
        """Memory may have changed."""
        if self._used:
            self._was = {number: self._lines[number] for number in self._used}
            self._before, self._used = self._used, set()
        self._lines.clear()

    def unchanged(self) -> bool:
        """In front of a look: all that the last one has read is as it was, so that it would see the same. What it has
        read counts as read by this one."""
        if not self._before:
            return False
        self._ask(set())
        if any(number not in self._lines or self._lines[number] != line for number, line in self._was.items()):
            return False
        self._used |= self._was.keys()
        return True

    def noting(self, make: Callable[[], T]) -> tuple[T, dict[int, bytes | None]]:
        """What `make` gives, and the lines that it has read, by their numbers."""
        before, self._used = self._used, set()
        try:
            made = make()
            return made, {number: self._lines[number] for number in self._used}
        finally:
            self._used |= before

    def holds(self, lines: Mapping[int, bytes | None]) -> bool:
        """These lines are as they were. They count as read by this look."""
        missing = lines.keys() - self._lines.keys()
        if missing:
            self._ask(missing)
        self._used |= lines.keys() & self._lines.keys()
        return all(number in self._lines and self._lines[number] == line for number, line in lines.items())

    def read(self, linear: int, length: int) -> bytes | None:
        """None where one of the bytes cannot be read. Addresses wrap at 4 GiB."""
        first, last = linear // LINE, (linear + length - 1) // LINE
        lines = self._lines
        data = b""
        for number in range(first, last + 1):
            self._used.add(number)
            if number not in lines:
                self._miss(number)
            line = lines[number]
            if line is None:
                return None
            data += line
        begin = linear - first * LINE
        return data[begin : begin + length]

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These (linear, length) will be read next: as far as they are not known, ask for them in one packet."""
        numbers = {
            number
            for linear, length in ranges
            for number in range(linear // LINE, (linear + length - 1) // LINE + 1)
            if number not in self._lines
        }
        if numbers:
            self._ask(numbers)

    def _miss(self, number: int) -> None:
        if self._before:
            self._ask({number})
        if number in self._lines:
            return
        first = number * LINE // PAGE * PAGE
        page = self._fetch(first & 0xFFFFFFFF, PAGE)
        for begin in range(0, PAGE, LINE):
            self._lines[(first + begin) // LINE] = None if page is None else page[begin : begin + LINE]

    def _ask(self, numbers: set[int]) -> None:
        """For these lines and those of the look before. A line of which one byte cannot be read is None."""
        chosen = sorted(numbers | self._before)[:GATHERED]
        self._before = set()
        ranges: list[tuple[int, int]] = []
        for number in chosen:
            linear = number * LINE & 0xFFFFFFFF
            if ranges and sum(ranges[-1]) == linear:
                ranges[-1] = ranges[-1][0], ranges[-1][1] + LINE
            else:
                ranges.append((linear, LINE))
        found = self._gather(ranges)
        if found is None:
            return
        data = iter(
            part[begin : begin + LINE]
            for (_, length), part in zip(ranges, found, strict=True)
            for begin in range(0, length, LINE)
        )
        for number in chosen:
            line = next(data)
            self._lines[number] = line if len(line) == LINE else None
