"""Images of random instructions, made to be run here and under Bochs: a line a block with a digest of registers and
defined flags, at the end of a pass one of memory.

A stream is straight-line code in blocks. Each block sets its stack pointer, executes its instructions and prints its
number, the vector of the exception that ended it early if one did, with what it pushed last, and the digest. The
generator keeps track of the flags that the last instructions left undefined (SDM vol. 1, appendix A): an instruction
that reads one of those is not chosen, and they are masked in the digest. What all images share is assembler:
tests/images/random_stream.inc. Which instructions a stream has is its class's, in the files random_*.py beside.
"""

from __future__ import annotations

import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

ROM_SIZE = 0x10000
CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
R32 = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
R16 = tuple(name[1:] for name in R32)
R8 = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
WORDS = {1: "byte", 2: "word", 4: "dword", 8: "qword", 10: "tword", 16: "oword"}
#: cc of SETcc, Jcc, CMOVcc and the flags it reads.
CONDITIONS = {
    "o": OF, "no": OF, "c": CF, "nc": CF, "z": ZF, "nz": ZF, "be": CF | ZF, "a": CF | ZF, "s": SF, "ns": SF,
    "p": PF, "np": PF, "l": SF | OF, "ge": SF | OF, "le": SF | OF | ZF, "g": SF | OF | ZF,
}  # fmt: skip
#: Condition bits of the x87 status word (SDM vol. 1, 8.1.3), and TOP.
C0, C1, C2, C3, TOP = 0x100, 0x200, 0x400, 0x4000, 0x3800
CONDITION_BITS = C0 | C1 | C2 | C3


@dataclass(frozen=True)
class Block:
    """The instructions of a block as they lie in the ROM: offset in CS and bytes of each."""

    instructions: tuple[tuple[int, bytes], ...]

    def before(self, offset: int | None) -> tuple[bytes, ...]:
        """Those surely executed when an exception comes at `offset`; None: when none does. What a Jcc may have jumped
        over is left out."""
        executed, sure = [], True
        for at, raw in self.instructions:
            if offset is not None and at >= offset:
                break
            if sure:
                executed.append(raw)
            sure = raw[0] & 0xF0 != 0x70
        return tuple(executed)


