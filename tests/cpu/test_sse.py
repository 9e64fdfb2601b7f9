"""SSE arithmetic: the flags of MXCSR, what is raised and when, denormals, and SSE3 and SSE4.1 beside exact arithmetic.

Rules: SDM vol. 1, 10.2.3 and 11.5. SSE and SSE2 are compared with Bochs at random (test_random_streams.py, `floats`).
"""

from __future__ import annotations

import random
import struct
from fractions import Fraction

import pytest

from bare_cpu import BareCpu, used_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

UD, XM = 6, 19
IE, DE, ZE, OE, UE, PE = 1, 2, 4, 8, 16, 32
DAZ, FZ, MASKED = 0x40, 0x8000, 0x1F80
OSFXSR, OSXMMEXCPT = 0x200, 0x400
#: Operands in memory, and where results are stored.
A, B, RESULT, MXCSR, AFTER = 0x5000, 0x5010, 0x5020, 0x5030, 0x5034

ONE, ZERO, TINY, SMALL, HUGE, SNAN, QNAN = 0x3F800000, 0, 1, 0x00800000, 0x7F7FFFFF, 0x7F800001, 0x7FC00000
DENORMAL, THIRD = 0x00400000, 0x40400000


def execute(
    instruction: str, a: bytes, b: bytes, mxcsr: int, *, cr4: int = OSFXSR | OSXMMEXCPT, bits: int = 32
) -> BareCpu:
    """Run `instruction` with XMM0 = a and XMM1 = b, MXCSR as given; XMM0 and MXCSR are stored behind it."""
    cpu = used_cpu(
        f"mov eax, {cr4 | 0x20 * (bits == 64):#x}\nmov cr4, {'rax' if bits == 64 else 'eax'}\nldmxcsr [{MXCSR:#x}]\n"
        f"movups xmm0, [{A:#x}]\nmovups xmm1, [{B:#x}]\n{instruction}\n"
        f"movups [{RESULT:#x}], xmm0\nstmxcsr [{AFTER:#x}]\nhlt",
        bits,
    )
    cpu.write(A, a.ljust(16, b"\0"))
    cpu.write(B, b.ljust(16, b"\0"))
    cpu.write(MXCSR, mxcsr.to_bytes(4, "little"))
    cpu.run()
    return cpu


