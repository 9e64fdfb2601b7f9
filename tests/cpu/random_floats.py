"""Random streams of SSE and SSE2 with all that the C helper makes of them: NaNs of both kinds in every operand,
denormals under DAZ and FZ, the flags of MXCSR, and exceptions that are not masked.

The approximations of RCPPS and RSQRTPS stay out, as in random_simd.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpu.random_simd import DAZ, POOL, Sse

#: MXCSR (SDM vol. 1, 10.2.3): masks, and flush to zero.
MASKS, FZ = 0x1F80, 0x8000
#: Values of MXCSR: all masked in every direction, with DAZ, FZ and both; and as many with some exceptions that are not.
CONTROLS = 32


@dataclass
class Floats(Sse):
    kind: str = "floats"
    symbols = ("SSE", "SSE_FLAGS")

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.floating, 40), (self.conversions, 16), (self.compare, 12), (self.moves, 6), (self.logic, 3),
            (self.shuffles, 5), (self.condition, 4), (self.control, 3), (self.arithmetic_, 2),
        )  # fmt: skip

    def data(self) -> str:
        lines = super().data().split("\ncontrol:")[0].split("\n")
        lines.append("control:")
        lines += [f"dd {MASKS | rc << 13 | more:#x}" for rc in range(4) for more in (0, DAZ, FZ, DAZ | FZ)]
        for _ in range(CONTROLS - 16):
            enabled = 0x80 << self.source.randrange(6) | 0x80 << self.source.randrange(6)
            more = self.source.choice((0, 0, DAZ, FZ, DAZ | FZ)) | self.source.randrange(4) << 13
            lines.append(f"dd {MASKS & ~enabled | more:#x}")
        return "\n".join(lines)

    def number(self, size: int) -> bytes:
        """One of the base's numbers, a NaN of either kind, or one near the ends of what is normal."""
        bits, fraction = {4: (8, 23), 8: (11, 52)}[size]
        most, choice = (1 << bits) - 1, self.source.random()
        if choice < 0.6:
            return super().number(size)
        if choice < 0.72:
            exponent, mantissa = most, self.source.getrandbits(fraction) | 1
        elif choice < 0.85:
            exponent, mantissa = (
                self.source.choice((0, 1, 2)),
                self.source.getrandbits(self.source.randrange(1, fraction)),
            )
        else:
            bias = most >> 1
            exponent = self.source.choice((most - 1, most - 2, bias >> 1, bias + (bias >> 1), bias - fraction))
            mantissa = self.source.getrandbits(fraction)
        return (self.source.getrandbits(1) << 8 * size - 1 | exponent << fraction | mantissa).to_bytes(size, "little")

    def floating(self) -> None:
        name = self.source.choice(("add", "sub", "mul", "div", "sqrt", "min", "max"))
        suffix = self.source.choice(("ps", "ss", "pd", "sd"))
        size, vector = (4 if suffix[1] == "s" else 8), self.vector()
        if self.source.random() < 0.5:
            self.fresh(vector, size)
        other = self.vector() if self.source.random() < 0.4 else self.numbers(size)
        self.emit(f"{name}{suffix} {vector}, {other}")

    def numbers(self, size: int) -> str:
        entry = 3 * self.source.randrange(POOL // 3) + (size == 8)
        return f"[cs:pool + {16 * entry}]"

    def control(self) -> None:
        """Masked for the most part: an exception ends the block."""
        number = self.source.randrange(16 if self.source.random() < 0.6 else CONTROLS)
        self.emit(f"ldmxcsr [cs:control + {4 * number}]")
        if self.source.random() < 0.3:
            self.emit(f"stmxcsr {self.target()}")
