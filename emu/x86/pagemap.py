"""All pages that the present page tables map, in the order of their linear addresses (SDM vol. 3A, chapter 4)."""

from __future__ import annotations

from collections.abc import Iterator

from emu.record import dataclass
from emu.x86.paging import CR4_LA57, PTE_P, PTE_PS, PTE_RW, PTE_US, Level, ReadPhysical, frame_of, page_levels, with_a20
from emu.x86.state import CR0_PG, CR4_PAE, EFER_LMA, CpuState


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is mapped: `linear` (canonical), `size` in bytes, `physical`, the `entry` that maps it, and what R/W
    and U/S of all levels allow, CR0.WP left aside."""

    linear: int
    size: int
    physical: int
    entry: int
    writable: bool
    user: bool


def pages(state: CpuState, read_physical: ReadPhysical, physical_bits: int) -> Iterator[Page]:
    """The pages, none with paging off. Reserved bits are not looked at: such a page faults, and is listed. Tables may
    hold themselves, so that there are as many pages as the linear address space has: take no more than you can use."""
    if state.cr0 & CR0_PG:
        levels, table = page_levels(state, physical_bits)
        yield from _below(state, read_physical, levels, table, 0, True, True, physical_bits)


def _below(
    state: CpuState,
    read_physical: ReadPhysical,
    levels: tuple[Level, ...],
    table: int,
    linear: int,
    writable: bool,
    user: bool,
    physical_bits: int,
) -> Iterator[Page]:
    """The pages that a table maps; `levels` begins with the table's own."""
    level, wide = levels[0], bool(state.efer & EFER_LMA or state.cr4 & CR4_PAE)
    size = 8 if wide else 4
    data = read_physical(with_a20(state, table), size << level.index_bits)
    if data is None or not any(data):
        return
    for index in range(1 << level.index_bits):
        entry = int.from_bytes(data[index * size : (index + 1) * size], "little")
        if not entry & PTE_P:
            continue
        at = linear | index << level.shift
        rw = writable and (not level.rights or bool(entry & PTE_RW))
        us = user and (not level.rights or bool(entry & PTE_US))
        page = level.shift == 12 or (level.large and bool(entry & PTE_PS))
        frame = frame_of(entry, level, page, wide, physical_bits)
        if page:
            yield Page(_canonical(state, at), 1 << level.shift, frame, entry, rw, us)
        else:
            yield from _below(state, read_physical, levels[1:], frame, at, rw, us, physical_bits)


def _canonical(state: CpuState, linear: int) -> int:
    if not state.efer & EFER_LMA:
        return linear
    top = 56 if state.cr4 & CR4_LA57 else 47
    return linear | (1 << 64) - (1 << top) if linear >> top else linear
