"""Page walks in every paging mode, on tables built by hand (SDM vol. 3A, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.views import PageWalkView
from emu.x86.paging import is_canonical, translate, walk
from emu.x86.state import CpuState, Segment

PG, WP = 0xE0000011, 1 << 16
PSE, PAE, LA57 = 0x10, 0x20, 0x1000
NXE, LMA, LME = 0x800, 0x400, 0x100
IA32E = LMA | LME
P, RW, US, A, D, PS, G, XD = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
CODE64 = Segment(8, 0, 0xFFFFFFFF, 0xA09B)


class Memory:
    """Physical memory as a sparse dict of entries; an address outside it cannot be read."""

    def __init__(self, entry_bytes: int, entries: dict[int, int] | None = None, size: int = 1 << 52) -> None:
        self.entry_bytes, self.entries, self.size = entry_bytes, entries or {}, size
        self.reads: list[int] = []

    def __call__(self, address: int, length: int) -> bytes | None:
        assert length == self.entry_bytes
        self.reads.append(address)
        return None if address >= self.size else self.entries.get(address, 0).to_bytes(length, "little")


def cpu(cr4: int = 0, efer: int = 0, cr0: int = PG, cr3: int = 0x1000, **rest: object) -> CpuState:
    state = CpuState(cr0=cr0, cr3=cr3, cr4=cr4, efer=efer, **rest)  # type: ignore[arg-type]
    if efer & LMA:
        state.cs = CODE64
    return state


def test_without_paging_linear_is_physical() -> None:
    view = walk(CpuState(), Memory(4), 0xFFFFFFF0)
    assert (view.physical, view.page_size, view.levels, view.fault) == (0xFFFFFFF0, None, (), "")
    assert (view.writable, view.user, view.executable) == (True, True, True)
    assert translate(CpuState(), Memory(4), 0x1_0000_0010) == 0x10


def test_a_closed_a20_gate_clears_bit_20_of_every_physical_address() -> None:
    assert translate(CpuState(a20=False), Memory(4), 0x112345) == 0x12345
    # The gate lies outside the CPU, so page-table reads pass through it too: entries at 110000 come from 10000.
    memory = Memory(4, {0x10000: 0x111000 | P, 0x11004: 0x333000 | P})
    state = cpu(cr3=0x110000, a20=False)
    assert walk(state, memory, 0x1234).physical == 0x233234
    assert memory.reads == [0x10000, 0x11004]
    assert translate(state, memory, 0x1234) == 0x233234


# 32-bit paging: PDE by bits 31:22, PTE by bits 21:12.


def test_32_bit_paging_maps_4_kib_pages() -> None:
    memory = Memory(
        4, {0x1000 + 4 * 0x48: 0x2000 | P | RW | US | A, 0x2000 + 4 * 0x345: 0xABCDE000 | P | RW | US | A | D}
    )
    view = walk(cpu(), memory, 0x12345678)
    assert (view.physical, view.page_size) == (0xABCDE678, 0x1000)
    assert (view.writable, view.user, view.executable, view.fault) == (True, True, True, "")
    pde, pte = view.levels
    assert (pde.level, pde.index, pde.address, pde.entry) == ("PDE", 0x48, 0x1120, 0x2027)
    assert pde.text == "P RW US A, table at 0x2000"
    assert (pte.level, pte.index, pte.address, pte.entry) == ("PTE", 0x345, 0x2D14, 0xABCDE067)
    assert pte.text == "P RW US A D, 4 KiB page at 0xabcde000"


def test_32_bit_paging_ignores_ps_without_cr4_pse() -> None:
    memory = Memory(4, {0x1000: 0x2000 | P | PS, 0x2000: 0x7000 | P})
    assert walk(cpu(), memory, 0x123).physical == 0x7123


def test_pse_maps_4_mib_pages() -> None:
    view = walk(cpu(PSE), Memory(4, {0x1000 + 4 * 3: 0x00C00000 | P | RW | PS | G}), 0x00D23456)
    assert (view.physical, view.page_size, len(view.levels)) == (0x00D23456, 0x400000, 1)
    assert view.levels[0].text == "P RW PS G, 4 MiB page at 0xc00000"


def test_pse36_takes_address_bits_39_to_32_from_bits_20_to_13() -> None:
    entry = 0x40000000 | 0xA5 << 13 | P | PS
    assert walk(cpu(PSE), Memory(4, {0x1000: entry}), 0x123456).physical == 0xA5_4012_3456


def test_a_4_mib_page_with_bit_21_set_is_reserved() -> None:
    view = walk(cpu(PSE), Memory(4, {0x1000: 1 << 21 | P | PS}), 0)
    assert (view.physical, view.fault) == (None, "PDE at 0x1000 has reserved bits set: 0x200000")


def test_pse36_bits_above_the_cpus_address_width_are_reserved() -> None:
    memory = Memory(4, {0x1000: 1 << 17 | P | PS})
    assert walk(cpu(PSE), memory, 0, physical_bits=36).fault == "PDE at 0x1000 has reserved bits set: 0x20000"
    assert walk(cpu(PSE), memory, 0, physical_bits=37).physical == 1 << 36


def test_32_bit_paging_has_no_execute_disable() -> None:
    memory = Memory(4, {0x1000: 0x2000 | P, 0x2000: 0x80003000 | P})
    view = walk(cpu(efer=NXE), memory, 0)
    assert (view.physical, view.executable) == (0x80003000, True)


# PAE paging: PDPTE by bits 31:30, PDE by 29:21, PTE by 20:12; the table of PDPTEs is 32-byte aligned.


def pae_memory(
    pdpte: int = 0x2000 | P, pde: int = 0x3000 | P | RW | US, pte: int = 0x5_6789_A000 | P | RW | US
) -> Memory:
    return Memory(8, {0x1020 + 8 * 2: pdpte, 0x2000 + 8 * 0x1A: pde, 0x3000 + 8 * 0x45: pte})


PAE_LINEAR = 2 << 30 | 0x1A << 21 | 0x45 << 12 | 0x678


def test_pae_maps_4_kib_pages_above_4_gib() -> None:
    view = walk(cpu(PAE, cr3=0x1020), pae_memory(), PAE_LINEAR)
    assert (view.physical, view.page_size) == (0x5_6789_A678, 0x1000)
    assert [level.level for level in view.levels] == ["PDPTE", "PDE", "PTE"]
    assert [level.address for level in view.levels] == [0x1030, 0x20D0, 0x3228]
    assert view.levels[0].text == "P, table at 0x2000"
    assert (view.writable, view.user) == (True, True), "PDPTEs have no rights of their own"


def test_pae_maps_2_mib_pages() -> None:
    view = walk(cpu(PAE, cr3=0x1020), pae_memory(pde=0x1_4020_0000 | P | PS), PAE_LINEAR)
    assert (view.physical, view.page_size) == (0x1_4020_0000 | PAE_LINEAR & 0x1FFFFF, 0x200000)


def test_pae_does_not_look_at_cr4_pse_or_the_low_bits_of_cr3() -> None:
    assert walk(cpu(PAE | PSE, cr3=0x1038), pae_memory(), PAE_LINEAR).physical == 0x5_6789_A678


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 52, 63])
def test_pae_pdpte_reserves_bits_2_1_8_5_and_those_above_the_address(bit: int) -> None:
    view = walk(cpu(PAE, efer=NXE, cr3=0x1020), pae_memory(pdpte=0x2000 | P | 1 << bit), PAE_LINEAR)
    assert view.fault == f"PDPTE at 0x1030 has reserved bits set: {1 << bit:#x}"


@pytest.mark.parametrize("bit", [13, 20])
def test_pae_2_mib_page_reserves_bits_20_to_13(bit: int) -> None:
    view = walk(cpu(PAE, cr3=0x1020), pae_memory(pde=P | PS | 1 << bit), PAE_LINEAR)
    assert view.fault == f"PDE at 0x20d0 has reserved bits set: {1 << bit:#x}"


def test_pae_2_mib_page_may_set_pat_in_bit_12() -> None:
    view = walk(cpu(PAE, cr3=0x1020), pae_memory(pde=P | PS | 1 << 12), PAE_LINEAR)
    assert view.fault == ""
    assert "PAT" in view.levels[1].text


def test_execute_disable_is_reserved_without_nxe_and_binds_with_it() -> None:
    memory = pae_memory(pte=0x9000 | P | XD)
    assert walk(cpu(PAE, cr3=0x1020), memory, PAE_LINEAR).fault == f"PTE at 0x3228 has reserved bits set: {XD:#x}"
    view = walk(cpu(PAE, efer=NXE, cr3=0x1020), memory, PAE_LINEAR)
    assert (view.physical, view.executable) == (0x9678, False)
    assert view.levels[2].text == "P XD, 4 KiB page at 0x9000"


def test_pae_reserves_bits_62_to_52_and_4_level_paging_ignores_them() -> None:
    assert walk(cpu(PAE, cr3=0x1020), pae_memory(pte=P | 1 << 52), PAE_LINEAR).fault.startswith("PTE at 0x3228 has res")
    assert four_level(pte=0x9000 | P | 0x7FF << 52).physical == 0x9123


# 4-level paging: PML4E by bits 47:39, PDPTE by 38:30, PDE by 29:21, PTE by 20:12.

LONG_LINEAR = 0xFFFF_8000_0000_0000 | 1 << 30 | 2 << 21 | 3 << 12 | 0x123  # PML4 index 256


def four_level(
    pml4e: int = 0x2000 | P | RW | US,
    pdpte: int = 0x3000 | P | RW | US,
    pde: int = 0x4000 | P | RW | US,
    pte: int = 0x9000 | P | RW | US,
    linear: int = LONG_LINEAR,
    physical_bits: int = 52,
    state: CpuState | None = None,
) -> PageWalkView:
    entries = {0x1000 + 8 * 256: pml4e, 0x2000 + 8: pdpte, 0x3000 + 16: pde, 0x4000 + 24: pte}
    return walk(state or cpu(PAE, IA32E | NXE), Memory(8, entries), linear, physical_bits)


def test_4_level_paging_maps_4_kib_pages() -> None:
    view = four_level()
    assert (view.physical, view.page_size) == (0x9123, 0x1000)
    assert [(v.level, v.index, v.address) for v in view.levels] == [
        ("PML4E", 256, 0x1800),
        ("PDPTE", 1, 0x2008),
        ("PDE", 2, 0x3010),
        ("PTE", 3, 0x4018),
    ]


def test_4_level_paging_maps_2_mib_and_1_gib_pages() -> None:
    large = four_level(pde=0xF_FFFF_FFE0_0000 & ~0x1FFFFF | P | PS)
    assert (large.physical, large.page_size) == (0xF_FFFF_FFE0_0000 | LONG_LINEAR & 0x1FFFFF, 0x200000)
    huge = four_level(pdpte=0x40_0000_0000 | P | PS)
    assert (huge.physical, huge.page_size) == (0x40_0000_0000 | LONG_LINEAR & 0x3FFFFFFF, 0x40000000)
    assert huge.levels[1].text == "P PS, 1 GiB page at 0x4000000000"


def test_1_gib_page_reserves_bits_29_to_13_and_pml4e_reserves_ps() -> None:
    assert four_level(pdpte=P | PS | 1 << 29).fault == "PDPTE at 0x2008 has reserved bits set: 0x20000000"
    assert four_level(pml4e=0x2000 | P | PS).fault == "PML4E at 0x1800 has reserved bits set: 0x80"


def test_address_bits_above_the_cpus_width_are_reserved() -> None:
    assert four_level(pte=1 << 45 | P).physical == 1 << 45 | 0x123
    assert four_level(pte=1 << 45 | P, physical_bits=40).fault == f"PTE at 0x4018 has reserved bits set: {1 << 45:#x}"


def test_a_non_canonical_address_has_no_walk() -> None:
    view = four_level(linear=0x8000_0000_0000)
    assert (view.physical, view.levels) == (None, ())
    assert view.fault == "linear address 0x800000000000 is not canonical"


def test_la57_adds_a_level_and_widens_canonical_addresses() -> None:
    entries = {0x1000 + 8: 0x2000 | P, 0x2000: 0x3000 | P, 0x3000: 0x4000 | P, 0x4000: 0x5000 | P, 0x5000: 0x9000 | P}
    view = walk(cpu(PAE | LA57, IA32E), Memory(8, entries), 1 << 48 | 0x10)
    assert view.physical == 0x9010
    assert [level.level for level in view.levels] == ["PML5E", "PML4E", "PDPTE", "PDE", "PTE"]
    reserved = walk(cpu(PAE | LA57, IA32E), Memory(8, {0x1008: 0x2000 | P | PS}), 1 << 48)
    assert reserved.fault == "PML5E at 0x1008 has reserved bits set: 0x80"
    assert walk(cpu(PAE, IA32E), Memory(8, entries), 1 << 48 | 0x10).fault.endswith("is not canonical")


@pytest.mark.parametrize(
    ("linear", "four", "five"),
    [
        (0x7FFF_FFFF_FFFF, True, True),
        (0x8000_0000_0000, False, True),
        (0xFFFF_8000_0000_0000, True, True),
        (0xFFFF_7FFF_FFFF_FFFF, False, True),
        (0xFF_FFFF_FFFF_FFFF, False, True),
        (0x100_0000_0000_0000, False, False),
        (0xFEFF_FFFF_FFFF_FFFF, False, False),
        (0xFF00_0000_0000_0000, False, True),
    ],
)
def test_canonical_addresses_have_equal_top_bits(linear: int, four: bool, five: bool) -> None:
    assert is_canonical(linear, cpu(PAE, IA32E)) is four
    assert is_canonical(linear, cpu(PAE | LA57, IA32E)) is five


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("pml4e", "PML4E at 0x1800 not present"),
        ("pdpte", "PDPTE at 0x2008 not present"),
        ("pde", "PDE at 0x3010 not present"),
        ("pte", "PTE at 0x4018 not present"),
    ],
)
def test_a_walk_ends_at_the_first_entry_that_is_not_present(broken: str, fault: str) -> None:
    # Not-present entries have no reserved bits: all else in them is software's (4.5.4).
    entries: dict[str, Any] = {broken: 0xFFFF_FFFF_FFFF_FFFE}
    view = four_level(**entries)
    assert (view.physical, view.page_size, view.fault) == (None, None, fault)
    assert view.levels[-1].text == "not present"
    assert (view.writable, view.user, view.executable) == (False, False, False)


def test_tables_outside_memory_say_so() -> None:
    view = walk(cpu(cr3=0x5000_0000), Memory(4, size=0x10000), 0x1000)
    assert view.fault == "PDE at 0x50000000 cannot be read: no memory there"


@pytest.mark.parametrize("level", ["pml4e", "pdpte", "pde", "pte"])
def test_each_level_can_take_away_write_user_and_execute_rights(level: str) -> None:
    tables = {"pml4e": 0x2000, "pdpte": 0x3000, "pde": 0x4000, "pte": 0x9000}
    state = cpu(PAE, IA32E | NXE, cr0=PG | WP)
    read_only = four_level(**{level: tables[level] | P | US}, state=state)
    assert (read_only.writable, read_only.user, read_only.executable) == (False, True, True)
    supervisor = four_level(**{level: tables[level] | P | RW}, state=state)
    assert (supervisor.writable, supervisor.user, supervisor.executable) == (True, False, True)
    data = four_level(**{level: tables[level] | P | RW | US | XD}, state=state)
    assert (data.writable, data.user, data.executable) == (True, True, False)


def test_without_wp_the_supervisor_writes_read_only_pages_and_the_user_does_not() -> None:
    memory = Memory(4, {0x1000: 0x2000 | P | US, 0x2000: 0x7000 | P | US})
    assert walk(cpu(cr0=PG), memory, 0).writable is True
    assert walk(cpu(cr0=PG | WP), memory, 0).writable is False
    assert walk(cpu(cr0=PG, ss=Segment(0x23, 0, 0xFFFFFFFF, 0xC0F3)), memory, 0).writable is False


# Properties: a mapping built for a random page is found again, and the two entry points agree.

GEOMETRY = {
    "32-bit": (cpu(), [(22, 10), (12, 10)]),
    "PSE": (cpu(PSE), [(22, 10)]),
    "PAE": (cpu(PAE), [(30, 2), (21, 9), (12, 9)]),
    "PAE 2M": (cpu(PAE), [(30, 2), (21, 9)]),
    "4-level": (cpu(PAE, IA32E), [(39, 9), (30, 9), (21, 9), (12, 9)]),
    "4-level 2M": (cpu(PAE, IA32E), [(39, 9), (30, 9), (21, 9)]),
    "4-level 1G": (cpu(PAE, IA32E), [(39, 9), (30, 9)]),
    "5-level": (cpu(PAE | LA57, IA32E), [(48, 9), (39, 9), (30, 9), (21, 9), (12, 9)]),
}


@pytest.mark.parametrize("name", GEOMETRY)
@given(data=st.data())
def test_a_page_mapped_by_hand_is_found_at_its_physical_address(name: str, data: st.DataObject) -> None:
    state, levels = GEOMETRY[name]
    long = bool(state.efer & LMA)
    size = 8 if state.cr4 & PAE else 4
    width = levels[0][0] + levels[0][1]
    linear = data.draw(st.integers(0, (1 << width) - 1), label="linear")
    if long and linear >> width - 1:
        linear |= (1 << 64) - (1 << width)
    shift = levels[-1][0]
    frames = 1 << ((32 if size == 4 else 40) - shift)
    frame = data.draw(st.integers(0, frames - 1), label="frame") << shift
    entries, table = {}, 0x1000
    for depth, (low, bits) in enumerate(levels):
        address = table + size * (linear >> low & (1 << bits) - 1)
        table = 0x10000 * (depth + 1)
        last = depth == len(levels) - 1
        entries[address] = (frame | (PS if shift > 12 else 0) if last else table) | P
    memory = Memory(size, entries)
    view = walk(state, memory, linear)
    assert view.fault == ""
    assert (view.physical, view.page_size) == (frame | linear & (1 << shift) - 1, 1 << shift)
    assert [level.address for level in view.levels] == list(entries)
    assert translate(state, memory, linear) == view.physical
    beyond = linear ^ 1 << shift
    assert translate(state, memory, beyond) is None


def pseudo_random(seed: int) -> Callable[[int, int], bytes | None]:
    """Memory full of mostly present entries, the same at each read."""

    def read(address: int, length: int) -> bytes | None:
        mixed = (address * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03) & (1 << 64) - 1
        mixed ^= mixed >> 29
        if mixed % 31 == 0:
            return None
        entry = mixed & 0xFFFFF1FF if length == 4 else mixed & 0x000F_FFFF_FFFF_F0E7
        return (entry | (mixed >> 7 & 7 != 0)).to_bytes(length, "little")

    return read


@given(
    seed=st.integers(0, 1 << 32),
    linear=st.integers(0, (1 << 64) - 1),
    cr0=st.sampled_from([0x60000011, PG, PG | WP]),
    mode=st.sampled_from(
        [(0, 0), (PSE, 0), (PAE, 0), (PAE, NXE), (PAE, IA32E), (PAE, IA32E | NXE), (PAE | LA57, IA32E)]
    ),
    a20=st.booleans(),
    low=st.booleans(),
)
def test_translate_is_the_physical_address_of_walk(
    seed: int, linear: int, cr0: int, mode: tuple[int, int], a20: bool, low: bool
) -> None:
    state = cpu(mode[0], mode[1], cr0=cr0, a20=a20)
    linear = linear & 0x7FFF_FFFF_FFFF if low else linear
    view = walk(state, pseudo_random(seed), linear)
    assert translate(state, pseudo_random(seed), linear) == view.physical
    assert (view.physical is None) == bool(view.fault)
    if view.physical is not None and not a20:
        assert not view.physical & 1 << 20
