"""What a range of linear addresses is mapped to, against the walk of each of its addresses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.x86.extents import extents
from emu.x86.paging import translate
from emu.x86.state import CpuState, Segment

PG, PSE, PAE, LA57, NXE, LMA = 0xE0000011, 0x10, 0x20, 0x1000, 0x800, 0x400
CODE64 = Segment(8, 0, 0xFFFFFFFF, 0xA09B)
#: CR4, EFER, bytes of an entry.
MODES = ((0, 0, 4), (PSE, 0, 4), (PAE, NXE, 8), (PAE, LMA | 0x100, 8), (PAE | LA57, LMA | NXE | 0x100, 8))
TABLES, PAGE, BITS = 6, 0x1000, 40


class Memory:
    """Page tables at physical 0 to 6000h, nothing else that can be read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, 0

    def __call__(self, address: int, length: int) -> bytes | None:
        self.reads += 1
        return self.data[address : address + length] if address + length <= len(self.data) else None


def entries(size: int) -> st.SearchStrategy[int]:
    """Absent ones, tables, pages small and large, and some whose reserved bits may be set."""
    table = st.integers(0, TABLES).map(lambda n: n * PAGE | 3)
    page = st.integers(0, 6).map(lambda n: n * 0x200000 | 0x83)
    near = st.integers(0x300, 0x304).map(lambda n: n * PAGE | 1)
    odd = st.integers(0, (1 << 8 * size) - 1)
    return st.one_of(st.just(0), table, table, page, near, odd)


@st.composite
def guests(draw: st.DrawFn) -> tuple[CpuState, Memory]:
    cr4, efer, size = draw(st.sampled_from(MODES))
    state = CpuState(cr0=PG, cr3=0, cr4=cr4, efer=efer, a20=draw(st.booleans()))
    if efer & LMA:
        state.cs = CODE64
    data = bytearray(TABLES * PAGE)
    # Each table leads to the next one by its first and last entries, where the addresses below are; the last one's are
    # pages. Then some are changed.
    for table in range(TABLES):
        for index in (0, 1, 2, PAGE // size - 2, PAGE // size - 1):
            struct.pack_into("<L", data, table * PAGE + index * size, (table + 1) * PAGE | 1)
    for _ in range(draw(st.integers(1, 12))):
        index = draw(st.one_of(st.integers(0, 3), st.integers(PAGE // size - 3, PAGE // size - 1)))
        at = draw(st.integers(0, TABLES - 1)) * PAGE + index * size
        struct.pack_into("<Q" if size == 8 else "<L", data, at, draw(entries(size)))
    return state, Memory(bytes(data))


@pytest.mark.slow
@given(guests(), st.data())
def test_each_page_of_a_range_is_where_its_walk_says(guest: tuple[CpuState, Memory], data: st.DataObject) -> None:
    state, memory = guest
    space = 1 << (64 if state.efer & LMA else 32)
    base = data.draw(st.sampled_from((0, 0x400000, 0x200000, 1 << 30, (1 << 47) - 0x8000, space - 0x10000)))
    start = min(base + data.draw(st.integers(0, 0x8000)), space - 1)
    end = min(start + data.draw(st.integers(1, 0x20000)), space)
    found: dict[int, int] = {}
    reached = start
    for linear, physical, length in extents(state, memory, start, end, BITS):
        if length:
            assert reached <= linear
            reached = linear + length
            assert reached <= end
            for at in {linear, *range((linear // PAGE + 1) * PAGE, linear + length, PAGE)}:
                found[at] = physical + at - linear
    wanted = {at: translate(state, memory, at, BITS) for at in {start, *range((start // PAGE + 1) * PAGE, end, PAGE)}}
    assert found == {at: physical for at, physical in wanted.items() if physical is not None}


def test_what_no_directory_entry_maps_is_not_looked_at() -> None:
    state = CpuState(cr0=PG, cr3=0, cr4=PAE, efer=LMA | 0x100)
    memory = Memory(bytes(PAGE))
    assert [e for e in extents(state, memory, 0, 1 << 64, BITS) if e[2]] == []
    assert memory.reads == 2  # the table, for either half of the linear address space


def test_neighbours_are_one_extent_and_without_paging_there_is_one() -> None:
    table = struct.pack("<1024L", *(n * PAGE | 1 for n in range(1024)))
    memory = Memory(struct.pack("<1024L", PAGE | 1, *[0] * 1023) + table)
    state = CpuState(cr0=PG, cr3=0)
    assert [e for e in extents(state, memory, 0x123, 1 << 32, BITS) if e[2]] == [(0x123, 0x123, 0x400000 - 0x123)]
    assert list(extents(CpuState(), memory, 5, 1 << 40, BITS)) == [(5, 5, (1 << 32) - 5)]
    assert list(extents(CpuState(a20=False), memory, 0xFFFFF, 0x100002, BITS)) == [
        (0xFFFFF, 0xFFFFF, 1),
        (0x100000, 0, 2),
    ]
