"""Who called: the frame above one in 16-bit code, and in 32-bit code without symbols. Knows no gdb.

Three rules, in this order; the first that finds a return address wins, and the last two are marked in backtraces:

1. the way: the function's own code, followed to its RET, RETF or IRET (walk.py), says where the return address stands,
   and an instruction that ends there must be the CALL, far CALL or INT that pushed it. Behind IRET the interrupt may
   have come from a device: then only the FLAGS word is checked;
2. the frame pointer: at [BP] stands a frame whose return address is behind a direct CALL of a function that begins with
   PUSH BP; MOV BP,SP or ENTER, at most `REACH` bytes before;
3. a guess: the nearest word within `SCANNED` words of the stack that is a return address behind a direct CALL of
   something at most `REACH` bytes before the instruction, or an INT's frame with a plausible FLAGS word. Addresses
   behind indirect calls are never guessed.

Where none applies, the stack ends: no memory there, a loop that never returns, a mode switch on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from .cpu import BP, SP, Cpu, Load, Read, Segment
from .decode import CS, SS, decode
from .walk import Kind, Walker, Way

T = TypeVar("T")
REACH = 0x1000
SCANNED = 48
#: Places that are known to depend on more registers, and searches behind one by which it became known.
UNSURE, LUCKLESS = 1024, 16
#: The longest call: segment, operand size and address size prefixes, FF, ModR/M, SIB, 4 bytes; shorter ones first.
_LENGTHS = range(1, 11)
#: What is guessed at each word of the stack.
_GUESSED = ((Kind.NEAR, 2), (Kind.NEAR, 4), (Kind.FAR, 2), (Kind.INTERRUPT, 2))
#: Words that a return pops; words behind the last one of the stack that is looked at, which belong to its frame.
_WORDS = {Kind.NEAR: 1, Kind.FAR: 2, Kind.INTERRUPT: 3}
_BEYOND = 2
#: Bytes of which one stands in what pushed a guessed return address: CALL and far CALL with an address; INT3, INT, INTO
#: and any far CALL.
_PUSHES = {
    Kind.NEAR: frozenset((0xE8,)),
    Kind.FAR: frozenset((0x9A,)),
    Kind.INTERRUPT: frozenset((0xCC, 0xCD, 0xCE, 0x9A, 0xFF)),
}
#: Bits of FLAGS that are constant (SDM vol. 1, 3.4.3): bit 1 is set, 3, 5 and 15 are clear, as are 22 to 31.
_FLAGS_MASK, _FLAGS_VALUE = 0xFFC0802A, 0x2


class Remembered(Protocol):
    """See `Frames`."""

    def __call__(self, key: object, make: Callable[[], T], /) -> T: ...


class How(Enum):
    """By which rule a caller was found; the value is what a backtrace says, "" where nothing needs to be said."""

    WAY = ""
    INTERRUPTED = "interrupted here"
    FRAME = "by the frame pointer"
    GUESS = "guessed"


@dataclass(frozen=True, slots=True)
class Call:
    """An instruction that pushes a return address: `target` is the linear address it leads to, None where the
    instruction does not say."""

    kind: Kind
    size: int
    target: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """The frame above: `cpu` as it is behind the return; `slot` the linear address of the return address. `through`:
    the general registers that are in it what they are in the frame below, `halves`: those of which the upper halves
    are; `flags`: these are, too."""

    cpu: Cpu
    slot: int
    how: How
    through: tuple[int, ...] = ()
    flags: bool = True
    halves: tuple[int, ...] = ()

    def with_registers(self, below: Cpu) -> Caller:
        """The same of a frame below that differs from the one it is of in registers that it has itself."""
        general = list(self.cpu.general)
        for number in self.through:
            general[number] = below.general[number]
        for number in self.halves:
            low, high = general[number], below.general[number]
            general[number] = None if low is None else low & 0xFFFF | (high or 0) & 0xFFFF0000
        flags = below.flags if self.flags else self.cpu.flags
        if general == self.cpu.general and flags == self.cpu.flags:
            return self
        cpu = self.cpu
        above = Cpu(general, cpu.segments, cpu.ip, flags, cpu.protected, cpu.cpl, cpu.cr0)
        return Caller(above, self.slot, self.how, self.through, self.flags, self.halves)


class _Frame(NamedTuple):
    """What a return of that kind pops at `offset` of the stack, which is at `linear`: IP, CS with its cache, FLAGS."""

    offset: int
    kind: Kind
    size: int
    linear: int
    ip: int
    segment: Segment
    flags: int | None

    @property
    def code(self) -> tuple[int, int] | None:
        """Where the instruction would stand that has pushed it: (linear, length)."""
        length = min(self.ip, _LENGTHS[-1])
        base = self.segment.base
        return None if base is None or not length else ((base + self.ip - length) & 0xFFFFFFFF, length)


def plausible_flags(flags: int | None) -> bool:
    """Whether a word can have been pushed by an interrupt."""
    return flags is not None and flags & _FLAGS_MASK == _FLAGS_VALUE


def call_before(read: Read, segment: Segment, ip: int, kind: Kind, size: int, protected: bool) -> Call | None:
    """The instruction of that kind that ends at offset `ip` and pushes words of `size` bytes, None if there is none.

    An IRET frame is pushed by INT, INT3 and INTO, and by PUSHF and a far CALL.
    """
    if segment.base is None:
        return None
    for length in _LENGTHS:
        if length > ip:
            return None
        code = read((segment.base + ip - length) & 0xFFFFFFFF, length)
        i = None if code is None else decode(code, segment.big)
        if i is None or i.length != length:
            continue
        mask = 0xFFFFFFFF if segment.big else 0xFFFF
        if kind is Kind.NEAR and i.operand == size:
            if i.opcode == 0xE8:
                return Call(kind, size, (segment.base + (ip + i.immediate & mask)) & 0xFFFFFFFF)
            if i.opcode == 0xFF and i.reg == 2:
                return Call(kind, size, None)
        far = i.opcode == 0x9A or (i.opcode == 0xFF and i.reg == 3 and i.is_memory)
        if kind is Kind.FAR and far and i.operand == size:
            direct = i.opcode == 0x9A and not protected
            offset = i.immediate & (1 << 8 * size) - 1
            return Call(kind, size, ((i.selector << 4) + offset) & 0xFFFFFFFF if direct else None)
        if kind is Kind.INTERRUPT:
            pushed = read((segment.base + ip - length - 1) & 0xFFFFFFFF, 1) if far else None
            if i.opcode in (0xCC, 0xCD, 0xCE) or pushed == b"\x9c":
                return Call(kind, size, None)
    return None


def _has_prologue(read: Read, linear: int, wide: bool) -> bool:
    """PUSH (E)BP; MOV (E)BP,(E)SP in both encodings, with or without an operand size prefix, or ENTER."""
    code = read(linear, 5) or b""
    first = decode(code, wide)
    if first is None:
        return False
    second = decode(code[first.length :], wide)
    if first.opcode == 0xC8:
        return True
    if first.opcode != 0x55 or second is None or second.mod != 3:
        return False
    return (second.opcode, second.reg, second.rm) in ((0x89, SP, BP), (0x8B, BP, SP))


class Frames:
    """Finds callers in one memory."""

    def __init__(
        self,
        read: Read,
        load: Load,
        prefetch: Callable[[Iterable[tuple[int, int]]], None] = lambda ranges: None,
        remembered: Remembered = lambda key, make: make(),
    ) -> None:
        """`load(selector)` gives what protected mode would cache, None where the tables do not say. `prefetch` is told
        of many (linear, length) before they are read one by one. `remembered(key, make)` is what `make` gives, or gave
        for the same key when memory was the same."""
        self._read = read
        self._load = load
        self._prefetch = prefetch
        self._remembered = remembered
        self._walker = Walker(read, load)
        self._luckless = 0  #: searches that are made by all registers at once
        self._unsure: set[int] = set()  #: linear program counters from which a way depends on more registers

    def caller(self, cpu: Cpu) -> Caller | None:
        """The frame above that of `cpu`, which is not changed; None where the stack ends."""
        if cpu.pc is None or cpu.stack is None:
            return None
        if cpu.pc in self._unsure or self._luckless:
            self._luckless = max(0, self._luckless - 1)
            return self.search(cpu)
        # Most ways depend on no register but (E)SP and (E)BP, so that what was found at one turn of a loop is good for
        # the next.
        general = list[int | None]([None] * 8)
        general[SP], general[BP] = cpu.general[SP], cpu.general[BP]
        key = cpu.ip, general[SP], general[BP], *cpu.segments, cpu.protected, cpu.cpl, cpu.cr0
        place = Cpu(general, cpu.segments, cpu.ip, None, cpu.protected, cpu.cpl, cpu.cr0)
        caller, unsure = self._remembered(key, lambda: (self.search(place), self._walker.unsure))
        if unsure:
            if len(self._unsure) >= UNSURE:
                self._unsure.clear()
            self._unsure.add(cpu.pc)
            self._luckless = LUCKLESS  # what comes next leads the same way
            return self.search(cpu)
        return None if caller is None else caller.with_registers(cpu)

    def search(self, cpu: Cpu) -> Caller | None:
        """The same of a frame of which `pc` and `stack` are known, by nothing that was found before."""
        way = self._walker.way_out(cpu, lambda way: self._how(way) is not None)
        if way is not None:
            how = self._how(way)
            assert how is not None
            return Caller(way.cpu, way.slot, how, way.through, way.kind is not Kind.INTERRUPT, way.halves)
        return self._by_frame_pointer(cpu) or self._guess(cpu)

    def _how(self, way: Way) -> How | None:
        cpu = way.cpu
        if call_before(self._read, cpu.segments[CS], cpu.ip, way.kind, way.size, cpu.protected):
            # An INT's frame, too, has FLAGS.
            return How.WAY if way.kind is not Kind.INTERRUPT or plausible_flags(cpu.flags) else None
        if way.kind is Kind.INTERRUPT and plausible_flags(cpu.flags) and cpu.pc is not None:
            code = self._read(cpu.pc, 15)
            return How.INTERRUPTED if code is not None and decode(code, cpu.segments[CS].big) else None
        return None

    def _frame_at(self, cpu: Cpu, offset: int, kind: Kind, size: int, data: bytes | None = None) -> _Frame | None:
        """What a return would pop at `offset` of the stack segment, None where it cannot be one. `data` is what stands
        there, if that was read already."""
        stack = cpu.segments[SS]
        if stack.base is None:
            return None
        linear = (stack.base + (offset & (0xFFFFFFFF if stack.big else 0xFFFF))) & 0xFFFFFFFF
        if data is None and (data := self._read(linear, size * _WORDS[kind])) is None:
            return None
        ip = int.from_bytes(data[:size], "little")
        segment, flags = cpu.segments[CS], None
        if kind is not Kind.NEAR:
            if kind is Kind.INTERRUPT and not plausible_flags(flags := int.from_bytes(data[2 * size :], "little")):
                return None
            selector = int.from_bytes(data[size : size + 2], "little")
            found = self._load(selector) if cpu.protected else segment.real(selector)
            if found is None:
                return None
            segment = found
        if ip > 0xFFFF and not segment.big:
            return None  # beyond any 16-bit segment
        return _Frame(offset, kind, size, linear, ip, segment, flags)

    def _return_at(self, cpu: Cpu, frame: _Frame | None) -> tuple[Cpu, Call, int] | None:
        """The CPU behind the return that pops `frame`, the CALL that pushed it, and where its address stands."""
        if frame is None:
            return None
        call = call_before(self._read, frame.segment, frame.ip, frame.kind, frame.size, cpu.protected)
        return None if call is None else (_behind(cpu, frame), call, frame.linear)

    def _leads_here(self, cpu: Cpu, call: Call) -> bool:
        return call.target is not None and cpu.pc is not None and 0 <= cpu.pc - call.target <= REACH

    def _by_frame_pointer(self, cpu: Cpu) -> Caller | None:
        pointer = cpu.general[BP]
        if pointer is None or cpu.segments[SS].base is None:
            return None
        for kind, size in ((Kind.NEAR, 2), (Kind.NEAR, 4), (Kind.FAR, 2), (Kind.FAR, 4)):
            found = self._return_at(cpu, self._frame_at(cpu, pointer + size, kind, size))
            if found is None:
                continue
            behind, call, slot = found
            if self._leads_here(cpu, call) and call.target is not None:
                if not _has_prologue(self._read, call.target, cpu.segments[CS].big):
                    continue
                saved = self._read(slot - size, size)
                behind.general[BP] = None if saved is None else int.from_bytes(saved, "little")
                return Caller(behind, slot, How.FRAME)
        return None

    def _guess(self, cpu: Cpu) -> Caller | None:
        offset, top = cpu.general[SP], cpu.stack
        if offset is None or top is None:
            return None
        # Neither the program counter nor the other registers: in a loop these are the same at each step.
        key = offset, cpu.segments[SS], cpu.segments[CS], cpu.protected
        for frame, call in self._remembered(key, lambda: self._pushed(cpu, offset, top)):
            if frame.kind is Kind.INTERRUPT or self._leads_here(cpu, call):
                return Caller(_behind(cpu, frame), frame.linear, How.GUESS, (), frame.kind is not Kind.INTERRUPT)
        return None

    def _pushed(self, cpu: Cpu, offset: int, top: int) -> list[tuple[_Frame, Call]]:
        """What may be a return address in the words that are looked at, and what pushed it; the nearest first, and none
        behind an interrupt's, which is believed wherever it came from."""
        # Most of these words are no return addresses, and lead anywhere in memory.
        length = 2 * (SCANNED + _BEYOND)
        self._prefetch([(top, length)])
        mask = 0xFFFFFFFF if cpu.segments[SS].big else 0xFFFF
        whole = self._read(top, length) if (offset & mask) + length <= mask else None
        frames = [
            frame
            for word in range(SCANNED)
            for kind, size in _GUESSED
            if (frame := self._frame_at(cpu, offset + 2 * word, kind, size, _cut(whole, 2 * word, size * _WORDS[kind])))
        ]
        code = [place for frame in frames if (place := frame.code) is not None]
        self._prefetch(code)
        pushed = []
        for frame in frames:
            place = frame.code
            before = None if place is None else self._read(*place)
            if before is not None and _PUSHES[frame.kind].isdisjoint(before):
                continue
            call = call_before(self._read, frame.segment, frame.ip, frame.kind, frame.size, cpu.protected)
            if call is not None:
                pushed.append((frame, call))
                if frame.kind is Kind.INTERRUPT:
                    break
        return pushed


def _behind(cpu: Cpu, frame: _Frame) -> Cpu:
    """The CPU behind the return that pops `frame`."""
    general: list[int | None] = [None] * 8
    mask = 0xFFFFFFFF if cpu.segments[SS].big else 0xFFFF
    general[SP] = (frame.offset + frame.size * _WORDS[frame.kind]) & mask
    segments = list(cpu.segments)
    segments[CS] = frame.segment
    flags = frame.flags if frame.kind is Kind.INTERRUPT else cpu.flags
    return Cpu(general, segments, frame.ip, flags, cpu.protected, cpu.cpl, cpu.cr0)


def _cut(data: bytes | None, at: int, length: int) -> bytes | None:
    return None if data is None else data[at : at + length]
