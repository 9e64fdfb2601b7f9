"""What a loop waits for: its ways out, and what decides them, from its instructions and the values they met.

A way out is a conditional branch whose other side is no part of the loop. What decides it is found backwards: the
instruction that set the flags, then what loaded the registers that it compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.record import dataclass, field
from emu.typed import Any, Final
from emu.x86.disasm import MAX_INSTRUCTION
from emu.x86.state import SEGMENTS, CpuState

MASK64: Final = (1 << 64) - 1
#: Branches by the flag that they look at alone: the value of ZF, CF, SF or OF with which they jump.
_ON_FLAG: Final = {
    "je": ("ZF", 1), "jne": ("ZF", 0), "jb": ("CF", 1), "jae": ("CF", 0), "js": ("SF", 1), "jns": ("SF", 0),
    "jo": ("OF", 1), "jno": ("OF", 0),
}  # fmt: skip
_COUNTED: Final = frozenset(("loop", "loope", "loopne", "jcxz", "jecxz", "jrcxz"))
#: Instructions behind which the flags say something of their operands.
_SETS_FLAGS: Final = frozenset(
    ("cmp", "test", "and", "or", "xor", "sub", "add", "sbb", "adc", "inc", "dec", "bt", "shl", "shr", "sar", "rol",
     "ror", "rcl", "rcr", "neg", "scasb", "scasw", "scasd", "scasq", "cmpsb", "cmpsw", "cmpsd", "cmpsq", "bsf", "bsr",
     "bts", "btr", "btc", "xadd", "cmpxchg", "cmpxchg8b", "cmpxchg16b")
)  # fmt: skip
_BIT_TESTS: Final = frozenset(("bt", "bts", "btr", "btc"))
#: What moves RSI and RDI on, and counts RCX down where it is repeated, beside what it loads, stores or compares.
_STRING: Final = frozenset(f"{what}{size}" for what in ("lods", "stos", "movs", "cmps", "scas") for size in "bwdq")
_INDEXES: Final = frozenset(("rsi", "rdi", "rcx"))
#: What takes the carry of the instruction before it in.
_CARRIES: Final = frozenset(("adc", "sbb", "rcl", "rcr"))
#: What writes an operand that it has read, so that the value moves on from round to round.
_MOVES_ON: Final = frozenset(
    ("add", "sub", "adc", "sbb", "inc", "dec", "neg", "xadd", "shl", "shr", "sar", "rol", "ror")
)
IA32_TIME_STAMP_COUNTER: Final = 0x10  #: SDM vol. 4, table 2-2
#: Registers by the widest that contains them.
WHOLE: Final = {
    part: whole
    for whole, parts in (
        *((f"r{n}x", (f"{n}l", f"{n}h", f"{n}x", f"e{n}x", f"r{n}x")) for n in "abcd"),
        *((f"r{n}", (f"{n}l", n, f"e{n}", f"r{n}")) for n in ("si", "di", "bp", "sp")),
        *((f"r{n}", (f"r{n}b", f"r{n}w", f"r{n}d", f"r{n}")) for n in range(8, 16)),
    )
    for part in parts
}
_CONTROL: Final = frozenset(("cr0", "cr2", "cr3", "cr4", "cr8"))
_ORDER: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


@dataclass(frozen=True, slots=True)
class Met:
    """An access to a device: `space` is port or memory (physical), `device` its name or ""."""

    space: str
    place: int
    size: int
    value: int
    write: bool
    device: str


@dataclass(slots=True)
class Step:
    """One instruction of a loop: its place, bytes, the state before it, what of devices it met, and where it went."""

    linear: int
    code: bytes
    bits: int
    state: CpuState
    met: list[Met] = field(default_factory=list)
    following: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: `kind` is port, device (memory of one), memory (linear), msr (another than the
    time-stamp counter; `place` is its number), register, status (the x87 status word), or stamp (the time-stamp
    counter, read by an instruction).
    `name` is the device's, or the register's."""

    kind: str
    place: int
    size: int
    value: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class WayOut:
    """A branch out of the loop: `branch` its place in the loop, `by` that of what set the flags (None: nothing in the
    loop did). What must come true is, in words, `which` of its `sources` ("bit 5", "" for all of it) and what that
    `must` do; `mask` has the bits that are looked at, 0 where all are."""

    branch: int
    by: int | None
    which: str
    must: str
    sources: tuple[Source, ...]
    counted: bool = False
    mask: int = 0


