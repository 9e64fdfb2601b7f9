"""Random streams of MMX, and of SSE and SSE2: integers, single and double precision, conversions, shuffles.

They run in the portable loop too. What that does not keep stays out, and is in random_floats.py: exceptions in MXCSR,
operations of which two operands are NaNs, signalling ones, FZ of MXCSR, MIN and MAX with DAZ; and #GP(0) of operands
that are not aligned (they all are, but those of MOVUPS and its kind). So do the approximations of RCPPS and RSQRTPS,
whose low bits the SDM leaves to the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpu.random_integers import Integers
from cpu.random_streams import AF

#: What MMX and SSE2 have alike (SDM vol. 1, 5.4, 5.5.3 and 5.6.3), register or memory and register.
PACKED = (
    "paddb", "paddw", "paddd", "paddq", "psubb", "psubw", "psubd", "psubq", "paddsb", "paddsw", "paddusb", "paddusw",
    "psubsb", "psubsw", "psubusb", "psubusw", "pmullw", "pmulhw", "pmulhuw", "pmuludq", "pmaddwd", "pand", "pandn",
    "por", "pxor", "pcmpeqb", "pcmpeqw", "pcmpeqd", "pcmpgtb", "pcmpgtw", "pcmpgtd", "packsswb", "packssdw",
    "packuswb", "punpcklbw", "punpcklwd", "punpckldq", "punpckhbw", "punpckhwd", "punpckhdq", "pavgb", "pavgw",
    "pminub", "pmaxub", "pminsw", "pmaxsw", "psadbw",
)  # fmt: skip
SHIFTS = ("psllw", "pslld", "psllq", "psrlw", "psrld", "psrlq", "psraw", "psrad")
#: Entries of the pool, of 16 bytes each.
POOL = 96
#: MXCSR: denormals are zeros (SDM vol. 1, 10.2.3.4).
DAZ = 0x40


@dataclass
class Mmx(Integers):
    kind: str = "mmx"
    modes = ("real", "protected32")
    symbols = ("MMX",)
    helper_symbols = ("MMX_WHOLE",)

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return ((self.packed, 50), (self.shifts, 12), (self.moves, 20), (self.words, 8), (self.arithmetic_, 8))

    def data(self) -> str:
        """The pool: anything, and what is near the ends of signed and unsigned numbers."""
        lines = ["align 16", "pool:"]
        for _ in range(POOL):
            edge = self.source.random() < 0.4
            value = bytes(self.source.choice((0, 1, 0x7F, 0x80, 0xFF)) for _ in range(16))
            if not edge:
                value = self.source.getrandbits(128).to_bytes(16, "little")
            lines.append("db " + ", ".join(map(str, value)))
        return "\n".join(lines)

    def vector(self) -> str:
        return f"mm{self.source.randrange(8)}"

    def pool(self) -> str:
        return f"[cs:pool + {8 * self.source.randrange(2 * POOL)}]"

    def target(self) -> str:
        return f"[{0x6000 + 8 * self.source.randrange(128):#x}]"

    def either(self) -> str:
        return self.pool() if self.source.random() < 0.45 else self.vector()

    def opening(self) -> None:
        for _ in range(2):
            self.emit(f"movq {self.vector()}, {self.pool()}")

    def packed(self) -> None:
        self.emit(f"{self.source.choice(PACKED)} {self.vector()}, {self.either()}")

    def shifts(self) -> None:
        name = self.source.choice(SHIFTS)
        if self.source.random() < 0.7:
            self.emit(f"{name} {self.vector()}, {self.source.randrange(70)}")
        else:
            self.emit(f"{name} {self.vector()}, {self.either()}")

    def moves(self) -> None:
        choice = self.source.random()
        if choice < 0.3:
            self.emit(f"movq {self.vector()}, {self.either()}")
        elif choice < 0.5:
            self.emit(f"{self.source.choice(('movq', 'movntq'))} {self.target()}, {self.vector()}")
        elif choice < 0.7:
            self.emit(f"movd {self.vector()}, {self.register(4)}")
        elif choice < 0.85:
            self.emit(f"movd {self.register(4)}, {self.vector()}")
        elif choice < 0.95:
            self.emit(f"movd dword {self.target()}, {self.vector()}")
        else:
            self.emit("emms")

    def words(self) -> None:
        choice, number = self.source.random(), self.source.randrange(256)
        if choice < 0.3:
            self.emit(f"pshufw {self.vector()}, {self.either()}, {number}")
        elif choice < 0.6:
            self.emit(f"pinsrw {self.vector()}, {self.register(4)}, {number}")
        elif choice < 0.8:
            self.emit(f"pextrw {self.register(4)}, {self.vector()}, {number}")
        else:
            self.emit(f"pmovmskb {self.register(4)}, {self.vector()}")

    def arithmetic_(self) -> None:
        size = self.source.choice((1, 2, 4))
        name = self.source.choice(("add", "sub", "xor", "or"))
        self.emit(f"{name} {self.register(size)}, {self.register(size)}")
        self.undefined = AF if name in ("xor", "or") else 0


@dataclass
class Sse(Mmx):
    kind: str = "sse"
    blocks: int = 230
    daz: bool = False
    modes = ("protected16", "protected32")
    symbols = ("SSE",)
    helper_symbols = ()

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.packed, 16), (self.shifts, 6), (self.moves, 12), (self.words, 6), (self.floating, 26),
            (self.shuffles, 8), (self.logic, 5), (self.conversions, 10), (self.compare, 6), (self.condition, 4),
            (self.control, 2), (self.arithmetic_, 3),
        )  # fmt: skip

    def data(self) -> str:
        """The pool: a third each single precision, double precision, anything; and values of MXCSR."""
        lines = ["align 16", "pool:"]
        for number in range(POOL):
            value = b"".join(self.number(4) for _ in range(4))
            if number % 3 == 1:
                value = b"".join(self.number(8) for _ in range(2))
            elif number % 3 == 2:
                value = self.source.getrandbits(128).to_bytes(16, "little")
            lines.append("db " + ", ".join(map(str, value)))
        lines.append("control:")
        lines += [f"dd {0x1F80 | rc << 13 | more:#x}" for rc in range(4) for more in (0, DAZ)]
        return "\n".join(lines)

    def number(self, size: int) -> bytes:
        """A number, often near 1, sometimes zero, infinite, denormal, or one that fits an integer."""
        bits, fraction = {4: (8, 23), 8: (11, 52)}[size]
        bias = (1 << bits - 1) - 1
        exponent = self.source.choice((0, 0, 2 * bias + 1, *[bias] * 4, bias + 3, bias - 2, bias + 20, 1, 2 * bias))
        mantissa = self.source.getrandbits(fraction) if exponent != 2 * bias + 1 else 0
        if self.source.random() < 0.2:
            mantissa = 0
        return (self.source.getrandbits(1) << 8 * size - 1 | exponent << fraction | mantissa).to_bytes(size, "little")

    def vector(self) -> str:
        return f"xmm{self.source.randrange(8)}"

    def pool(self) -> str:
        return f"[cs:pool + {16 * self.source.randrange(POOL)}]"

    def target(self) -> str:
        return f"[{0x6000 + 16 * self.source.randrange(128):#x}]"

    def opening(self) -> None:
        self.daz = False
        self.emit("ldmxcsr [cs:control]")
        for _ in range(3):
            self.fresh(self.vector(), self.source.choice((4, 8)))

    def fresh(self, vector: str, size: int) -> None:
        """Numbers of this size into it."""
        entry = 3 * self.source.randrange(POOL // 3) + (size == 8)
        self.emit(f"{'movaps' if size == 4 else 'movapd'} {vector}, [cs:pool + {16 * entry}]")

    def numbers(self, size: int) -> str:
        """An operand that holds no NaN."""
        entry = 3 * self.source.randrange(POOL // 3) + (size == 8)
        return f"[cs:pool + {16 * entry}]"

    def shifts(self) -> None:
        if self.source.random() < 0.2:
            name = self.source.choice(("pslldq", "psrldq"))
            self.emit(f"{name} {self.vector()}, {self.source.randrange(18)}")
        else:
            super().shifts()

    def moves(self) -> None:
        choice, vector = self.source.random(), self.vector()
        whole = ("movaps", "movapd", "movdqa", "movups", "movupd", "movdqu")
        if choice < 0.2:
            self.emit(f"{self.source.choice(whole)} {vector}, {self.either()}")
        elif choice < 0.4:
            self.emit(f"{self.source.choice((*whole, 'movntps', 'movntpd', 'movntdq'))} {self.target()}, {vector}")
        elif choice < 0.5:
            odd = f"[{0x7000 + self.source.randrange(1024):#x}]"
            name = self.source.choice(whole[3:])
            self.emit(f"{name} {vector}, {odd}" if self.source.random() < 0.5 else f"{name} {odd}, {vector}")
        elif choice < 0.7:
            name = self.source.choice(("movlps", "movhps", "movlpd", "movhpd"))
            self.emit(f"{name} {vector}, {self.pool()}" if choice < 0.6 else f"{name} {self.target()}, {vector}")
        elif choice < 0.85:
            name = self.source.choice(("movss", "movsd", "movq"))
            self.emit(f"{name} {vector}, {self.either()}" if choice < 0.8 else f"{name} {self.target()}, {vector}")
        else:
            register = self.register(4)
            self.emit(f"movd {vector}, {register}" if choice < 0.93 else f"movd {register}, {vector}")

    def words(self) -> None:
        choice, number = self.source.random(), self.source.randrange(256)
        if choice < 0.3:
            self.emit(f"pinsrw {self.vector()}, {self.register(4)}, {number}")
        elif choice < 0.5:
            self.emit(f"pextrw {self.register(4)}, {self.vector()}, {number}")
        else:
            name = self.source.choice(("pmovmskb", "movmskps", "movmskpd"))
            self.emit(f"{name} {self.register(4)}, {self.vector()}")

    def floating(self) -> None:
        """What one operand at most can be a NaN of: the other is loaded first, or is in memory."""
        name = self.source.choice(("add", "sub", "mul", "div", "sqrt", *(() if self.daz else ("min", "max"))))
        suffix = self.source.choice(("ps", "ss", "pd", "sd"))
        size, vector = (4 if suffix[1] == "s" else 8), self.vector()
        self.fresh(vector, size)
        if name != "sqrt" and self.source.random() < 0.5:
            other = self.vector()
            if other != vector:
                self.fresh(other, size)
            self.emit(f"{name}{suffix} {other}, {vector}")
        else:
            self.emit(f"{name}{suffix} {vector}, {self.numbers(size)}")

    def shuffles(self) -> None:
        name = self.source.choice(
            ("shufps", "shufpd", "pshufd", "pshufhw", "pshuflw", "unpcklps", "unpckhps", "unpcklpd", "unpckhpd",
             "punpcklqdq", "punpckhqdq", "movhlps", "movlhps")
        )  # fmt: skip
        if name in ("movhlps", "movlhps"):
            self.emit(f"{name} {self.vector()}, {self.vector()}")
        else:
            number = f", {self.source.randrange(256)}" if "shuf" in name else ""
            self.emit(f"{name} {self.vector()}, {self.either()}{number}")

    def logic(self) -> None:
        name = self.source.choice(("and", "andn", "or", "xor")) + self.source.choice(("ps", "pd"))
        self.emit(f"{name} {self.vector()}, {self.either()}")

    def conversions(self) -> None:
        name = self.source.choice(
            ("cvtps2dq", "cvttps2dq", "cvtdq2ps", "cvtps2pd", "cvtpd2ps", "cvtpd2dq", "cvttpd2dq", "cvtdq2pd",
             "cvtss2sd",
             "cvtsd2ss", "cvtss2si", "cvttss2si", "cvtsd2si", "cvttsd2si", "cvtsi2ss", "cvtsi2sd")
        )  # fmt: skip
        size = 8 if name.removeprefix("cvtt").removeprefix("cvt")[:2] in ("pd", "sd") else 4
        if name.endswith("2si"):
            self.emit(f"{name} {self.register(4)}, {self.numbers(size)}")
        elif name.startswith("cvtsi"):
            self.emit(f"{name} {self.vector()}, {self.register(4)}")
        elif "dq2" in name:
            self.emit(f"{name} {self.vector()}, {self.either()}")
        else:
            self.emit(f"{name} {self.vector()}, {self.numbers(size)}")

    def compare(self) -> None:
        suffix, vector = self.source.choice(("ps", "ss", "pd", "sd")), self.vector()
        if suffix[0] == "s" and self.source.random() < 0.6:
            self.emit(f"{self.source.choice(('comi', 'ucomi'))}{suffix} {vector}, {self.either()}")
            self.undefined = 0
        else:
            self.emit(f"cmp{suffix} {vector}, {self.either()}, {self.source.randrange(8)}")

    def control(self) -> None:
        number = self.source.randrange(8)
        self.daz = bool(number & 1)
        self.emit(f"ldmxcsr [cs:control + {4 * number}]")
