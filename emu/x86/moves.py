"""Instructions that move a value as it is, of one round of a loop: which place it is in before each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from emu.record import dataclass, replace
from emu.x86.rounds import (
    IMMEDIATE,
    MEMORY,
    ORDER,
    REGISTER,
    WHOLE,
    Step,
    address,
    register_value,
    stack_at,
    verb,
)

#: The flags that branches look at, by their bits of FLAGS (SDM vol. 1, 3.4.3).
FLAG_BITS: Final = {"CF": 1 << 0, "PF": 1 << 2, "ZF": 1 << 6, "SF": 1 << 7, "OF": 1 << 11}
#: By the bytes of each word of the frame.
RETURNS: Final = {"iret": 2, "iretd": 4, "iretq": 8}
_POPS_FLAGS: Final = frozenset(("popf", "popfd", "popfq"))
_PUSHES_FLAGS: Final = {"pushf": 2, "pushfd": 4, "pushfq": 8}
#: What gives bits a value by a constant, and which.
_BIT_SETS: Final = {"or": 1, "bts": 1, "and": 0, "btr": 0}
#: What moves RSI and RDI on, and counts RCX down where it is repeated, beside what it loads, stores or compares.
STRING: Final = frozenset(f"{what}{size}" for what in ("lods", "stos", "movs", "cmps", "scas") for size in "bwdq")
#: In the order of PUSHA (SDM vol. 2B).
_PUSHED_ALL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A place whose value is looked for: `kind` is register (`name` the whole one), memory (linear) or flag (`name`,
    "" for any of them). `bits` are those of its value that matter, 0: all."""

    kind: str
    name: str = ""
    place: int = 0
    size: int = 0
    bits: int = 0

    def narrowed(self) -> Wanted:
        """The one byte of memory that has all the bits that matter, if one has."""
        if self.kind != "memory" or not self.bits:
            return self
        low = ((self.bits & -self.bits).bit_length() - 1) // 8
        if self.bits >> 8 * low > 0xFF:
            return self
        return replace(self, place=self.place + low, size=1, bits=self.bits >> 8 * low)


#: How a step gives what is wanted: by what else, as it is; or None, not at all.
Given = tuple[Wanted, ...] | None


