"""Images that execute random bytes, an instruction at a time: what each did is a line (tests/images/random_bytes.inc).

Half of the samples are bytes as they come; half have prefixes, an opcode of any map, and displacements that are small, so
that an operand lies in memory more often. What an instruction leaves undefined is masked when lines are compared, by
its opcode.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from cpu.random_streams import AF, ARITHMETIC, C0, C1, C2, C3, CF, OF, PF, ROM_SIZE, SF, ZF

PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
CODE_BYTES = 16
NOPS = b"\x90" * CODE_BYTES
#: EFLAGS: TF and bit 1; IF; DF; NT; AC; ID.
STEP, IF, DF, NT, AC, ID, VM = 0x102, 0x200, 0x400, 0x4000, 1 << 18, 1 << 21, 1 << 17
RF = 1 << 16
#: CR0, as a record has them.
MP, EM, TS = 2, 4, 8
#: CR4: TSD, OSFXSR, OSXMMEXCPT.
CR4 = 0x604
MEMORY_VECTORS = (12, 13, 14)
STEPPED, BR, UNDEFINED, NM, SS, GP, PAGE_FAULT, MF = 1, 5, 6, 7, 12, 13, 14, 16
ES = 0x80  #: of the x87 status word
#: F2XM1, FYL2X, FPTAN, FPATAN, FYL2XP1, FSINCOS, FSIN, FCOS: their last bits are each CPU's own. FSCALE (docs/fidelity.md).
TRANSCENDENTAL = frozenset((0xD9, low) for low in (0xF0, 0xF1, 0xF2, 0xF3, 0xF9, 0xFB, 0xFD, 0xFE, 0xFF))
FIELDS = (
    "vector", "code", "eip", "flags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "cs", "ss", "ds", "es",
    "fs", "gs", "cr2", "dr6", "changed", "first", "memory", "fcw", "fsw", "ftw", "st", "exponents", "mxcsr", "xmm",
)  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """The start of an instruction: its prefixes and opcode (0F00h, 3800h and 3A00h added by map, C400h behind VEX), and
    what would be its ModRM byte."""

    prefixes: frozenset[int]
    opcode: int
    modrm: int
    many: bool  #: prefixes, so that the instruction may have more than 15 bytes

    @property
    def reg(self) -> int:
        return self.modrm >> 3 & 7

    @property
    def registers(self) -> bool:
        return self.modrm >= 0xC0

    @property
    def repeated(self) -> bool:
        return bool(self.prefixes & {0xF2, 0xF3})

    @property
    def x87(self) -> bool:
        return 0xD8 <= self.opcode <= 0xDF

    @property
    def compares(self) -> bool:
        """FCOMI and its kind."""
        return self.opcode in (0xDB, 0xDF) and self.registers and self.reg in (5, 6)

    @property
    def frees(self) -> bool:
        """FFREE and FFREEP, which leave C1 undefined."""
        return self.opcode in (0xDD, 0xDF) and self.registers and self.reg == 0

    @property
    def size_is_wrong(self) -> bool:
        """POPCNT, MOVBE and CRC32, of 16-bit code (docs/fidelity.md)."""
        return self.opcode in (0xFB8, 0x38F0, 0x38F1)

    @property
    def stores_pointers(self) -> bool:
        """FNSTENV, FNSAVE, FXSAVE."""
        return not self.registers and (self.opcode, self.reg) in ((0xD9, 6), (0xDD, 6), (0xFAE, 0))


def decode(code: bytes) -> Decoded:
    code += bytes(4)
    at = 0
    while at < CODE_BYTES and code[at] in PREFIXES:
        at += 1
    prefixes, opcode, many = frozenset(code[:at]), code[at], at > 4
    if opcode == 0x0F and code[at + 1] in (0x38, 0x3A):
        opcode, at = code[at + 1] << 8 | code[at + 2], at + 2
    elif opcode == 0x0F:
        opcode, at = 0xF00 | code[at + 1], at + 1
    elif opcode in (0xC4, 0xC5) and code[at + 1] >= 0xC0:
        at += 3 if opcode == 0xC4 else 2
        opcode = 0xC400 | code[at]
    return Decoded(prefixes, opcode, code[at + 1], many)


@dataclass
class RandomBytes:
    """A generator of one image of `count` samples, which are executed `passes` times, from other registers each time."""

    mode: str
    seed: int
    count: int = 1000
    passes: int = 2
    codes: list[bytes] = field(default_factory=list, repr=False)
    setups: list[tuple[int, int]] = field(default_factory=list, repr=False)

    modes = ("protected", "virtual")

    def __post_init__(self) -> None:
        self.source = random.Random(f"bytes {self.mode} {self.seed}")
        while len(self.codes) < self.count:
            code, flags, setup = self.code(), self.flags(), self.setup()
            bits = 16 if self.mode == "virtual" or setup >> 11 & 3 == 3 else 32
            if not left_out(decode(code), bits):
                self.codes.append(code)
                self.setups.append((flags, setup))

    def code(self) -> bytes:
        source = self.source
        if source.random() < 0.4:
            return with_one_instruction(source.randbytes(CODE_BYTES))
        many = source.random() < 0.03
        prefixes = source.choices(
            PREFIXES, k=source.randrange(11, 15) if many else source.choice((0, 0, 0, 0, 1, 1, 2))
        )
        opcode = source.choices((b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\xc4", b"\xc5"), (40, 40, 10, 6, 2, 2))[0]
        code = bytes(prefixes) + opcode + source.randbytes(4)
        if source.random() < 0.6:
            code += bytes(2)
        return with_one_instruction((code + source.randbytes(CODE_BYTES))[:CODE_BYTES])

    def flags(self) -> int:
        source = self.source
        flags = (
            STEP | source.getrandbits(12) & (ARITHMETIC | DF | IF) | source.choice((0, 0, AC)) | source.choice((0, ID))
        )
        if source.random() < 0.05:
            flags |= NT
        iopl = source.choice((0, 3)) if self.mode == "virtual" else source.randrange(3)
        return flags | iopl << 12 | (VM if self.mode == "virtual" else 0)

    def setup(self) -> int:
        """Bits of a record's last dword."""
        source = self.source
        cr0 = source.choice((0, MP, EM, TS, MP | TS, EM | TS)) if source.random() < 0.15 else MP
        short = source.randrange(1, 16) if source.random() < 0.1 else 0
        return cr0 | short << 4 | source.randrange(8) << 8 | source.randrange(4) << 11 | source.randrange(4) << 13

    def area(self, number: int) -> bytes:
        """Of FXRSTOR: x87 with values of all kinds, from 2 on with exceptions that are not masked, from 4 with SSE's, and
        two where one is pending."""
        source = self.source
        control = (
            0x37F
            if number < 2
            else 0x40 | source.getrandbits(6) | source.choice((0, 2, 3)) << 8 | source.randrange(4) << 10
        )
        status = source.getrandbits(3) << 11 | source.getrandbits(1) << 14 | source.getrandbits(3) << 8
        if number in (2, 6):
            status |= 1 << source.randrange(6)
            control &= ~(status & 0x3F)
            status |= 0x8080
        elif number:
            status |= source.getrandbits(6) & control
        tags = (0, 0xFF)[number] if number < 2 else source.getrandbits(8)
        mxcsr = 0x1F80
        if number >= 4:
            mxcsr = (
                source.getrandbits(2) << 13
                | source.getrandbits(6) << 7
                | source.choice((0, 0x40))
                | source.choice((0, 0x8000))
            )
        out = struct.pack("<HHBBHIHHIHHII", control, status, tags, 0, 0, 0, 0, 0, 0, 0, 0, mxcsr, 0xFFFF)
        for _ in range(8):
            out += self.extended() + bytes(6)
        for _ in range(8):
            out += self.vector()
        return out + bytes(512 - len(out))

    def extended(self) -> bytes:
        source = self.source
        kind = source.random()
        if kind < 0.3:
            return source.randbytes(10)
        exponent = (
            source.choice((0, 1, 0x7FFE, 0x7FFF, 0x3FFF, 0x3FFE)) if kind < 0.5 else 0x3FFF + source.randrange(-40, 40)
        )
        fraction = source.choice((0, 1 << 62, source.getrandbits(63), source.getrandbits(20) << 43))
        return struct.pack("<QH", fraction | bool(exponent) << 63, exponent | source.getrandbits(1) << 15)

    def vector(self) -> bytes:
        source = self.source
        kind = source.random()
        if kind < 0.3:
            return source.randbytes(16)
        if kind < 0.6:
            return b"".join(struct.pack("<f", source.uniform(-1e3, 1e3)) for _ in range(4))
        if kind < 0.85:
            return b"".join(struct.pack("<d", source.uniform(-1e9, 1e9)) for _ in range(2))
        special = (0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 1, 0x80000001, 0x7F7FFFFF, 0x4F000000)
        return b"".join(struct.pack("<I", source.choice(special)) for _ in range(4))

    def text(self) -> str:
        self.source = random.Random(f"areas {self.mode} {self.seed}")
        settings = {"SAMPLES": self.count, "PASSES": self.passes, "SEED": self.seed & 0xFFFF}
        settings |= {"VIRTUAL": int(self.mode == "virtual"), "CR4_BITS": CR4}
        out = [f"%define {name} {value}" for name, value in settings.items()]
        out += ['%include "random_bytes.inc"', "RANDOM_BYTES", "align 16", "areas:"]
        out += ["db " + ",".join(map(str, self.area(number))) for number in range(8)]
        out += ["samples:"]
        for code, setup in zip(self.codes, self.setups, strict=True):
            out.append("db " + ",".join(map(str, code + struct.pack("<II", *setup))))
        return "\n".join([*out, "RESET_VECTOR start", ""])


