"""Page walks in every paging mode: what each entry says, where a linear address lands (SDM vol. 3A, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.views import PageLevelView, PageWalkView
from emu.x86.state import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_LMA, CpuState

#: Reads `length` bytes of physical memory, or None where there is none.
ReadPhysical = Callable[[int, int], "bytes | None"]

CR4_LA57 = 1 << 12
EFER_NXE = 1 << 11
PTE_P, PTE_RW, PTE_US, PTE_PS, PTE_XD = 1 << 0, 1 << 1, 1 << 2, 1 << 7, 1 << 63

#: The architecture's largest physical address width (SDM vol. 3A, 4.1.4, MAXPHYADDR). A CPU may have less.
MAX_PHYSICAL_BITS = 52
A20_BIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a paging structure. `large` says whether PS can end the walk here."""

    name: str
    shift: int  #: lowest bit of the linear address that indexes it
    index_bits: int
    large: bool
    rights: bool = True  #: R/W, U/S and XD exist (not in the PDPTE of PAE paging)


_LEVELS_32 = (Level("PDE", 22, 10, False), Level("PTE", 12, 10, False))
_LEVELS_PSE = (Level("PDE", 22, 10, True), Level("PTE", 12, 10, False))
_LEVELS_PAE = (Level("PDPTE", 30, 2, False, rights=False), Level("PDE", 21, 9, True), Level("PTE", 12, 9, False))
_LEVELS_4 = (
    Level("PML4E", 39, 9, False),
    Level("PDPTE", 30, 9, True),
    Level("PDE", 21, 9, True),
    Level("PTE", 12, 9, False),
)
_LEVELS_5 = (Level("PML5E", 48, 9, False), *_LEVELS_4)

_BITS = ((1, "RW"), (2, "US"), (3, "PWT"), (4, "PCD"), (5, "A"))


def is_canonical(linear: int, state: CpuState) -> bool:
    """True if bits 63:47 of `linear` (63:56 with CR4.LA57) are equal (SDM vol. 1, 3.3.7.1)."""
    top = linear >> (56 if state.cr4 & CR4_LA57 else 47)
    return top == 0 or top == (0xFF if state.cr4 & CR4_LA57 else 0x1FFFF)


def walk(
    state: CpuState, read_physical: ReadPhysical, linear: int, physical_bits: int = MAX_PHYSICAL_BITS
) -> PageWalkView:
    """The page walk of `linear`, entry by entry, without touching accessed and dirty bits.

    `writable` is what R/W of all levels allow, or that CR0.WP is clear and CPL below 3 (then R/W does not bind);
    `user` is U/S and `executable` is XD of all levels. With paging off the address is the physical one and `levels`
    is empty. `physical_bits` is the CPU's MAXPHYADDR; entry bits above it are reserved. PAE's four PDPTEs are read
    from memory: a CPU that cached others when CR3 was loaded (4.4.1) may differ. Never raises.
    """
    levels: list[PageLevelView] = []
    return _walk(state, read_physical, linear, physical_bits, levels)


def translate(
    state: CpuState, read_physical: ReadPhysical, linear: int, physical_bits: int = MAX_PHYSICAL_BITS
) -> int | None:
    """The physical address of `linear`, or None where no page is mapped. A20 is applied. Never raises."""
    if not state.cr0 & CR0_PG:
        return with_a20(state, linear & 0xFFFFFFFF)
    return _walk(state, read_physical, linear, physical_bits, None).physical


def with_a20(state: CpuState, physical: int) -> int:
    """What reaches the bus: without bit 20 while A20 is masked."""
    return physical if state.a20 else physical & ~A20_BIT


