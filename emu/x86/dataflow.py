"""Where a value comes from within one round of a loop: its instructions followed backwards, through registers, memory
(the stack too), flags, and the flags of an IRET's frame. The addresses are those that the instructions had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from emu.record import dataclass, field
from emu.x86.moves import RETURNS, STRING, Moves, Wanted
from emu.x86.rounds import (
    IMMEDIATE,
    MEMORY,
    REGISTER,
    WHOLE,
    Source,
    Step,
    is_same,
    register_value,
    verb,
)

#: Instructions behind which the flags say something of their operands.
SETS_FLAGS: Final = frozenset(
    ("cmp", "test", "and", "or", "xor", "sub", "add", "sbb", "adc", "inc", "dec", "bt", "shl", "shr", "sar", "rol",
     "ror", "rcl", "rcr", "neg", "scasb", "scasw", "scasd", "scasq", "cmpsb", "cmpsw", "cmpsd", "cmpsq", "bsf", "bsr",
     "bts", "btr", "btc", "xadd", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "shld", "shrd", "popcnt", "lzcnt", "tzcnt",
     "verr", "verw", "lar", "lsl", "ptest", "comiss", "comisd", "ucomiss", "ucomisd", "fcomi", "fcompi", "fucomi",
     "fucompi")
)  # fmt: skip
_CONTROL: Final = frozenset(("cr0", "cr2", "cr3", "cr4", "cr8"))
_LOGICAL: Final = frozenset(("and", "or", "xor", "test"))
#: What takes the carry of the instruction before it in.
_CARRIES: Final = frozenset(("adc", "sbb", "rcl", "rcr"))
_ACCUMULATES: Final = frozenset(("mul", "imul", "div", "idiv", "cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "xlatb"))
_INDEXES: Final = frozenset(("rsi", "rdi", "rcx"))
_FRAMES: Final = frozenset(("call", "lcall", "ret", "retf", "retfq", "int", "int3", "into", "int1", "enter"))
IA32_TIME_STAMP_COUNTER: Final = 0x10  #: SDM vol. 4, table 2-2


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


class Flow(Moves):
    """Of one round: its steps in order and their instructions, as capstone has them."""

    def __init__(self, steps: Sequence[Step], instructions: Sequence[Any]) -> None:
        super().__init__(steps, instructions)
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
            given = self.moved(n, wanted)
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
        given = self.moved(at, one)
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

    # -- operands

    def _writes(self, at: int, one: Wanted) -> bool:
        """Step `at` writes what is wanted, or some of it."""
        code = self.instructions[at]
        if one.kind == "flag" or verb(code) in _FRAMES:
            return False
        if one.kind == "memory":
            return any(o.type == MEMORY and o.access & 2 and _overlap(self.place(at, o), one) for o in code.operands)
        if at not in self._written:
            names = {WHOLE.get(code.reg_name(r), "") for r in code.regs_access()[1]}
            self._written[at] = frozenset(names - _INDEXES if verb(code) in STRING else names)
        if one.name not in self._written[at] or (verb(code) == "pop" and one.name == "rsp"):
            return False
        to = self.place(at, code.operands[0]) if code.operands else None
        if one.bits and to is not None and to.kind == "register" and to.name == one.name:
            size = int(code.operands[0].size)
            return bool((to.bits or (1 << 8 * (8 if size == 4 else size)) - 1) & one.bits)
        return not (one.name == "rsp" and verb(code) in ("push", "pushf", "pushaw", "pushal"))

    def _covers(self, at: int, one: Wanted) -> bool:
        code = self.instructions[at]
        places = [self.place(at, o) for o in code.operands if o.type == MEMORY and o.access & 2]
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
                elif (place := self.place(at, operand)) is not None:
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