def with_one_instruction(code: bytes) -> bytes:
    """POP SS holds the trap off behind one more instruction, which is made a NOP."""
    start = code.lstrip(PREFIXES)
    return (code[: len(code) - len(start) + 1] + NOPS)[:CODE_BYTES] if start[:1] == b"\x17" else code


def left_out(at: Decoded, bits: int) -> bool:
    """Instructions whose result is another on each CPU, and what docs/fidelity.md has as different."""
    if at.opcode in (0xFA2, 0xFC2) or (at.opcode == 0x90 and 0xF3 in at.prefixes):
        return True  # CPUID; CMPPS and its kind, whose reserved bits are #UD here; PAUSE with TF
    if at.opcode == 0xFC7 and at.registers and at.reg > 5:
        return True  # RDRAND
    if at.opcode == 0x3882 and 0x66 in at.prefixes:
        return True  # INVPCID, which the model of Bochs has
    if at.opcode == 0xF01 and at.reg == 4:
        return True  # SMSW, whose upper half is undefined
    if at.size_is_wrong and bits == 16:
        return True
    if at.opcode == 0x8E and at.reg == 2:
        return True  # MOV SS, behind which another instruction is executed
    if at.x87 and at.registers and (at.opcode, at.modrm) in TRANSCENDENTAL:
        return True
    return at.opcode > 0xFF and len(at.prefixes & {0x66, 0xF2, 0xF3}) > 1