@dataclass
class Stream(ABC):
    """A generator of one image. `undefined` holds the flags that are so at the present point, `conditions` the
    condition bits of the x87 status word that are."""

    mode: str
    seed: int
    blocks: int = 250
    length: int = 30
    passes: int = 1
    sparse: bool = False  #: memory is filled and summed up in a fraction of its places
    kind: str = ""
    undefined: int = 0
    conditions: int = 0
    lines: list[str] = field(default_factory=list)
    bodies: list[list[str]] = field(default_factory=list, repr=False)
    modes: ClassVar[tuple[str, ...]] = ()
    #: lines behind the blocks: sums of DS, ES, SS and FS
    sums: ClassVar[int] = 4
    #: symbols that random_stream.inc asks for
    symbols: ClassVar[tuple[str, ...]] = ()
    #: those of what the portable loop does not keep (docs/fidelity.md), which runs sparse streams
    helper_symbols: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self.source = random.Random()  # seeded when a text is made
        self.bits = 32 if self.mode == "protected32" else 16

    # -- what a kind of streams says

    @abstractmethod
    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        """What makes an instruction, and how often."""

    @abstractmethod
    def opening(self) -> None:
        """What each block begins with."""

    def macros(self) -> str:
        """What the image's assembler asks for, in nasm's words."""
        return ""

    def data(self) -> str:
        """Data that lies in CS, in nasm's words."""
        return ""

    # -- operands

    def register(self, size: int) -> str:
        return self.source.choice({1: R8, 2: R16, 4: R32}[size])

    def immediate(self, size: int) -> int:
        edge = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
        value = self.source.choice(edge) if self.source.random() < 0.5 else self.source.getrandbits(32)
        return value & (1 << 8 * size) - 1

    def memory(self, size: int) -> str:
        word = WORDS[size]
        segment = self.source.choice((*[""] * 10, *["es:"] * 5, *["ss:"] * 4, "fs:"))
        if self.source.random() < 0.03:  # about an end
            return f"{word} [{segment}{self.source.choice((0x7FFD, 0x7FFF, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF)):#x}]"
        wide = (self.bits == 32) == (self.source.random() < 0.8)
        if not wide:
            form = self.source.choice(("bx+si", "bx+di", "bp+si", "bp+di", "si", "di", "bx", "bp"))
            return f"{word} [{segment}{form}{self.source.choice(('', '+5', '-7', '+0x1234'))}]"
        base = self.source.choice(("ebx", "esi", "edi", "ecx", "ebp"))
        self.emit(f"movzx {base}, {base[1:]}")
        if self.source.random() < 0.7:
            self.emit(f"shr {base}, 1")  # flags all defined, but OF is: shift by 1
            self.undefined = AF
        form = self.source.choice((base, f"{base}+0x10", f"{base}-3", f"{base}*1+0x20"))
        return f"{word} [{segment}{form}]"

    def place(self, size: int) -> str:
        return self.memory(size) if self.source.random() < 0.45 else self.register(size)

    # -- instructions

    def emit(self, text: str) -> None:
        self.lines.append("        " + text)

    def instruction(self) -> None:
        kinds = self.kinds()
        self.source.choices([k for k, _ in kinds], [w for _, w in kinds])[0]()

    # -- the image

    def block_text(self, number: int) -> str:
        """The instructions of one block of the text that was made last."""
        return "\n".join(self.bodies[number])

    def found_blocks(self, image: bytes) -> list[Block]:
        """The blocks of the image that was assembled from the text made last, by what lies behind its ROM."""
        offsets = struct.iter_unpack("<H", image[ROM_SIZE:])
        found = []
        for body in self.bodies:
            places = [next(offsets)[0] for _ in range(len(body) + 1)]
            found.append(Block(tuple((begin, image[begin:end]) for begin, end in pairwise(places))))
        return found

    def text(self) -> str:
        """The whole image as nasm source: ROM_SIZE bytes of ROM, then the offsets of instructions and block ends."""
        self.source = random.Random(" ".join(filter(None, (self.kind, self.mode, str(self.seed)))))
        settings = {"BITS_": self.bits, "REAL": int(self.mode == "real"), "PASSES": self.passes}
        symbols = self.symbols if self.sparse else (*self.symbols, *self.helper_symbols)
        settings |= {"SEED": self.seed & 0xFFFF, **dict.fromkeys(symbols, 1)}
        if self.sparse:
            settings |= {"FILL_STEP": 64, "SUM_STEP": 16}
        self.bodies = []
        out = [f"%define {name} {value}" for name, value in settings.items()]
        out += ['%include "random_stream.inc"', self.macros(), "STREAM_BEGIN"]
        for number in range(self.blocks):
            self.lines, self.undefined, self.conditions = [], 0, 0
            self.opening()
            while len(self.lines) < self.length:
                self.instruction()
            self.bodies.append(self.lines)
            body = "\n".join(f"i{number}_{i}:{line}" for i, line in enumerate(self.lines))
            masks = f"{ARITHMETIC & ~self.undefined:#x}, {TOP | CONDITION_BITS & ~self.conditions:#x}"
            out.append(f"        BLOCK {number}\n{body}\nend{number}:\n        DONE {number}, {masks}")
        out += ["STREAM_END", self.data(), "RESET_VECTOR start", ""]
        for number, lines in enumerate(self.bodies):  # behind the ROM
            out += ["dw " + ", ".join([*(f"i{number}_{i}" for i in range(len(lines))), f"end{number}"])]
        return "\n".join(out)
