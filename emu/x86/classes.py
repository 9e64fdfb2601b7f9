"""Which kinds of instructions a debugger stops at, or a hypervisor is exited to by: tables, segments, MSRs, CRs, HLT.

`classify` in emu/native/events.c is the same in C, for the helper; tests hold them together. SDM vol. 2D, appendix A
(opcode maps).
"""

from __future__ import annotations

from emu.typed import Final


class InstructionClass:
    """Masks; the numbers are those of emu/native/events.c. SEGMENT_ES is shifted by the register's number."""

    IRET = 1 << 0
    LGDT = 1 << 1
    LIDT = 1 << 2
    LLDT = 1 << 3
    LTR = 1 << 4
    RDMSR = 1 << 5
    WRMSR = 1 << 6
    CONTROL = 1 << 7  #: MOV to CRn, LMSW, CLTS
    MAGIC = 1 << 8  #: XCHG BX,BX: Bochs's magic breakpoint
    SEGMENT_ES = 1 << 9  #: MOV, POP and LxS to ES, and five more for CS SS DS FS GS; far transfers for CS
    HLT = 1 << 15
    CPUID = 1 << 16
    READ_CR3 = 1 << 17  #: MOV from CR3 and CR8
    READ_CR = 1 << 18  #: MOV from any other CRn
    DEBUG = 1 << 19  #: MOV to and from DRn
    CACHE = 1 << 20  #: INVD, WBINVD
    INVLPG = 1 << 21
    RDPMC = 1 << 22


ES, CS, SS, DS, FS, GS = (InstructionClass.SEGMENT_ES << n for n in range(6))
_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
#: One-byte opcodes without ModRM.
_PLAIN: Final = {
    0x9A: CS, 0xEA: CS, 0xCA: CS, 0xCB: CS, 0xCC: CS, 0xCD: CS, 0xCE: CS, 0xF1: CS,
    0xCF: CS | InstructionClass.IRET, 0xF4: InstructionClass.HLT,
}  # fmt: skip
#: Those that 64-bit code does not have.
_LEGACY: Final = {0x07: ES, 0x17: SS, 0x1F: DS}
#: Behind 0Fh.
_PLAIN_0F: Final = {
    0x05: CS, 0x07: CS, 0x34: CS, 0x35: CS, 0xA1: FS, 0xA9: GS, 0xB2: SS, 0xB4: FS, 0xB5: GS,
    0x06: InstructionClass.CONTROL, 0x22: InstructionClass.CONTROL,
    0x30: InstructionClass.WRMSR, 0x32: InstructionClass.RDMSR, 0x33: InstructionClass.RDPMC,
    0x08: InstructionClass.CACHE, 0x09: InstructionClass.CACHE, 0xA2: InstructionClass.CPUID,
    0x21: InstructionClass.DEBUG, 0x23: InstructionClass.DEBUG,
}  # fmt: skip
_GROUP_0F00: Final = {2: InstructionClass.LLDT, 3: InstructionClass.LTR}
_GROUP_0F01: Final = {2: InstructionClass.LGDT, 3: InstructionClass.LIDT, 7: InstructionClass.INVLPG}
_REX_WRB: Final = 0xD
_REX_R: Final = 4


def split(code: bytes, bits: int) -> tuple[bytes, bytes, int]:
    """The prefixes, the bytes from the opcode on, and REX (0: none)."""
    at = rex = 0
    while at < len(code) and (code[at] in _PREFIXES or (bits == 64 and code[at] & 0xF0 == 0x40)):
        rex = code[at] if code[at] not in _PREFIXES else 0
        at += 1
    return code[:at], code[at:], rex


def classify(code: bytes, bits: int) -> int:
    """The InstructionClass bits of the instruction that begins `code`, in code of `bits` bits; 0 for any other, and for
    one whose bytes are cut off."""
    prefixes, op, rex = split(code, bits)
    if not op:
        return 0
    first, second = op[0], op[1] if len(op) > 1 else None
    if first in _PLAIN:
        return _PLAIN[first]
    if bits != 64 and first in _LEGACY:
        return _LEGACY[first]
    if second is None:
        return 0
    if first == 0x0F:
        return _behind_0f(second, op[2] if len(op) > 2 else None, rex)
    reg, memory = second >> 3 & 7, second < 0xC0
    if first == 0x8E:  # MOV Sreg; CS cannot be its destination
        return 0 if reg > 5 or reg == 1 else ES << reg
    if first in (0xC4, 0xC5) and bits != 64 and memory:  # LES, LDS; otherwise a VEX prefix
        return ES if first == 0xC4 else DS
    if first == 0xFF and reg in (3, 5) and memory:
        return CS
    if first == 0x87 and second == 0xDB and not rex & _REX_WRB and (bits == 16) != (0x66 in prefixes):
        return InstructionClass.MAGIC
    return 0


def _behind_0f(opcode: int, modrm: int | None, rex: int) -> int:
    if opcode in (0x05, 0x06, 0x07, 0x08, 0x09, 0x30, 0x32, 0x33, 0x34, 0x35, 0xA1, 0xA2, 0xA9):
        return _PLAIN_0F[opcode]
    if modrm is None:
        return 0
    reg = modrm >> 3 & 7
    if opcode == 0x20:
        return InstructionClass.READ_CR3 if reg == (0 if rex & _REX_R else 3) else InstructionClass.READ_CR
    if opcode == 0x00:
        return _GROUP_0F00.get(reg, 0)
    if opcode == 0x01:
        if reg == 6:
            return InstructionClass.CONTROL
        return _GROUP_0F01.get(reg, 0) if modrm < 0xC0 else 0
    return _PLAIN_0F.get(opcode, 0)
