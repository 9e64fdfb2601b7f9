"""Which of a range of addresses can be read, in runs: holes of the memory map and of page tables are passed at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emu.subject import Subject

#: (address, physical, length): so many bytes can be read, one behind the other. Length 0: something was looked at, and
#: nothing found; who goes through runs bounds by these, too, what it goes through.
Run = tuple[int, int, int]
_PAGE = 0x1000
_MEMORY = frozenset(("ram", "rom"))


def readable_runs(subject: Subject, mapped: Iterable[tuple[int, int, int]]) -> Iterator[Run]:
    """The runs of what is mapped (`emu.x86.extents`), or is physical itself."""
    regions = subject.memory_map()
    for address, physical, length in mapped:
        if not length:
            yield address, 0, 0
            continue
        done = 0
        while done < length:
            at = physical + done
            if have := subject.readable_physical(at, length - done):
                yield address + done, at, have
                done += have
                continue
            yield address + done, 0, 0
            # What is said to be memory and cannot be read has holes that only pages tell.
            if any(r.kind in _MEMORY and r.first <= at <= r.last for r in regions):
                done += _PAGE - at % _PAGE
            else:
                edges = (edge for r in regions for edge in (r.first, r.last + 1) if edge > at)
                done = min(edges, default=physical + length) - physical