def parse(line: str) -> dict[str, str]:
    """A line by its fields."""
    return dict(zip(FIELDS, line.lstrip("!").split(), strict=True))


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
        case 0xFBC | 0xFBD:  # BSF, BSR, TZCNT, LZCNT
            return OF | SF | AF | PF | CF
        case _:
            return 0


def compared(code: bytes, setup: tuple[int, int], ours: str, theirs: str) -> list[str]:
    """The names of the fields that differ and should not."""
    here, there = parse(ours), parse(theirs)
    at = decode(code)
    names = {name for name in FIELDS if here[name] != there[name]}
    if "vector" in names:
        is_open = order_is_open(at, bool(setup[1] & 0xF0), here, there)
        return [] if is_open else [name for name in FIELDS if name in names]
    vector = int(here["vector"], 16)
    undefined = undefined_flags(at) if vector == STEPPED else 0
    if at.opcode in STRINGS and at.repeated:
        undefined |= RF
    if at.compares and int(here["fsw"], 16) & ES:
        undefined |= ARITHMETIC  # not set by an invalid operand that is not masked (vol. 2A, FCOMI); Bochs sets them
    if not (int(here["flags"], 16) ^ int(there["flags"], 16)) & ~undefined:
        names.discard("flags")
    if not at.x87:
        names.discard("exponents")
    elif vector in MEMORY_VECTORS or at.frees:
        if not (int(here["fsw"], 16) ^ int(there["fsw"], 16)) & ~C1:
            names.discard("fsw")
    if vector in MEMORY_VECTORS and at.opcode in IN_PIECES:
        names -= {"changed", "first", "memory", "fcw", "fsw", "ftw", "st", "exponents", "mxcsr", "xmm"}
    if vector == PAGE_FAULT and at.opcode in SEVERAL:
        names -= {"cr2", "code"}
    if vector == GP and at.opcode in FAR_POINTERS:  # the limit, or the selector that Bochs has found behind it
        names.discard("code")
    if at.opcode in SELECTOR_PUSHES or at.stores_pointers:
        names -= {"changed", "memory"}
    if at.opcode in APPROXIMATE:
        names -= {"xmm", "mxcsr"}
    if at.opcode == 0xC8:
        names.discard("ebp")
    if at.opcode in (0xCA, 0xCB) and int(here["flags"], 16) & VM and wraps(code, at, int(here["esp"], 16)):
        names.discard("cs")
    if at.opcode == 0xF2A or (vector != STEPPED and at.opcode in (0xF2C, 0xF2D, 0xFF7)) or at.many:
        names -= {"fsw", "ftw", "st"}
    return [name for name in FIELDS if name in names]


