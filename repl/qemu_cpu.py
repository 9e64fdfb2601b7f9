"""The CPU and its page tables in the text form of QEMU's monitor: `info registers`, `info mem` and `info tlb` of QEMU
7.2, which pwndbg and gef read. The tests compare them with a running QEMU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emu.x86.pagemap import Page
from emu.x86.registers import REGISTERS
from emu.x86.state import CR0_PG, EFER_LMA, CpuState, Segment

OFF = "PG disabled"
#: Pages listed at most: tables that hold themselves have no end.
MAX_PAGES = 1 << 20
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
#: Of a system segment, by its type; and those that are others in long mode (SDM vol. 3A, table 3-2).
_SYSTEM = (
    "Reserved", "TSS16-avail", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16",
    "Reserved", "TSS32-avail", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32",
)  # fmt: skip
_LONG_SYSTEM = (
    "<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
    "Reserved", "TSS64-avail", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64",
)  # fmt: skip
#: Letters of `info tlb`, and the bit of a page's entry that each is for.
_TLB = (("X", 63), ("G", 8), ("P", 7), ("D", 6), ("A", 5), ("C", 4), ("T", 3), ("U", 2), ("W", 1))


def registers_text(state: CpuState) -> str:
    """CPU 0, in the width of its code."""
    wide = state.long64
    lines = (*_general(state, wide), *_segments(state, wide), *_control(state, wide), *_fpu(state))
    return "\n".join(("", "CPU#0", *lines, *_vectors(state, wide), ""))


def _general(state: CpuState, wide: bool) -> Iterator[str]:
    flags = "".join(
        letter if state.rflags >> bit & 1 else "-"
        for letter, bit in (("D", 10), ("O", 11), ("S", 7), ("Z", 6), ("A", 4), ("P", 2), ("C", 0))
    )
    if wide:
        names = [*_GENERAL, *(f"r{n}" for n in range(8, 16))]
        cells = [f"{name.upper():<3}={REGISTERS[name].get(state):016x}" for name in names]
        ip, flag_name = f"RIP={state.rip:016x}", "RFL"
    else:
        cells = [f"E{name[1:].upper()}={REGISTERS[name].get(state) & 0xFFFFFFFF:08x}" for name in _GENERAL]
        ip, flag_name = f"EIP={state.rip & 0xFFFFFFFF:08x}", "EFL"
    yield from (" ".join(cells[at : at + 4]) for at in range(0, len(cells), 4))
    yield (
        f"{ip} {flag_name}={state.rflags & 0xFFFFFFFF:08x} [{flags}] CPL={state.cpl} II={state.shadow:d} "
        f"A20={state.a20:d} SMM={state.smm:d} HLT={state.halted:d}"
    )


def _segments(state: CpuState, wide: bool) -> Iterator[str]:
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
        segment: Segment = getattr(state, name)
        label = "LDT" if name == "ldtr" else name.upper()
        yield (
            f"{label:<3}={segment.selector:04x} {_address(segment.base, wide)} {segment.limit:08x} "
            f"{_descriptor(segment):08x}{_kind(state, segment)}"
        )
    for label, table in (("GDT", state.gdtr), ("IDT", state.idtr)):
        yield f"{label}=     {_address(table.base, wide)} {table.limit:08x}"


def _address(base: int, wide: bool) -> str:
    return f"{base:016x}" if wide else f"{base & 0xFFFFFFFF:08x}"


def _descriptor(segment: Segment) -> int:
    """Bits 23:8 of a descriptor's upper half (SDM vol. 3A, figure 3-8)."""
    raw = segment.limit >> 12 if segment.access & 0x8000 else segment.limit
    return (segment.access & 0xFF) << 8 | raw & 0xF0000 | (segment.access & 0xF000) << 8


