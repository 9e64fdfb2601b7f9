"""Which arithmetic flags the SDM leaves undefined behind an instruction, so that CPUs may differ in them.

SDM vol. 1, appendix A (table A-2, EFLAGS cross-reference), and "Flags Affected" of each instruction in vol. 2.
"""

from __future__ import annotations

from typing import Final

from emu.x86.classes import split

CF, PF, AF, ZF, SF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
ALL: Final = CF | PF | AF | ZF | SF | OF

#: AND, OR and XOR of all forms; TEST.
_LOGIC: Final = frozenset((*(base + form for base in (0x08, 0x20, 0x30) for form in range(6)), 0x84, 0x85, 0xA8, 0xA9))
#: The second opcode byte behind 0Fh: BT, BTS, BTR, BTC, and their group with an immediate (vol. 2A, BT).
_BIT_TESTS: Final = frozenset((0xA3, 0xAB, 0xB3, 0xBB, 0xBA))
_PLAIN: Final = {
    0x27: OF, 0x2F: OF,  # DAA, DAS
    0x37: OF | SF | ZF | PF, 0x3F: OF | SF | ZF | PF,  # AAA, AAS
    0xD4: OF | AF | CF, 0xD5: OF | AF | CF,  # AAM, AAD
    0x69: SF | ZF | AF | PF, 0x6B: SF | ZF | AF | PF,  # IMUL
}  # fmt: skip
_LOGIC_REGS: Final = frozenset((1, 4, 6))  # OR, AND, XOR of group 1
_SHIFTS: Final = frozenset((0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3))
_SHIFT_MASK: Final = 0x1F


def undefined_flags(code: bytes, bits: int, cl: int = 0) -> int:
    """The bits of RFLAGS that are undefined behind the instruction that begins `code`, in code of `bits` bits, when CL
    was `cl`; 0 for one whose bytes are cut off."""
    prefixes, op, rex = split(code, bits)
    if not op:
        return 0
    first, modrm = op[0], op[1] if len(op) > 1 else 0
    reg = modrm >> 3 & 7
    if first in _LOGIC:
        return AF
    if first in _PLAIN:
        return _PLAIN[first]
    if first in (0x80, 0x81, 0x82, 0x83):
        return AF if reg in _LOGIC_REGS else 0
    if first in _SHIFTS:
        width = 8 if not first & 1 else 64 if rex & 8 else 16 if (bits == 16) != (0x66 in prefixes) else 32
        count = 1 if first in (0xD0, 0xD1) else cl if first in (0xD2, 0xD3) else _immediate(op, bits, prefixes)
        return _shift(reg, count & (0x3F if rex & 8 else _SHIFT_MASK), width)
    if first in (0xF6, 0xF7):
        # TEST; MUL and IMUL; DIV and IDIV
        return (AF, AF, 0, 0, SF | ZF | AF | PF, SF | ZF | AF | PF, ALL, ALL)[reg]
    if first == 0x0F and len(op) > 1:
        return _behind_0f(op, bits, prefixes, rex, cl)
    return 0


def _shift(reg: int, count: int, width: int) -> int:
    """Group 2: ROL, ROR, RCL, RCR, SHL, SHR, SAL, SAR by `count`, which is masked (vol. 2B, SAL/SAR/SHL/SHR, RCL)."""
    if not count:
        return 0
    found = OF if count > 1 else 0
    if reg >= 4:
        found |= AF
        if count >= width and reg != 7:
            found |= CF
    return found


def _behind_0f(op: bytes, bits: int, prefixes: bytes, rex: int, cl: int) -> int:
    second = op[1]
    if second in _BIT_TESTS:
        return OF | SF | AF | PF
    if second in (0xBC, 0xBD):  # BSF, BSR; behind F3 TZCNT, LZCNT, which say by CF that the source is 0
        return OF | SF | AF | PF | (0 if 0xF3 in prefixes else CF)
    if second == 0xAF:  # IMUL
        return SF | ZF | AF | PF
    if second in (0xA4, 0xA5, 0xAC, 0xAD):  # SHLD, SHRD
        width = 64 if rex & 8 else 16 if (bits == 16) != (0x66 in prefixes) else 32
        count = cl if second & 1 else _immediate(op[1:], bits, prefixes)
        count &= 0x3F if rex & 8 else _SHIFT_MASK
        if not count:
            return 0
        return ALL if count > width else AF | (OF if count > 1 else 0)
    return 0


def _immediate(op: bytes, bits: int, prefixes: bytes) -> int:
    """The immediate byte behind ModRM and what belongs to it; `op` begins with the opcode's last byte."""
    if len(op) < 2:
        return 0
    at = 2 + _behind_modrm(op[1:], bits, 0x67 in prefixes)
    return op[at] if at < len(op) else 0


def _behind_modrm(code: bytes, bits: int, other: bool) -> int:
    """Bytes of SIB and displacement behind the ModRM that begins `code` (vol. 2A, tables 2-1 to 2-3)."""
    mod, low = code[0] >> 6, code[0] & 7
    if mod == 3:
        return 0
    if (bits == 16) != (other and bits != 64):
        return (2 if low == 6 else 0) if mod == 0 else mod
    sib = low == 4
    base = code[1] & 7 if sib and len(code) > 1 else low
    displacement = (4 if base == 5 else 0) if mod == 0 else 1 if mod == 1 else 4
    return sib + displacement