def wraps(code: bytes, at: Decoded, esp: int) -> bool:
    """RETF of V86 mode has left ESP so: its CS was at the other end of the stack, where Unicorn does not look."""
    size = 4 if 0x66 in at.prefixes else 2
    dropped = int.from_bytes(code.lstrip(PREFIXES)[1:3], "little") if at.opcode == 0xCA else 0
    return esp - dropped - 2 * size & 0xFFFF > 0x10000 - 2 * size


def order_is_open(at: Decoded, at_end: bool, here: dict[str, str], there: dict[str, str]) -> bool:
    """Two exceptions of one instruction, of which either may come first; or Bochs is wrong."""
    ours, theirs = int(here["vector"], 16), int(there["vector"], 16)
    found = {ours, theirs}
    # how much of an instruction is fetched that is too long, or that its first bytes make #UD
    if (at_end or at.many) and found <= {UNDEFINED, NM, GP, PAGE_FAULT, MF}:
        return True
    if at.opcode in SEVERAL and found <= set(MEMORY_VECTORS):
        return True
    if found == {SS, GP} and at.opcode > 0xFF:  # a limit and alignment
        return True
    if at.x87 and UNDEFINED in found and found <= {UNDEFINED, NM, MF}:
        return True
    if at.x87 and theirs == STEPPED and int(there["fsw"], 16) & ES:
        return ours in MEMORY_VECTORS  # a store that an exception keeps from memory
    if at.opcode == 0xF2A and ours == MF:  # vol. 2A, CVTPI2PS: such an exception is handled before
        return True
    if at.opcode in FAR_POINTERS:  # an operand that goes beyond 64 KiB does not wrap (vol. 3A, 5.3)
        return ours in (SS, GP) and theirs in (STEPPED, BR)
    if 0x6C <= at.opcode <= 0x6F:  # of no iterations at all Bochs asks for the port
        return at.repeated and ours == STEPPED and theirs == GP
    if at.opcode == 0xCF:  # beyond CS in V86 mode (vol. 2A, IRET)
        return ours == GP and theirs == STEPPED
    if at.opcode == 0x9D:  # in V86 mode by IOPL, before it reads its operand (vol. 2B, POPF)
        return ours == GP and theirs == PAGE_FAULT
    return at.opcode == 0xF0F and ours == UNDEFINED  # 3DNow!, which is not looked at further


#: Where Bochs has written the first of several items when it faults at another, or has loaded them; or faults elsewhere than
#: we do (docs/fidelity.md).
IN_PIECES = frozenset((0x60, 0x9A, 0xC8, 0xE8, 0xFF, 0xF01, 0xFAE, 0xD9, 0xDD, 0xDB, 0xDF))
#: LxS and BOUND.
FAR_POINTERS = frozenset((0xC4, 0xC5, 0xFB2, 0xFB4, 0xFB5, 0x62))
SEVERAL = FAR_POINTERS | {
    0x07,
    0x17,
    0x1F,
    0x60,
    0x61,
    0x62,
    0x8F,
    0x9A,
    0xA4,
    0xA5,
    0xA6,
    0xA7,
    0xC8,
    0xCA,
    0xCB,
    0xCF,
    0xD9,
    0xDB,
    0xDD,
    0xDF,
    0xE8,
    0xFF,
    0xFA1,
    0xFA9,
    0xFF7,
}
STRINGS = frozenset((0x6C, 0x6D, 0x6E, 0x6F, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF))
#: PUSH and POP of a selector move 16 bits of 32 in Bochs, and 32 here; vol. 2B allows both.
SELECTOR_PUSHES = frozenset((0x06, 0x0E, 0x16, 0x1E, 0xFA0, 0xFA8))
#: RCPPS, RSQRTPS
APPROXIMATE = frozenset((0xF52, 0xF53))