def singles(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


#: Instruction, operands, DAZ and FZ -> the lowest number of the result and the flags (SDM vol. 1, 4.9.1 and 11.5.2).
FLAGS = {
    "exact": ("addss xmm0, xmm1", ONE, ONE, 0, 0x40000000, 0),
    "inexact": ("divss xmm0, xmm1", ONE, THIRD, 0, 0x3EAAAAAB, PE),
    "division by zero": ("divss xmm0, xmm1", ONE, ZERO, 0, 0x7F800000, ZE),
    "invalid division": ("divss xmm0, xmm1", ZERO, ZERO, 0, 0xFFC00000, IE),
    "signalling NaN": ("addss xmm0, xmm1", SNAN, ONE, 0, 0x7FC00001, IE),
    "the first of two NaNs": ("addss xmm0, xmm1", QNAN | 5, QNAN | 9, 0, QNAN | 5, 0),
    "overflow": ("addss xmm0, xmm1", HUGE, HUGE, 0, 0x7F800000, OE | PE),
    "underflow": ("mulss xmm0, xmm1", SMALL | 1, 0x3F000000, 0, DENORMAL, UE | PE),
    "tiny and exact": ("mulss xmm0, xmm1", SMALL, 0x3F000000, 0, DENORMAL, 0),
    "flush to zero": ("mulss xmm0, xmm1", SMALL | 1, 0x3F000000, FZ, 0, UE | PE),
    "flush of what is exact": ("mulss xmm0, xmm1", SMALL, 0x3F000000, FZ, 0, UE | PE),
    "denormal operand": ("addss xmm0, xmm1", DENORMAL, ONE, 0, ONE, DE | PE),
    "denormals are zeros": ("addss xmm0, xmm1", DENORMAL, ONE, DAZ, ONE, 0),
    "the least of denormals": ("minss xmm0, xmm1", TINY, DENORMAL, 0, TINY, DE),
    "the least with DAZ": ("minss xmm0, xmm1", DENORMAL, TINY, DAZ, 0, 0),  # equal: the second, a zero
    "the greatest of a NaN": ("maxss xmm0, xmm1", QNAN, ONE, 0, ONE, IE),
    "ordered comparison": ("cmpltss xmm0, xmm1", QNAN, ONE, 0, 0, IE),
    "unordered comparison": ("cmpeqss xmm0, xmm1", QNAN, ONE, 0, 0, 0),
    "square root of -1": ("sqrtss xmm0, xmm1", ONE, 0xBF800000, 0, 0xFFC00000, IE),
    "integer of a NaN": ("cvtps2dq xmm0, xmm1", ONE, QNAN, 0, 0x80000000, IE),
    "integer of a half": ("cvtps2dq xmm0, xmm1", ONE, 0x3F000000, 0, 0, PE),
    "ucomiss of a quiet NaN": ("ucomiss xmm0, xmm1", QNAN, ONE, 0, QNAN, 0),
    "comiss of a quiet NaN": ("comiss xmm0, xmm1", QNAN, ONE, 0, QNAN, IE),
    "comiss of a denormal": ("comiss xmm0, xmm1", TINY, ONE, 0, TINY, DE),
}  # fmt: skip


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", FLAGS)
def test_an_operation_sets_its_flags(name: str, bits: int) -> None:
    instruction, a, b, more, result, flags = FLAGS[name]
    cpu = execute(instruction, singles(a), singles(b), MASKED | more, bits=bits)
    assert cpu.faults == []
    assert (hex(cpu.read32(RESULT)), hex(cpu.read32(AFTER))) == (hex(result), hex(MASKED | more | flags))


def test_flags_are_sticky() -> None:
    cpu = execute("divss xmm0, xmm1\naddss xmm1, xmm1", singles(ONE), singles(THIRD), MASKED | ZE)
    assert cpu.read32(AFTER) == MASKED | ZE | PE


#: What raises each exception alone when that is not masked, and the flags behind it.
RAISED = {
    IE: ("divps xmm0, xmm1", ZERO, ZERO, IE),
    DE: ("addps xmm0, xmm1", DENORMAL, ONE, DE),
    ZE: ("divps xmm0, xmm1", ONE, ZERO, ZE),
    OE: ("mulps xmm0, xmm1", HUGE, 0x40400000, OE | PE),
    UE: ("mulps xmm0, xmm1", SMALL, 0x3F000000, UE),
    PE: ("divps xmm0, xmm1", ONE, THIRD, PE),
}


@pytest.mark.parametrize(("cr4", "vector"), [(OSFXSR | OSXMMEXCPT, XM), (OSFXSR, UD)])
@pytest.mark.parametrize("flag", RAISED)
def test_what_is_not_masked_is_raised_before_anything_is_stored(flag: int, cr4: int, vector: int) -> None:
    instruction, a, b, flags = RAISED[flag]
    mxcsr = MASKED & ~(flag << 7)
    cpu = execute(instruction, singles(a, ONE, ONE, ONE), singles(b, ONE, ONE, ONE), mxcsr, cr4=cr4)
    assert cpu.faults[0].vector == vector
    state = cpu.engine.state()
    assert (state.fpu.mxcsr, state.fpu.xmm[0]) == (mxcsr | flags, int.from_bytes(singles(a, ONE, ONE, ONE), "little"))
    assert cpu.faults[0].retired == 5


@pytest.mark.parametrize("flag", RAISED)
def test_what_is_masked_is_not_raised(flag: int) -> None:
    instruction, a, b, _ = RAISED[flag]
    assert execute(instruction, singles(a), singles(b), MASKED & flag << 7 | MASKED).faults == []


def test_what_is_found_before_hides_what_comes_of_the_operation() -> None:
    """An unmasked division by zero of one number: PE and OE of the others are not reported (SDM vol. 1, 11.5.2)."""
    cpu = execute("divps xmm0, xmm1", singles(ONE, ONE, HUGE, TINY), singles(ZERO, THIRD, SMALL, ONE), MASKED & ~0x200)
    assert cpu.faults[0].vector == XM
    assert cpu.engine.state().fpu.mxcsr & 0x3F == ZE | DE


@pytest.mark.parametrize(("low", "flags"), [(0, OE), (1, OE | PE)])
def test_an_unmasked_overflow_is_inexact_where_it_would_be_without_it(low: int, flags: int) -> None:
    cpu = execute(
        "mulss xmm0, xmm1", singles(HUGE - 1 + low), singles(0x40400000 if low else 0x40000000), MASKED & ~0x400
    )
    assert (cpu.faults[0].vector, cpu.engine.state().fpu.mxcsr & 0x3F) == (XM, flags)


def test_integers_of_mmx_registers_leave_the_hosts_alone() -> None:
    cpu = execute("fninit\nfld1\nmovq mm1, [0x5000]\ncvtpi2ps xmm0, mm1\ncvtps2pi mm2, xmm1\nmovq [0x5040], mm2\nemms",
                  singles(3, 0xFFFFFFFE), singles(0x40600000, 0xBFC00000), MASKED)  # fmt: skip
    assert cpu.faults == []
    assert cpu.read(RESULT, 8) == struct.pack("<ff", 3, -2)
    assert struct.unpack("<ii", cpu.read(0x5040, 8)) == (4, -2)  # of 3.5 and -1.5, to even
    assert cpu.read32(AFTER) == MASKED | PE


# -- SSE3 and SSE4.1, which Bochs's CPU lacks, beside exact arithmetic


def rounded(value: Fraction, size: int) -> Fraction:
    """The nearest number of `size` bytes, to even; of normal size."""
    if not value:
        return value
    bits, power, scaled = {4: 24, 8: 53}[size], 0, abs(value)
    while scaled >= 1 << bits:
        scaled, power = scaled / 2, power + 1
    while scaled < 1 << bits - 1:
        scaled, power = scaled * 2, power - 1
    whole = round(scaled) * Fraction(2) ** power  # half to even
    return whole if value > 0 else -whole


class Exact:
    """Sums and products as numbers of `size` bytes, noting whether one was inexact."""

    def __init__(self, size: int) -> None:
        self.size, self.inexact = size, False

    def __call__(self, value: Fraction) -> Fraction:
        result = rounded(value, self.size)
        self.inexact |= result != value
        return result


def numbers(source: random.Random, size: int) -> list[Fraction]:
    """Of a register; some close together, so that sums are exact."""
    bits = source.choice((4, 10, 24 if size == 4 else 53))
    return [
        Fraction(source.randrange(1, 1 << bits) * source.choice((1, -1)), 1 << source.randrange(8))
        for _ in range(16 // size)
    ]


def pack(values: list[Fraction], size: int) -> bytes:
    return struct.pack(f"<{16 // size}{'f' if size == 4 else 'd'}", *map(float, values))


def horizontal(e: Exact, a: list[Fraction], b: list[Fraction], sign: int) -> list[Fraction]:
    both = a + b
    return [e(both[i] + sign * both[i + 1]) for i in range(0, len(both), 2)]


def alternating(e: Exact, a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
    return [e(x + y if i & 1 else x - y) for i, (x, y) in enumerate(zip(a, b, strict=True))]


def product(e: Exact, a: list[Fraction], b: list[Fraction], mask: int) -> list[Fraction]:
    parts = [e(x * y) if mask >> 4 + i & 1 else Fraction(0) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    while len(parts) > 1:
        parts = [e(parts[i] + parts[i + 1]) for i in range(0, len(parts), 2)]
    return [parts[0] if mask >> i & 1 else Fraction(0) for i in range(len(a))]


def combined(name: str, e: Exact, a: list[Fraction], b: list[Fraction], mask: int) -> list[Fraction]:
    if name == "dp":
        return product(e, a, b, mask)
    if name == "addsub":
        return alternating(e, a, b)
    return horizontal(e, a, b, 1 if name == "hadd" else -1)


@pytest.mark.parametrize("name", ["hadd", "hsub", "addsub", "dp"])
@pytest.mark.parametrize(("suffix", "size"), [("ps", 4), ("pd", 8)])
def test_sums_of_neighbours_and_products_are_rounded_one_by_one(name: str, suffix: str, size: int) -> None:
    source = random.Random(f"{name}{suffix}")
    seen = set()
    for _ in range(25):
        a, b, mask, e = numbers(source, size), numbers(source, size), source.randrange(256), Exact(size)
        expected = combined(name, e, a, b, mask)
        cpu = execute(
            f"{name}{suffix} xmm0, xmm1{f', {mask}' if name == 'dp' else ''}", pack(a, size), pack(b, size), MASKED
        )
        assert cpu.faults == []
        found = struct.unpack(f"<{16 // size}{'f' if size == 4 else 'd'}", cpu.read(RESULT, 16))
        assert [Fraction(x) for x in found] == expected, (a, b, mask)
        assert cpu.read32(AFTER) == MASKED | PE * e.inexact
        seen.add(e.inexact)
    assert seen == {False, True}


DIRECTIONS = (
    lambda x: Fraction(round(x)),
    lambda x: Fraction(x.numerator // x.denominator),
    lambda x: Fraction(-(-x.numerator // x.denominator)),
    lambda x: Fraction(int(x)),
)


@pytest.mark.parametrize("name", ["roundps", "roundpd", "roundss", "roundsd"])
@pytest.mark.parametrize("mode", range(16))
def test_round_goes_where_the_immediate_says_or_mxcsr(name: str, mode: int) -> None:
    """SDM vol. 2B, ROUNDPS: bits 1:0, or MXCSR.RC with bit 2; bit 3 leaves PE out."""
    size, count = (4 if name[-1] == "s" else 8), (1 if name[-2] == "s" else 0)
    values = [Fraction(n, 2) for n in (-5, -3, 1, 3, 5, 4, -4, 7)]
    for at in (0, 4):
        operand = [values[(at + i) % len(values)] for i in range(16 // size)]
        for rc in range(4) if mode & 4 else (3,):
            mxcsr = MASKED | rc << 13
            cpu = execute(
                f"{name} xmm0, xmm1, {mode}", pack([Fraction(9)] * (16 // size), size), pack(operand, size), mxcsr
            )
            turn = DIRECTIONS[rc if mode & 4 else mode & 3]
            expected = [turn(x) if not count or not i else Fraction(9) for i, x in enumerate(operand)]
            found = struct.unpack(f"<{16 // size}{'f' if size == 4 else 'd'}", cpu.read(RESULT, 16))
            assert [Fraction(x) for x in found] == expected
            inexact = any(x.denominator > 1 for x in operand[: count or None])
            assert cpu.read32(AFTER) == mxcsr | PE * (inexact and not mode & 8)


@pytest.mark.parametrize("mxcsr", [MASKED, 0, MASKED | 0x6000])
@pytest.mark.parametrize("suffix", ["ps", "ss"])
@pytest.mark.parametrize("name", ["rcp", "rsqrt"])
def test_approximations_have_12_bits_and_no_exceptions(name: str, suffix: str, mxcsr: int) -> None:
    """SDM vol. 2B, RCPPS and RSQRTPS: relative error at most 1.5 * 2**-12."""
    source = random.Random(name)
    for _ in range(4):
        operands = [source.uniform(0.001, 1000) for _ in range(4)]
        cpu = execute(
            f"{name}{suffix} xmm0, xmm1", struct.pack("<4f", 7, 7, 7, 7), struct.pack("<4f", *operands), mxcsr
        )
        assert (cpu.faults, cpu.read32(AFTER)) == ([], mxcsr)
        found = struct.unpack("<4f", cpu.read(RESULT, 16))
        for i, x in enumerate(operands):
            exact = x**-1 if name == "rcp" else x**-0.5
            assert abs(found[i] / exact - 1) <= 1.5 * 2**-12 if suffix == "ps" or not i else found[i] == 7


@pytest.mark.parametrize(
    ("name", "operand", "result"),
    [
        ("rcp", 0x80000000, 0xFF800000), ("rcp", DENORMAL, 0x7F800000), ("rcp", 0x80000001, 0xFF800000),
        ("rcp", HUGE, 0), ("rcp", 0xFF7FFFFF, 0x80000000), ("rcp", 0xFF800000, 0x80000000), ("rcp", SNAN, QNAN | 1),
        ("rsqrt", 0x80000000, 0xFF800000), ("rsqrt", DENORMAL, 0x7F800000), ("rsqrt", 0x80000001, 0xFF800000),
        ("rsqrt", 0xBF800000, 0xFFC00000), ("rsqrt", 0x7F800000, 0), ("rsqrt", SNAN, QNAN | 1),
    ],
)  # fmt: skip
def test_approximations_at_the_ends(name: str, operand: int, result: int) -> None:
    cpu = execute(f"{name}ss xmm0, xmm1", singles(ONE), singles(operand), 0)
    assert (cpu.faults, hex(cpu.read32(RESULT))) == ([], hex(result))


def test_a_fault_in_the_middle_of_a_block_has_its_place_and_count() -> None:
    cpu = execute("inc ecx\ninc ecx\ndivps xmm0, xmm1\ninc ecx", singles(ONE), singles(ZERO), MASKED & ~0x280)
    state = cpu.engine.state()
    assert (state.regs[1], cpu.faults[0].vector, cpu.faults[0].retired) == (2, XM, 7)
    assert cpu.run(1).reason in (ExitReason.SHUTDOWN, ExitReason.HALT)