def _kind(state: CpuState, segment: Segment) -> str:
    """What the descriptor is, where the CPU is in protected mode and it is present."""
    if not state.cr0 & 1 or not segment.present:
        return ""
    long, kind = bool(state.efer & EFER_LMA), segment.type
    if not segment.access & 0x10:
        return f" DPL={segment.dpl} {(_LONG_SYSTEM if long else _SYSTEM)[kind]}"
    accessed = "A" if kind & 1 else "-"
    if kind & 8:
        name = "CS64" if segment.long else "CS32" if segment.big else "CS16"
        rights = f"{'C' if kind & 4 else '-'}{'R' if kind & 2 else '-'}"
    else:
        name = "DS  " if segment.big or long else "DS16"
        rights = f"{'E' if kind & 4 else '-'}{'W' if kind & 2 else '-'}"
    return f" DPL={segment.dpl} {name} [{rights}{accessed}]"


def _control(state: CpuState, wide: bool) -> Iterator[str]:
    cr2, cr3 = _address(state.cr2, wide), _address(state.cr3, wide)
    yield f"CR0={state.cr0 & 0xFFFFFFFF:08x} CR2={cr2} CR3={cr3} CR4={state.cr4 & 0xFFFFFFFF:08x}"
    yield "".join(f"DR{n}={REGISTERS[f'dr{n}'].get(state):016x} " for n in range(4))
    yield f"DR6={REGISTERS['dr6'].get(state):016x} DR7={REGISTERS['dr7'].get(state):016x}"
    yield f"EFER={state.efer:016x}"


def _fpu(state: CpuState) -> Iterator[str]:
    """The x87 registers by their own numbers, not from the top of the stack."""
    fpu = state.fpu
    top = fpu.fsw >> 11 & 7
    yield f"FCW={fpu.fcw:04x} FSW={fpu.fsw:04x} [ST={top}] FTW={fpu.ftw:02x} MXCSR={fpu.mxcsr:08x}"
    values = [fpu.st[n - top & 7] for n in range(8)]
    cells = [f"FPR{n}={value & (1 << 64) - 1:016x} {value >> 64:04x}" for n, value in enumerate(values)]
    yield from (" ".join(cells[at : at + 2]) for at in range(0, 8, 2))


def _vectors(state: CpuState, wide: bool) -> Iterator[str]:
    values = state.fpu.xmm[: 16 if wide else 8]
    cells = [f"XMM{n:02}={value >> 64:016x} {value & (1 << 64) - 1:016x}" for n, value in enumerate(values)]
    yield from (" ".join(cells[at : at + 2]) for at in range(0, len(cells), 2))


def memory_text(state: CpuState, pages: Iterable[Page]) -> str:
    """Ranges of pages that follow each other with the same rights."""
    if not state.cr0 & CR0_PG:
        return OFF
    lines: list[str] = []
    start = end = 0
    rights = ""
    for page in _bounded(pages, lines):
        here = f"{'u' if page.user else '-'}r{'w' if page.writable else '-'}"
        if rights and (page.linear != end or here != rights):
            lines.append(_range(start, end, rights))
            rights = ""
        if not rights:
            start, rights = page.linear, here
        end = page.linear + page.size
    if rights:
        lines.append(_range(start, end, rights))
    return "\n".join(lines)


def _range(start: int, end: int, rights: str) -> str:
    return f"{start:016x}-{end & (1 << 64) - 1:016x} {end - start:016x} {rights}"


def tlb_text(state: CpuState, pages: Iterable[Page]) -> str:
    """Each page with the flags of the entry that maps it, whatever the CPU's own translations are."""
    if not state.cr0 & CR0_PG:
        return OFF
    lines: list[str] = []
    for page in _bounded(pages, lines):
        # bit 7 of a 4 KiB page's entry is PAT
        flags = "".join(
            letter if page.entry >> bit & 1 and (letter != "P" or page.size > 0x1000) else "-" for letter, bit in _TLB
        )
        lines.append(f"{page.linear:016x}: {page.physical:016x} {flags}")
    return "\n".join(lines)


def _bounded(pages: Iterable[Page], lines: list[str]) -> Iterator[Page]:
    for count, page in enumerate(pages):
        if count == MAX_PAGES:
            lines.append(f"(the page tables map more than {MAX_PAGES} pages: the rest is left out)")
            return
        yield page
