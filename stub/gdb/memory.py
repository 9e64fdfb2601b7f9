"""Guest memory as the helper looks at it, in few packets: what one look needs is fetched once, and what the look before
it needed is fetched together. Knows no gdb."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

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
#: `same()`: all that the last `gather` has given is as it was; False also where nobody knows.
Same = Callable[[], bool]
#: Lines that are gathered though nobody has asked for them, so that `same` is good for a look in other places, too; and
#: looks for which `same` is not asked, as it has said no.
KEPT, DOUBTED = 256, 8
#: Looks whose results are remembered.
REMEMBERED = 64


class Lines(dict[int, "bytes | None"]):
    """Lines that a look has read, by their numbers. `of`: what a `gather` has given, if they are all in it, as they are
    there."""

    of: dict[int, bytes] | None = None


class Memory:
    """Memory until the guest runs. Code that is stepped through is looked at in the same places at each stop."""

    def __init__(self, fetch: Fetch, gather: Gather, same: Same = lambda: False) -> None:
        self._fetch, self._gather, self._same = fetch, gather, same
        self._gathered: dict[int, bytes] = {}  #: by the last `gather`, if all of it can be read
        self._doubts = 0
        self._sure = False  #: all of that is in `_lines`, and is what is there now
        self._lines: dict[int, bytes | None] = {}
        self._used: set[int] = set()  #: numbers of the lines that this look has read
        self._before: set[int] = set()  #: those of the last one, until they have been fetched again
        self._was: dict[int, bytes | None] = {}  #: what the last look had, that which it has read in it
        self._was_used: set[int] = set()

    def forget(self) -> None:
        """Memory may have changed."""
        if self._used:
            self._was, self._was_used = self._lines, self._used
            self._before, self._used = self._used, set()
        self._lines, self._sure = {}, False

    def unchanged(self) -> bool:
        """In front of a look: all that the last one has read is as it was, so that it would see the same. What it has
        read counts as read by this one."""
        if not self._was_used:
            return False
        if self._before:
            self._ask(set())
        lines, was = self._lines, self._was
        if any(number not in lines or lines[number] != was.get(number) for number in self._was_used):
            return False
        self._used |= self._was_used
        return True

    def noting(self, make: Callable[[], T]) -> tuple[T, Lines]:
        """What `make` gives, and the lines that it has read."""
        before, self._used = self._used, set()
        try:
            made = make()
            return made, Lines((number, self._lines[number]) for number in self._used)
        finally:
            self._used |= before

    def holds(self, lines: Lines) -> bool:
        """These lines are as they were. They count as read by this look."""
        if lines.of is not None and lines.of is self._gathered:
            if not self._sure:
                self._ask(set())
            if lines.of is self._gathered:
                self._used |= lines.keys()
                return True
        missing = lines.keys() - self._lines.keys()
        if missing:
            self._ask(missing)
        self._used |= lines.keys() & self._lines.keys()
        held = all(number in self._lines and self._lines[number] == line for number, line in lines.items())
        if held and self._sure and lines.keys() <= self._gathered.keys():
            lines.of = self._gathered
        return held

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
        wanted = numbers | self._before
        self._before = set()
        if self._gathered and wanted <= self._gathered.keys() and self._is_same():
            self._lines.update(self._gathered)
            self._sure = True
            return
        if len(kept := wanted | self._gathered.keys()) <= KEPT:
            wanted = kept
        chosen = sorted(wanted)[:GATHERED]
        self._gathered, self._sure = {}, False
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
        lines = {number: next(data) for number in chosen}
        if all(len(line) == LINE for line in lines.values()):
            self._gathered, self._sure = lines, True
        self._lines.update((number, line if len(line) == LINE else None) for number, line in lines.items())

    def _is_same(self) -> bool:
        if self._doubts:
            self._doubts -= 1
            return False
        if self._same():
            return True
        self._doubts = DOUBTED
        return False


class Results:
    """What looks at a memory have given, with all that they have read."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known: dict[object, tuple[Any, Lines]] = {}

    def __call__(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, or has given where it would read the same: `key` is all else that it goes by."""
        known = self._known.get(key)
        if known is not None and self._memory.holds(known[1]):
            before: T = known[0]
            return before
        made, lines = self._memory.noting(make)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = made, lines
        return made
