"""Runs of readable memory, gathered to pieces that are big enough to be searched at the speed of C."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from emu.sweep import Run
from stub.target import Swept

#: Bytes of the largest piece.
PIECE = 1 << 20
#: Of the units of `Swept`: what a table or a hole, a run and each so many bytes of it cost.
LOOK, RUN, BYTES = 8, 1, 1 << 13


def swept(runs: Iterator[Run], read: Callable[[int, int], bytes]) -> Iterator[Swept]:
    """The memory of `runs`; `read` is of physical addresses. Runs that follow each other become one piece."""
    parts: list[bytes] = []
    start = end = work = 0
    for address, physical, length in runs:
        if not length:
            yield address, b"", LOOK
            continue
        done = 0
        while done < length:
            if parts and (address + done != end or end - start >= PIECE):
                yield start, b"".join(parts), work
                parts = []
            if not parts:
                start = end = address + done
                work = 0
            count = min(length - done, PIECE - (end - start))
            parts.append(read(physical + done, count))
            done += count
            end += count
            work += RUN + count // BYTES
    if parts:
        yield start, b"".join(parts), work
