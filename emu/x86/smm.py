"""System management mode: the state save area, the CPU's state behind an SMI, and what RSM makes of the area.

Source: Intel SDM vol. 3C, chapter "System Management Mode" (SMRAM state save map, SMM handler execution environment,
exiting from SMM, auto HALT restart, SMBASE relocation), for the map of CPUs without Intel 64; AMD64 APM vol. 2,
chapter 10 (table "AMD64 architecture SMM state-save area"), for those with long mode, as in QEMU. The SDM's map leaves
the descriptor caches to the CPU: they are where QEMU's i386 target (target/i386/smm_helper.c) and Bochs have them.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, SEGMENTS, CpuState, Segment, Table

ENTRY = 0x8000  #: offset of the handler in SMRAM
AREA = 0xFE00  #: offset of the save area, 512 bytes; offsets below are from SMBASE, as in the manuals
AREA_SIZE = 0x200
SMBASE_RESET = 0x30000
REVISION = 0x20000  #: SMBASE may be relocated; no I/O instruction restart
REVISION_LONG = REVISION | 0x64
CR0_EM_TS = 0x000C
CR0_NW, CR0_CD = 1 << 29, 1 << 30
DR7_RESET = 0x400
#: A flat data segment of real mode with 4 GiB: read, write, accessed, granular.
FLAT_ACCESS = 0x8093
PRESENT, UNUSABLE = 1 << 7, 1 << 16


@dataclass(frozen=True, slots=True)
class _Field:
    offset: int
    size: int
    get: Callable[[CpuState], int]
    put: Callable[[CpuState, int], None]


def _attribute(offset: int, size: int, name: str) -> _Field:
    return _Field(offset, size, lambda s: getattr(s, name), lambda s, value: setattr(s, name, value))


def _item(offset: int, size: int, name: str, index: int) -> _Field:
    def put(state: CpuState, value: int) -> None:
        getattr(state, name)[index] = value

    return _Field(offset, size, lambda s: getattr(s, name)[index], put)


def _table(name: str, base: int, limit: int, width: int) -> tuple[_Field, _Field]:
    def of(state: CpuState) -> Table:
        table: Table = getattr(state, name)
        return table

    return (
        _Field(base, width, lambda s: of(s).base, lambda s, value: setattr(of(s), "base", value)),
        _Field(limit, 4, lambda s: of(s).limit, lambda s, value: setattr(of(s), "limit", value & 0xFFFF)),
    )


def _segment(name: str, selector: int, access: int, limit: int, base: int, width: int) -> tuple[_Field, ...]:
    def of(state: CpuState) -> Segment:
        return state.segment(name)

    def put_access(state: CpuState, value: int) -> None:
        value &= 0xF0FF
        of(state).access = value if value & PRESENT else value | UNUSABLE

    return (
        _Field(selector, 2, lambda s: of(s).selector, lambda s, value: setattr(of(s), "selector", value)),
        _Field(access, 2, lambda s: of(s).access & 0xF0FF, put_access),
        _Field(limit, 4, lambda s: of(s).limit, lambda s, value: setattr(of(s), "limit", value)),
        _Field(base, width, lambda s: of(s).base, lambda s, value: setattr(of(s), "base", value)),
    )


#: Of CPUs with long mode. R15 is the lowest of the general registers.
_LONG = (
    *(_item(0xFFF8 - 8 * i, 8, "regs", n) for i, n in enumerate((0, 1, 2, 3, 4, 5, 6, 7, *range(8, 16)))),
    _attribute(0xFF78, 8, "rip"), _attribute(0xFF70, 8, "rflags"),
    _item(0xFF68, 8, "dr", 6), _item(0xFF60, 8, "dr", 7),
    _attribute(0xFF58, 8, "cr0"), _attribute(0xFF50, 8, "cr3"), _attribute(0xFF48, 8, "cr4"),
    _attribute(0xFED0, 8, "efer"), _attribute(0xFF00, 4, "smbase"),
    *_table("gdtr", 0xFE68, 0xFE64, 8), *_table("idtr", 0xFE88, 0xFE84, 8),
    *(field for i, name in enumerate((*SEGMENTS, "gdtr", "ldtr", "idtr", "tr")) if name not in ("gdtr", "idtr")
      for at in (0xFE00 + 16 * i,) for field in _segment(name, at, at + 2, at + 4, at + 8, 8)),
)  # fmt: skip
#: Of those without. EAX is the lowest of the general registers; ES, CS and SS have their caches above, DS, FS and GS
#: below those of LDTR and TR.
_SHORT = (
    *(_item(0xFFD0 + 4 * i, 4, "regs", n) for i, n in enumerate((0, 1, 2, 3, 4, 5, 6, 7))),
    _attribute(0xFFFC, 4, "cr0"), _attribute(0xFFF8, 4, "cr3"), _attribute(0xFFF4, 4, "rflags"),
    _attribute(0xFFF0, 4, "rip"), _item(0xFFCC, 4, "dr", 6), _item(0xFFC8, 4, "dr", 7),
    _attribute(0xFF14, 4, "cr4"), _attribute(0xFEF8, 4, "smbase"),
    *_table("gdtr", 0xFF74, 0xFF70, 4), *_table("idtr", 0xFF58, 0xFF54, 4),
    *_segment("tr", 0xFFC4, 0xFF5C, 0xFF60, 0xFF64, 4), *_segment("ldtr", 0xFFC0, 0xFF78, 0xFF7C, 0xFF80, 4),
    *(field for i, name in enumerate(SEGMENTS) for at in ((0xFF84 if i < 3 else 0xFF2C - 36) + 12 * i,)
      for field in _segment(name, 0xFFA8 + 4 * i, at, at + 4, at + 8, 4)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Map:
    """A layout of the area, and where it has what is not the CPU's state."""

    fields: tuple[_Field, ...]
    revision: int
    revision_at: int
    halt_at: int  #: auto HALT restart: a byte, bit 0


