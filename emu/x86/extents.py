"""What of a range of linear addresses is mapped, and where to: by the page tables' levels, not page by page.

SDM vol. 3A, chapter 4; `emu.x86.paging` walks for one address, by the same tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from emu.x86.paging import (
    A20_BIT,
    CR4_LA57,
    EFER_NXE,
    PTE_P,
    PTE_PS,
    Level,
    ReadPhysical,
    frame_of,
    page_levels,
    reserved_bits,
    with_a20,
)
from emu.x86.state import CR0_PG, CR4_PAE, EFER_LMA, CpuState

#: (linear, physical, length): that many bytes are mapped one behind the other. Length 0: a table was looked at.
Extent = tuple[int, int, int]


def extents(state: CpuState, read_physical: ReadPhysical, start: int, end: int, physical_bits: int) -> Iterator[Extent]:
    """All of linear [start, end) that is mapped, in order; `end` is at most 4 GiB outside 64-bit mode. A20 is applied.
    Tables may hold themselves: then there is as much as the linear address space has. Never raises."""
    for linear, physical, length in _mapped(state, read_physical, start, end, physical_bits):
        if state.a20 or not length:
            yield linear, physical, length
            continue
        done = 0
        while done < length:  # bit 20 of what reaches the bus is clear
            count = min(length - done, A20_BIT - (physical + done) % A20_BIT)
            yield linear + done, with_a20(state, physical + done), count
            done += count


def _mapped(state: CpuState, read_physical: ReadPhysical, start: int, end: int, physical_bits: int) -> Iterator[Extent]:
    if not state.cr0 & CR0_PG:
        if start < (end := min(end, 1 << 32)):
            yield start, start, end - start
        return
    levels, table = page_levels(state, physical_bits)
    walker = _Walker(state, read_physical, physical_bits)
    if not state.efer & EFER_LMA:
        if start < (end := min(end, 1 << 32)):
            yield from walker.below(levels, table, 0, start, end, 0)
        return
    half = 1 << (56 if state.cr4 & CR4_LA57 else 47)
    # The upper half is what is indexed behind the lower one; addresses between them are not canonical.
    for low, high, above in ((0, half, 0), ((1 << 64) - half, 1 << 64, (1 << 64) - 2 * half)):
        first, last = max(start, low), min(end, high)
        if first < last:
            yield from walker.below(levels, table, 0, first - above, last - above, above)


class _Walker:
    """The page tables of one moment."""

    def __init__(self, state: CpuState, read_physical: ReadPhysical, physical_bits: int) -> None:
        self._state, self._read, self._physical_bits = state, read_physical, physical_bits
        self._long = bool(state.efer & EFER_LMA)
        self._wide = self._long or bool(state.cr4 & CR4_PAE)
        self._nxe = bool(state.efer & EFER_NXE)

    def below(
        self, levels: tuple[Level, ...], table: int, base: int, first: int, last: int, above: int
    ) -> Iterator[Extent]:
        """What a table maps of [first, last), within what it covers from `base` on; `above` is to be added to make an
        address canonical."""
        level, wide, bits = levels[0], self._wide, self._physical_bits
        size, shift = (8 if wide else 4), level.shift
        index = first - base >> shift
        count = (last - 1 - base >> shift) - index + 1
        yield first + above, 0, 0
        data = self._read(with_a20(self._state, table + index * size), count * size)
        if data is None or data.count(0) == len(data):
            return
        wrong_page = reserved_bits(level, True, wide, self._long, self._nxe, bits)
        wrong_table = reserved_bits(level, False, wide, self._long, self._nxe, bits)
        linear = physical = length = 0
        at = base + (index << shift)
        for entry in struct.unpack(f"<{count}{'Q' if wide else 'L'}", data):
            here, at = at, at + (1 << shift)
            if not entry & PTE_P:
                continue
            page = shift == 12 or (level.large and bool(entry & PTE_PS))
            if entry & (wrong_page if page else wrong_table):
                continue
            frame = frame_of(entry, level, page, wide, bits)
            low, high = max(here, first), min(at, last)
            if not page:
                if length:
                    yield linear + above, physical, length
                    length = 0
                yield from self.below(levels[1:], frame, here, low, high, above)
                continue
            frame += low - here
            if length and low == linear + length and frame == physical + length:
                length += high - low
                continue
            if length:
                yield linear + above, physical, length
            linear, physical, length = low, frame, high - low
        if length:
            yield linear + above, physical, length
