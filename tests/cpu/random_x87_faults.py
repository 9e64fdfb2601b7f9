"""Random streams of x87 with all that the C helper makes of them: the whole status word, empty and full registers,
signalling NaNs, invalid encodings, constants in every direction, and exceptions that are not masked, which come as #MF.

Transcendental functions stay out: their last bits are each CPU's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpu.random_streams import AF, C0, C2, C3, CF, CONDITION_BITS, OF, PF, SF, ZF
from cpu.random_x87 import CONTROL, X87

#: Control words behind the masked ones, with one exception or two that are not masked.
ENABLED = 20
TWO = ("add", "sub", "subr", "mul", "div", "divr")


@dataclass
class X87Faults(X87):
    kind: str = "x87faults"
    blocks: int = 200
    symbols = ("X87", "X87_FLAGS")

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.load, 16), (self.store, 12), (self.two, 22), (self.one, 10), (self.compare, 8), (self.exchange_, 4),
            (self.control_word, 4), (self.status, 2), (self.condition, 3), (self.fcmov, 4), (self.integer, 3),
            (self.wild, 12), (self.rare, 10),
        )  # fmt: skip

    def opening(self) -> None:
        super().opening()
        self.control_word()

    def data(self) -> str:
        lines = super().data().split("\nalign 16\npool2:", 1)
        enabled = []
        for _ in range(ENABLED):
            word = self.source.choice(CONTROL) & ~(1 << self.source.randrange(6)) & ~(1 << self.source.randrange(6))
            enabled.append(f"dw {word:#x}")
        return "\n".join([lines[0], *enabled, "align 16", "pool2:"]) + lines[1]

    def pooled(self, size: int, number: int) -> bytes:
        """NaNs of both kinds and, of 80 bits, what is no number at all, beside the base's."""
        choice = self.source.random()
        if size == 2 or choice < 0.75:
            return super().pooled(size, number)
        if size < 10:
            bits, fraction = {4: (8, 23), 8: (11, 52)}[size]
            field = self.source.choice(((1 << bits) - 1, 0, 1, (1 << bits) - 2))
            value = self.source.getrandbits(1) << 8 * size - 1 | field << fraction
            return (value | self.source.getrandbits(fraction)).to_bytes(size, "little")
        exponent = self.source.choice((0, 1, 2, 0x7FFE, 0x7FFF, 0x7FFF, 0x3FFF, 0x4000))
        mantissa = self.source.getrandbits(64)
        if self.source.random() < 0.6:
            mantissa |= 1 << 63
        return mantissa.to_bytes(8, "little") + (exponent | self.source.getrandbits(1) << 15).to_bytes(2, "little")

    def defined(self, bits: int) -> None:
        """C1 tells of the direction of rounding and of full stacks, and is defined behind all of these."""
        self.conditions = CONDITION_BITS & ~bits & (C0 | C2 | C3)

    def control_word(self) -> None:
        """Masked for the most part: an exception ends the block."""
        number = self.source.randrange(len(CONTROL) + (ENABLED if self.source.random() < 0.5 else 0))
        self.emit(f"fldcw [cs:control + {2 * number}]")
        self.control = CONTROL[number] if number < len(CONTROL) else 0
        self.defined(0)

    def load(self) -> None:
        choice = self.source.random()
        if self.depth < 8 and choice < 0.2:
            self.emit(self.source.choice(("fldpi", "fldl2e", "fldl2t", "fldlg2", "fldln2", "fld1", "fldz")))
            self.depth += 1
            self.defined(0)
        else:
            super().load()

    def wild(self) -> None:
        """Whatever the depth is."""
        n, two = self.source.randrange(8), self.source.choice(TWO)
        text, pushed = self.source.choice((
            (f"fld st{n}", 1), (f"fxch st{n}", 0), (f"fst st{n}", 0), (f"fstp st{n}", -1), (f"f{two} st0, st{n}", 0),
            (f"f{two} st{n}, st0", 0), (f"f{two}p st{n}, st0", -1), (f"ffree st{n}", 0), ("fincstp", 0), ("fdecstp", 0),
            (f"fld {self.pool(self.source.choice((4, 8, 10)))}", 1), (f"fild {self.pool(4)}", 1), ("fldpi", 1),
            (f"fst {self.target(self.source.choice((4, 8)))}", 0), (f"fistp {self.target(8)}", -1),
            (f"fstp {self.target(10)}", -1), (f"fist {self.target(self.source.choice((2, 4)))}", 0),
            (f"f{two} {self.pool(self.source.choice((4, 8)))}", 0), ("fchs", 0), ("fabs", 0), ("fsqrt", 0),
        ))  # fmt: skip
        self.emit(text)
        self.depth = max(0, min(8, self.depth + pushed))
        self.defined(0)
        if text in ("fincstp", "fdecstp"):
            self.conditions = C0 | C2 | C3
        if text.startswith("ffree"):
            self.conditions = CONDITION_BITS

    def rare(self) -> None:
        if self.depth < 2:
            self.load()
            return
        choice = self.source.choice((
            "fxtract", "fscale", "fprem", "fprem1", "fbstp", "fclex", "fnop", "fwait", "fcompp", "fcom", "fcomi",
            "save",
        ))  # fmt: skip
        n = self.source.randrange(8)
        if choice == "fscale" and not self.control:
            # Far beyond the range of an unmasked overflow Bochs's exponent wraps (SDM vol. 1, 8.5.4).
            choice = "frndint"
        if choice == "fbstp":
            self.emit(f"fbstp {self.target(10)}")
            self.depth -= 1
        elif choice == "save":
            self.emit("fnstenv [gs:0x680]")
            self.emit("fldenv [gs:0x680]")
            return
        elif choice == "fcom":
            self.emit(f"fcom st{n}")
            self.defined(C0 | C2 | C3)
            return
        elif choice == "fcomi":
            self.emit(f"f{self.source.choice(('', 'u'))}comi st0, st{n}")
            self.undefined = self.undefined & ~(ZF | PF | CF | OF | SF | AF)
            self.conditions = CONDITION_BITS
            return
        else:
            self.emit(choice)
            if choice == "fxtract" and self.depth < 8:
                self.depth += 1
            if choice == "fcompp":
                self.depth -= 2
        if choice in ("fprem", "fprem1", "fcompp"):
            self.defined(C0 | C2 | C3)
        elif choice not in ("fnop", "fwait"):
            self.defined(0)
            if choice == "fclex":
                self.conditions = CONDITION_BITS
