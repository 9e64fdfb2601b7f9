"""What the rare transfers of control share: a CPU state being changed, linear memory that faults, descriptors.

A transfer works on a copy of the state. It raises `CpuFault`; what it has changed until then is what the fault finds
(SDM vol. 3A, 6.5: nothing; in a task switch, 7.3: the new task). The modules `tasks`, `delivery`, `farcalls` and
`virtual8086` are the SDM's pseudo-code in these terms. None of it is for IA-32e mode.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.typed import Final
from emu.x86.descriptors import Descriptor, parse_descriptor
from emu.x86.paging import ReadPhysical, walk
from emu.x86.segcheck import alignment_checked
from emu.x86.state import CR0_WP, EFER_LMA, RFLAGS_VM, CpuState, Segment

VECTOR_DB, VECTOR_TS, VECTOR_NP, VECTOR_SS, VECTOR_GP, VECTOR_PF, VECTOR_AC = 1, 10, 11, 12, 13, 14, 17
RFLAGS_RF, RFLAGS_NT = 1 << 16, 1 << 14
MASK32: Final = (1 << 32) - 1
MASK64: Final = (1 << 64) - 1
PAGE: Final = 0x1000
PTE_A, PTE_D, PTE_P = 1 << 5, 1 << 6, 1 << 0
ACCESS_P, ACCESS_S, ACCESS_BIG = 1 << 7, 1 << 4, 1 << 14
UNUSABLE: Final = 1 << 16
SELECTOR_TI: Final = 4
TSS_BITS: Final = 0x9D  #: P, S and the type without the busy bit
ESP: Final = 4

#: Writes bytes at a physical address; what is no RAM takes none.
WritePhysical = Callable[[int, bytes], None]


class CpuFault(Exception):
    """An exception of the CPU: `vector`, its error `code`, and for #PF the address for CR2."""

    def __init__(self, vector: int, code: int = 0, cr2: int | None = None) -> None:
        super().__init__(f"vector {vector} code {code:#x}")
        self.vector, self.code, self.cr2 = vector, code, cr2


@dataclass(frozen=True, slots=True)
class Entry:
    """A descriptor in its table: `selector` and `address` (linear) of the entry, its eight bytes, and them parsed."""

    selector: int
    address: int
    raw: bytes
    descriptor: Descriptor

    @property
    def access(self) -> int:
        return self.descriptor.access

    @property
    def dpl(self) -> int:
        return self.access >> 5 & 3

    @property
    def present(self) -> bool:
        return bool(self.access & ACCESS_P)

    @property
    def system_type(self) -> int | None:
        """The type of a system descriptor, None for code and data (SDM vol. 3A, table 3-2)."""
        return None if self.access & ACCESS_S else self.access & 0xF

    @property
    def code(self) -> bool:
        return self.access & 0x18 == 0x18

    @property
    def conforming(self) -> bool:
        return self.access & 0x1C == 0x1C

    @property
    def writable(self) -> bool:
        return self.access & 0x1A == 0x12

    @property
    def readable(self) -> bool:
        """Data, or code that may be read."""
        return self.access & 0x18 == 0x10 or self.access & 0x1A == 0x1A

    def segment(self, rpl: int | None = None) -> Segment:
        """The descriptor as a segment register holds it; `rpl` replaces the selector's."""
        d = self.descriptor
        selector = self.selector if rpl is None else self.selector & ~3 | rpl
        return Segment(selector, d.base, d.limit, d.access)


def room(segment: Segment, offset: int, length: int) -> bool:
    """True when bytes [offset, offset + length) lie within a data segment's limit (SDM vol. 3A, 5.3)."""
    last = offset + length - 1
    if segment.access & 0xC == 4:  # expand-down
        return offset > segment.limit and last <= (MASK32 if segment.big else 0xFFFF)
    return last <= segment.limit


