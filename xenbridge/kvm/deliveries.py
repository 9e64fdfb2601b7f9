"""How the probe has interrupts delivered: gates and stacks of each kind, and what a CPU does with them by the SDM."""

from __future__ import annotations

from typing import Final

from emu.memory import PhysicalMemory
from emu.record import dataclass
from emu.x86.state import CR0_PE, RFLAGS_IF, CpuState
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Kind, Way
from xenbridge.kvm.probe_programs import (
    BASE,
    CODE,
    DESCRIPTORS,
    GDT,
    IDT,
    LONG_KINDS,
    RING0_STACK,
    RING3_KINDS,
    TSS,
    VECTOR,
)

RSP: Final = 4
HIGH: Final = 0x10000  #: a stack pointer that has more than 16 bits
GATE32_BIT: Final = 8 << 40
TRAP_BIT: Final = 1 << 40
CONFORMING_BIT: Final = 4 << 40
BIG_BIT: Final = 0x40 << 48
CODE0, DATA0 = 8, 0x10

_LEGACY: Final = frozenset(Kind) - LONG_KINDS - {Kind.REAL, Kind.BIG_REAL}


def ways_of(kind: Kind) -> tuple[Way, ...]:
    """All that can be tried of a kind, the plain one first."""
    ways = [Way.PLAIN]
    if kind in (Kind.REAL, Kind.BIG_REAL):
        return (*ways, Way.HIGH_ESP)
    ways.append(Way.TRAP)
    if kind in LONG_KINDS:
        return tuple(ways)
    if programs.gates_of(kind) == 32:
        ways += [Way.GATE16, Way.SMALL]
    if _inwards(kind):
        ways.append(Way.BASED)
    if kind in RING3_KINDS:  # from virtual-8086 mode a conforming handler is a fault
        ways.append(Way.CONFORMING)
    return tuple(ways)


def _inwards(kind: Kind) -> bool:
    """The handler has a stack of its own, that of SS0."""
    return kind in _LEGACY and (kind in RING3_KINDS or kind is Kind.V86)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The state before an interrupt, and what is to be behind it (SDM vol. 3A, 6.12.1, 6.14.2 and 21.3; figures 6-4
    and 21-5)."""

    state: CpuState
    frame: bytes  #: as it lies in memory, from `at` on
    at: int  #: linear
    esp: int  #: the stack pointer, as many bits of it as `esp_mask` has
    esp_mask: int
    selectors: tuple[int, int]  #: of CS and SS
    interrupts: bool  #: IF is still set


def prepare(kind: Kind, way: Way, ram: PhysicalMemory) -> Delivery:
    """The state of `kind` at CODE, and in `ram` tables by which an interrupt there goes that way. `restore` takes
    these tables back."""
    state = programs.state_of(kind, ram)
    state.rflags |= RFLAGS_IF
    if state.cr0 & CR0_PE:
        programs.set_gates(ram, kind)
    part = programs.gates_of(kind) // 8
    if way is Way.GATE16:
        part = 2
    _lay(ram, kind, way)
    if way is Way.HIGH_ESP or (way is Way.SMALL and not _inwards(kind)):
        state.regs[RSP] |= HIGH
        if way is Way.SMALL:
            state.ss.access &= ~0x4000
    wanted = _expected(state, kind, way, part)
    ram.write(wanted.at, bytes(len(wanted.frame)))  # what was there from a try before would be taken for it
    return wanted


def restore(ram: PhysicalMemory) -> None:
    """The tables as `probe_programs.memory` made them."""
    programs.unset_gates(ram)
    ram.write(GDT, b"".join(word.to_bytes(8, "little") for word in DESCRIPTORS))


def _lay(ram: PhysicalMemory, kind: Kind, way: Way) -> None:
    size = 16 if kind in LONG_KINDS else 8
    flips = {Way.GATE16: GATE32_BIT, Way.TRAP: TRAP_BIT}
    if way in flips:
        _flip(ram, IDT + size * VECTOR, flips[way])
    elif way is Way.CONFORMING:
        _flip(ram, GDT + CODE0, CONFORMING_BIT)
    elif way is Way.BASED:
        _flip(ram, GDT + DATA0, BASE << 16)
    elif way is Way.SMALL and _inwards(kind):
        _flip(ram, GDT + DATA0, BIG_BIT)
        ram.write(TSS + 4, (RING0_STACK | HIGH).to_bytes(4, "little"))


def _flip(ram: PhysicalMemory, at: int, bits: int) -> None:
    ram.write(at, (int.from_bytes(ram.read(at, 8), "little") ^ bits).to_bytes(8, "little"))


def _expected(state: CpuState, kind: Kind, way: Way, part: int) -> Delivery:
    long = kind in LONG_KINDS
    inwards = (kind in RING3_KINDS or kind is Kind.V86) and way is not Way.CONFORMING
    saved = [CODE, state.cs.selector, state.rflags]
    if inwards or long:
        saved += [state.regs[RSP], state.ss.selector]
    if kind is Kind.V86:
        saved += [state.es.selector, state.ds.selector, state.fs.selector, state.gs.selector]
    frame = b"".join((value & (1 << 8 * part) - 1).to_bytes(part, "little") for value in saved)
    top, base, big = state.regs[RSP], state.ss.base, state.ss.big
    code, stack = state.cs.selector, state.ss.selector
    if inwards:
        top, base, big = RING0_STACK, BASE if way is Way.BASED else 0, way is not Way.SMALL
        code, stack = CODE0, 0 if long else DATA0
    elif kind in _LEGACY:
        code = CODE0 | (3 if kind in RING3_KINDS else 0)
    if long:
        base, code = 0, 0x18
    esp = top - len(frame)
    # Of a stack pointer that a TSS gave, the SDM does not tell what its upper half is when it is one of 16 bits.
    whole = big or not inwards
    return Delivery(
        state, frame, base + (esp if big or long else esp & 0xFFFF), esp, 0xFFFFFFFF if whole else 0xFFFF,
        (code, stack), way is Way.TRAP,
    )  # fmt: skip


def as_wanted(wanted: Delivery, seen: CpuState, ram: PhysicalMemory) -> bool:
    """The handler was reached, and has come to its OUT, as it was wanted. Raises MemoryUnavailable where no memory is
    on its stack."""
    return (
        (seen.regs[RSP] ^ wanted.esp) & wanted.esp_mask == 0
        and (seen.cs.selector, seen.ss.selector) == wanted.selectors
        and bool(seen.rflags & RFLAGS_IF) is wanted.interrupts
        and ram.read(wanted.at, len(wanted.frame)) == wanted.frame
    )


def code_at(state: CpuState) -> int:
    """The linear address of CODE."""
    return CODE if state.long64 else state.cs.base + CODE