def _walk(
    state: CpuState,
    read_physical: ReadPhysical,
    linear: int,
    physical_bits: int,
    views: list[PageLevelView] | None,
) -> PageWalkView:
    """The one walker. `views` collects the levels; None saves their making."""
    if not state.cr0 & CR0_PG:
        linear &= 0xFFFFFFFF
        return PageWalkView(linear, with_a20(state, linear), None, True, True, True, ())
    long = bool(state.efer & EFER_LMA)
    if long:
        linear &= (1 << 64) - 1
        if not is_canonical(linear, state):
            return _failed(linear, views, f"linear address {linear:#x} is not canonical")
    else:
        linear &= 0xFFFFFFFF
    levels, table = page_levels(state, physical_bits)
    wide = long or bool(state.cr4 & CR4_PAE)
    nxe = bool(state.efer & EFER_NXE)
    size = 8 if wide else 4
    writable = user = executable = True
    for level in levels:
        index = linear >> level.shift & (1 << level.index_bits) - 1
        address = with_a20(state, table + index * size)
        data = read_physical(address, size)
        if data is None or len(data) < size:
            return _failed(linear, views, f"{level.name} at {address:#x} cannot be read: no memory there")
        entry = int.from_bytes(data, "little")
        page = level.shift == 12 or (level.large and bool(entry & PTE_PS))
        frame = frame_of(entry, level, page, wide, physical_bits)
        if views is not None:
            views.append(PageLevelView(level.name, index, address, entry, _text(entry, level, page, wide, frame)))
        if not entry & PTE_P:
            return _failed(linear, views, f"{level.name} at {address:#x} not present")
        wrong = entry & reserved_bits(level, page, wide, long, nxe, physical_bits)
        if wrong:
            return _failed(linear, views, f"{level.name} at {address:#x} has reserved bits set: {wrong:#x}")
        if level.rights:
            writable = writable and bool(entry & PTE_RW)
            user = user and bool(entry & PTE_US)
            executable = executable and not (wide and nxe and entry & PTE_XD)
        if page:
            offset = (1 << level.shift) - 1
            return PageWalkView(
                linear,
                with_a20(state, frame | linear & offset),
                offset + 1,
                writable or (not state.cr0 & CR0_WP and state.cpl < 3),
                user,
                executable,
                tuple(views or ()),
            )
        table = frame
    raise AssertionError("the last level always maps a page")


def page_levels(state: CpuState, physical_bits: int) -> tuple[tuple[Level, ...], int]:
    """The levels of the present paging mode, and the physical address of the first table. Paging is on."""
    if state.efer & EFER_LMA:
        return _LEVELS_5 if state.cr4 & CR4_LA57 else _LEVELS_4, state.cr3 & (1 << physical_bits) - 0x1000
    if state.cr4 & CR4_PAE:
        return _LEVELS_PAE, state.cr3 & 0xFFFFFFE0
    return _LEVELS_PSE if state.cr4 & CR4_PSE else _LEVELS_32, state.cr3 & 0xFFFFF000


def _failed(linear: int, views: list[PageLevelView] | None, fault: str) -> PageWalkView:
    return PageWalkView(linear, None, None, False, False, False, tuple(views or ()), fault)


def frame_of(entry: int, level: Level, page: bool, wide: bool, physical_bits: int) -> int:
    """The physical address in an entry: of the page if `page`, else of the next table."""
    if wide:
        return entry & (1 << physical_bits) - (1 << level.shift if page else 0x1000)
    if page and level.shift == 22:
        # PSE-36: bits 20:13 are address bits 39:32 (SDM vol. 3A, table 4-4).
        return entry & 0xFFC00000 | (entry >> 13 & 0xFF) << 32
    return entry & 0xFFFFF000


def reserved_bits(level: Level, page: bool, wide: bool, long: bool, nxe: bool, physical_bits: int) -> int:
    """The bits that must be zero in a present entry (SDM vol. 3A, tables 4-4 to 4-6, 4-8 to 4-11, 4-14 to 4-20)."""
    if not wide:
        if page and level.shift == 22:
            # Bit 21, and of the PSE-36 address bits those beyond the CPU's width (M - 19 and up).
            return (1 << 22) - (1 << min(physical_bits, 40) - 19)
        return 0
    top = 52 if long else 63  # 4-level paging ignores bits 62:52, PAE paging reserves them
    reserved = (1 << top) - (1 << physical_bits) if physical_bits < top else 0
    if not level.rights:
        return reserved | PTE_XD | 0x1E6  # bits 2:1 and 8:5
    if not nxe:
        reserved |= PTE_XD
    if page and level.shift > 12:
        reserved |= (1 << level.shift) - (1 << 13)  # bit 12 is PAT
    if level.name in ("PML4E", "PML5E"):
        reserved |= PTE_PS
    return reserved


def _text(entry: int, level: Level, page: bool, wide: bool, frame: int) -> str:
    if not entry & PTE_P:
        return "not present"
    words = ["P"]
    bits = _BITS if level.rights else _BITS[2:4]
    words += [name for bit, name in bits if entry >> bit & 1]
    if page:
        if entry & 1 << 6:
            words.append("D")
        if level.shift > 12:
            words.append("PS")
        if entry & 1 << (7 if level.shift == 12 else 12):
            words.append("PAT")
        if entry & 1 << 8:
            words.append("G")
    if wide and level.rights and entry & PTE_XD:
        words.append("XD")
    target = f"{_SIZES[level.shift]} page" if page else "table"
    return f"{' '.join(words)}, {target} at {frame:#x}"


_SIZES = {12: "4 KiB", 21: "2 MiB", 22: "4 MiB", 30: "1 GiB"}
