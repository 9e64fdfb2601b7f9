"""FBSTP, and MXCSR as FXRSTOR and XRSTOR load it, beside what the SDM says. Bochs has its say in test_checks.py."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bare_cpu import BareCpu, used_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

GP = 13
AT = 0x5000
INDEFINITE = bytes.fromhex("00000000000000c0ffff")  # SDM vol. 1, 4.7
MOST = 10**18 - 1
NEAREST, DOWN, UP, TRUNCATE = range(4)


def extended(sign: int, exponent: int, mantissa: int) -> bytes:
    """An 80-bit value as memory has it; `exponent` is biased."""
    return mantissa.to_bytes(8, "little") + (sign << 15 | exponent).to_bytes(2, "little")


def of(value: Fraction) -> bytes:
    """An 80-bit value that is exactly `value`."""
    sign, value = int(value < 0), abs(value)
    if not value:
        return extended(0, 0, 0)
    power = 0
    while value >= 2:
        value, power = value / 2, power + 1
    while value < 1:
        value, power = value * 2, power - 1
    mantissa = value * 2**63
    assert mantissa.denominator == 1
    return extended(sign, power + 16383, int(mantissa))


def packed(value: Fraction, negative: bool, rounding: int) -> bytes:
    """What FBSTP stores (SDM vol. 2A, FBSTP; vol. 1, table 4-8)."""
    size = abs(value)
    whole = int(size)
    rest = size - whole
    if rounding == NEAREST:
        whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    elif rest and rounding == (DOWN if negative else UP):
        whole += 1
    if whole > MOST:
        return INDEFINITE
    return bytes.fromhex(f"{whole:018d}")[::-1] + (b"\x80" if negative else b"\0")


def stored(value: bytes, rounding: int) -> bytes:
    cpu = used_cpu(
        f"fninit\npush {0x37F | rounding << 10:#x}\nfldcw [esp]\nfld tword [{AT:#x}]\nfbstp [{AT + 16:#x}]\nhlt",
        32,
    )
    cpu.write(AT, value + b"\x55" * 20)
    assert (cpu.run().reason, cpu.faults) == (ExitReason.HALT, [])
    assert cpu.read(AT + 26, 4) == b"\x55" * 4
    assert cpu.engine.state().fpu.fsw >> 11 & 7 == 0, "popped"
    return cpu.read(AT + 16, 10)


HALVES = [Fraction(n, 2) for n in range(-7, 8)]
EDGES = [
    *(Fraction(sign * (10**18 + n), 4) * scale for sign in (1, -1) for n in (-3, -2, -1, 0, 1, 2) for scale in (1, 4)),
    *(sign * (MOST + Fraction(n, 8)) for sign in (1, -1) for n in (0, 4, 7)),
    *(Fraction(sign * n) for sign in (1, -1) for n in (2**59, 2**60 - 1, 2**60, 2**63, 2**64, 10**17)),
    *(sign * (Fraction(1, 2) + Fraction(n, 2**64)) for sign in (1, -1) for n in (-1, 0, 1)),
    *(sign * Fraction(1, 2**n) for sign in (1, -1) for n in (2, 3, 63, 64, 65, 16000)),
]


@pytest.mark.slow_variants
@pytest.mark.parametrize("rounding", [NEAREST, DOWN, UP, TRUNCATE])
def test_fbstp_stores_18_digits_or_the_indefinite_value(rounding: int) -> None:
    for value in (*HALVES, *EDGES):
        try:
            operand = of(value)
        except AssertionError:
            continue  # has more than 64 bits
        assert stored(operand, rounding) == packed(value, value < 0, rounding), value


@pytest.mark.parametrize(
    ("sign", "exponent", "mantissa", "expected"),
    [
        (1, 0, 0, b"\0" * 9 + b"\x80"),  # -0
        (0, 0, 1, b"\0" * 10), (1, 0, 1, b"\0" * 9 + b"\x80"),  # denormals
        (0, 0x7FFF, 1 << 63, INDEFINITE), (1, 0x7FFF, 1 << 63, INDEFINITE),  # infinities
        (0, 0x7FFF, 3 << 62, INDEFINITE), (1, 0x7FFF, 3 << 62, INDEFINITE),  # NaNs
        (0, 16383, 1 << 62, INDEFINITE), (0, 0x7FFE, 1 << 63, INDEFINITE),  # an unnormal, the largest power
    ],
)  # fmt: skip
def test_fbstp_of_what_is_no_usual_number(sign: int, exponent: int, mantissa: int, expected: bytes) -> None:
    assert stored(extended(sign, exponent, mantissa), NEAREST) == expected


def test_fbstp_of_the_indefinite_value_faults_before_it_pops() -> None:
    cpu = used_cpu("fninit\nfldl2e\nfldz\nfld1\nfdivrp\nfbstp [fs:0]\nhlt", 32)
    state = cpu.engine.state()
    state.fs.limit, state.fs.access = 8, 0x4093
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert (cpu.faults[0].vector, cpu.faults[0].retired) == (GP, 5)
    assert cpu.engine.state().fpu.fsw >> 11 & 7 == 6


def restored(instruction: str, mxcsr: int, *, cr4: int, xcr0: int = 3, bits: int = 32) -> BareCpu:
    enable = f"mov ecx, 0\nmov edx, 0\nmov eax, {xcr0}\nxsetbv\nmov eax, 7\n" if cr4 & 1 << 18 else ""
    register = "rax" if bits == 64 else "eax"
    source = f"mov eax, {cr4 | 0x20:#x}\nmov cr4, {register}\n{enable}{instruction} [{AT:#x}]\nhlt"
    cpu = used_cpu(source, bits)
    image = bytearray(0x340)
    image[0:2] = b"\x7f\x03"
    image[24:28] = mxcsr.to_bytes(4, "little")
    cpu.write(AT, bytes(image))
    cpu.run()
    return cpu


OSFXSR, OSXSAVE = 0x200, 0x40000


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("bit", range(32))
def test_fxrstor_refuses_reserved_bits_of_mxcsr(bit: int, bits: int) -> None:
    """SDM vol. 2A, FXRSTOR; MXCSR_MASK is FFFFh."""
    cpu = restored("fxrstor", 1 << bit, cr4=OSFXSR, bits=bits)
    if bit < 16:
        assert (cpu.faults, cpu.engine.state().fpu.mxcsr) == ([], 1 << bit)
    else:
        assert [(f.vector, f.code) for f in cpu.faults[:1]] == [(GP, 0)]
        assert cpu.engine.state().fpu.mxcsr == 0x1F80, "nothing was loaded"


def test_fxrstor_without_osfxsr_leaves_mxcsr_alone() -> None:
    cpu = restored("fxrstor", 0xFFFFFFFF, cr4=0)
    assert (cpu.faults, cpu.engine.state().fpu.mxcsr) == ([], 0x1F80)


@pytest.mark.parametrize(("xcr0", "fault"), [(1, False), (3, True)])
def test_xrstor_refuses_reserved_bits_of_mxcsr_where_it_loads_it(xcr0: int, fault: bool) -> None:
    """SDM vol. 1, 13.8.1: MXCSR is loaded where RFBM has SSE or AVX, whatever XSTATE_BV says."""
    cpu = restored("xrstor", 0x11F80, cr4=OSFXSR | OSXSAVE, xcr0=xcr0)
    assert [f.vector for f in cpu.faults[:1]] == ([GP] if fault else [])


@pytest.mark.parametrize("offset", [8, 16, 0xFF0])
def test_an_image_on_two_pages_faults_on_its_first_absent_one(offset: int) -> None:
    """Long mode, the second page absent, which CR2 names; and what is not aligned is refused before it is read."""
    cpu = used_cpu(f"mov eax, {OSFXSR | 0x20:#x}\nmov cr4, rax\nfxrstor [{AT + offset:#x}]\nhlt", 64)
    tables = 0x100000 + 0x3000
    cpu.write(tables + 8 * (AT + 0x1000 >> 12), b"\0" * 8)
    cpu.write(AT + offset, b"\x7f\x03")
    cpu.run()
    first = [(f.vector, f.cr2 & ~0xFFF) for f in cpu.faults[:1]]
    expected = {8: [(GP, 0)], 16: [], 0xFF0: [(14, AT + 0x1000)]}[offset]
    assert first == expected
