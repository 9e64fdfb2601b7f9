"""64-bit mode: what an address that is not canonical raises, and in which instruction (SDM vol. 1, 3.3.7.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from emu.typed import Final
from emu.x86.classes import split
from emu.x86.msrs import canonical
from emu.x86.operands import decode
from emu.x86.segcheck import condition

SS, FS, GS = 2, 4, 5
RSP: Final = 4
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
#: Prefixes without a meaning for addresses: segments but FS and GS, which 64-bit mode ignores (vol. 2A, 2.1.1).
IGNORED: Final = frozenset((0x26, 0x2E, 0x36, 0x3E))
KEPT: Final = frozenset((0x64, 0x65, 0x66, 0xF0, 0xF2, 0xF3))
ADDRESS_SIZE: Final = 0x67
ENTER: Final = 0xC8
REX_B, REX_X = 1, 2
#: Bytes of what 64-bit code pushes and pops.
STACK_SIZE: Final = 8
#: The high four bits of Jcc with a displacement of a byte, and behind 0Fh with one of four.
JCC_SHORT, JCC_NEAR = 7, 8
#: LOOPNE, LOOPE, LOOP by what they want of ZF; and JRCXZ.
LOOPS: Final[Mapping[int, bool | None]] = MappingProxyType({0xE0: False, 0xE1: True, 0xE2: None, 0xE3: None})
JRCXZ: Final = 0xE3
RFLAGS_ZF: Final = 1 << 6
#: Opcodes that touch memory and have no ModRM.
IMPLICIT: Final = frozenset(
    (
        *range(0x50, 0x60), 0x68, 0x6A, *range(0x6C, 0x70), 0x9C, 0x9D, *range(0xA0, 0xB0), 0xC2, 0xC3,
        *range(0xC8, 0xCC), 0xCF, 0xD7, 0xE8, 0x0FA0, 0x0FA1, 0x0FA8, 0x0FA9,
    )
)  # fmt: skip


def _prefixes(code: bytes) -> tuple[int, bool, bytes]:
    """REX or 0, whether addresses have 32 bits, and the instruction without both. REX counts right before the opcode
    only (vol. 2A, 2.2.1)."""
    kept, narrow, rex = bytearray(), False, 0
    for at, byte in enumerate(code):
        if byte >> 4 == 4:
            rex = byte
            continue
        if byte in KEPT:
            kept.append(byte)
        elif byte == ADDRESS_SIZE:
            narrow = True
        elif byte not in IGNORED:
            return rex, narrow, bytes(kept) + code[at:]
        rex = 0
    return 0, narrow, bytes(kept)


def _sib(rest: bytes) -> int | None:
    """The SIB byte of an instruction with ModRM and without REX; None: it has none."""
    rest = rest.lstrip(bytes(KEPT))
    at = 1 if rest[:1] != b"\x0f" else 3 if rest[1:2] in (b"\x38", b"\x3a") else 2
    return rest[at + 1] if len(rest) > at + 1 and rest[at] < 0xC0 and rest[at] & 7 == RSP else None


def by_stack_segment(code: bytes, regs: Sequence[int], bases: Sequence[int]) -> bool:
    """True when the first item of the 64-bit instruction in `code` of which a byte's address is not canonical is of the
    stack segment, for #SS(0) in place of #GP(0). `regs` are the 16 general registers, `bases` those of ES CS SS DS FS
    GS."""
    rex, narrow, rest = _prefixes(code)
    found = decode(rest, 32, 32)
    for number, ref in enumerate(found.references):
        explicit = number == 0 and found.rm is None and found.opcode not in IMPLICIT
        if explicit and narrow:
            continue
        base, index, segment = ref.base, ref.index, ref.segment
        if explicit and rex & REX_B and base is not None:
            base += 8
            segment = segment if segment in (FS, GS) else 3
        scale = ref.scale
        if explicit and rex & REX_X:
            if index is not None:
                index += 8
            elif (sib := _sib(rest)) is not None:  # that RSP's number is no index is so without the prefix only
                index, scale = RSP + 8, 1 << (sib >> 6)
        address = (ref.displacement & MASK32 ^ 1 << 31) - (1 << 31)
        if not explicit and base == RSP and found.opcode != ENTER:
            address *= 2  # items of 64 bits, decoded as of 32
        address += 0 if base is None else regs[base]
        address += 0 if index is None else regs[index] * scale
        if segment in (FS, GS):
            address += bases[segment]
        last = address + (ref.size if explicit else STACK_SIZE) - 1
        if not canonical(address & MASK64) or not canonical(last & MASK64):
            return segment == SS
    return False


def taken_back(code: bytes, rflags: int, rcx: int) -> tuple[int, int] | None:
    """What to add to RSP, and RCX as it was, to undo the near branch in `code`, which went to no canonical address: the
    fault is the branch's, before any effect (vol. 2A, CALL, Jcc, JMP, LOOP; vol. 2B, RET). `rflags` and `rcx` are what
    it left. None when it is no near branch, or one that was not taken."""
    prefixes, op, _ = split(code, 64)
    opcode, operand = op[:1], op[1:]
    if opcode == b"\xff" and operand:
        pushed = {2: STACK_SIZE, 4: 0}.get(operand[0] >> 3 & 7)
        return None if pushed is None else (pushed, rcx)
    if opcode == b"\xc2":
        return -STACK_SIZE - int.from_bytes(operand[:2], "little"), rcx
    conditional = op[0] if opcode and op[0] >> 4 == JCC_SHORT else None
    if opcode == b"\x0f" and operand[:1] and operand[0] >> 4 == JCC_NEAR:
        conditional = operand[0]
    if conditional is not None:
        return (0, rcx) if condition(conditional & 0xF, rflags) else None
    if opcode and op[0] in LOOPS:
        width = MASK32 if ADDRESS_SIZE in prefixes else MASK64
        if op[0] == JRCXZ:
            return None if rcx & width else (0, rcx)
        wanted = LOOPS[op[0]]
        taken = rcx & width and (wanted is None or bool(rflags & RFLAGS_ZF) is wanted)
        return (0, rcx + 1 & width) if taken else None
    pushed = {b"\xe8": STACK_SIZE, b"\xe9": 0, b"\xeb": 0, b"\xc3": -STACK_SIZE}.get(opcode)
    return None if pushed is None else (pushed, rcx)
