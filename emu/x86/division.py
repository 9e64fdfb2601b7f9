"""The division whose dividend is the lowest there is, and where its divisor lies (SDM vol. 2A, IDIV; 2.2.1, REX)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from emu.named import NamedTuple
from emu.x86.classes import split
from emu.x86.operands import AX, DX, FS, GS, decode

IDIV: Final = 0xF7  #: with 7 in ModRM.reg
OPERAND_SIZE, ADDRESS_SIZE = 0x66, 0x67
REX_B, REX_X, REX_W = 1, 2, 8
FS_GS: Final = {0x64: FS, 0x65: GS}
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
LOWEST: Final = 1 << 31  #: EDX of -2**63 in EDX:EAX
SIZE: Final = 4  #: bytes of the divisor
SIB, NO_INDEX = 4, 4  #: of ModRM.rm, and of SIB.index with REX.X


class Divisor(NamedTuple):
    """The divisor's four bytes: at the linear address `linear`, None where it is a register."""

    linear: int | None


def lowest_divided(code: bytes, bits: int, rip: int, regs: Sequence[int], bases: Sequence[int]) -> Divisor | None:
    """The divisor of the instruction at the beginning of `code`, when that is IDIV of EDX:EAX, which holds -2**63: #DE
    whatever the divisor is, as no quotient fits in 32 bits. None for anything else.

    `code` has up to 15 bytes of `bits`-bit code from `rip` on; `regs` are the general registers by their numbers,
    `bases` the linear bases of ES CS SS DS FS GS."""
    if regs[AX] & MASK32 or regs[DX] & MASK32 != LOWEST:
        return None
    prefixes, op, rex = split(code, bits)
    if len(op) < 2 or op[0] != IDIV or op[1] >> 3 & 7 != 7:
        return None
    if rex & REX_W or (OPERAND_SIZE in prefixes) == (bits != 16):
        return None
    found = decode(code, bits, bits) if bits != 64 else decode(op, 32, 32)
    if found.length is None:
        return None
    if found.rm is not None:
        return Divisor(None)
    ref = found.references[0]
    if bits != 64:
        return Divisor(bases[ref.segment] + ref.address(regs) & MASK32)
    address = (ref.displacement & MASK32 ^ 1 << 31) - (1 << 31)
    if ref.base is not None:
        address += regs[ref.base + (8 if rex & REX_B else 0)]
    if op[1] >> 6 == 0 and op[1] & 7 == 5:  # behind the instruction
        address += rip + len(prefixes) + found.length
    if op[1] & 7 == SIB and op[2] >> 3 & 7 | (rex & REX_X) << 2 != NO_INDEX:
        address += regs[op[2] >> 3 & 7 | (rex & REX_X) << 2] << (op[2] >> 6)
    if ADDRESS_SIZE in prefixes:
        address &= MASK32
    override = next((FS_GS[byte] for byte in reversed(prefixes) if byte in FS_GS), None)
    return Divisor(address + (0 if override is None else bases[override]) & MASK64)
