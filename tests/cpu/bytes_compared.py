"""What may differ between a sample of random bytes here and under Bochs: what the instruction leaves undefined, orders
of exceptions that the SDM leaves open, and where Bochs is wrong, each with the section that says so.

What is not of one instruction alone stands in docs/fidelity.md too, "Where Bochs and we differ".
"""

from __future__ import annotations

from cpu.random_bytes import LONG_FIELDS, RF, VM, Decoded, decode, parse
from cpu.random_streams import AF, ARITHMETIC, C1, CF, OF, PF, SF, ZF

STEPPED, BR, UNDEFINED, NM, SS, GP, PAGE_FAULT, MF, UNALIGNED = 1, 5, 6, 7, 12, 13, 14, 16, 17
MEMORY_VECTORS = (SS, GP, PAGE_FAULT, UNALIGNED)
ES = 0x80  #: of the x87 status word
X87_STATE = {"fcw", "fsw", "ftw", "st", "exponents"}
SSE_STATE = {"mxcsr", "xmm"}
MEMORY_STATE = {"changed", "first", "memory"}

#: LxS and BOUND.
PAIRS = frozenset((0xC4, 0xC5, 0xFB2, 0xFB4, 0xFB5, 0x62))
#: What names several items, so that either of two may fault first, and CR2 be another: strings, stacks, far transfers,
#: MASKMOVQ.
SEVERAL = PAIRS | {
    0x07, 0x17, 0x1F, 0x60, 0x61, 0x8F, 0x9A, 0xA4, 0xA5, 0xA6, 0xA7, 0xC8, 0xCA, 0xCB, 0xCF, 0xE8, 0xFF, 0xFA1, 0xFA9,
    0xFF7,
}  # fmt: skip
#: The same of the x87: FLDENV, FNSTENV, FRSTOR, FNSAVE, FLD and FSTP m80, FBLD, FBSTP; and FXSAVE, FXRSTOR, SGDT, SIDT.
SEVERAL_BY_REG = frozenset((
    (0xD9, 4), (0xD9, 6), (0xDD, 4), (0xDD, 6), (0xDB, 5), (0xDB, 7), (0xDF, 4), (0xDF, 6), (0xFAE, 0), (0xFAE, 1),
    (0xF01, 0), (0xF01, 1),
))  # fmt: skip
#: Of these Bochs has stored the first items when it faults at another, or goes beyond CS behind them (vol. 3A, 6.5).
STORED_BEFORE = frozenset((0x60, 0x9A, 0xC8, 0xE8, 0xFF, 0xF01))
GENERAL = frozenset(LONG_FIELDS[LONG_FIELDS.index("eax") : LONG_FIELDS.index("r15") + 1])
STRINGS = frozenset((0x6C, 0x6D, 0x6E, 0x6F, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF))
SELECTOR_PUSHES = frozenset((0x06, 0x0E, 0x16, 0x1E, 0xFA0, 0xFA8))
SELECTOR_POPS = frozenset((0x07, 0x17, 0x1F, 0xFA1, 0xFA9))


def undefined_flags(at: Decoded) -> int:
    """The flags that the instruction leaves undefined (SDM vol. 1, appendix A; vol. 2, each instruction's own)."""
    match at.opcode:
        case 0x37 | 0x3F:  # AAA, AAS
            return OF | SF | ZF | PF
        case 0x27 | 0x2F:  # DAA, DAS
            return OF
        case 0xD4 | 0xD5:  # AAM, AAD
            return OF | AF | CF
        case 0xC0 | 0xC1 | 0xD0 | 0xD1 | 0xD2 | 0xD3:  # shifts; OF of rotates by more than 1
            many = 0 if at.opcode in (0xD0, 0xD1) else OF
            return many if at.reg < 4 else many | AF | (CF if many else 0)
        case 0xFA4 | 0xFA5 | 0xFAC | 0xFAD:  # SHLD, SHRD
            return OF | AF | SF | ZF | PF | CF
        case 0x69 | 0x6B | 0xFAF:  # IMUL
            return SF | ZF | AF | PF
        case 0xF6 | 0xF7 if at.reg in (4, 5):  # MUL, IMUL
            return SF | ZF | AF | PF
        case 0xF6 | 0xF7 if at.reg > 5:  # DIV, IDIV
            return ARITHMETIC
        case 0xF6 | 0xF7 if at.reg < 2:  # TEST
            return AF
        case 0x80 | 0x81 | 0x82 | 0x83:  # OR, AND, XOR
            return AF if at.reg in (1, 4, 6) else 0
        case 0x84 | 0x85 | 0xA8 | 0xA9:  # TEST
            return AF
        case opcode if opcode < 0x38 and opcode & 7 < 6 and opcode >> 3 in (1, 4, 6):
            return AF
        case 0xFA3 | 0xFAB | 0xFB3 | 0xFBB | 0xFBA:  # BT, BTS, BTR, BTC
            return OF | SF | AF | PF
        case 0xC4F2 | 0xC4F3 | 0xC4F5:  # ANDN; BLSR, BLSMSK, BLSI; BZHI
            return AF | PF
        case 0xC4F7:  # BEXTR
            return AF | SF | PF
        case 0xFBC | 0xFBD:  # BSF, BSR, TZCNT, LZCNT
            return OF | SF | AF | PF | CF
        case _:
            return 0