class Moves:
    """Of one round: its steps in order and their instructions, as capstone has them."""

    def __init__(self, steps: Sequence[Step], instructions: Sequence[Any]) -> None:
        self.steps, self.instructions = steps, instructions

    # -- instructions that move a value as it is

    def moved(self, at: int, one: Wanted) -> Given:
        """None: step `at` does not give it, or not as it is. Nothing: it gives a constant."""
        code, state = self.instructions[at], self.steps[at].state
        what = verb(code)
        if one.kind == "flag":
            return self._flag_moved(at, what, one)
        if one.bits and what in _BIT_SETS and self._destination(at, one) and code.operands[1].type == IMMEDIATE:
            return self._bits_set(at, what, one)
        for to, size, of in self._moves(at, code, what, state):
            if (given := _through(to, size, of, one)) is not None:
                return given
        return None

    def _flag_moved(self, at: int, what: str, one: Wanted) -> Given:
        state, bits = self.steps[at].state, FLAG_BITS.get(one.name, 0)
        if what in RETURNS:
            size = RETURNS[what]
            return (Wanted("memory", place=stack_at(state, 2 * size), size=2, bits=bits).narrowed(),)
        if what in _POPS_FLAGS:
            return (Wanted("memory", place=stack_at(state, 0), size=2, bits=bits).narrowed(),)
        if what == "sahf" and one.name != "OF":
            return (Wanted("register", "rax", bits=(bits or 0xD5) << 8),)
        if what in ("clc", "stc") and one.name == "CF":
            return ()
        return None

    def _bits_set(self, at: int, what: str, one: Wanted) -> Given:
        """OR, AND, BTS or BTR of a constant, of what is wanted or of what has it: a constant, or as it was."""
        code = self.instructions[at]
        size = int(code.operands[0].size)
        value = int(code.operands[1].imm)
        value = 1 << value % (8 * size) if what in ("bts", "btr") else value & (1 << 8 * size) - 1
        if what == "btr":
            value = ~value & (1 << 8 * size) - 1
        shift = 0
        if one.kind == "memory":
            shift = 8 * (one.place - address(self.steps[at], code, code.operands[0]))
        elif code.reg_name(code.operands[0].reg) in ("ah", "bh", "ch", "dh"):
            shift = -8
        bits = one.bits << shift if shift >= 0 else one.bits >> -shift
        if not bits & (1 << 8 * size) - 1:
            return (one,)
        constant = bits & value == bits if _BIT_SETS[what] else not bits & value
        kept = not bits & value if _BIT_SETS[what] else bits & value == bits
        return () if constant else (one,) if kept else None

    def _moves(self, at: int, code: Any, what: str, state: Any) -> Iterator[tuple[Wanted, int, Wanted | None]]:
        """(destination, bytes, origin: None for a constant) of what is moved as it is."""
        operands = code.operands
        if what in ("mov", "movzx", "movabs") and len(operands) == 2:
            to = self.place(at, operands[0])
            if to is not None and operands[1].type != REGISTER:
                of = self.place(at, operands[1])
                if operands[1].type == IMMEDIATE or (of is not None and not self.devices(at)):
                    yield to, int(operands[1].size), of
            elif to is not None and (of := self.place(at, operands[1])) is not None:
                yield to, int(operands[1].size), of
            elif to is not None and code.reg_name(operands[1].reg) in ("es", "cs", "ss", "ds", "fs", "gs"):
                yield to, int(operands[0].size), None
        elif what == "push" and operands:
            size = int(operands[0].size)
            of = None if operands[0].type == IMMEDIATE else self.place(at, operands[0])
            yield Wanted("memory", place=stack_at(state, -size), size=size), size, of
        elif what == "pop" and operands:
            size, to = int(operands[0].size), self.place(at, operands[0])
            if to is not None:
                yield to, size, Wanted("memory", place=stack_at(state, 0), size=size)
        elif what in _PUSHES_FLAGS:
            size = _PUSHES_FLAGS[what]
            yield Wanted("memory", place=stack_at(state, -size), size=size), size, Wanted("flag")
        elif what in ("pushaw", "pushal", "popaw", "popal"):
            size = 2 if what.endswith("w") else 4
            for n, name in enumerate(_PUSHED_ALL):
                register = Wanted("register", name)
                if what.startswith("push"):
                    yield Wanted("memory", place=stack_at(state, -size * (n + 1)), size=size), size, register
                elif name != "rsp":
                    yield register, size, Wanted("memory", place=stack_at(state, size * (7 - n)), size=size)
        elif what == "xchg" and len(operands) == 2:
            one, other = self.place(at, operands[0]), self.place(at, operands[1])
            if one is not None and other is not None:
                size = int(operands[0].size)
                yield one, size, other
                yield other, size, one
        elif what == "leave":
            size = 8 if state.long64 else 4 if state.ss.big else 2
            frame = stack_at(state, 0, "rbp")
            yield Wanted("register", "rbp"), size, Wanted("memory", place=frame, size=size)
        elif what == "lahf":
            yield Wanted("register", "rax", bits=0xFF00), 1, Wanted("flag")
        elif what in STRING and what[:4] in ("movs", "stos"):
            yield from self._strings(at, code, what, state)
        elif what in ("int", "int3", "into", "int1"):
            yield from self._frame(at)
        elif what in ("call", "lcall"):
            yield Wanted("memory", place=stack_at(self.steps[(at + 1) % len(self.steps)].state, 0), size=2), 2, None

    def _strings(self, at: int, code: Any, what: str, state: Any) -> Iterator[tuple[Wanted, int, Wanted | None]]:
        """The elements that MOVS or STOS stores, each as an instruction of its own would."""
        size = int(code.operands[0].size)
        count = 1
        if code.mnemonic != what:
            count = register_value(state, {16: "cx", 32: "ecx", 64: "rcx"}[8 * int(code.addr_size)], 64)
        length = size * min(count, 1 << 20)
        down = state.rflags >> 10 & 1  # DF
        back = length - size if down else 0
        to = Wanted("memory", place=address(self.steps[at], code, code.operands[0]) - back, size=length)
        if what.startswith("movs"):
            if not self.devices(at):
                of = Wanted("memory", place=address(self.steps[at], code, code.operands[1]) - back, size=length)
                yield to, length, of
        elif count == 1:
            yield to, length, Wanted("register", "rax")

    def _frame(self, at: int) -> Iterator[tuple[Wanted, int, Wanted | None]]:
        """What INT n pushes: the flags, CS and IP, of 2, 4 or 8 bytes each, as the handler finds them."""
        state = self.steps[(at + 1) % len(self.steps)].state
        top = state.regs[ORDER.index("rsp")]
        popped = (top - self.steps[at].state.regs[ORDER.index("rsp")]) & 0xFFFF
        size = 8 if state.long64 else 2 if popped == 0x10000 - 6 else 4
        yield Wanted("memory", place=stack_at(state, 2 * size), size=size), size, Wanted("flag")
        yield Wanted("memory", place=stack_at(state, 0), size=2 * size), 2 * size, None

    # -- operands

    def place(self, at: int, operand: Any) -> Wanted | None:
        """A general register, with the bits that an operand of it has where those are not the lowest; or memory."""
        code = self.instructions[at]
        if operand.type == MEMORY:
            return Wanted("memory", place=address(self.steps[at], code, operand), size=int(operand.size))
        if operand.type != REGISTER or (whole := WHOLE.get(name := code.reg_name(operand.reg))) is None:
            return None
        return Wanted("register", whole, bits=0xFF00 if name in ("ah", "bh", "ch", "dh") else 0)

    def _destination(self, at: int, one: Wanted) -> bool:
        """The first operand of step `at` has what is wanted."""
        code = self.instructions[at]
        place = self.place(at, code.operands[0])
        if place is None or place.kind != one.kind:
            return False
        if one.kind == "register":
            return place.name == one.name
        return place.place <= one.place and one.place + one.size <= place.place + place.size

    def devices(self, at: int) -> bool:
        return any(m.space == "memory" and not m.write for m in self.steps[at].met)


def _through(to: Wanted, size: int, of: Wanted | None, one: Wanted) -> Given:
    """What to want in place of `one`, where `size` bytes are moved from `of` to `to`; None: it is not what is moved."""
    if to.kind != one.kind:
        return None
    bits = one.bits
    if to.kind == "register":
        if to.name != one.name:
            return None
        if to.bits:  # a high byte
            if bits and not bits & to.bits:
                return None
            bits = (bits & to.bits) >> 8
        elif bits and size < 4 and not bits & (1 << 8 * size) - 1:
            return None
        offset = 0
    else:
        offset = one.place - to.place
        if not (offset >= 0 and offset + one.size <= to.size):
            return None
    if of is None:
        return ()
    if of.kind == "flag":
        names = [name for name, bit in FLAG_BITS.items() if bits << 8 * offset & bit]
        return (Wanted("flag", names[0] if len(names) == 1 else ""),)
    if of.kind == "register":
        if bits:
            bits = bits << 8 * offset << (8 if of.bits else 0)
        return (Wanted("register", of.name, bits=bits),)
    if to.kind == "register":
        return (replace(of, bits=bits).narrowed(),)
    return (Wanted("memory", place=of.place + offset, size=one.size, bits=bits),)
