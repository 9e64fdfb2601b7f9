"""What the probe runs: states of every kind with their tables, and programs of a few instructions, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emu.memory import Part, PhysicalMemory
from emu.record import dataclass
from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA, EFER_LME, CpuState, Segment, Table
from xenbridge.kvm.backend import Kind

CODE, DATA, STACK, GDT, TSS, HANDLER = 0x1000, 0x5000, 0x7000, 0x800, 0x900, 0x3000
IDT: Final = 0x4000
RING0_STACK: Final = 0x6800
_STACK32: Final = RING0_STACK.to_bytes(4, "little") + (0x10).to_bytes(4, "little")
TABLES: Final = 0x100000  #: page tables
MOVED: Final = 0x200000  #: linear; the page that is mapped elsewhere while the probe looks
PORT: Final = 0xE9
RESULT: Final = 0x12345679
BASE: Final = 0x10000  #: of segments that have one
CR4_SSE: Final = 0x600  #: OSFXSR and OSXMMEXCPT
IOPL3: Final = 0x3002
MASK32: Final = (1 << 32) - 1

VECTOR: Final = 0x20  #: of the interrupts tried
#: The GDT: null, code and data of ring 0, 64-bit code, the same for ring 3.
DESCRIPTORS: Final = (
    0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF,
    0x00AFFB000000FFFF,
)  # fmt: skip
#: jmp $: what an interrupt comes to
LOOP: Final = b"\xeb\xfe"

_OUT: Final = bytes((0xE6, PORT))
#: mov eax, RESULT - 1; add eax, 1; mov [DATA], eax; mov ebx, [DATA]; out PORT, al
STORES: Final = {
    16: bytes.fromhex("66b878563412 6683c001 66a30050 668b1e0050") + _OUT,
    32: bytes.fromhex("b878563412 83c001 a300500000 8b1d00500000") + _OUT,
    64: bytes.fromhex("b878563412 83c001 89042500500000 8b1c2500500000") + _OUT,
}
#: nop; nop; out PORT, al
NOPS: Final = b"\x90\x90" + _OUT
#: mov al, [MOVED]; out PORT, al; jmp back
LOOKS: Final = {
    32: bytes.fromhex("a000002000") + _OUT + b"\xeb\xf7",
    64: bytes.fromhex("8a042500002000") + _OUT + b"\xeb\xf5",
}
#: out PORT, al; hlt: where interrupts lead
HANDLES: Final = _OUT + b"\xf4"


@dataclass(frozen=True, slots=True)
class Family:
    """Instructions that a KVM executes or refuses together: an example, in hex, for each width of code it exists in."""

    name: str
    code: dict[int, str]


def _all(name: str, code: str) -> Family:
    return Family(name, dict.fromkeys((16, 32, 64), code))


def _legacy(name: str, code: str) -> Family:
    return Family(name, dict.fromkeys((16, 32), code))


#: Opcodes of SDM vol. 2, their names in the order of the SDM's chapters.
FAMILIES: Final = (
    _all("x87", "d9e8"),
    _all("MMX", "0f6ec0"),
    _all("SSE", "0f28c1"),
    _all("SSE2", "660fefc0"),
    Family("FXSAVE", {16: "0fae060060", 32: "0fae0500600000", 64: "0fae042500600000"}),
    _all("POPCNT", "f30fb8c3"),
    _all("CMPXCHG", "0fb1d9"),
    _all("RDTSC", "0f31"),
    _all("CPUID", "0fa2"),
    _all("ENTER with a nesting level", "c8080001"),
    Family("VERR, LAR, LSL", {32: "0f02c3", 64: "0f02c3"}),
    Family("ARPL", {32: "63d8"}),
    _legacy("DAA, AAA", "27"),
    Family("BOUND", {16: "62060050", 32: "620500500000"}),
    _all("INT n", "cd20"),
    _all("INT3", "cc"),
)


LONG_KINDS: Final = frozenset((Kind.LONG, Kind.LONG_RING3, Kind.COMPATIBILITY, Kind.COMPATIBILITY_RING3))
RING3_KINDS: Final = frozenset(
    (Kind.RING3, Kind.PAGED32_RING3, Kind.PAE_RING3, Kind.LONG_RING3, Kind.COMPATIBILITY_RING3)
)


def memory() -> PhysicalMemory:
    """Of the probe's guest: 4 MiB."""
    ram = PhysicalMemory([Part(0, 4 << 20, "ram", "ram")])
    ram.write(GDT, b"".join(word.to_bytes(8, "little") for word in DESCRIPTORS))
    ram.write(HANDLER, HANDLES)
    for vector in (3, VECTOR):
        ram.write(4 * vector, HANDLER.to_bytes(4, "little"))
    return ram


