"""Which memory an instruction of 16- or 32-bit code names: its length, operands and near branch, from bytes alone.

`decode` says what is encoded, `Reference.address` where that is for given registers. Operands are listed in the order
in which the CPU checks them. The tables follow SDM vol. 2D, appendix A (opcode maps, tables A-2 to A-6; escape opcodes,
A.5); letters:

    access  r read, w write, m read and write, c within its segment whatever its type, - addressed only
    size    b 1, w 2, d 4, q 8, t 10, o 16 bytes; v operand size; p far pointer, 2 + v; a two of v; s 6;
            e x87 environment, 14 or 28; f x87 state, 94 or 108; x 512 (FXSAVE); S by SSE prefix: 16, F3 4, F2 8;
            M 8, with prefix 66 16
    imm     b 1, w 2, z 2 or 4 by operand size, o by address size (moffs), p far pointer, e 3 (ENTER)

64-bit code has neither limits nor these encodings and is not decoded here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from emu.named import Enum
from emu.record import dataclass
from emu.typed import Final

ES, CS, SS, DS, FS, GS = range(6)
AX, CX, DX, BX, SP, BP, SI, DI = range(8)
LONGEST: Final = 15  #: bytes of the longest instruction (SDM vol. 2A, 2.3.11)


class Branch(Enum):
    """How an instruction may change EIP within its code segment."""

    ALWAYS = "always"  #: JMP, CALL with a displacement
    CONDITION = "condition"  #: Jcc: `Instruction.condition`
    LOOP = "loop"  #: LOOP, LOOPcc, JCXZ: `Instruction.condition` is the opcode's low two bits
    OPERAND = "operand"  #: JMP, CALL to the value of a register or of the first reference
    RETURN = "return"  #: RET: the value of the first reference
    FAR = "far"  #: of real and V86 mode, JMP and CALL to an immediate pointer: `segcheck.far_branch`


@dataclass(frozen=True, slots=True)
class Reference:
    """One memory operand: registers by number (None: not used), `displacement` signed or not, all in bytes."""

    segment: int
    size: int
    read: bool
    write: bool
    mask: int  #: effective addresses are this wide: FFFFh or FFFFFFFFh
    base: int | None = None
    index: int | None = None
    scale: int = 1
    displacement: int = 0
    xlat: bool = False  #: AL is added
    bits: int | None = None  #: the register whose bit offset is added, for BT and its kind
    repeated: bool = False  #: only touched while the count is not 0

    def address(self, regs: Sequence[int]) -> int:
        """The effective address for general registers `regs` (SDM vol. 1, 3.7.5)."""
        value = self.displacement
        if self.base is not None:
            value += regs[self.base]
        if self.index is not None:
            value += regs[self.index] * self.scale
        if self.xlat:
            value += regs[AX] & 0xFF
        if self.bits is not None:  # vol. 2A, "BT": the operand is taken from the element that holds the bit
            width = 8 * self.size
            offset = regs[self.bits] & (1 << width) - 1
            if offset >> width - 1:
                offset -= 1 << width
            value += offset // width * self.size
        return value & self.mask


@dataclass(frozen=True, slots=True)
class Instruction:
    """What `decode` found. `length` is None when the bytes do not hold the whole instruction."""

    length: int | None
    opcode: int = 0  #: 0F maps have 0F00h added
    reg: int = 0  #: of ModRM
    rm: int | None = None  #: the register that ModRM names in place of memory
    operand_size: int = 2
    address_mask: int = 0xFFFF
    references: tuple[Reference, ...] = ()
    branch: Branch | None = None
    condition: int = 0
    displacement: int = 0  #: of a relative branch, from the end of the instruction
    immediate: int = 0
    repeat: bool = False
    lock: bool = False


# -- the one-byte map: opcode -> (ModRM access and size or "", immediate)


def _one_byte() -> dict[int, tuple[str, str]]:
    table: dict[int, tuple[str, str]] = {}
    for row in range(8):
        at, access = row * 8, "r" if row == 7 else "m"
        table |= {at: (access + "b", ""), at + 1: (access + "v", ""), at + 2: ("rb", ""), at + 3: ("rv", "")}
        table |= {at + 4: ("", "b"), at + 5: ("", "z")}
    table |= {
        0x62: ("ra", ""),
        0x63: ("mw", ""),
        0x69: ("rv", "z"),
        0x6B: ("rv", "b"),
        0x68: ("", "z"),
        0x6A: ("", "b"),
    }
    table |= dict.fromkeys((*range(112, 128), *range(224, 232), *range(176, 184), 235, 168, 205), ("", "b"))
    table |= {
        0x80: ("group", "b"),
        0x81: ("group", "z"),
        0x82: ("group", "b"),
        0x83: ("group", "b"),
        0x84: ("rb", ""),
        0x85: ("rv", ""),
    }
    table |= {
        0x86: ("mb", ""),
        0x87: ("mv", ""),
        0x88: ("wb", ""),
        0x89: ("wv", ""),
        0x8A: ("rb", ""),
        0x8B: ("rv", ""),
    }
    table |= {0x8C: ("ww", ""), 0x8D: ("-b", ""), 0x8E: ("rw", ""), 0x8F: ("wv", "")}
    table |= {0x9A: ("", "p"), 0xEA: ("", "p"), 0xA9: ("", "z"), 0xE8: ("", "z"), 0xE9: ("", "z")}
    table |= dict.fromkeys(range(160, 164), ("", "o")) | dict.fromkeys(range(184, 192), ("", "z"))
    table |= {
        0xC0: ("mb", "b"),
        0xC1: ("mv", "b"),
        0xC2: ("", "w"),
        0xCA: ("", "w"),
        0xC4: ("rp", ""),
        0xC5: ("rp", ""),
    }
    table |= {0xC6: ("wb", "b"), 0xC7: ("wv", "z"), 0xC8: ("", "e"), 0xD4: ("", "b"), 0xD5: ("", "b")}
    table |= {0xD0: ("mb", ""), 0xD1: ("mv", ""), 0xD2: ("mb", ""), 0xD3: ("mv", "")}
    table |= dict.fromkeys(range(216, 224), ("x87", ""))
    table |= {0xF6: ("group", ""), 0xF7: ("group", ""), 0xFE: ("group", ""), 0xFF: ("group", "")}
    return table


# -- the 0F map. Opcodes in neither table have no ModRM byte, or fault anyway.


def _two_byte() -> dict[int, tuple[str, str]]:
    table: dict[int, tuple[str, str]] = {
        0x00: ("group", ""), 0x01: ("group", ""), 0x02: ("rw", ""), 0x03: ("rw", ""), 0x0D: ("-b", ""),
        0x10: ("rS", ""), 0x11: ("wS", ""), 0x12: ("sse", ""), 0x13: ("wq", ""), 0x14: ("ro", ""), 0x15: ("ro", ""),
        0x16: ("sse", ""), 0x17: ("wq", ""), 0x28: ("ro", ""), 0x29: ("wo", ""), 0x2A: ("sse", ""), 0x2B: ("wo", ""),
        0x2C: ("sse", ""), 0x2D: ("sse", ""), 0x2E: ("sse", ""), 0x2F: ("sse", ""), 0x6E: ("rd", ""), 0x6F: ("sse", ""),
        0x70: ("sse", "b"), 0x7E: ("sse", ""), 0x7F: ("sse", ""), 0xA3: ("rv", ""), 0xAB: ("mv", ""), 0xB3: ("mv", ""),
        0xBB: ("mv", ""), 0xA4: ("mv", "b"), 0xA5: ("mv", ""), 0xAC: ("mv", "b"), 0xAD: ("mv", ""), 0xAE: ("group", ""),
        0xAF: ("rv", ""), 0xB0: ("mb", ""), 0xB1: ("mv", ""), 0xB2: ("rp", ""), 0xB4: ("rp", ""), 0xB5: ("rp", ""),
        0xB6: ("rb", ""), 0xB7: ("rw", ""), 0xB8: ("rv", ""), 0xBA: ("group", "b"), 0xBC: ("rv", ""), 0xBD: ("rv", ""),
        0xBE: ("rb", ""), 0xBF: ("rw", ""), 0xC0: ("mb", ""), 0xC1: ("mv", ""), 0xC2: ("rS", "b"), 0xC3: ("wd", ""),
        0xC4: ("rw", "b"), 0xC5: ("ro", "b"), 0xC6: ("ro", "b"), 0xC7: ("group", ""), 0xD6: ("wq", ""),
        0xE7: ("wM", ""), 0xE6: ("sse", ""), 0xF0: ("ro", ""), 0xF7: ("-b", ""), 0x5A: ("sse", ""), 0x5B: ("ro", ""),
        0x71: ("-b", "b"), 0x72: ("-b", "b"), 0x73: ("-b", "b"), 0x50: ("-b", ""), 0xD7: ("-b", ""),
        0x20: ("-b", ""), 0x21: ("-b", ""), 0x22: ("-b", ""), 0x23: ("-b", ""),
    }  # fmt: skip
    table |= dict.fromkeys(range(24, 32), ("-b", ""))
    table |= dict.fromkeys(range(64, 80), ("rv", ""))
    table |= dict.fromkeys((81, 88, 89, 92, 93, 94, 95), ("rS", ""))
    table |= dict.fromkeys((82, 83), ("sse", "")) | dict.fromkeys(range(84, 88), ("ro", ""))
    table |= dict.fromkeys((96, 97, 98), ("sse", ""))  # punpckl: 4 bytes with MMX, 16 with SSE
    table |= dict.fromkeys((*range(99, 110), *range(116, 119), *range(209, 214)), ("rM", ""))
    table |= dict.fromkeys((*range(216, 230), *range(232, 240), *range(241, 247), *range(248, 255)), ("rM", ""))
    table |= dict.fromkeys(range(128, 144), ("", "z")) | dict.fromkeys(range(144, 160), ("wb", ""))
    table |= dict.fromkeys((108, 109, 124, 125, 208), ("ro", ""))
    return table


ONE_BYTE: Final = _one_byte()
TWO_BYTE: Final = _two_byte()
#: By opcode, one entry a value of ModRM.reg.
GROUPS: Final[dict[int, tuple[str, ...]]] = {
    0x80: (*("mb",) * 7, "rb"),  # CMP writes nothing
    0x81: (*("mv",) * 7, "rv"),
    0x82: (*("mb",) * 7, "rb"),
    0x83: (*("mv",) * 7, "rv"),
    0xF6: ("rb", "rb", "mb", "mb", "rb", "rb", "rb", "rb"),
    0xF7: ("rv", "rv", "mv", "mv", "rv", "rv", "rv", "rv"),
    0xFE: ("mb", "mb", "", "", "", "", "", ""),
    0xFF: ("mv", "mv", "rv", "rp", "rv", "rp", "rv", ""),
    0x0F00: ("ww", "ww", "rw", "rw", "rw", "rw", "", ""),
    0x0F01: ("ws", "ws", "rs", "rs", "ww", "", "rw", "-b"),
    0x0FAE: ("wx", "rx", "rd", "wd", "", "", "", "cb"),
    0x0FBA: ("", "", "", "", "rv", "mv", "mv", "mv"),
    0x0FC7: ("", "mq", "", "", "", "", "", ""),
}
#: D8-DF with a memory operand, by ModRM.reg (SDM vol. 2D, tables A-7 to A-22).
X87: Final[tuple[tuple[str, ...], ...]] = (
    ("rd",) * 8,
    ("rd", "", "wd", "wd", "re", "rw", "we", "ww"),
    ("rd",) * 8,
    ("rd", "wd", "wd", "wd", "", "rt", "", "wt"),
    ("rq",) * 8,
    ("rq", "wq", "wq", "wq", "rf", "", "wf", "ww"),
    ("rw",) * 8,
    ("rw", "ww", "ww", "ww", "rt", "rq", "wt", "wq"),
)
#: Opcodes of "sse" by mandatory prefix: none, 66, F3, F2.
SSE: Final[dict[int, tuple[str, str, str, str]]] = {
    0x12: ("rq", "rq", "ro", "rq"), 0x16: ("rq", "rq", "ro", "rq"),
    0x2A: ("rq", "rq", "rd", "rd"), 0x2C: ("rq", "ro", "rd", "rq"), 0x2D: ("rq", "ro", "rd", "rq"),
    0x2E: ("rd", "rq", "rd", "rd"), 0x2F: ("rd", "rq", "rd", "rd"), 0x52: ("ro", "ro", "rd", "ro"),
    0x53: ("ro", "ro", "rd", "ro"), 0x5A: ("rq", "ro", "rd", "rq"), 0x60: ("rd", "ro", "rd", "rd"),
    0x61: ("rd", "ro", "rd", "rd"), 0x62: ("rd", "ro", "rd", "rd"), 0x6F: ("rq", "ro", "ro", "rq"),
    0x70: ("rq", "ro", "ro", "ro"), 0x7E: ("wd", "wd", "rq", "wd"), 0x7F: ("wq", "wo", "wo", "wq"),
    0xE6: ("ro", "ro", "rq", "ro"),
}  # fmt: skip
#: Behind 0F 38 and 0F 3A, where the operand is not one of a whole register (SDM vol. 2, each one's own page): MOVBE,
#: ADCX and ADOX, PMOVSX and PMOVZX; ROUNDSS, ROUNDSD, INSERTPS, PINSRB, PINSRD, PEXTRB, PEXTRW, PEXTRD, EXTRACTPS.
BEHIND: Final = {
    0x38F0: "rv", 0x38F1: "wv", 0x38F6: "rd", 0x3820: "rq", 0x3821: "rd", 0x3822: "rw", 0x3823: "rq", 0x3824: "rd",
    0x3825: "rq", 0x3830: "rq", 0x3831: "rd", 0x3832: "rw", 0x3833: "rq", 0x3834: "rd", 0x3835: "rq", 0x3A0A: "rd",
    0x3A0B: "rq", 0x3A14: "wb", 0x3A15: "ww", 0x3A16: "wd", 0x3A17: "wd", 0x3A20: "rb", 0x3A21: "rd", 0x3A22: "rd",
}  # fmt: skip
CRC32: Final = {0x38F0: "rb", 0x38F1: "rv"}
#: Of BMI1 and BMI2: VEX.mmmmm and the opcode, with the values of VEX.pp (none, 66, F3, F2) it has, all with VEX.L = 0
#: and a 32-bit operand that is read (SDM vol. 2A to 2D: ANDN; BLSI, BLSMSK, BLSR; BZHI, PDEP, PEXT; MULX; BEXTR, SHLX,
#: SARX, SHRX; RORX).
BMI: Final[dict[tuple[int, int], tuple[int, ...]]] = {
    (2, 0xF2): (0,), (2, 0xF3): (0,), (2, 0xF5): (0, 2, 3), (2, 0xF6): (3,), (2, 0xF7): (0, 1, 2, 3), (3, 0xF0): (3,),
}  # fmt: skip
_SEGMENT_PREFIXES: Final = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
#: 16-bit addressing forms: base and index (SDM vol. 2A, table 2-1).
_FORMS16: Final = ((BX, SI), (BX, DI), (BP, SI), (BP, DI), (SI, None), (DI, None), (BP, None), (BX, None))
_FIXED: Final = {"b": 1, "w": 2, "d": 4, "q": 8, "t": 10, "o": 16, "s": 6, "x": 512}
NO_MODRM_0F: Final = frozenset(
    (*range(0x04, 0x0D), 0x0E, *range(0x30, 0x40), 0x77, 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA, *range(0xC8, 0xD0))
)


class _Short(Exception):
    """The bytes end before the instruction does."""


class _Reader:
    def __init__(self, code: bytes) -> None:
        self.code, self.at = code, 0

    def byte(self) -> int:
        if self.at >= len(self.code):
            raise _Short
        self.at += 1
        return self.code[self.at - 1]

    def number(self, size: int, *, signed: bool = False) -> int:
        if self.at + size > len(self.code):
            raise _Short
        self.at += size
        return int.from_bytes(self.code[self.at - size : self.at], "little", signed=signed)


@functools.lru_cache(maxsize=1 << 16)
def decode(code: bytes, bits: int, stack_bits: int) -> Instruction:
    """The instruction at the beginning of `code` for a default size of `bits` (16 or 32) and a stack pointer of
    `stack_bits`. `protected` differences do not exist at this level. More bytes than the instruction has are ignored.
    """
    try:
        return _decode(_Reader(code), bits, stack_bits)
    except _Short:
        return Instruction(None)


def _decode(r: _Reader, bits: int, stack_bits: int) -> Instruction:
    opsize66 = addr67 = lock = False
    override: int | None = None
    rep = 0
    while True:
        op = r.byte()
        if op in _SEGMENT_PREFIXES:
            override = _SEGMENT_PREFIXES[op]
        elif op == 0x66:
            opsize66 = True
        elif op == 0x67:
            addr67 = True
        elif op in (0xF2, 0xF3):
            rep = op
        elif op == 0xF0:
            lock = True
        else:
            break
    osz = 4 if (bits == 32) != opsize66 else 2
    mask = 0xFFFFFFFF if (bits == 32) != addr67 else 0xFFFF
    stack_mask = 0xFFFFFFFF if stack_bits == 32 else 0xFFFF
    opcode = op
    vex = None
    if op in (0xC4, 0xC5) and bits == 32 and r.code[r.at : r.at + 1] >= b"\xc0":
        vex = _vex(r) if op == 0xC4 and not (opsize66 or rep or lock) else None
        if vex is None:
            return Instruction(None)
    if vex is not None:
        opcode, spec, imm = vex
    elif op == 0x0F:
        op = r.byte()
        opcode = 0x0F00 | op
        if op in (0x38, 0x3A):
            sub = r.byte()
            opcode = op << 8 | sub
            spec, imm = BEHIND.get(opcode, "ro" if opsize66 else "rq"), ("b" if op == 0x3A else "")
            if rep == 0xF2:
                spec = CRC32.get(opcode, spec)
        elif op in NO_MODRM_0F:
            spec, imm = "", ""
        else:
            spec, imm = TWO_BYTE.get(op, ("", ""))
    else:
        spec, imm = ONE_BYTE.get(op, ("", ""))
    out: list[Reference] = []
    reg = 0
    rm: int | None = None
    if spec:
        modrm = r.byte()
        reg = modrm >> 3 & 7
        if spec == "group":
            spec = GROUPS[opcode][reg]
            if opcode in (0xF6, 0xF7) and reg < 2:
                imm = "b" if opcode == 0xF6 else "z"
        elif spec == "x87":
            spec = X87[opcode - 0xD8][reg]
        elif spec == "sse":
            spec = SSE[op][3 if rep == 0xF2 else 2 if rep == 0xF3 else 1 if opsize66 else 0]
        if modrm >> 6 == 3 or (opcode in range(0x0F20, 0x0F24)):
            rm = modrm & 7
        else:
            base, index, scale, displacement, segment = _modrm(r, modrm, mask, osz if opcode == 0x8F else 0)
            if spec and spec[0] != "-":
                bit_reg = reg if opcode in (0x0FA3, 0x0FAB, 0x0FB3, 0x0FBB) else None
                out.append(
                    Reference(
                        segment if override is None else override, _size(spec[1], osz, opsize66, rep),
                        spec[0] in "rm", spec[0] in "wm", mask, base, index, scale, displacement, bits=bit_reg,
                    )
                )  # fmt: skip
    immediate, relative = 0, 0
    if imm == "o":
        displacement = r.number(4 if mask > 0xFFFF else 2)
        size = 1 if not op & 1 else osz
        out.append(
            Reference(
                DS if override is None else override, size, op < 0xA2, op >= 0xA2, mask, displacement=displacement
            )
        )
    elif imm:
        length = {"b": 1, "w": 2, "z": osz, "p": osz + 2, "e": 3}[imm]
        relative = immediate = r.number(length, signed=imm in "bz")
    state = _Stack(out, stack_mask, osz)
    branch, condition = _implicit(opcode, reg, rm, immediate, override, mask, osz, bool(rep), opsize66, state)
    if r.at > LONGEST:
        return Instruction(r.at, opcode)  # #GP(0), which the engine raises
    return Instruction(
        r.at, opcode, reg, rm, osz, mask, tuple(out), branch, condition, relative, immediate, bool(rep), lock
    )


def _vex(r: _Reader) -> tuple[int, str, str] | None:
    """Opcode, operand and immediate of BMI1 and BMI2 behind the three-byte VEX prefix, which is C4h with a ModRM that
    LES does not have (SDM vol. 2A, 2.3). None for all else, which the engine has not: the reader then stays."""
    code = r.code[r.at : r.at + 4]
    if len(code) < 4 or code[1] & 4:
        return None
    table, prefix, sub, reg = code[0] & 31, code[1] & 3, code[2], code[3] >> 3 & 7
    if table == 3 and code[1] >> 3 & 15 != 15:  # VEX.vvvv names no register
        return None
    if prefix not in BMI.get((table, sub), ()) or (sub == 0xF3 and reg not in (1, 2, 3)):
        return None
    r.at += 3
    return (0x3800 if table == 2 else 0x3A00) | sub, "rd", "b" if table == 3 else ""


def _size(letter: str, osz: int, opsize66: bool, rep: int) -> int:
    if letter in _FIXED:
        return _FIXED[letter]
    if letter == "S":
        return {0xF3: 4, 0xF2: 8}.get(rep, 16)
    if letter == "M":
        return 16 if opsize66 else 8
    return {"v": osz, "p": osz + 2, "a": 2 * osz, "e": 14 if osz == 2 else 28, "f": 94 if osz == 2 else 108}[letter]


def _modrm(r: _Reader, modrm: int, mask: int, popped: int) -> tuple[int | None, int | None, int, int, int]:
    """Base, index, scale, displacement and default segment. `popped` is added where the base is ESP: POP computes its
    destination with the pointer already incremented (SDM vol. 2B, "POP")."""
    mod, low = modrm >> 6, modrm & 7
    base: int | None
    index: int | None
    if mask == 0xFFFF:
        base, index = _FORMS16[low]
        if mod == 0 and low == 6:
            return None, None, 1, r.number(2), DS
        displacement = 0 if mod == 0 else r.number(mod, signed=True)
        return base, index, 1, displacement, SS if base == BP else DS
    base, index, scale = low, None, 1
    if low == SP:
        sib = r.byte()
        base, index, scale = sib & 7, sib >> 3 & 7, 1 << (sib >> 6)
        if index == SP:
            index = None
    if mod == 0 and base == BP:
        return None, index, scale, r.number(4, signed=True), DS
    displacement = 0 if mod == 0 else r.number(1 if mod == 1 else 4, signed=True)
    if base == SP:
        displacement += popped
    return base, index, scale, displacement, SS if base in (SP, BP) else DS


@dataclass(slots=True)
class _Stack:
    """Appends implicit stack references."""

    out: list[Reference]
    mask: int
    size: int

    def push(self, count: int = 1, size: int | None = None) -> None:
        n = size or self.size
        for i in range(count):
            self.out.append(Reference(SS, n, False, True, self.mask, SP, displacement=-n * (i + 1)))

    def pop(self, count: int = 1, size: int | None = None, *, first: bool = False) -> None:
        n = size or self.size
        found = [Reference(SS, n, True, False, self.mask, SP, displacement=n * i) for i in range(count)]
        self.out[:] = [*found, *self.out] if first else [*self.out, *found]


_PUSHES: Final = frozenset((0x06, 0x0E, 0x16, 0x1E, *range(0x50, 0x58), 0x68, 0x6A, 0x9C, 0x0FA0, 0x0FA8))
_POPS: Final = frozenset((0x07, 0x17, 0x1F, *range(0x58, 0x60), 0x9D, 0x0FA1, 0x0FA9))


def _implicit(
    op: int,
    reg: int,
    rm: int | None,
    immediate: int,
    override: int | None,
    mask: int,
    osz: int,
    rep: bool,
    opsize66: bool,
    stack: _Stack,
) -> tuple[Branch | None, int]:
    """Append stack and string operands; the kind of near branch."""
    out = stack.out
    if op in _PUSHES:
        stack.push()
    elif op in _POPS:
        stack.pop()
    elif op == 0x8F:
        stack.pop(first=True)
    elif op == 0x60:
        stack.push(8)
    elif op == 0x61:
        stack.pop(8)
    elif op in (0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF, 0x6C, 0x6D, 0x6E, 0x6F):
        size = osz if op & 1 else 1
        source = Reference(DS if override is None else override, size, True, False, mask, SI, repeated=rep)
        writes = op in (0xA4, 0xA5, 0xAA, 0xAB, 0x6C, 0x6D)
        target = Reference(ES, size, not writes, writes, mask, DI, repeated=rep)
        if op in (0xA4, 0xA5, 0xA6, 0xA7, 0xAC, 0xAD, 0x6E, 0x6F):
            out.append(source)
        if op not in (0xAC, 0xAD, 0x6E, 0x6F):
            out.append(target)
    elif op == 0xD7:
        out.append(Reference(DS if override is None else override, 1, True, False, mask, BX, xlat=True))
    elif op == 0x0FF7:  # MASKMOVQ, MASKMOVDQU: whatever the mask
        size = 16 if opsize66 else 8
        out.append(Reference(DS if override is None else override, size, False, True, mask, DI))
    elif op == 0xC8:
        _enter(immediate, stack)
    elif op == 0xC9:
        out.append(Reference(SS, osz, True, False, stack.mask, BP))
    elif op in (0xC2, 0xC3):
        stack.pop()
        return Branch.RETURN, 0
    elif op in (0xCA, 0xCB):
        stack.pop(2)
    elif op == 0xCF:
        stack.pop(3)
    elif op == 0x9A or (op == 0xFF and reg == 3 and rm is None):
        stack.push(2)
    elif op == 0xFF and reg in (2, 4, 6):
        if reg != 4:
            stack.push()
        return (Branch.OPERAND, 0) if reg != 6 else (None, 0)
    elif op == 0xE8:
        stack.push()
        return Branch.ALWAYS, 0
    elif op in (0xE9, 0xEB):
        return Branch.ALWAYS, 0
    elif 0x70 <= op < 0x80 or 0x0F80 <= op < 0x0F90:
        return Branch.CONDITION, op & 15
    elif 0xE0 <= op < 0xE4:
        return Branch.LOOP, op & 3
    return None, 0


def _enter(immediate: int, stack: _Stack) -> None:
    """ENTER (SDM vol. 2A): push BP, the frame pointers of outer levels, BP again; then the new top must be writable."""
    frame, level, n = immediate & 0xFFFF, immediate >> 16 & 31, stack.size
    pushes = 1
    stack.push()
    for i in range(1, level):
        stack.out.append(Reference(SS, n, True, False, stack.mask, BP, displacement=-n * i))
        pushes += 1
        stack.out.append(Reference(SS, n, False, True, stack.mask, SP, displacement=-n * pushes))
    if level:
        pushes += 1
        stack.out.append(Reference(SS, n, False, True, stack.mask, SP, displacement=-n * pushes))
    stack.out.append(Reference(SS, n, False, True, stack.mask, SP, displacement=-n * pushes - frame))
