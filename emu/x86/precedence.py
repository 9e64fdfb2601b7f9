"""What comes before a violation of an operand's segment, for the portable loop: emu/native/precedence.c in Python, and
of encodings.c what needs no mandatory prefix to be told.

An instruction that is undefined, or refused for its privilege, never looks at its operand, and an IRET with NT reads no
stack (SDM vol. 3A, table 6-2; vol. 2: each instruction's page; vol. 2A, "LOCK"). Of 16- and 32-bit code.
"""

from __future__ import annotations

from typing import Final

from emu.x86.core import RFLAGS_NT
from emu.x86.operands import Instruction
from emu.x86.state import CR0_PE, RFLAGS_VM

RFLAGS_IOPL: Final = 3 << 12
CR0_EM, CR0_TS = 1 << 2, 1 << 3
CR4_VME, CR4_OSFXSR = 1 << 0, 1 << 9
PUSHF, POPF, IRET, ARPL = 0x9C, 0x9D, 0xCF, 0x63
GROUP_6, GROUP_7, LAR, LSL = 0x0F00, 0x0F01, 0x0F02, 0x0F03
LLDT, LTR, LGDT, LIDT, LMSW, INVLPG = 2, 3, 2, 3, 6, 7
GROUP_5: Final = 0xFF
FAR_CALL, FAR_JUMP = 3, 5  #: ModRM.reg of group 5

#: ADD, OR, ADC, SBB, AND, SUB, XOR to memory; XCHG, BTS, BTR, BTC, CMPXCHG, XADD.
_LOCKABLE: Final = frozenset(
    (
        *(row + form for row in (0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30) for form in (0, 1)),
        0x86, 0x87, 0x0FAB, 0x0FB3, 0x0FBB, 0x0FB0, 0x0FB1, 0x0FC0, 0x0FC1,
    )
)  # fmt: skip
#: Of groups, by ModRM.reg: group 1 but CMP, NOT and NEG, INC and DEC, BTS to BTC, CMPXCHG8B.
_LOCKABLE_GROUPS: Final = {
    **dict.fromkeys((0x80, 0x81, 0x82, 0x83), range(7)), **dict.fromkeys((0xF6, 0xF7), range(2, 4)),
    **dict.fromkeys((0xFE, 0xFF), range(2)), 0x0FBA: range(5, 8), 0x0FC7: range(1, 2),
}  # fmt: skip
#: ModRM.reg of what there is: MOV of segment registers, POP, MOV, INC and DEC, group 5, control registers, BT.
_NUMBERS: Final = {
    0x8C: range(6), 0x8E: (0, 2, 3, 4, 5), 0x8F: (0,), 0xC6: (0,), 0xC7: (0,), 0xFE: (0, 1), 0xFF: range(7),
    0x0F20: (0, 2, 3, 4), 0x0F22: (0, 2, 3, 4), 0x0FBA: range(4, 8),
}  # fmt: skip
#: MOV of test registers, 3DNow!.
_NONE: Final = frozenset((0x0F0E, 0x0F0F, 0x0F24, 0x0F26))
#: Of registers alone: MOVMSKPS, PEXTRW, PMOVMSKB, MASKMOVQ, shifts by an immediate.
_REGISTERS: Final = frozenset((0x0F50, 0x0FC5, 0x0FD7, 0x0FF7, 0x0F71, 0x0F72, 0x0F73))
#: Of memory alone: LES, LDS, MOVLPS, MOVHPS, MOVNTPS, MOVNTI, MOVNTQ, LDDQU.
_MEMORY: Final = frozenset((0xC4, 0xC5, 0x0F13, 0x0F17, 0x0F2B, 0x0FC3, 0x0FE7, 0x0FF0))

X87: Final = range(0xD8, 0xE0)
FENCES: Final = 0x0FAE
FXSAVES, MXCSRS = (0, 1), (2, 3)  #: ModRM.reg of FXSAVE and FXRSTOR, LDMXCSR and STMXCSR
WHOLE: Final = 16  #: bytes of an XMM register
#: MMX and SSE, as `is_vector` of encodings.c has them; those that SSE alone has, whatever their operand's size is.
_SSE_ALONE: Final = frozenset((*range(0x0F10, 0x0F18), *range(0x0F28, 0x0F30), *range(0x0F51, 0x0F60), 0x0FC2, 0x0FC6))
_VECTORS: Final = _SSE_ALONE | frozenset(
    (
        0x0F50, *range(0x0F60, 0x0F78), *range(0x0F7C, 0x0F80), 0x0FC4, 0x0FC5, *range(0x0FD0, 0x0FFF),
        *range(0x3800, 0x3842), *range(0x38DB, 0x38E0), *range(0x3A08, 0x3A64), 0x3ADF,
    )
)  # fmt: skip


def undefined(instruction: Instruction) -> bool:
    """True when it is #UD whatever the model, the mode and its mandatory prefix are."""
    opcode, reg, memory = instruction.opcode, instruction.reg, instruction.rm is None
    if instruction.lock:
        numbers = _LOCKABLE_GROUPS.get(opcode)
        if not memory or not (opcode in _LOCKABLE if numbers is None else reg in numbers):
            return True
    if opcode in _NONE or (opcode in _REGISTERS and memory) or (opcode in _MEMORY and not memory):
        return True
    if opcode == GROUP_5 and reg in (FAR_CALL, FAR_JUMP) and not memory:
        return True
    return opcode in _NUMBERS and reg not in _NUMBERS[opcode]


def _refused(instruction: Instruction, cr0: int, cr4: int) -> bool:
    """#NM or #UD by CR0.EM, CR0.TS and CR4.OSFXSR (SDM vol. 3A, 2.5 and 13.1.3)."""
    opcode, emulated = instruction.opcode, cr0 & (CR0_EM | CR0_TS)
    if opcode == FENCES and instruction.rm is None:
        return (
            bool(emulated)
            if instruction.reg in FXSAVES
            else instruction.reg in MXCSRS and (bool(emulated) or not cr4 & CR4_OSFXSR)
        )
    if opcode in _VECTORS:
        whole = bool(instruction.references) and instruction.references[0].size == WHOLE
        return bool(emulated) or (not cr4 & CR4_OSFXSR and (whole or opcode in _SSE_ALONE))
    return opcode in X87 and bool(emulated)


def comes_first(instruction: Instruction, *, cr0: int, cr4: int, rflags: int, cpl: int) -> bool:
    """True when what is wrong about the instruction itself, or an IRET to another task, keeps it from its operand."""
    opcode, reg, virtual = instruction.opcode, instruction.reg, bool(rflags & RFLAGS_VM)
    protected = bool(cr0 & CR0_PE) and not virtual
    if opcode in X87 or opcode == FENCES or opcode in _VECTORS:
        return _refused(instruction, cr0, cr4)
    if opcode in (PUSHF, POPF, IRET):
        redirects = cr4 & CR4_VME and instruction.operand_size == 2
        refused = virtual and rflags & RFLAGS_IOPL != RFLAGS_IOPL and not redirects
        return refused or (opcode == IRET and protected and bool(rflags & RFLAGS_NT))
    if opcode == GROUP_6:
        return not protected or (reg in (LLDT, LTR) and cpl > 0)
    if opcode == GROUP_7:
        return reg in (LGDT, LIDT, LMSW, INVLPG) and cpl > 0
    return opcode in (LAR, LSL, ARPL) and not protected