def set_gates(ram: PhysicalMemory, kind: Kind) -> None:
    """The IDT of protected or 64-bit mode: vectors 3 and 20h lead to the handler, by gates of the code's width."""
    width = gates_of(kind)
    size = 16 if width == 64 else 8
    kinds = {16: 0x86, 32: 0x8E, 64: 0x8E}
    gate = HANDLER | (0x18 if width == 64 else 8) << 16 | kinds[width] << 40
    for vector in (3, VECTOR):
        ram.write(IDT + size * vector, gate.to_bytes(size, "little"))
    if kind is Kind.PROTECTED16:
        # The descriptor that the gate loads: the code segment as it stands in the cache.
        ram.write(GDT + 8, (0x00009B010000FFFF).to_bytes(8, "little"))
        ram.write(BASE + HANDLER, HANDLES)


def unset_gates(ram: PhysicalMemory) -> None:
    """The tables as `memory` made them."""
    ram.write(IDT, bytes(0x400))
    ram.write(GDT + 8, DESCRIPTORS[1].to_bytes(8, "little"))


def gates_of(kind: Kind) -> int:
    """The width of the gates in the IDT: in IA-32e mode all have 64 bits, and a monitor of V86 programs has 32."""
    return 64 if kind in LONG_KINDS else 32 if kind is Kind.V86 else width_of(kind)


def width_of(kind: Kind) -> int:
    """Of its code."""
    if kind in (Kind.REAL, Kind.BIG_REAL, Kind.PROTECTED16, Kind.V86):
        return 16
    return 64 if kind in (Kind.LONG, Kind.LONG_RING3) else 32


def _legacy_tables(ram: PhysicalMemory) -> None:
    """4 KiB pages, the first 4 MiB at their own addresses."""
    ram.write(TABLES, (TABLES + 0x1000 | 7).to_bytes(4, "little"))
    ram.write(TABLES + 0x1000, b"".join((i << 12 | 7).to_bytes(4, "little") for i in range(1024)))


def _wide_tables(ram: PhysicalMemory, levels: int) -> None:
    """The same with entries of 8 bytes, in 3 or 4 levels."""
    at = TABLES
    if levels == 4:
        ram.write(at, (at + 0x1000 | 7).to_bytes(8, "little"))
        at += 0x1000
    # A PDPTE of PAE has no R/W and U/S bits (SDM vol. 3A, table 4-8).
    ram.write(at, (at + 0x1000 | (7 if levels == 4 else 1)).to_bytes(8, "little"))
    at += 0x1000
    ram.write(at, b"".join((at + 0x1000 * (i + 1) | 7).to_bytes(8, "little") for i in range(2)))
    ram.write(at + 0x1000, b"".join((i << 12 | 7).to_bytes(8, "little") for i in range(1024)))


def entry_of(kind: Kind) -> tuple[int, int]:
    """Physical address and size of the page-table entry that maps MOVED."""
    page = MOVED >> 12
    if kind in (Kind.PAGED32, Kind.PAGED32_RING3):
        return TABLES + 0x1000 + 4 * page, 4
    leaf = TABLES + (0x2000 if kind in (Kind.PAE, Kind.PAE_RING3) else 0x3000)
    return leaf + 8 * page, 8


def _flat(state: CpuState, code: int, data: int, access: int, dpl: int) -> None:
    state.cs = Segment(code, 0, MASK32, access | 0x9B | dpl << 5)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(data, 0, MASK32, 0xC093 | dpl << 5))


