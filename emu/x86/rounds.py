"""What a look ahead has seen of one round of a loop, an instruction at a time, and how its operands are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from emu.record import dataclass, field
from emu.x86.disasm import MAX_INSTRUCTION
from emu.x86.state import SEGMENTS, CpuState

MASK64: Final = (1 << 64) - 1
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
#: By their numbers.
ORDER: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
REGISTER, IMMEDIATE, MEMORY = 1, 2, 3  #: capstone.x86.X86_OP_REG, X86_OP_IMM and X86_OP_MEM


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


def decoded(steps: Sequence[Step]) -> list[Any]:
    """Capstone's instruction of each step, None where it knows none."""
    import capstone  # its import costs more than most runs need

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    engines: dict[int, Any] = {}
    known: dict[tuple[int, bytes, int], Any] = {}
    for step in steps:
        if step.bits not in engines:
            engines[step.bits] = capstone.Cs(capstone.CS_ARCH_X86, modes[step.bits])
            engines[step.bits].detail = True
        key = step.linear, step.code, step.bits
        if key not in known:
            found = engines[step.bits].disasm(step.code[:MAX_INSTRUCTION], step.linear, 1)
            known[key] = next(iter(found), None)
    return [known[step.linear, step.code, step.bits] for step in steps]


def verb(code: Any) -> str:
    """The mnemonic without LOCK, REPE and the like."""
    return str(code.mnemonic).rpartition(" ")[2]


def is_same(one: Any, other: Any) -> bool:
    """Both operands are one register."""
    return bool(one.type == REGISTER == other.type and one.reg == other.reg)


def register_value(state: CpuState, name: str, bits: int) -> int:
    """A general register of `state`, by any of its names."""
    whole = WHOLE.get(name)
    if whole is None:
        return 0
    value = state.regs[ORDER.index(whole)]
    if name.endswith("h"):
        return value >> 8 & 0xFF
    if name.endswith(("l", "b")):
        return value & 0xFF
    if name.startswith("e") or name.endswith("d"):
        return value & 0xFFFFFFFF
    if name == whole:
        return value & (1 << bits) - 1
    return value & 0xFFFF


def address(step: Step, code: Any, operand: Any) -> int:
    """The linear address of a memory operand."""
    state, mem = step.state, operand.mem
    width = 8 * int(code.addr_size)
    total: int = mem.disp
    for register, scale in ((mem.base, 1), (mem.index, mem.scale)):
        if not register:
            continue
        name = code.reg_name(register)
        total += (step.linear + code.size if name in ("rip", "eip") else register_value(state, name, 64)) * scale
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


def stack_at(state: CpuState, offset: int, pointer: str = "rsp") -> int:
    """The linear address `offset` bytes above where `pointer` is on the stack, of whose width it is."""
    at = state.regs[ORDER.index(pointer)] + offset
    if state.long64:
        return at & MASK64
    wide = (1 << (32 if state.ss.big else 16)) - 1
    return state.ss.base + (at & wide) & 0xFFFFFFFF
