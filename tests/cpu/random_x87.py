"""Random streams of x87 instructions: loads, stores, arithmetic, comparisons in all precisions and directions.

They run in the portable loop too. What that does not keep stays out, and is in random_x87_faults.py: exceptions in the
status word with C1, which tells how an inexact result was rounded, stack faults, FPREM,
constants that are rounded in another direction than to nearest, FXTRACT, FSCALE, FBSTP, signalling NaNs in memory,
and invalid encodings of 80 bits (SDM vol. 1, 8.2.2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from cpu.random_integers import Integers
from cpu.random_streams import AF, C0, C1, C2, C3, CF, CONDITION_BITS, OF, PF, SF, ZF

#: Control words: all exceptions masked, three precisions (SDM vol. 1, 8.1.5.2), four directions.
CONTROL = [0x7F | pc << 8 | rc << 10 for pc in (0, 2, 3) for rc in range(4)]
#: Values: bits of sign, exponent without bias (None: 0 or denormal; 16384: infinity or NaN), mantissa's upper bits.
SPECIAL = (
    (0, None, 0), (1, None, 0), (0, 0, 0), (1, 0, 0), (0, 16384, 0), (1, 16384, 0), (0, 16384, 1 << 62),
    (1, 16384, 3 << 61), (0, None, 1 << 50), (1, None, 1 << 41),
)  # fmt: skip
#: Entries of each size in the pool.
POOL = 160
SIZES = (2, 4, 8, 10)


def encode(size: int, value: tuple[int, int | None, int]) -> bytes:
    """A value as single, double or double extended precision; `mantissa` is the 63 bits behind the integer bit."""
    sign, exponent, mantissa = value
    bits, fraction = {4: (8, 23), 8: (11, 52), 10: (15, 63)}[size]
    most = (1 << bits) - 1
    if exponent is None:
        field = 0
    elif exponent == 16384:
        field = most
    else:
        field = max(1, min(most - 1, exponent + (most >> 1)))
    kept = mantissa >> 63 - fraction
    if size == 10:
        return struct.pack("<QH", bool(field) << 63 | kept, sign << 15 | field)
    return (sign << bits + fraction | field << fraction | kept).to_bytes(size, "little")


@dataclass
class X87(Integers):
    kind: str = "x87"
    blocks: int = 220
    depth: int = 0
    control: int = 0
    modes = ("real", "protected32")
    symbols = ("X87",)

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.load, 20), (self.store, 14), (self.two, 30), (self.one, 12), (self.compare, 10), (self.exchange_, 6),
            (self.control_word, 3), (self.status, 4), (self.condition, 5), (self.fcmov, 4), (self.integer, 6),
        )  # fmt: skip

    def opening(self) -> None:
        self.depth, self.control = 0, 0x37F
        self.emit("fninit")
        self.undefined, self.conditions = 0, 0
        for _ in range(3):
            self.load()

    def data(self) -> str:
        """The pool: numbers that are special, near to each other, or anything."""
        lines = ["control:"]
        lines += [f"dw {word:#x}" for word in CONTROL]
        for size in SIZES:
            lines += ["align 16", f"pool{size}:"]
            lines += ["db " + ", ".join(map(str, self.pooled(size, number))) for number in range(POOL)]
        lines += ["align 16", "bcd:"]
        for _ in range(32):
            digits = [self.source.randrange(10) << 4 | self.source.randrange(10) for _ in range(9)]
            lines.append("db " + ", ".join(map(str, [*digits, self.source.choice((0, 0x80))])))
        return "\n".join(lines)

    def pooled(self, size: int, number: int) -> bytes:
        if number < len(SPECIAL) and size > 2:
            return encode(size, SPECIAL[number])
        if size == 2:
            return self.source.getrandbits(16).to_bytes(2, "little")
        if size < 10 and number % 4 == 0:  # a small number as an integer, a denormal otherwise
            return (self.source.getrandbits(self.source.randrange(1, 20))).to_bytes(size, "little")
        exponent = self.source.randrange(-4, 5) if number % 3 else self.source.randrange(-70, 70)
        return encode(size, (self.source.randrange(2), exponent, self.source.getrandbits(63)))

    # -- operands

    def pool(self, size: int) -> str:
        word = {2: "word", 4: "dword", 8: "qword", 10: "tword"}[size]
        return f"{word} [cs:pool{size} + {size * self.source.randrange(POOL)}]"

    def target(self, size: int) -> str:
        word = {2: "word", 4: "dword", 8: "qword", 10: "tword"}[size]
        return f"{word} [{0x6000 + 16 * self.source.randrange(128):#x}]"

    def st(self) -> int:
        return self.source.randrange(self.depth)

    def defined(self, bits: int) -> None:
        """These condition bits are defined now, the others are not."""
        self.conditions = CONDITION_BITS & ~bits | C1

    # -- instructions

    def load(self) -> None:
        if self.depth == 8:
            self.store()
            return
        choice = self.source.random()
        if choice < 0.45:
            self.emit(f"fld {self.pool(self.source.choice((4, 8, 10)))}")
        elif choice < 0.6:
            self.emit(f"fild {self.pool(self.source.choice((2, 4, 8)))}")
        elif choice < 0.75 and self.depth:
            self.emit(f"fld st{self.st()}")
        elif choice < 0.8:
            self.emit(f"fbld tword [cs:bcd + {10 * self.source.randrange(32)}]")
        elif choice < 0.9 and not self.control & 0xC00:
            self.emit(self.source.choice(("fldpi", "fldl2e", "fldl2t", "fldlg2", "fldln2")))
        else:
            self.emit(self.source.choice(("fld1", "fldz")))
        self.depth += 1
        self.defined(0)

    def store(self) -> None:
        if not self.depth:
            self.load()
            return
        choice, pop = self.source.random(), self.source.random() < 0.6
        p = "p" if pop else ""
        if choice < 0.5:
            self.emit(f"fst{p} {self.target(self.source.choice((4, 8)))}")
        elif choice < 0.6:
            pop = True
            self.emit(f"fstp {self.target(10)}")
        elif choice < 0.85:
            size = self.source.choice((2, 4, 8))
            pop = pop or size == 8
            self.emit(f"fist{'p' if pop else ''} {self.target(size)}")
        else:
            self.emit(f"fst{p} st{self.st()}")
        self.depth -= pop
        self.defined(0)

    def two(self) -> None:
        name = self.source.choice(("add", "sub", "subr", "mul", "div", "divr"))
        if self.depth < 2:
            self.load()
            return
        choice = self.source.random()
        if choice < 0.3:
            self.emit(f"f{name} {self.pool(self.source.choice((4, 8)))}")
        elif choice < 0.4:
            self.emit(f"fi{name} {self.pool(self.source.choice((2, 4)))}")
        elif choice < 0.65:
            self.emit(f"f{name} st0, st{self.st()}")
        elif choice < 0.85:
            self.emit(f"f{name} st{self.st()}, st0")
        else:
            self.emit(f"f{name}p st{self.source.randrange(1, self.depth)}, st0")
            self.depth -= 1
        self.defined(0)

    def one(self) -> None:
        if self.depth < 2:
            self.load()
            return
        name = self.source.choice(("fabs", "fchs", "fsqrt", "frndint", "fxam", "ftst"))
        self.emit(name)
        if name == "fxam":
            self.conditions = 0
        else:
            self.defined(C0 | C2 | C3 if name == "ftst" else 0)

    def compare(self) -> None:
        if self.depth < 2:
            self.load()
            return
        choice = self.source.random()
        if choice < 0.3:
            self.emit(f"fcom {self.pool(self.source.choice((4, 8)))}")
        elif choice < 0.4:
            self.emit(f"ficom {self.pool(self.source.choice((2, 4)))}")
        elif choice < 0.55:
            self.emit(f"f{self.source.choice(('', 'u'))}com st{self.st()}")
        elif choice < 0.65:
            self.emit(f"f{self.source.choice(('', 'u'))}comp st{self.st()}")
            self.depth -= 1
        elif choice < 0.7:
            self.emit(self.source.choice(("fcompp", "fucompp")))
            self.depth -= 2
        else:
            pop = self.source.random() < 0.3
            self.emit(f"f{self.source.choice(('', 'u'))}comi{'p' if pop else ''} st0, st{self.st()}")
            self.depth -= pop
            self.undefined = self.undefined & ~(ZF | PF | CF | OF | SF | AF)
            self.defined(0)
            return
        self.defined(C0 | C2 | C3)

    def exchange_(self) -> None:
        if self.depth:
            self.emit(f"fxch st{self.st()}")
            self.defined(0)

    def fcmov(self) -> None:
        flags = {"b": CF, "e": ZF, "be": CF | ZF, "u": PF, "nb": CF, "ne": ZF, "nbe": CF | ZF, "nu": PF}
        allowed = [name for name, reads in flags.items() if not reads & self.undefined]
        if allowed and self.depth:
            self.emit(f"fcmov{self.source.choice(allowed)} st0, st{self.st()}")
            self.defined(0)

    def control_word(self) -> None:
        number = self.source.randrange(len(CONTROL))
        self.control = CONTROL[number]
        self.emit(f"fldcw [cs:control + {2 * number}]")
        if self.source.random() < 0.3:
            self.emit(f"fnstcw {self.target(2)}")
        self.defined(0)

    def status(self) -> None:
        """TOP and the condition bits that are defined, in AX."""
        self.emit("fnstsw ax")
        self.emit(f"and ax, {0x3800 | CONDITION_BITS & ~self.conditions:#x}")
        self.undefined = AF
        self.defined(CONDITION_BITS & ~self.conditions)

    def integer(self) -> None:
        size = self.source.choice((1, 2, 4))
        name = self.source.choice(("add", "sub", "cmp", "xor"))
        self.emit(f"{name} {self.register(size)}, {self.register(size)}")
        self.undefined = AF if name == "xor" else 0
