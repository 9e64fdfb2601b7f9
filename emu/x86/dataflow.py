"""Where a value comes from within one round of a loop: its instructions followed backwards, through registers, memory
(the stack too), flags, and the flags of an IRET's frame. The addresses are those that the instructions had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from emu.record import dataclass, field, replace
from emu.x86.rounds import (
    IMMEDIATE,
    MEMORY,
    ORDER,
    REGISTER,
    WHOLE,
    Source,
    Step,
    address,
    is_same,
    register_value,
    stack_at,
    verb,
)

#: The flags that branches look at, by their bits of FLAGS (SDM vol. 1, 3.4.3).
FLAG_BITS: Final = {"CF": 1 << 0, "PF": 1 << 2, "ZF": 1 << 6, "SF": 1 << 7, "OF": 1 << 11}
#: Instructions behind which the flags say something of their operands.
SETS_FLAGS: Final = frozenset(
    ("cmp", "test", "and", "or", "xor", "sub", "add", "sbb", "adc", "inc", "dec", "bt", "shl", "shr", "sar", "rol",
     "ror", "rcl", "rcr", "neg", "scasb", "scasw", "scasd", "scasq", "cmpsb", "cmpsw", "cmpsd", "cmpsq", "bsf", "bsr",
     "bts", "btr", "btc", "xadd", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "shld", "shrd", "popcnt", "lzcnt", "tzcnt",
     "verr", "verw", "lar", "lsl", "ptest", "comiss", "comisd", "ucomiss", "ucomisd", "fcomi", "fcompi", "fucomi",
     "fucompi")
)  # fmt: skip
RETURNS: Final = frozenset(("iret", "iretd", "iretq"))
_POPS_FLAGS: Final = frozenset(("popf", "popfd", "popfq"))
_PUSHES_FLAGS: Final = {"pushf": 2, "pushfd": 4, "pushfq": 8}
#: What leaves a register or memory as it is, but for what `_MOVES` has.
_CONTROL: Final = frozenset(("cr0", "cr2", "cr3", "cr4", "cr8"))
_BIT_SETS: Final = {"or": 1, "bts": 1, "and": 0, "btr": 0}
_LOGICAL: Final = frozenset(("and", "or", "xor", "test"))
#: What takes the carry of the instruction before it in.
_CARRIES: Final = frozenset(("adc", "sbb", "rcl", "rcr"))
_ACCUMULATES: Final = frozenset(("mul", "imul", "div", "idiv", "cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "xlatb"))
#: What moves RSI and RDI on, and counts RCX down where it is repeated, beside what it loads, stores or compares.
_STRING: Final = frozenset(f"{what}{size}" for what in ("lods", "stos", "movs", "cmps", "scas") for size in "bwdq")
_INDEXES: Final = frozenset(("rsi", "rdi", "rcx"))
_FRAMES: Final = frozenset(("call", "lcall", "ret", "retf", "retfq", "int", "int3", "into", "int1", "enter"))
IA32_TIME_STAMP_COUNTER: Final = 0x10  #: SDM vol. 4, table 2-2
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


@dataclass(slots=True)
class Origin:
    """What was found: sources, the bits that an AND with a constant has left (0: all), and the steps that gave a
    constant instead, the one met first at the beginning."""

    sources: list[Source] = field(default_factory=list)
    mask: int = 0
    constants: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Setter:
    """What gives a flag: step `at` by its `operands`; by a `constant`; by a `value` of which it is a bit, where that is
    `wanted` behind the step; or `nothing` in the round, so that it is `wanted` when that begins. `returned` says that
    it came by an IRET."""

    kind: str
    at: int
    wanted: Wanted
    returned: bool


#: How a step gives what is wanted: by what else, as it is; or None, not at all.
_Given = tuple[Wanted, ...] | None


class Flow:
    """Of one round: its steps in order and their instructions, as capstone has them."""

    def __init__(self, steps: Sequence[Step], instructions: Sequence[Any]) -> None:
        self.steps, self.instructions = steps, instructions
        self._written: dict[int, frozenset[str]] = {}

    def before(self, at: int) -> list[int]:
        """The steps before `at`, the nearest first, once around."""
        count = len(self.steps)
        return [(at - n) % count for n in range(1, count + 1)]

    # -- a flag, as it is

    def setter(self, at: int, flag: str) -> Setter:
        """What gives the flag (see Wanted) that step `at` looks at, as far as nothing changes it on the way from
        there."""
        wanted, returned = Wanted("flag", flag), False
        for n in self.before(at):
            code = self.instructions[n]
            if code is None:
                continue
            if wanted.kind == "flag":
                if self.sets_flag(n, wanted.name):
                    return Setter("constant" if self.is_constant(n, wanted.name) else "operands", n, wanted, returned)
                returned = returned or verb(code) in RETURNS
            given = self._moved(n, wanted)
            if given is None:
                if self._writes(n, wanted):
                    return Setter("value", n, wanted, returned)
            elif not given:
                return Setter("constant", n, wanted, returned)
            else:
                (wanted,) = given
        return Setter("nothing", at, wanted, returned)

    def sets_flag(self, at: int, flag: str) -> bool:
        """Step `at` sets it by what it does with its operands."""
        what = verb(self.instructions[at])
        return what in SETS_FLAGS and not (flag == "CF" and what in ("inc", "dec"))

    def is_constant(self, at: int, flag: str) -> bool:
        """Whatever the operands are, step `at` sets the flag to the same."""
        code = self.instructions[at]
        if verb(code) in ("xor", "sub") and len(code.operands) == 2 and is_same(*code.operands):
            return True
        return flag in ("CF", "OF") and verb(code) in _LOGICAL

    # -- what anything comes from

    def operands(self, at: int) -> Origin:
        """Of the operands of step `at`, those that it writes too."""
        found = Origin()
        wanted = self._reads(at, found, own=True)
        return self._follow(at, wanted, found)

    def value(self, setter: Setter) -> Origin:
        """Of what a step gives that changes it on the way, or of what nothing in the round gives."""
        found = Origin()
        if setter.kind != "value":
            return self._follow(setter.at, [setter.wanted] if setter.wanted.kind != "flag" else [], found)
        return self._follow(setter.at, self._given(setter.at, setter.wanted, found) or [], found)

    def _follow(self, start: int, first: Iterable[Wanted], found: Origin) -> Origin:
        wanted = dict.fromkeys(first)  # a set that keeps its order
        if not wanted and not found.sources:
            found.constants.append(start)
        for at in self.before(start):
            if not wanted or at == start:
                break
            if self.instructions[at] is None:
                continue
            for one in list(wanted):
                before = len(found.sources)
                if (given := self._given(at, one, found)) is None:
                    continue
                del wanted[one]
                wanted.update(dict.fromkeys(given))
                if not given and len(found.sources) == before:
                    found.constants.append(at)
        found.sources += [Source("memory", w.place, w.size, -1) for w in wanted if w.kind == "memory"]
        if not found.sources:
            state = self.steps[start].state
            found.sources += [
                Source("register", 0, 8, register_value(state, w.name, 64), w.name)
                for w in sorted(wanted, key=lambda w: w.name)
                if w.kind == "register"
            ]
        found.sources = list(dict.fromkeys(found.sources))
        return found

    def _given(self, at: int, one: Wanted, found: Origin) -> list[Wanted] | None:
        """What to look for in place of `one` before step `at`; None: it does not give it."""
        code = self.instructions[at]
        if one.kind == "flag" and self.sets_flag(at, one.name):
            return [] if self.is_constant(at, one.name) else self._reads(at, found, own=True)
        given = self._moved(at, one)
        if given is not None:
            return list(given)
        if not self._writes(at, one):
            return None
        if code.mnemonic == "and" and code.operands[-1].type == IMMEDIATE:
            found.mask = int(code.operands[-1].imm) & (1 << 8 * (code.operands[0].size or 1)) - 1
            return [one]  # it is what it was, but for the mask
        more = self._reads(at, found, own=False)
        if one.kind == "memory" and not self._covers(at, one):
            more.append(one)
        return more

    # -- instructions that move a value as it is

    def _moved(self, at: int, one: Wanted) -> _Given:
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

    def _flag_moved(self, at: int, what: str, one: Wanted) -> _Given:
        state, bits = self.steps[at].state, FLAG_BITS.get(one.name, 0)
        if what in RETURNS:
            size = {"iret": 2, "iretd": 4, "iretq": 8}[what]
            size = 2 if what == "iret" or self._is_narrow(at) else size
            return (Wanted("memory", place=stack_at(state, 2 * size), size=2, bits=bits).narrowed(),)
        if what in _POPS_FLAGS:
            return (Wanted("memory", place=stack_at(state, 0), size=2, bits=bits).narrowed(),)
        if what == "sahf" and one.name != "OF":
            return (Wanted("register", "rax", bits=(bits or 0xD5) << 8),)
        if what in ("clc", "stc") and one.name == "CF":
            return ()
        return None

    def _is_narrow(self, at: int) -> bool:
        """Capstone calls the IRET of 16-bit code by its prefix alone in some versions: the size of its operands."""
        step = self.steps[at]
        wide = 0x66 in step.code[: self.instructions[at].size - 1]
        return step.bits == 16 and not wide

    def _bits_set(self, at: int, what: str, one: Wanted) -> _Given:
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
            to = self._place(at, operands[0])
            if to is not None and operands[1].type != REGISTER:
                of = self._place(at, operands[1])
                if operands[1].type == IMMEDIATE or (of is not None and not self._devices(at)):
                    yield to, int(operands[1].size), of
            elif to is not None and (of := self._place(at, operands[1])) is not None:
                yield to, int(operands[1].size), of
            elif to is not None and code.reg_name(operands[1].reg) in ("es", "cs", "ss", "ds", "fs", "gs"):
                yield to, int(operands[0].size), None
        elif what == "push" and operands:
            size = int(operands[0].size)
            of = None if operands[0].type == IMMEDIATE else self._place(at, operands[0])
            yield Wanted("memory", place=stack_at(state, -size), size=size), size, of
        elif what == "pop" and operands:
            size, to = int(operands[0].size), self._place(at, operands[0])
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
            one, other = self._place(at, operands[0]), self._place(at, operands[1])
            if one is not None and other is not None:
                size = int(operands[0].size)
                yield one, size, other
                yield other, size, one
        elif what == "leave":
            size = 8 if state.long64 else 4 if state.ss.big else 2
            base = state.ss.base + state.regs[ORDER.index("rbp")]
            yield Wanted("register", "rbp"), size, Wanted("memory", place=base, size=size)
        elif what == "lahf":
            yield Wanted("register", "rax", bits=0xFF00), 1, Wanted("flag")
        elif what in _STRING and what[:4] in ("movs", "stos"):
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
            if not self._devices(at):
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

    def _place(self, at: int, operand: Any) -> Wanted | None:
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
        place = self._place(at, code.operands[0])
        if place is None or place.kind != one.kind:
            return False
        if one.kind == "register":
            return place.name == one.name
        return place.place <= one.place and one.place + one.size <= place.place + place.size

    def _devices(self, at: int) -> bool:
        return any(m.space == "memory" and not m.write for m in self.steps[at].met)

    def _writes(self, at: int, one: Wanted) -> bool:
        """Step `at` writes what is wanted, or some of it."""
        code = self.instructions[at]
        if one.kind == "flag" or verb(code) in _FRAMES:
            return False
        if one.kind == "memory":
            return any(o.type == MEMORY and o.access & 2 and _overlap(self._place(at, o), one) for o in code.operands)
        if at not in self._written:
            names = {WHOLE.get(code.reg_name(r), "") for r in code.regs_access()[1]}
            self._written[at] = frozenset(names - _INDEXES if verb(code) in _STRING else names)
        if one.name not in self._written[at] or (verb(code) == "pop" and one.name == "rsp"):
            return False
        to = self._place(at, code.operands[0]) if code.operands else None
        if one.bits and to is not None and to.kind == "register" and to.name == one.name:
            size = int(code.operands[0].size)
            return bool((to.bits or (1 << 8 * (8 if size == 4 else size)) - 1) & one.bits)
        return not (one.name == "rsp" and verb(code) in ("push", "pushf", "pushaw", "pushal"))

    def _covers(self, at: int, one: Wanted) -> bool:
        code = self.instructions[at]
        places = [self._place(at, o) for o in code.operands if o.type == MEMORY and o.access & 2]
        return any(p and p.place <= one.place and one.place + one.size <= p.place + p.size for p in places)

    def _reads(self, at: int, found: Origin, *, own: bool) -> list[Wanted]:
        """Add the ports and devices that a step reads; what it reads else, where that does not hide it."""
        step, code = self.steps[at], self.instructions[at]
        what = verb(code)
        ports = [m for m in step.met if m.space == "port" and not m.write]
        if ports:
            found.sources += [Source("port", m.place, m.size, m.value, m.device) for m in ports]
            return []
        if (special := _special(step, code)) is not None:
            found.sources.append(special)
            return []
        if what in ("xor", "sub") and len(code.operands) == 2 and is_same(*code.operands):
            return []
        wanted: list[Wanted] = []
        for n, operand in enumerate(code.operands):
            if operand.type == MEMORY and operand.access & 1 and what != "lea":
                if devices := [m for m in step.met if m.space == "memory" and not m.write]:
                    found.sources += [Source("device", m.place, m.size, m.value, m.device) for m in devices]
                elif (place := self._place(at, operand)) is not None:
                    wanted.append(place)
            elif operand.type == REGISTER and (operand.access & 1 or (own and n == 0)):
                name = code.reg_name(operand.reg)
                if name in WHOLE:
                    wanted.append(Wanted("register", WHOLE[name]))
                if name in _CONTROL:
                    found.sources.append(Source("register", 0, 8, getattr(step.state, name), name))
        if what == "lea":
            wanted += self._address_of(code)
        if what in _ACCUMULATES and len(code.operands) < 2:
            wanted += [Wanted("register", name) for name in ("rax", "rdx")[: 1 + what.endswith("div")]]
        if what in _CARRIES:
            wanted.append(Wanted("flag", "CF"))
        elif what.startswith(("set", "cmov")):
            wanted.append(Wanted("flag"))
        return wanted

    def _address_of(self, code: Any) -> list[Wanted]:
        names = [code.reg_name(r) for o in code.operands if o.type == MEMORY for r in (o.mem.base, o.mem.index) if r]
        return [Wanted("register", WHOLE[name]) for name in names if name in WHOLE]


def _special(step: Step, code: Any) -> Source | None:
    """What an instruction reads that is no operand."""
    number = register_value(step.state, "ecx", 32)
    if code.mnemonic in ("rdtsc", "rdtscp") or (code.mnemonic == "rdmsr" and number == IA32_TIME_STAMP_COUNTER):
        return Source("stamp", 0, 8, -1, "tsc")
    if code.mnemonic == "rdmsr":
        return Source("msr", number, 8, -1)
    if code.mnemonic in ("fnstsw", "fstsw"):
        return Source("status", 0, 2, step.state.fpu.fsw, "the x87 status word")
    return None


def _overlap(place: Wanted | None, one: Wanted) -> bool:
    return place is not None and place.place < one.place + one.size and one.place < place.place + place.size


def _through(to: Wanted, size: int, of: Wanted | None, one: Wanted) -> _Given:
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