LONG = _Map(_LONG, REVISION_LONG, 0xFEFC, 0xFEC9)
SHORT = _Map(_SHORT, REVISION, 0xFEFC, 0xFF02)


def area_map(long_mode: bool) -> _Map:
    """The layout of CPUs with or without long mode."""
    return LONG if long_mode else SHORT


def saved(state: CpuState, layout: _Map) -> bytes:
    """The save area that an SMI writes to SMBASE + FE00h. What is reserved in it is 0."""
    area = bytearray(AREA_SIZE)
    for field in layout.fields:
        value = field.get(state) & (1 << 8 * field.size) - 1
        area[field.offset - AREA : field.offset - AREA + field.size] = value.to_bytes(field.size, "little")
    area[layout.revision_at - AREA : layout.revision_at - AREA + 4] = layout.revision.to_bytes(4, "little")
    area[layout.halt_at - AREA] = state.halted
    return bytes(area)


def entered(state: CpuState) -> CpuState:
    """The CPU at the first instruction of the SMI handler: real mode with segments of 4 GiB at base 0, CS at SMBASE,
    interrupts and NMIs off. FPU, MSRs, GDTR and IDTR stay."""
    new = state.copy()
    new.smm, new.smm_nmi, new.nmi_blocked = True, state.nmi_blocked, True
    new.halted = new.shadow = False
    new.rip, new.rflags, new.cr4, new.efer = ENTRY, 2, 0, 0
    new.cr0 &= ~(CR0_PE | CR0_PG | CR0_EM_TS)
    new.dr[7] = DR7_RESET
    for name in SEGMENTS:
        setattr(new, name, Segment(0, 0, 0xFFFFFFFF, FLAT_ACCESS))
    new.cs.selector, new.cs.base = state.smbase >> 4 & 0xFFFF, state.smbase
    return new


def resumed(state: CpuState, area: bytes, layout: _Map) -> CpuState | None:
    """The CPU behind RSM, from the save area; None when the area holds a state that makes the CPU shut down."""
    new = state.copy()
    for field in layout.fields:
        at = field.offset - AREA
        field.put(new, int.from_bytes(area[at : at + field.size], "little"))
    if layout is SHORT:
        new.efer = 0
    else:
        new.rflags &= 0xFFFFFFFF
    revision = int.from_bytes(area[layout.revision_at - AREA : layout.revision_at - AREA + 4], "little")
    if not revision & REVISION:
        new.smbase = state.smbase
    new.halted = bool(area[layout.halt_at - AREA] & 1)
    new.shadow = False
    new.smm, new.smm_nmi, new.nmi_blocked = False, False, state.smm_nmi
    new.rflags |= 2
    return new if _consistent(new) else None


def _consistent(state: CpuState) -> bool:
    """What RSM looks at (SDM, "Exiting from SMM"): reserved bits of CR4, PG without PE, NW without CD; and an LMA that
    no CPU has."""
    cr0 = state.cr0
    if (cr0 & CR0_PG and not cr0 & CR0_PE) or (cr0 & CR0_NW and not cr0 & CR0_CD) or state.cr4 >> 32 or cr0 >> 32:
        return False
    return not state.efer & EFER_LMA or bool(cr0 & CR0_PG and state.cr4 & CR4_PAE)
