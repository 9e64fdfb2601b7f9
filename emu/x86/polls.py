"""What a loop waits for: its ways out, and what decides them, from its instructions and the values they met.

A way out is a conditional branch whose other side is no part of the loop. What decides it is found backwards: the
instruction that set the flags, then what loaded the registers that it compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from emu.record import dataclass, replace
from emu.typed import Final
from emu.x86.dataflow import Flow, Origin
from emu.x86.moves import RETURNS
from emu.x86.rounds import (
    IMMEDIATE,
    MASK64,
    MEMORY,
    REGISTER,
    Source,
    Step,
    address,
    decoded,
    is_same,
    register_value,
    verb,
)

#: Branches by the flag that they look at alone: the value of ZF, CF, SF or OF with which they jump.
_ON_FLAG: Final = {
    "je": ("ZF", 1), "jne": ("ZF", 0), "jb": ("CF", 1), "jae": ("CF", 0), "js": ("SF", 1), "jns": ("SF", 0),
    "jo": ("OF", 1), "jno": ("OF", 0),
}  # fmt: skip
_COUNTED: Final = frozenset(("loop", "loope", "loopne", "jcxz", "jecxz", "jrcxz"))
_CALLS: Final = frozenset(("call", "lcall", "int", "int3", "into"))
#: Shifts whose carry is the bit shifted out last.
_RIGHT: Final = frozenset(("shr", "sar", "ror", "rcr"))
_LEFT: Final = frozenset(("shl", "sal", "rol", "rcl"))
_BIT_TESTS: Final = frozenset(("bt", "bts", "btr", "btc"))
#: What writes an operand that it has read, so that the value moves on from round to round.
_MOVES_ON: Final = frozenset(
    ("add", "sub", "adc", "sbb", "inc", "dec", "neg", "xadd", "shl", "shr", "sar", "rol", "ror")
)


@dataclass(frozen=True, slots=True)
class WayOut:
    """A branch out of the loop: `branch` its place in the loop, `by` that of what set the flags (None: nothing in the
    loop did). What must come true is, in words, `which` of its `sources` ("bit 5", "" for all of it) and what that
    `must` do; `mask` has the bits that are looked at, 0 where all are. Where that was a constant, as another way was
    taken to it, `past` is the place of the branch that decided so, `sources` are that one's, and `instead` what it
    needs to go the other way: its `which` and `must`. `called` is the INT n by whose IRET the flag came, in words;
    `within`: the branch is in a handler that the loop calls by INT n."""

    branch: int
    by: int | None
    which: str
    must: str
    sources: tuple[Source, ...]
    counted: bool = False
    mask: int = 0
    past: int | None = None
    instead: tuple[str, str] = ("", "")
    called: str = ""
    within: bool = False


class Loop:
    """`steps` is one round of it, in order."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps, self.instructions = steps, decoded(steps)
        self._flow = Flow(steps, self.instructions)
        self._places = {step.linear for step in steps}

    def ways_out(self) -> list[WayOut]:
        """In the order of the branches, those of handlers that the loop calls last; each place once. Branches that go
        by constants of the round's own are no ways."""
        handlers = self._handlers()
        plain = {at: self._plain(at, taken) for at, taken in self._leaving().items()}
        ways: dict[int, WayOut | None] = {}
        for at in plain:
            self._decide(at, plain, ways)
        found = [replace(way, within=at in handlers) for at in plain if (way := ways[at]) is not None]
        return sorted(found, key=lambda way: way.within)

    def _handlers(self) -> set[int]:
        """The steps between an INT n of the loop and its return."""
        found: set[int] = set()
        depths, depth = [], 0
        for code in self.instructions:
            what = "" if code is None else verb(code)
            depth += (what in _CALLS) - (what in RETURNS or what.startswith("ret"))
            depths.append(depth)
        begins = depths.index(min(depths)) + 1 if depths else 0  # in what calls, and was not called in the loop
        calls: list[str] = []
        for at in [*range(begins, len(self.steps)), *range(begins)]:
            what = "" if self.instructions[at] is None else verb(self.instructions[at])
            if "int" in calls:
                found.add(at)
            if what in _CALLS:
                calls.append(what)
            elif calls and (what in RETURNS or what.startswith("ret")):
                calls.pop()
        return found if not calls else set()

    def _leaving(self) -> dict[int, bool]:
        """The branches whose other side is no part of the loop, and whether they jump."""
        found: dict[int, bool] = {}
        known: set[int] = set()
        for at, (step, code) in enumerate(zip(self.steps, self.instructions, strict=True)):
            if code is None or step.linear in known or not (code.mnemonic[0] == "j" or code.mnemonic in _COUNTED):
                continue
            if code.mnemonic == "jmp" or not code.operands or code.operands[0].type != IMMEDIATE:
                continue
            behind = step.linear + code.size
            # branch targets are offsets in CS, but the displacement is the same
            target = (step.linear + (code.operands[0].imm - code.address)) & MASK64
            if step.bits != 64:
                target &= 0xFFFFFFFF
            taken = step.following == target and target != behind
            if (behind if taken else target) not in self._places:
                known.add(step.linear)
                found[at] = taken
        return found

    def _plain(self, at: int, taken: bool) -> tuple[WayOut, int | None]:
        """A way by what its flag comes from; and where that was a constant, the step that gave it."""
        mnemonic = self.instructions[at].mnemonic
        if mnemonic in _COUNTED:
            state, bits = self.steps[at].state, self.steps[at].bits
            count = Source("register", 0, bits // 8, register_value(state, "rcx", bits), "cx")
            return WayOut(at, None, "the count in CX", "must reach 0", (count,), counted=True), None
        setter = self._flow.setter(at, _ON_FLAG.get(mnemonic, ("", 0))[0])
        if setter.kind == "nothing" and not setter.returned:
            return WayOut(at, None, f"the condition of `{mnemonic}`", "must change", ()), None
        if setter.kind == "operands":
            by = setter.at
            origin = self._flow.operands(by)
            which, must = self._wanted(by, mnemonic, taken)
            mask = origin.mask or self._tested(by, mnemonic)
            way = WayOut(at, by, which or (_bits(mask) if mask else ""), must, tuple(origin.sources), mask=mask)
        else:
            origin = Origin(constants=[setter.at]) if setter.kind == "constant" else self._flow.value(setter)
            flag, value = _ON_FLAG.get(mnemonic, ("", 0))
            must = f"must become {1 - value if taken else value}" if flag else "must change"
            called = self._called(at) if setter.returned else ""
            which = f"{flag or 'the flags'} behind {called}" if called else flag or "the flags"
            way = WayOut(at, None, which, must, tuple(origin.sources), called=called)
        return way, origin.constants[0] if origin.constants and not origin.sources else None

    def _decide(
        self, at: int, plain: dict[int, tuple[WayOut, int | None]], ways: dict[int, WayOut | None]
    ) -> WayOut | None:
        """The way of a branch, into `ways`; where its flag was a constant, as another branch before it decided. None:
        none has."""
        if at in ways:
            return ways[at]
        way, constant = plain[at]
        if constant is None:
            ways[at] = way
            return way
        ways[at] = None  # it does not decide for itself
        deciding = [n for n in self._deciding(constant, at) if n in plain]
        for n in sorted(deciding, key=lambda n: plain[n][1] is not None):  # at first hand before at second
            other = self._decide(n, plain, ways)
            if other is not None and other.sources and not other.counted:
                past, instead = (n, (other.which, other.must)) if other.past is None else (other.past, other.instead)
                by = plain[past][0].by
                ways[at] = replace(way, past=past, by=by, sources=other.sources, mask=other.mask, instead=instead)
                return ways[at]
        ways[at] = way if way.called else None
        return ways[at]

    def _deciding(self, constant: int, at: int) -> list[int]:
        """Steps that may have decided that step `constant` gives what branch `at` looks at: those of its function
        before it, the nearest first, then those behind it."""
        count = len(self.steps)
        between = [(constant + n) % count for n in range(1, (at - constant) % count)]
        return [*self._same_function(constant), *between]

    def _same_function(self, at: int) -> list[int]:
        """The steps before `at`, the nearest first, back to the beginning of its function or of the loop; those of
        functions that it has called left out."""
        found: list[int] = []
        depth, once = 0, Counter(step.linear for step in self.steps)
        begin: int | None = None  # of the loop, in `found`
        for n in self._flow.before(at):
            code, step = self.instructions[n], self.steps[n]
            what = "" if code is None else verb(code)
            if what in RETURNS or what.startswith("ret"):
                depth += 1
            elif what in _CALLS:
                depth -= 1
                if depth < 0:
                    return found
            elif not depth:
                if begin is None and step.following <= step.linear and once[step.linear] == 1:
                    begin = len(found)
                found.append(n)
        return found[:begin]

    def _called(self, at: int) -> str:
        """The INT n in the loop whose IRET gives the flags that the branch `at` looks at, with AH, which says to BIOS
        and DOS what is wanted; "" where none does."""
        returned = 0
        for n in self._flow.before(at):
            if (code := self.instructions[n]) is None:
                continue
            if verb(code) in RETURNS:
                returned += 1
            elif returned and code.mnemonic == "int":
                returned -= 1
                if not returned:
                    ah = self.steps[n].state.regs[0] >> 8 & 0xFF
                    return f"INT {int(code.operands[0].imm):02X}h (AH={ah:02X}h)"
        return ""

    def moved_on(self) -> list[tuple[int, int]]:
        """(linear address, length) of the memory that the loop itself counts or shifts in, whatever comes of it in this
        round: the upper half of a long number seldom changes."""
        return [
            (address(step, code, code.operands[0]), code.operands[0].size)
            for step, code in zip(self.steps, self.instructions, strict=True)
            if code is not None and verb(code) in _MOVES_ON and code.operands[0].type == MEMORY
        ]

    def _wanted(self, by: int, mnemonic: str, taken: bool) -> tuple[str, str]:
        """`which` and `must` of a WayOut."""
        code = self.instructions[by]
        flag, value = _ON_FLAG.get(mnemonic, ("", 0))
        leaves = 1 - value if taken else value  # the flag's value with which the loop is left
        same = len(code.operands) == 2 and is_same(*code.operands)
        fixed = None if same else self._fixed(by)
        something = "must become 0" if leaves else "must become something but 0"
        what = verb(code)
        if flag == "ZF" and what in ("test", "and") and fixed:
            return _bits(fixed), f"must become {1 - leaves}"
        if flag == "ZF" and (same and what in ("test", "and", "or")):
            return "", something
        if flag == "CF" and what in _BIT_TESTS and fixed is not None:
            return f"bit {fixed}", f"must become {leaves}"
        if flag == "CF" and (bit := self._shifted_out(by)) is not None:
            return f"bit {bit}", f"must become {leaves}"
        if flag == "ZF" and (what in ("cmp", "sub", "cmpxchg") or code.mnemonic[:4] == "scas") and fixed is not None:
            return "", f"must become {fixed:#x}" if leaves else f"must become something but {fixed:#x}"
        text = f"`{code.mnemonic} {code.op_str}`".replace(" `", "`")
        if flag == "ZF":
            return text, f"must give {'0' if leaves else 'something but 0'}"
        return text, f"must give that with which `{mnemonic}` {'does not jump' if taken else 'jumps'}"

    def _shifted_out(self, by: int) -> int | None:
        """The bit that a shift by a constant leaves in CF (SDM vol. 2B, SAL and RCL); None: it is none."""
        code = self.instructions[by]
        if verb(code) not in (*_RIGHT, *_LEFT) or len(code.operands) != 2 or code.operands[1].type != IMMEDIATE:
            return None
        size, count = 8 * int(code.operands[0].size), int(code.operands[1].imm) & 31
        return (count - 1 if verb(code) in _RIGHT else size - count) if 0 < count <= size else None

    def _tested(self, by: int, mnemonic: str) -> int:
        """The bits that the branch by the instruction which sets the flags looks at; 0: all."""
        if _ON_FLAG.get(mnemonic, ("", 0))[0] == "CF" and (bit := self._shifted_out(by)) is not None:
            return 1 << bit
        code, fixed = self.instructions[by], self._fixed(by)
        if fixed is None or (len(code.operands) == 2 and is_same(*code.operands)):
            return 0
        if verb(code) in _BIT_TESTS:
            return 1 << (fixed & 8 * int(code.operands[0].size) - 1)
        return fixed if verb(code) in ("test", "and") else 0

    def _fixed(self, by: int) -> int | None:
        """The value of the operand that is no memory: an immediate, or a register, that of AL for SCASB and CMPXCHG."""
        code, state, bits = self.instructions[by], self.steps[by].state, self.steps[by].bits
        if verb(code) == "cmpxchg":
            return state.regs[0] & (1 << 8 * int(code.operands[0].size)) - 1
        for operand in reversed(code.operands):
            if operand.type == IMMEDIATE:
                return int(operand.imm) & (1 << 8 * (code.operands[0].size or 1)) - 1
            if operand.type == REGISTER and len(code.operands) == 2:
                return register_value(state, code.reg_name(operand.reg), bits)
        return None


def _bits(mask: int) -> str:
    numbers = [n for n in range(64) if mask >> n & 1]
    if len(numbers) == 1:
        return f"bit {numbers[0]}"
    return "bits " + ", ".join(map(str, numbers)) if len(numbers) <= 8 else f"the bits of {mask:#x}"
