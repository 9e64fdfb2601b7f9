"""Whether a memory operand, a fetch or a near branch breaks its segment (SDM vol. 3A, 5.3 to 5.5 and vol. 1, 6.2).

Pure functions of descriptor caches: no memory, no engine. The answer is the exception that replaces the instruction,
before any effect of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.record import dataclass, replace
from emu.typed import Final, Protocol
from emu.x86.operands import SS, Branch, Instruction
from emu.x86.state import CR0_AM, RFLAGS_AC

FLAT: Final = 0xFFFFFFFF
VECTOR_DB, VECTOR_SS, VECTOR_GP, VECTOR_AC = 1, 12, 13, 17
#: Access rights, as in `emu.x86.state.Segment`.
TYPE_CODE, TYPE_EXPAND_DOWN, TYPE_CONFORMING, TYPE_WRITABLE, TYPE_READABLE = 8, 4, 4, 2, 2
ACCESS_PRESENT, ACCESS_BIG = 0x80, 0x4000


def alignment_checked(cr0: int, rflags: int) -> bool:
    """Whether the CPU checks the alignment of what ring 3 accesses (SDM vol. 3A, 2.5, AM)."""
    return bool(cr0 & CR0_AM and rflags & RFLAGS_AC)


class Cache(Protocol):
    """A segment register's hidden part: limit in bytes, access rights with the layout of VMX's."""

    @property
    def limit(self) -> int: ...
    @property
    def access(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Violation:
    """An exception in place of the instruction."""

    vector: int
    code: int = 0


def readable(access: int) -> bool:
    """Data, or code that may be read (SDM vol. 3A, table 3-1)."""
    return not access & TYPE_CODE or bool(access & TYPE_READABLE)


def writable(access: int) -> bool:
    """Writable data."""
    return access & (TYPE_CODE | TYPE_WRITABLE) == TYPE_WRITABLE


def within(limit: int, access: int, address: int, size: int) -> bool:
    """True when all bytes of [address, address + size) are inside the segment (SDM vol. 3A, 5.3). Offsets do not wrap:
    an operand that goes past the highest offset is outside, but for segments of 4 GiB, where the SDM leaves it open."""
    if access & (TYPE_CODE | TYPE_EXPAND_DOWN) == TYPE_EXPAND_DOWN:
        top = FLAT if access & ACCESS_BIG else 0xFFFF
        return address > limit and address + size - 1 <= top
    return address + size - 1 <= limit or limit == FLAT


def operand(cache: Cache, segment: int, address: int, size: int, *, write: bool, read: bool) -> Violation | None:
    """The exception of one access through segment register number `segment`. Error codes are 0: they never name the
    selector (SDM vol. 3A, 6.15, interrupts 12 and 13)."""
    access = cache.access
    vector = VECTOR_SS if segment == SS else VECTOR_GP
    if not access & ACCESS_PRESENT:
        return Violation(vector)
    if (write and not writable(access)) or (read and not readable(access)):
        return Violation(VECTOR_GP)
    if not within(cache.limit, access, address, size):
        return Violation(vector)
    return None


def harmless(cache: Cache, *, code: bool = False) -> bool:
    """True when no access through `cache` can break it. `code`: it is CS, which a flat protected-mode program reads."""
    access = cache.access
    if not access & ACCESS_PRESENT or cache.limit != FLAT or not readable(access):
        return False
    return bool(access & TYPE_CODE) if code else writable(access) and not access & TYPE_EXPAND_DOWN


def fetch(code: Cache, ip: int, length: int | None) -> Violation | None:
    """An instruction of `length` bytes at `ip` must lie within CS. None: it is longer than what could be read."""
    if length is None or ip + length - 1 > code.limit:
        return Violation(VECTOR_GP)
    return None


def operands(caches: Sequence[Cache], regs: Sequence[int], instruction: Instruction) -> Violation | None:
    """The first exception of the memory operands of `instruction`, in the order of its references."""
    for reference in instruction.references:
        if reference.repeated and not regs[1] & instruction.address_mask:
            continue
        address = reference.address(regs)
        found = operand(
            caches[reference.segment], reference.segment, address, reference.size,
            write=reference.write, read=reference.read,
        )  # fmt: skip
        if found is not None:
            return found
    return None


#: One less than what an operand of so many bytes is to lie at a multiple of (SDM vol. 3A, 6.15, "Interrupt 17").
_NATURAL: Final = {2: 1, 4: 3, 8: 7, 10: 7}
#: BOUND, LxS, SGDT and SIDT.
_PAIR, _POINTERS, _TABLES = 0x62, frozenset((0xC4, 0xC5, 0xFB2, 0xFB4, 0xFB5)), 0xF01


def _first_alignment(instruction: Instruction) -> tuple[int, int]:
    """The same of the first reference, and how many bytes stand before what has to: of pairs and pointers the parts
    count, of an image of the x87 its words, of a table's register a word and a doubleword (vol. 3A, 3.5.1)."""
    opcode, reg, size = instruction.opcode, instruction.reg, instruction.references[0].size
    memory = instruction.rm is None
    if opcode == _PAIR:
        return _NATURAL[size // 2], 0
    if opcode in _POINTERS or (opcode == 0xFF and reg in (3, 5)):
        return (1 if size == 4 else 3), 0
    if opcode == _TABLES and memory and reg < 2:
        return 3, 2
    if opcode in (0xD9, 0xDD) and memory and reg in (4, 6):
        return instruction.operand_size - 1, 0
    return _NATURAL.get(size, 0), 0


def misaligned(bases: Sequence[int], regs: Sequence[int], instruction: Instruction) -> bool:
    """True when an operand of the instruction, of ring 3 with CR0.AM and EFLAGS.AC, is #AC. `bases`: of segments."""
    for number, reference in enumerate(instruction.references):
        if reference.repeated and not regs[1] & instruction.address_mask:
            continue
        mask, before = (_NATURAL.get(reference.size, 0), 0) if number else _first_alignment(instruction)
        linear = bases[reference.segment] + reference.address(regs)
        if linear + before & mask or (before and linear & 1):
            return True
    return False


def target(instruction: Instruction, ip: int, regs: Sequence[int], rflags: int, loaded: int | None) -> int | None:
    """Where a near branch at `ip` goes, None when it is not taken. `loaded` is the value of the first reference, for
    branches through memory and RET (SDM vol. 2A: JMP, Jcc, LOOP, RET: the target is checked by the branch itself)."""
    branch, osz = instruction.branch, instruction.operand_size
    width = 0xFFFF if osz == 2 else FLAT
    if branch is None or instruction.length is None:
        return None
    if branch is Branch.OPERAND:
        value = loaded if instruction.rm is None else regs[instruction.rm]
        return None if value is None else value & width
    if branch is Branch.FAR:
        return instruction.immediate & width
    if branch is Branch.RETURN:
        return None if loaded is None else loaded & width
    if branch is Branch.CONDITION and not condition(instruction.condition, rflags):
        return None
    if branch is Branch.LOOP:
        count = regs[1] & instruction.address_mask
        kind = instruction.condition
        looping = count != 1 and (kind == 2 or bool(rflags & 0x40) == (kind == 1))
        if not (count == 0 if kind == 3 else looping):
            return None
    return ip + instruction.length + instruction.displacement & width


def far_branch(instruction: Instruction) -> Instruction:
    """The instruction with the kind of branch that a far transfer is in real and V86 mode, where CS keeps its limit."""
    branch = None
    if instruction.opcode in (0xEA, 0x9A):
        branch = Branch.FAR
    elif instruction.opcode in (0xCA, 0xCB, 0xCF):
        branch = Branch.RETURN
    elif instruction.opcode == 0xFF and instruction.reg in (3, 5) and instruction.rm is None:
        branch = Branch.OPERAND
    return instruction if branch is None else replace(instruction, branch=branch)


def condition(code: int, rflags: int) -> bool:
    """Condition `code` of Jcc (SDM vol. 1, appendix B)."""
    cf, pf, zf = rflags & 1, rflags >> 2 & 1, rflags >> 6 & 1
    sf, of = rflags >> 7 & 1, rflags >> 11 & 1
    value = (of, cf, zf, cf | zf, sf, pf, sf ^ of, zf | (sf ^ of))[code >> 1]
    return bool(value) != bool(code & 1)