def compared(code: bytes, setup: tuple[int, int], ours: str, theirs: str, *, long: bool = False) -> list[str]:
    """The names of the fields that differ and should not. `setup`: EFLAGS and the last dword of the sample's record.
    `long`: it is 64-bit code."""
    here, there, at = parse(ours), parse(theirs), decode(code, long)
    names = {name for name in here if here[name] != there[name]}
    if "vector" in names:
        if order_is_open(at, bool(setup[1] & 0xF0), here, there):
            names.clear()
    else:
        names -= undefined_fields(code, at, here, there)
    return [name for name in here if name in names]


def calls_into_64(at: Decoded, here: dict[str, str]) -> bool:
    """A far CALL from compatibility mode to 64-bit code. Its frame goes to the stack of the caller's mode here (AMD64
    APM vol. 3, CALL far), to the callee's, without SS's base, in Bochs; vol. 2A says nothing of it."""
    return at.opcode in (0x9A, 0xFF) and "r8" in here and here["cs"] == "CB"


def undefined_fields(code: bytes, at: Decoded, here: dict[str, str], there: dict[str, str]) -> set[str]:
    """The fields that need not be equal, the vector being the same."""
    vector = int(here["vector"], 16)
    faults, pair, found = vector in MEMORY_VECTORS, (at.opcode, at.reg), set()
    undefined = undefined_flags(at) if vector == STEPPED else 0
    if at.opcode in STRINGS and at.repeated:
        undefined |= RF  # behind an iteration it is pushed as 1 (vol. 3B, 17.3.1.1), by Bochs as 0
    if at.compares and int(here["fsw"], 16) & ES:
        undefined |= ARITHMETIC  # not set where an invalid operand is not masked (vol. 2A, FCOMI); Bochs sets them
    if not difference(here, there, "flags") & ~undefined:
        found.add("flags")
    if at.x87 and (faults or at.frees) and not difference(here, there, "fsw") & ~C1:
        found.add("fsw")  # Bochs has cleared C1 by then; FFREE leaves it undefined
    if faults and (at.opcode in STORED_BEFORE or pair in SEVERAL_BY_REG):
        found |= MEMORY_STATE
    if faults and pair in ((0xFAE, 1), (0xD9, 4), (0xDD, 4)):
        found |= X87_STATE | SSE_STATE  # Bochs has loaded the first items
    if faults and pair in ((0xDB, 7), (0xDF, 6)):
        found.add("fsw")  # Bochs has found an empty register before it looks at the operand (vol. 3A, 6.5)
    if vector == PAGE_FAULT and (at.opcode in SEVERAL or pair in SEVERAL_BY_REG):
        found |= {"cr2", "code"}
    if vector == GP and at.opcode in PAIRS:
        found.add("code")  # of the limit here, of the selector behind it there
    if at.opcode == 0xF02:  # LAR leaves bits 19 to 16 undefined (vol. 2A, LAR)
        found |= {name for name in here if name in GENERAL and not difference(here, there, name) & ~0xF0000}
    if calls_into_64(at, here):
        found |= {"esp"} | MEMORY_STATE
    if at.opcode in SELECTOR_PUSHES:
        found |= MEMORY_STATE  # 16 bits of 32 there, vol. 2B allows both
    if at.opcode in (0xF52, 0xF53):
        found |= SSE_STATE  # RSQRTPS and RCPPS are approximations
    if at.opcode == 0xC8:
        found.add("ebp")  # vol. 2A, ENTER: BP on a 16-bit stack
    if at.opcode in (0xFBC, 0xFBD) and "r8" in here and int(here["flags"], 16) & ZF:
        # of a zero the destination is undefined (vol. 2A, BSF); its upper half stays in Bochs, and on some CPUs alone
        found |= {name for name in here if name in GENERAL and not difference(here, there, name) & (1 << 32) - 1}
    # CVTPI2PS of memory makes registers those of MMX here (vol. 2A) and not there; a fault leaves them (vol. 3A, 6.5)
    if at.opcode == 0xF2A or (vector != STEPPED and at.opcode in (0xF2C, 0xF2D, 0xFF7)) or at.many:
        found |= X87_STATE
    return found