class Loop:
    """`steps` is one round of it, in order."""

    def __init__(self, steps: Sequence[Step]) -> None:
        import capstone  # its import costs more than most runs need

        self.steps = steps
        modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
        engines = {}
        self.instructions: list[Any] = []
        for step in steps:
            if step.bits not in engines:
                engines[step.bits] = capstone.Cs(capstone.CS_ARCH_X86, modes[step.bits])
                engines[step.bits].detail = True
            found = engines[step.bits].disasm(step.code[:MAX_INSTRUCTION], step.linear, 1)
            self.instructions.append(next(iter(found), None))
        self._places = {step.linear for step in steps}

    def ways_out(self) -> list[WayOut]:
        """In the order of the branches; each place once."""
        found: dict[int, WayOut] = {}
        for at, (step, code) in enumerate(zip(self.steps, self.instructions, strict=True)):
            if code is None or step.linear in found or not (code.mnemonic[0] == "j" or code.mnemonic in _COUNTED):
                continue
            if code.mnemonic == "jmp" or not code.operands or code.operands[0].type != _immediate():
                continue
            behind = step.linear + code.size
            # branch targets are offsets in CS, but the displacement is the same
            target = (step.linear + (code.operands[0].imm - code.address)) & MASK64
            if step.bits != 64:
                target &= 0xFFFFFFFF
            taken = step.following == target and target != behind
            other = behind if taken else target
            if other in self._places:
                continue
            found[step.linear] = self._way(at, code.mnemonic, taken)
        return list(found.values())

    def _way(self, at: int, mnemonic: str, taken: bool) -> WayOut:
        if mnemonic in _COUNTED:
            state = self.steps[at].state
            count = Source("register", 0, self.steps[at].bits // 8, _value(state, "rcx", self.steps[at].bits), "cx")
            return WayOut(at, None, "the count in CX", "must reach 0", (count,), counted=True)
        by = next(
            (n for n in self._before(at) if (i := self.instructions[n]) is not None and _verb(i) in _SETS_FLAGS), None
        )
        if (called := self._called(at, by)) is not None:
            flag, value = _ON_FLAG.get(mnemonic, ("", 0))
            must = f"must become {1 - value if taken else value}" if flag else "must change"
            return WayOut(at, None, f"{flag or 'the flags'} behind {called}", must, ())
        if by is None:
            return WayOut(at, None, f"the condition of `{mnemonic}`", "must change", ())
        sources, mask = self._sources(by)
        which, must = self._wanted(by, mnemonic, taken)
        mask = mask or self._tested(by)
        return WayOut(at, by, which or (_bits(mask) if mask else ""), must, tuple(sources), mask=mask)

    def _called(self, at: int, by: int | None) -> str | None:
        """The INT n in the loop whose IRET gives the flags that the branch `at` looks at, with AH, which says to BIOS
        and DOS what is wanted; None: none does, or step `by` sets them behind it."""
        returned = False
        for n in self._before(at):
            if n == by and not returned:
                return None
            if (code := self.instructions[n]) is None:
                continue
            returned = returned or _verb(code) in ("iret", "iretd", "iretq")
            if returned and code.mnemonic == "int":
                ah = self.steps[n].state.regs[0] >> 8 & 0xFF
                return f"INT {int(code.operands[0].imm):02X}h (AH={ah:02X}h)"
        return None

    def moved_on(self) -> list[tuple[int, int]]:
        """(linear address, length) of the memory that the loop itself counts or shifts in, whatever comes of it in this
        round: the upper half of a long number seldom changes."""
        return [
            (_address(step, code, code.operands[0]), code.operands[0].size)
            for step, code in zip(self.steps, self.instructions, strict=True)
            if code is not None and _verb(code) in _MOVES_ON and code.operands[0].type == _memory()
        ]

    def _before(self, at: int) -> list[int]:
        """The steps before `at`, the nearest first, once around."""
        count = len(self.steps)
        return [(at - n) % count for n in range(1, count + 1)]

    def _wanted(self, by: int, mnemonic: str, taken: bool) -> tuple[str, str]:
        """`which` and `must` of a WayOut."""
        code = self.instructions[by]
        flag, value = _ON_FLAG.get(mnemonic, ("", 0))
        leaves = 1 - value if taken else value  # the flag's value with which the loop is left
        same = len(code.operands) == 2 and _is_same(*code.operands)
        fixed = None if same else self._fixed(by)
        something = "must become 0" if leaves else "must become something but 0"
        verb = _verb(code)
        if flag == "ZF" and verb in ("test", "and") and fixed:
            return _bits(fixed), f"must become {1 - leaves}"
        if flag == "ZF" and (same and verb in ("test", "and", "or")):
            return "", something
        if flag == "CF" and verb in _BIT_TESTS and fixed is not None:
            return f"bit {fixed}", f"must become {leaves}"
        if flag == "ZF" and (verb in ("cmp", "sub", "cmpxchg") or code.mnemonic[:4] == "scas") and fixed is not None:
            return "", f"must become {fixed:#x}" if leaves else f"must become something but {fixed:#x}"
        text = f"`{code.mnemonic} {code.op_str}`".replace(" `", "`")
        if flag == "ZF":
            return text, f"must give {'0' if leaves else 'something but 0'}"
        return text, f"must give that with which `{mnemonic}` {'does not jump' if taken else 'jumps'}"

    def _tested(self, by: int) -> int:
        """The bits that the instruction which sets the flags looks at; 0: all."""
        code, fixed = self.instructions[by], self._fixed(by)
        if fixed is None or (len(code.operands) == 2 and _is_same(*code.operands)):
            return 0
        if _verb(code) in _BIT_TESTS:
            return 1 << (fixed & 8 * int(code.operands[0].size) - 1)
        return fixed if _verb(code) in ("test", "and") else 0

    def _fixed(self, by: int) -> int | None:
        """The value of the operand that is no memory: an immediate, or a register, that of AL for SCASB and CMPXCHG."""
        code, state, bits = self.instructions[by], self.steps[by].state, self.steps[by].bits
        if _verb(code) == "cmpxchg":
            return state.regs[0] & (1 << 8 * int(code.operands[0].size)) - 1
        for operand in reversed(code.operands):
            if operand.type == _immediate():
                return int(operand.imm) & (1 << 8 * (code.operands[0].size or 1)) - 1
            if operand.type == _register() and len(code.operands) == 2:
                return _value(state, code.reg_name(operand.reg), bits)
        return None

    def _sources(self, by: int) -> tuple[list[Source], int]:
        """What the operands of step `by` come from, and the bits of it that an AND on the way leaves; 0: all."""
        found: list[Source] = []
        mask = 0
        code = self.instructions[by]
        wanted = self._reads(by, found, own=True) | self._carried(by, found)
        first = True
        for at in self._before(by):
            if not wanted or (at == by and not first):
                break
            first = False
            code = self.instructions[at]
            if code is None or at == by:
                break
            written = {WHOLE.get(code.reg_name(r), "") for r in code.regs_access()[1]} & wanted
            if _verb(code) in _STRING:
                written -= _INDEXES  # what the loop itself moves on, loaded from nowhere
            if not written:
                continue
            if code.mnemonic.startswith("pop") or code.mnemonic in ("call", "ret"):
                continue
            if code.mnemonic == "and" and code.operands[-1].type == _immediate():
                mask = int(code.operands[-1].imm) & (1 << 8 * (code.operands[0].size or 1)) - 1
                continue  # the register is what it was, but for the mask
            wanted -= written
            wanted |= self._reads(at, found, own=False) | self._carried(at, found)
        found += [
            Source("register", 0, 8, _value(self.steps[by].state, name, 64), name)
            for name in sorted(wanted)
            if not found
        ]
        return list(dict.fromkeys(found)), mask

    def _carried(self, at: int, found: list[Source]) -> set[str]:
        """As `_reads`, of what sets the carry that a step adds or subtracts: the lower half of a longer number."""
        if _verb(self.instructions[at]) not in _CARRIES:
            return set()
        for lower in self._before(at):
            code = self.instructions[lower]
            if lower == at or code is None:
                break
            if _verb(code) in _SETS_FLAGS and _verb(code) not in ("inc", "dec"):  # these leave CF as it is
                return self._reads(lower, found, own=True)
        return set()

    def _reads(self, at: int, found: list[Source], *, own: bool) -> set[str]:
        """Add the memory and ports that a step reads; its registers, where what is read does not hide them."""
        step, code = self.steps[at], self.instructions[at]
        ports = [m for m in step.met if m.space == "port" and not m.write]
        if ports:
            found += [Source("port", m.place, m.size, m.value, m.device) for m in ports]
            return set()
        if code.mnemonic in ("rdtsc", "rdtscp") or (
            code.mnemonic == "rdmsr" and _value(step.state, "ecx", 32) == IA32_TIME_STAMP_COUNTER
        ):
            found.append(Source("stamp", 0, 8, -1, "tsc"))
            return set()
        if code.mnemonic == "rdmsr":
            found.append(Source("msr", _value(step.state, "ecx", 32), 8, -1))
            return set()
        if code.mnemonic in ("fnstsw", "fstsw"):
            found.append(Source("status", 0, 2, step.state.fpu.fsw, "the x87 status word"))
            return set()
        registers: set[str] = set()
        for n, operand in enumerate(code.operands):
            if operand.type == _memory() and operand.access & 1 and code.mnemonic != "lea":
                devices = [m for m in step.met if m.space == "memory" and not m.write]
                if devices:
                    found += [Source("device", m.place, m.size, m.value, m.device) for m in devices]
                else:
                    found.append(Source("memory", _address(step, code, operand), operand.size, -1))
            elif operand.type == _register() and (operand.access & 1 or (own and n == 0)):
                name = code.reg_name(operand.reg)
                registers.add(WHOLE.get(name, ""))
                if name in _CONTROL:
                    found.append(Source("register", 0, 8, getattr(step.state, name), name))
        return registers - {""}


def _verb(code: Any) -> str:
    """The mnemonic without LOCK, REPE and the like."""
    return str(code.mnemonic).rpartition(" ")[2]


def _is_same(one: Any, other: Any) -> bool:
    """Both operands are one register."""
    return bool(one.type == _register() == other.type and one.reg == other.reg)


def _immediate() -> int:
    return 2  # capstone.x86.X86_OP_IMM


def _register() -> int:
    return 1  # X86_OP_REG


def _memory() -> int:
    return 3  # X86_OP_MEM


def _bits(mask: int) -> str:
    numbers = [n for n in range(64) if mask >> n & 1]
    if len(numbers) == 1:
        return f"bit {numbers[0]}"
    return "bits " + ", ".join(map(str, numbers)) if len(numbers) <= 8 else f"the bits of {mask:#x}"


def _value(state: CpuState, name: str, bits: int) -> int:
    """A general register of `state`, by any of its names."""
    whole = WHOLE.get(name)
    if whole is None:
        return 0
    value = state.regs[_ORDER.index(whole)]
    if name.endswith("h"):
        return value >> 8 & 0xFF
    if name.endswith(("l", "b")):
        return value & 0xFF
    if name.startswith("e") or name.endswith("d"):
        return value & 0xFFFFFFFF
    if name == whole:
        return value & (1 << bits) - 1
    return value & 0xFFFF


def _address(step: Step, code: Any, operand: Any) -> int:
    """The linear address of a memory operand."""
    state, mem = step.state, operand.mem
    width = 8 * int(code.addr_size)
    total: int = mem.disp
    for register, scale in ((mem.base, 1), (mem.index, mem.scale)):
        if not register:
            continue
        name = code.reg_name(register)
        total += (step.linear + code.size if name in ("rip", "eip") else _value(state, name, 64)) * scale
    offset: int = total & (1 << width) - 1
    named = code.reg_name(mem.segment) if mem.segment else ""
    base_name = code.reg_name(mem.base) if mem.base else ""
    if not named:
        operation = code.mnemonic[:4]
        to_es = operation in ("scas", "stos") or (operation in ("cmps", "movs", "insb") and base_name.endswith("di"))
        named = "es" if to_es else "ss" if base_name[-2:] in ("bp", "sp") else "ds"
    segment = state.segment(named if named in SEGMENTS else "ds")
    if state.long64:
        return (offset + (segment.base if named in ("fs", "gs") else 0)) & MASK64
    return segment.base + offset & 0xFFFFFFFF