class Core:
    """`state` is changed in place. `external` is EXT of error codes: 1 while an event from outside the program is
    delivered (SDM vol. 3A, 6.13)."""

    def __init__(self, state: CpuState, read: ReadPhysical, write: WritePhysical, external: int = 0) -> None:
        self.state, self._read, self._write, self.external = state, read, write, external
        self.cpl = state.cpl
        self.vm = bool(state.rflags & RFLAGS_VM)
        #: #DB of the new task's T bit is to be raised behind the transfer
        self.debug_trap = False

    # -- linear memory

    def _physical(self, linear: int, write: bool, user: bool) -> int:
        """Translates; sets accessed and dirty bits. Raises #PF."""
        state = self.state
        found = walk(state, self._read, linear)
        present = not found.levels or (found.physical is not None)
        code = (2 if write else 0) | (4 if user else 0)
        if not present or found.physical is None:
            reserved = bool(found.levels and found.levels[-1].entry & PTE_P and "reserved" in found.fault)
            raise CpuFault(VECTOR_PF, code | (9 if reserved else 0), linear)
        supervisor_writes = not user and not state.cr0 & CR0_WP
        if (user and not found.user) or (write and not (found.writable or supervisor_writes)):
            raise CpuFault(VECTOR_PF, code | 1, linear)
        for level in found.levels:
            last = level is found.levels[-1]
            entry = level.entry | (PTE_A if level.level != "PDPTE" else 0) | (PTE_D if last and write else 0)
            if entry != level.entry:
                self._write(level.address, entry.to_bytes(8, "little")[:4])
        return found.physical

    def _pieces(self, linear: int, length: int, write: bool, user: bool) -> list[tuple[int, int]]:
        pieces = []
        while length:
            linear &= MASK64 if self.state.efer & EFER_LMA else MASK32
            part = min(length, PAGE - linear % PAGE)
            pieces.append((self._physical(linear, write, user), part))
            linear, length = linear + part, length - part
        return pieces

    def probe(self, linear: int, length: int, *, write: bool = False, user: bool = False) -> None:
        """Raise the #PF that an access of the supervisor, or of a `user`, would, before anything is changed."""
        self._pieces(linear, length, write, user)

    def _aligned(self, linear: int, length: int) -> None:
        """Raise #AC where an access of ring 3 is not aligned and the CPU checks that (SDM vol. 3A, 6.15)."""
        if self.cpl == 3 and alignment_checked(self.state.cr0, self.state.rflags) and linear & (length - 1):
            raise CpuFault(VECTOR_AC, self.external)

    def read(self, linear: int, length: int, *, user: bool = False) -> int:
        """A little-endian value; all ones where there is no memory."""
        if user:
            self._aligned(linear, length)
        data = b""
        for physical, part in self._pieces(linear, length, False, user):
            data += self._read(physical, part) or b"\xff" * part
        return int.from_bytes(data, "little")

    def write(self, linear: int, length: int, value: int, *, user: bool = False) -> None:
        """Store a little-endian value of `length` bytes, whole or not at all."""
        data = (value & (1 << 8 * length) - 1).to_bytes(length, "little")
        for physical, part in self._pieces(linear, length, True, user):
            self._write(physical, data[:part])
            data = data[part:]

    # -- descriptors

    def entry(self, selector: int) -> Entry | None:
        """The descriptor that `selector` names, None beyond its table's limit. Not for null selectors."""
        state = self.state
        if selector & SELECTOR_TI:
            if not state.ldtr.present:
                return None
            base, limit = state.ldtr.base, state.ldtr.limit
        else:
            base, limit = state.gdtr.base, state.gdtr.limit
        if (selector | 7) > limit:
            return None
        address = base + (selector & 0xFFF8) & MASK32
        raw = self.read(address, 8).to_bytes(8, "little")
        return Entry(selector, address, raw, parse_descriptor(raw))

    def load(self, entry: Entry, rpl: int | None = None) -> Segment:
        """The segment register's new contents; the descriptor's accessed bit is set (SDM vol. 3A, 3.4.5.1)."""
        segment = entry.segment(rpl)
        if entry.access & ACCESS_S and not entry.access & 1:
            self.write(entry.address + 5, 1, entry.raw[5] | 1)
            segment.access |= 1
        return segment

    # -- the stack

    def push_all(self, stack: Segment, esp: int, values: list[int], size: int, *, user: bool) -> int:
        """Push `values` of `size` bytes, the first first; returns the new ESP. Room has been checked. Nothing is
        stored where any of it faults."""
        mask = MASK32 if stack.big else 0xFFFF
        places = []
        at = esp
        for _ in values:
            at = esp & ~mask | (at - size) & mask
            places.append(stack.base + (at & mask) & MASK32)
        for place in places:
            if user:
                self._aligned(place, size)
            self._pieces(place, size, True, user)
        for place, value in zip(places, values, strict=True):
            self.write(place, size, value, user=user)
        return at

    def has_room(self, stack: Segment, esp: int, length: int) -> bool:
        """True when `length` bytes below `esp` may be pushed."""
        mask = MASK32 if stack.big else 0xFFFF
        return room(stack, (esp - length) & mask, length)

    def inner_stack(self, level: int) -> tuple[Segment, int]:
        """SS and ESP of ring `level` from the TSS, checked as on a transfer inwards (SDM vol. 2A, CALL and INT n,
        MORE-PRIVILEGE). Raises #TS, and #SS for a stack that is not present."""
        tr, ext = self.state.tr, self.external
        if tr.access & TSS_BITS not in (0x89, 0x81):  # no task: SDM vol. 3A, 6.15, interrupt 10
            raise CpuFault(VECTOR_TS, tr.selector & 0xFFFC | ext)
        wide = bool(tr.access & 8)
        size = 4 if wide else 2
        at = 2 * size * level + size
        if at + size + 1 > tr.limit:
            raise CpuFault(VECTOR_TS, tr.selector & 0xFFFC | ext)
        esp = self.read(tr.base + at, size)
        selector = self.read(tr.base + at + size, 2)
        if not selector & 0xFFFC:
            raise CpuFault(VECTOR_TS, ext)
        code = selector & 0xFFFC | ext
        entry = self.entry(selector)
        if entry is None or selector & 3 != level or entry.dpl != level or not entry.writable:
            raise CpuFault(VECTOR_TS, code)
        if not entry.present:
            raise CpuFault(VECTOR_SS, code)
        return self.load(entry), esp


def null_segment(selector: int = 0, dpl: int = 0) -> Segment:
    """A segment register without a descriptor."""
    return Segment(selector, 0, 0, UNUSABLE | dpl << 5)


def v86_segment(selector: int) -> Segment:
    """A segment register of virtual-8086 mode (SDM vol. 3A, 20.1)."""
    return Segment(selector, selector << 4, 0xFFFF, 0xF3)