def difference(here: dict[str, str], there: dict[str, str], name: str) -> int:
    return int(here[name], 16) ^ int(there[name], 16)


def order_is_open(at: Decoded, at_end: bool, here: dict[str, str], there: dict[str, str]) -> bool:
    """Two exceptions of one instruction, of which either may come first (vol. 3A, table 6-2); or Bochs is wrong.
    `at_end`: the instruction lies at the end of its page."""
    ours, theirs = int(here["vector"], 16), int(there["vector"], 16)
    found = {ours, theirs}
    # how much is fetched of an instruction that is too long, or that its first bytes make #UD
    if (at_end or at.many) and found <= {UNDEFINED, NM, GP, PAGE_FAULT, MF}:
        return True
    if (at.opcode in SEVERAL or (at.opcode, at.reg) in SEVERAL_BY_REG) and found <= set(MEMORY_VECTORS):
        return True
    if ours == UNALIGNED and at.opcode in SELECTOR_PUSHES | SELECTOR_POPS:
        return True  # of 32 bits, of which Bochs moves 16; vol. 2B allows both
    if found == {SS, GP} and at.opcode > 0xFF:  # a limit and alignment
        return True
    if at.x87 and UNDEFINED in found and found <= {UNDEFINED, NM, MF}:
        return True
    if at.x87 and theirs == STEPPED and int(there["fsw"], 16) & ES:
        return ours in MEMORY_VECTORS  # a store that an exception keeps from memory
    if at.opcode == 0xF2A and ours == MF:  # vol. 2A, CVTPI2PS: such an exception is handled before
        return True
    if at.opcode in PAIRS or (at.opcode == 0xFF and at.reg in (3, 5) and theirs == STEPPED):
        # an operand that goes beyond 64 KiB does not wrap (vol. 3A, 5.3); with FS's limit it is there
        return (ours in (SS, GP) and theirs in (STEPPED, BR)) or (0x64 in at.prefixes and found == {STEPPED, GP})
    if at.opcode in STRINGS:  # of no iterations at all Bochs asks for the port
        return at.opcode < 0x70 and at.repeated and ours == STEPPED and theirs == GP
    if at.opcode in (0x8C, 0x8E) and at.rex & 4:  # REX.R, which is ignored there (vol. 2A, 2.2.1.2)
        return theirs == UNDEFINED
    if calls_into_64(at, here):
        return theirs in MEMORY_VECTORS
    if at.opcode in (0x9A, 0xFF):  # to a conforming segment, whose DPL Bochs pushes by (vol. 3A, 5.8.1.2)
        return ours == PAGE_FAULT and theirs == STEPPED
    if (
        at.opcode >= 0xC400 and theirs == UNDEFINED and at.wide and "r8" not in here
    ):  # VEX.W counts in 64-bit code alone (vol. 2A, ANDN)
        return True
    if at.opcode >= 0xC400:  # VEX in real and V86 mode (vol. 2A, 2.3.1)
        return ours == UNDEFINED and bool(int(here["flags"], 16) & VM)
    if at.opcode == 0xCF:  # beyond CS in V86 mode (vol. 2A, IRET)
        return ours == GP and theirs == STEPPED
    if at.opcode == 0x9D:  # in V86 mode by IOPL, before it reads its operand (vol. 2B, POPF)
        return ours == GP and theirs in (PAGE_FAULT, UNALIGNED)
    if (at.opcode, at.reg) == (0xDD, 6):  # vol. 3A, table 6-7: 4 or 2 bytes; Bochs wants 8 of each register
        return ours == STEPPED and theirs == UNALIGNED
    return at.opcode == 0xF0F and ours == UNDEFINED  # 3DNow!, which is not looked at further
