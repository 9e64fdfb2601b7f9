"""Images that execute random bytes, an instruction at a time: what each did is a line (tests/images/random_bytes.inc).

Some of the samples are bytes as they come. Most have few prefixes, an opcode of any map, and displacements that are
small, so that an operand lies in memory more often. What may differ between two lines is in bytes_compared.py.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import ClassVar

from cpu.random_streams import ARITHMETIC

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
#: F2XM1, FYL2X, FPTAN, FPATAN, FYL2XP1, FSINCOS, FSIN, FCOS: their last bits are each CPU's own. And FSCALE.
TRANSCENDENTAL = frozenset((0xD9, low) for low in (0xF0, 0xF1, 0xF2, 0xF3, 0xF9, 0xFB, 0xFD, 0xFE, 0xFF))
#: Of a line of long mode, R8 to R15 stand behind EDI.
FIELDS = (
    "vector", "code", "eip", "flags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "cs", "ss", "ds", "es",
    "fs", "gs", "cr2", "dr6", "changed", "first", "memory", "fcw", "fsw", "ftw", "st", "exponents", "mxcsr", "xmm",
)  # fmt: skip
LONG_FIELDS = (*FIELDS[:12], *(f"r{number}" for number in range(8, 16)), *FIELDS[12:])
REX = bytes(range(0x40, 0x50))


@dataclass(frozen=True)
class Decoded:
    """The start of an instruction: its prefixes and opcode (0F00h, 3800h and 3A00h added by map, C400h behind VEX), and
    what would be its ModRM byte."""

    prefixes: frozenset[int]
    opcode: int
    modrm: int
    many: bool  #: prefixes, so that the instruction may have more than 15 bytes
    wide: bool = False  #: VEX.W is 1
    rex: int = 0  #: 0: none, or it does not stand right before the opcode

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


def decode(code: bytes, long: bool = False) -> Decoded:
    """`long`: as 64-bit code, with REX among the prefixes, and VEX whatever follows."""
    code += bytes(4)
    at = 0
    while at < CODE_BYTES and (code[at] in PREFIXES or (long and code[at] in REX)):
        at += 1
    prefixes, opcode, many, wide = frozenset(code[:at]), code[at], at > 4, False
    rex = code[at - 1] if long and at and code[at - 1] in REX else 0
    if opcode == 0x0F and code[at + 1] in (0x38, 0x3A):
        opcode, at = code[at + 1] << 8 | code[at + 2], at + 2
    elif opcode == 0x0F:
        opcode, at = 0xF00 | code[at + 1], at + 1
    elif opcode in (0xC4, 0xC5) and (long or code[at + 1] >= 0xC0):
        wide = opcode == 0xC4 and code[at + 2] >= 0x80
        at += 3 if opcode == 0xC4 else 2
        opcode = 0xC400 | code[at]
    return Decoded(prefixes, opcode, code[at + 1], many, wide, rex)


@dataclass
class RandomBytes:
    """A generator of one image of `count` samples, executed `passes` times, each time from other registers. `aligned`:
    CR0.AM is set, and EFLAGS.AC of all samples but few."""

    mode: str
    seed: int
    count: int = 1000
    passes: int = 2
    aligned: bool = False
    codes: list[bytes] = field(default_factory=list, repr=False)
    setups: list[tuple[int, int]] = field(default_factory=list, repr=False)

    modes: ClassVar[tuple[str, ...]] = ("protected", "virtual", "real")
    include: ClassVar[str] = "random_bytes.inc"
    macro: ClassVar[str] = "RANDOM_BYTES"

    def __post_init__(self) -> None:
        self.source = random.Random(f"bytes {self.mode} {self.seed}{' aligned' * self.aligned}")
        while len(self.codes) < self.count:
            code, flags, setup = self.code(), self.flags(), self.setup()
            at = self.decoded(code)
            if not self.left_out(at):
                self.codes.append(code)
                self.setups.append((flags, setup))

    def decoded(self, code: bytes) -> Decoded:
        return decode(code)

    def left_out(self, at: Decoded) -> bool:
        return left_out(at) or (self.mode == "real" and privileged(at))

    def settings(self) -> dict[str, int]:
        """What the image defines beside its size."""
        return {
            "VIRTUAL": int(self.mode != "protected"),
            "ALIGNED": int(self.aligned),
            "REAL": int(self.mode == "real"),
        }

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
        if self.aligned and source.random() < 0.9:
            flags |= AC
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
        """Of FXRSTOR: x87 with values of all kinds, from 2 on with exceptions that are not masked, from 4 with SSE's,
        and two where one is pending."""
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
        settings |= self.settings() | {"CR4_BITS": CR4}
        out = [f"%define {name} {value}" for name, value in settings.items()]
        out += [f'%include "{self.include}"', self.macro, "align 16", "areas:"]
        out += ["db " + ",".join(map(str, self.area(number))) for number in range(8)]
        out += ["samples:"]
        for code, setup in zip(self.codes, self.setups, strict=True):
            out.append("db " + ",".join(map(str, code + struct.pack("<II", *setup))))
        return "\n".join([*out, "RESET_VECTOR start", ""])


class RandomVex(RandomBytes):
    """The same of BMI1 and BMI2, most of them as there are, and of what is next to them."""

    #: VEX.mmmmm, VEX.pp and the opcode.
    forms = (
        (2, 0, 0xF2), (2, 0, 0xF3), (2, 0, 0xF5), (2, 2, 0xF5), (2, 3, 0xF5), (2, 3, 0xF6), (2, 0, 0xF7), (2, 1, 0xF7),
        (2, 2, 0xF7), (2, 3, 0xF7), (3, 3, 0xF0),
    )  # fmt: skip

    def code(self) -> bytes:
        source = self.source
        table, prefix, opcode = source.choice(self.forms)
        if source.random() < 0.1:
            table, prefix, opcode = source.choice((1, 2, 3)), source.randrange(4), source.randrange(0xF0, 0xF8)
        other = 15 if table == 3 and source.random() < 0.9 else 8 | source.getrandbits(3)
        second = other << 3 | prefix | (4 if source.random() < 0.03 else 0) | (0x80 if source.random() < 0.1 else 0)
        before = source.choices((0x2E, 0x36, 0x64, 0x67), k=source.choice((0, 0, 0, 1, 2)))
        if source.random() < 0.05:
            before.append(source.choice((0x66, 0xF0, 0xF2, 0xF3)))
        code = bytes((*before, 0xC4, 0xE0 | table, second, opcode, source.getrandbits(8)))
        return (code + bytes(2 * source.getrandbits(1)) + source.randbytes(CODE_BYTES))[:CODE_BYTES]


def with_one_instruction(code: bytes) -> bytes:
    """POP SS holds the trap off behind one more instruction, which is made a NOP."""
    start = code.lstrip(PREFIXES)
    return (code[: len(code) - len(start) + 1] + NOPS)[:CODE_BYTES] if start[:1] == b"\x17" else code


def left_out(at: Decoded) -> bool:
    """Instructions whose result is another on each CPU, and what docs/fidelity.md has as different."""
    if at.opcode == 0xFA2:
        return True  # CPUID
    if at.opcode == 0xFC7 and at.registers and at.reg > 5:
        return True  # RDRAND
    if at.opcode == 0x3882 and 0x66 in at.prefixes:
        return True  # INVPCID, which the model of Bochs has
    if at.opcode == 0xF01 and at.reg == 4:
        return True  # SMSW, whose upper half is undefined
    if at.opcode == 0x8E and at.reg == 2:
        return True  # MOV SS, behind which another instruction is executed
    return at.x87 and at.registers and (at.opcode, at.modrm) in TRANSCENDENTAL


def privileged(at: Decoded) -> bool:
    """What real mode allows and would be the end of the image: HLT, ports, descriptor tables, control and debug
    registers, MSRs and counters; and loads of SS, on whose stack the trap comes."""
    if at.opcode in (0xF4, 0x17, 0xFB2, 0xF01, 0xF06, 0xF08, 0xF09, *range(0x6C, 0x70), *range(0xE4, 0xE8)):
        return True
    return at.opcode in (*range(0xEC, 0xF0), *range(0xF20, 0xF24), *range(0xF30, 0xF34))


def parse(line: str) -> dict[str, str]:
    """A line by its fields."""
    words = line.lstrip("!").split()
    return dict(zip(LONG_FIELDS if len(words) == len(LONG_FIELDS) else FIELDS, words, strict=True))