def state_of(kind: Kind, ram: PhysicalMemory) -> CpuState:
    """The state before the program at CODE, and its tables in memory."""
    state = CpuState(rip=CODE, cr4=CR4_SSE)
    state.regs[4] = STACK
    state.gdtr, state.idtr = Table(GDT, 0x3F), Table(0, 0x3FF)
    _DETAILS[kind](state, ram)
    if state.cr0 & CR0_PE:
        state.idtr = Table(IDT, 0xFFF)
        state.tr = Segment(0x40, TSS, 0x67, 0x8B)
        # The stack of ring 0: RSP0, or ESP0 and SS0 (SDM vol. 3A, figures 8-2 and 8-11).
        ram.write(TSS + 4, RING0_STACK.to_bytes(8, "little") if kind in LONG_KINDS else _STACK32)
    return state


def _real(state: CpuState, ram: PhysicalMemory) -> None:
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    state.ss = Segment(BASE >> 4, BASE, 0xFFFF, 0x93)


def _big_real(state: CpuState, ram: PhysicalMemory) -> None:
    _real(state, ram)
    state.ds = Segment(0, 0, MASK32, 0x8093)


def _protected16(state: CpuState, ram: PhysicalMemory) -> None:
    state.cr0 |= CR0_PE
    state.cs = Segment(8, BASE, 0xFFFF, 0x9B)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(0x10, 2 * BASE, 0xFFFF, 0x93))


def _protected(state: CpuState, ram: PhysicalMemory) -> None:
    state.cr0 |= CR0_PE
    _flat(state, 8, 0x10, 0xC000, 0)


def _based(state: CpuState, ram: PhysicalMemory) -> None:
    _protected(state, ram)
    state.cs.base = BASE
    state.ss.base = state.ds.base = 2 * BASE


def _ring3(state: CpuState, ram: PhysicalMemory) -> None:
    state.cr0 |= CR0_PE
    state.rflags = IOPL3
    _flat(state, 0x23, 0x2B, 0xC000, 3)


def _v86(state: CpuState, ram: PhysicalMemory) -> None:
    state.cr0 |= CR0_PE
    state.rflags = IOPL3 | 1 << 17
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(0, 0, 0xFFFF, 0xF3))


def _paged(
    before: Callable[[CpuState, PhysicalMemory], None], cr4: int, tables: Callable[[PhysicalMemory], None]
) -> Callable[[CpuState, PhysicalMemory], None]:
    def set_up(state: CpuState, ram: PhysicalMemory) -> None:
        before(state, ram)
        state.cr0 |= CR0_PG
        state.cr4 |= cr4
        state.cr3 = TABLES
        tables(ram)

    return set_up


def _long(ring: int, *, compatibility: bool) -> Callable[[CpuState, PhysicalMemory], None]:
    def set_up(state: CpuState, ram: PhysicalMemory) -> None:
        state.cr0 |= CR0_PE | CR0_PG
        state.cr4 |= CR4_PAE
        state.cr3, state.efer = TABLES, EFER_LME | EFER_LMA
        _wide_tables(ram, 4)
        if ring:
            state.rflags = IOPL3
        code = {(0, False): 0x18, (0, True): 8, (3, False): 0x33, (3, True): 0x23}[ring, compatibility]
        _flat(state, code, 0x2B if ring else 0x10, 0xC000 if compatibility else 0xA000, ring)

    return set_up


_DETAILS: Final[dict[Kind, Callable[[CpuState, PhysicalMemory], None]]] = {
    Kind.REAL: _real,
    Kind.BIG_REAL: _big_real,
    Kind.PROTECTED16: _protected16,
    Kind.PROTECTED32: _protected,
    Kind.BASED32: _based,
    Kind.RING3: _ring3,
    Kind.V86: _v86,
    Kind.PAGED32: _paged(_protected, CR4_PSE, _legacy_tables),
    Kind.PAGED32_RING3: _paged(_ring3, CR4_PSE, _legacy_tables),
    Kind.PAE: _paged(_protected, CR4_PAE, lambda ram: _wide_tables(ram, 3)),
    Kind.PAE_RING3: _paged(_ring3, CR4_PAE, lambda ram: _wide_tables(ram, 3)),
    Kind.LONG: _long(0, compatibility=False),
    Kind.LONG_RING3: _long(3, compatibility=False),
    Kind.COMPATIBILITY: _long(0, compatibility=True),
    Kind.COMPATIBILITY_RING3: _long(3, compatibility=True),
}
