"""x87 exceptions: the flags of the status word, stack faults, #MF and when it comes, and precision.

Rules: SDM vol. 1, 8.1.3, 8.3, 8.5 to 8.7; vol. 2A and 2B, each instruction. What is computed is compared with Bochs at
random (test_random_streams.py, `x87faults`), but for transcendental functions.
"""

from __future__ import annotations

import math
import struct

import pytest

from bare_cpu import BareCpu, bare_cpu, used_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

NM, MF, DB = 7, 16, 1
NE = 0x20
IE, DE, ZE, OE, UE, PE, SF, ES, B = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x8000
C0, C1, C2, C3 = 0x100, 0x200, 0x400, 0x4000
AT = 0x5000


def run(source: str, *, cr0: int = NE, bits: int = 32, data: bytes = b"", budget: int = 1_000_000) -> BareCpu:
    register = "rax" if bits == 64 else "eax"
    cpu = used_cpu(f"mov {register}, cr0\nor eax, {cr0:#x}\nmov cr0, {register}\nfninit\n{source}\nhlt", bits)
    cpu.write(AT, data)
    cpu.run(budget)
    return cpu


def fsw(cpu: BareCpu) -> int:
    return cpu.engine.state().fpu.fsw


#: Instructions behind FNINIT -> the status word (SDM vol. 1, 8.5).
STATUS = {
    "exact": ("fld1\nfadd st0, st0", 7 << 11),
    "division by zero": ("fld1\nfldz\nfdivp", 7 << 11 | ZE),
    "inexact, rounded down": ("fld1\npush 3\nfidiv dword [esp]", 7 << 11 | PE | C1),
    "inexact, rounded up": ("fld1\npush 7\nfidiv dword [esp]", 7 << 11 | PE),
    "infinity less itself": ("fld1\nfldz\nfdivp\nfsub st0, st0", 7 << 11 | ZE | IE),
    "square root of -1": ("fld1\nfchs\nfsqrt", 7 << 11 | IE),
    "empty register": ("fld st3", 7 << 11 | IE | SF),
    "arithmetic on empty registers": ("fld1\nfadd st0, st5", 7 << 11 | IE | SF),
    "a full stack": ("fld1\n" * 9, 7 << 11 | IE | SF | C1),
    "store of an empty register": ("fst dword [esp - 8]", IE | SF),
    "pop of an empty register": ("fstp st0", 1 << 11 | IE | SF),
    "comparison with an empty register": ("fld1\nfcom st5", 7 << 11 | IE | SF | C0 | C2 | C3),
    "exchange with an empty register": ("fld1\nfxch st2", 7 << 11 | IE | SF),
    "what does not fit an integer": ("push 100\nfild dword [esp]\nfld1\nfscale\nfistp dword [esp]", 7 << 11 | IE),
    "fsin of what is out of range": ("push 64\nfild dword [esp]\nfld1\nfscale\nfsin", 6 << 11 | C2),
    "fptan of what is out of range": ("push 64\nfild dword [esp]\nfld1\nfscale\nfptan", 6 << 11 | C2),
    "logarithm of zero": ("fld1\nfldz\nfyl2x", 7 << 11 | ZE),
    "logarithm of -1": ("fld1\nfld1\nfchs\nfyl2x", 7 << 11 | IE),
    "exponent of zero": ("fldz\nfxtract", 6 << 11 | ZE),
    "cleared": ("fld1\nfldz\nfdivp\nfnclex", 7 << 11),
}  # fmt: skip


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", STATUS)
def test_an_instruction_leaves_its_flags(name: str, bits: int) -> None:
    source, expected = STATUS[name]
    if bits == 64:
        source = source.replace("esp", "rsp")
    cpu = run(source, bits=bits)
    assert cpu.faults == []
    assert hex(fsw(cpu)) == hex(expected)


#: Values in memory that are found when they are loaded, as single, double and extended precision -> flags.
LOADED = {
    "a signalling NaN": (0x7F800001, 0x7FF0000000000001, bytes.fromhex("010000000000 0080ff7f"), IE, 0),
    "a quiet NaN": (0x7FC00001, 0x7FF8000000000001, bytes.fromhex("010000000000 00c0ff7f"), 0, 0),
    "a denormal": (1, 1, bytes.fromhex("0100000000000000 0000"), DE, 0),
}


@pytest.mark.parametrize("name", LOADED)
def test_loads_find_nans_and_denormals_but_of_80_bits(name: str) -> None:
    single, double, extended, flags, none = LOADED[name]
    for size, data, expected in (
        ("dword", struct.pack("<I", single), flags),
        ("qword", struct.pack("<Q", double), flags),
        ("tword", extended, none),
    ):
        cpu = run(f"fld {size} [{AT:#x}]\nfstp tword [{AT + 16:#x}]", data=data)
        assert fsw(cpu) == expected, size
        if "NaN" in name:
            quiet = cpu.read(AT + 16, 10)[7] & 0x40
            assert bool(quiet) == (size != "tword" or "quiet" in name)


#: Control word with one exception that is not masked, what raises it, and the registers behind: TOP and ST(0).
ONE, ZERO = 0x3FFF8000000000000000, 0
UNMASKED = {
    "invalid": (0x37E, "fld1\nfchs\nfsqrt", 7, ONE | 1 << 79),
    "denormal": (0x37D, f"fld1\nfadd dword [{AT:#x}]", 7, ONE),
    "division by zero": (0x37B, "fldz\nfld1\nfdiv st0, st1", 6, ONE),
    "division by zero, popping": (0x37B, "fld1\nfldz\nfdivp", 6, ZERO),
    "a full stack": (0x37E, "fld1\n" * 9, 0, ONE),
    "an empty register": (0x37E, "fld1\nfadd st0, st3", 7, ONE),
    "push of an empty register": (0x37E, "fld1\nfld st3", 7, ONE),
    "comparison, popping": (0x37E, "fld1\nfcomp st3", 7, ONE),
    "inexact": (0x35F, "fld1\npush 7\nfidiv dword [esp]", 7, 0x3FFC9249249249249249),
}


@pytest.mark.parametrize("name", UNMASKED)
@pytest.mark.parametrize("bits", [32, 64])
def test_what_is_not_masked_waits_for_the_next_instruction(name: str, bits: int) -> None:
    """An operation that is refused changes nothing; FNSTSW does not wait, and the instruction that does faults."""
    control, source, top, st0 = UNMASKED[name]
    if bits == 64:
        source = source.replace("esp", "rsp")
    stack = "rsp" if bits == 64 else "esp"
    cpu = run(f"push {control:#x}\nfldcw [{stack}]\n{source}\nfnstsw ax\nmov ebx, eax\nfld1", bits=bits, data=b"\1")
    assert cpu.faults[0].vector == MF
    state = cpu.engine.state()
    assert state.regs[3] & (ES | B) == ES | B
    assert (state.fpu.fsw >> 11 & 7, hex(state.fpu.st[0])) == (top, hex(st0))
    assert cpu.read(cpu.faults[0].linear, 2) == bytes.fromhex("d9e8")


WAITS = (
    "fwait", "fld1", "fldcw [0x5000]", "fcmovb st0, st0", "movq mm0, mm1", "emms", "fldenv [0x5000]", "fabs",
    "fxch", "ffree st0", "fincstp", "fxam", "fcomi st0, st0", "fnop", "fst dword [0x5000]",
)  # fmt: skip
GOES_ON = (
    "fnstsw ax", "fnstcw [0x5040]", "fnclex", "fninit", "fnstenv [0x5040]", "fnsave [0x5040]", "fxsave [0x5040]", "nop",
)  # fmt: skip


@pytest.mark.parametrize("waits", WAITS)
def test_these_wait(waits: str) -> None:
    cpu = run(f"push 0x37b\nfldcw [esp]\nfld1\nfldz\nfdivp\n{waits}", data=b"\x7f\x03")
    assert [fault.vector for fault in cpu.faults[:1]] == [MF]
    assert cpu.engine.state().fpu.fsw & ES


@pytest.mark.parametrize("goes_on", GOES_ON)
def test_these_do_not(goes_on: str) -> None:
    assert run(f"push 0x37b\nfldcw [esp]\nfld1\nfldz\nfdivp\n{goes_on}").faults == []


def test_ts_comes_before_what_waits() -> None:
    cpu = run("push 0x37b\nfldcw [esp]\nfld1\nfldz\nfdivp\nmov eax, cr0\nor eax, 8\nmov cr0, eax\nfld1")
    assert cpu.faults[0].vector == NM


@pytest.mark.parametrize(
    "store", ["fstp dword [0x5000]", "fist dword [0x5000]", "fistp qword [0x5000]", "fbstp [0x5000]"]
)
def test_a_store_that_is_refused_writes_nothing_and_pops_nothing(store: str) -> None:
    cpu = run(
        f"push 0x366\nfldcw [esp]\npush 10000\nfild dword [esp]\nfld1\nfscale\n{store}\nmov ebx, 5", data=b"\x55" * 16
    )
    state = cpu.engine.state()
    assert cpu.faults == []
    assert (cpu.read(AT, 16), state.fpu.fsw >> 11 & 7, state.fpu.fsw & ES, state.regs[3]) == (b"\x55" * 16, 6, ES, 5)


@pytest.mark.parametrize("control", [0x37B, 0x37F])
def test_fldcw_and_fldenv_find_what_was_masked(control: int) -> None:
    cpu = run(f"fld1\nfldz\nfdivp\nfnstenv [{AT:#x}]\nmov word [{AT:#x}], {control:#x}\nfldenv [{AT:#x}]\nfnstsw ax")
    assert bool(cpu.engine.state().regs[0] & ES) == (control == 0x37B)
    cpu = run(f"fld1\nfldz\nfdivp\npush {control:#x}\nfldcw [esp]\nfnstsw ax\npush 0x37f\nfnclex\nfldcw [esp]")
    assert bool(cpu.engine.state().regs[0] & ES) == (control == 0x37B)


def test_fxrstor_finds_it_too() -> None:
    """ES and B of the image are what they would be, not what it says."""
    for flags, expected in ((ZE, ES | B), (0, 0)):
        cpu = run(
            f"mov eax, cr4\nor eax, 0x200\nmov cr4, eax\npush 0x37b\nfldcw [esp]\nfxsave [{AT:#x}]\n"
            f"mov word [{AT + 2:#x}], {flags | (0 if flags else ES | B):#x}\nfxrstor [{AT:#x}]\nfnstsw ax"
        )
        assert (cpu.faults, cpu.engine.state().regs[0] & (ES | B)) == ([], expected)


def test_fnstenv_masks_everything_behind_it() -> None:
    cpu = run(f"push 0x340\nfldcw [esp]\nfnstenv [{AT:#x}]")
    assert (cpu.read(AT, 2), cpu.engine.state().fpu.fcw) == (b"\x40\x03", 0x37F)


@pytest.mark.parametrize("name", ["division by zero, popping", "a full stack", "push of an empty register"])
def test_a_single_step_behind_what_is_refused_comes(name: str) -> None:
    control, source, _, _ = UNMASKED[name]
    lines = source.strip().split("\n")
    first = "\n".join(lines[:-1])
    step = "pushfd\nor dword [esp], 0x100\npopfd"
    cpu = run(f"push {control:#x}\nfldcw [esp]\n{first}\n{step}\n{lines[-1]}\nnop")
    assert cpu.faults[0].vector == DB
    assert cpu.read(cpu.faults[0].linear, 1) == b"\x90"


def extended(value: int) -> float:
    return math.ldexp(value & (1 << 64) - 1, (value >> 64 & 0x7FFF) - 16383 - 63) * (-1 if value >> 79 else 1)


#: 64 bits of functions, from tables of them (sin 1 = 0.8414709848078965066525, 2**0.5 - 1 = 0.4142135623730950488017).
FUNCTIONS = {
    "sine": ("fld1\nfsin", 0x3FFED76AA47848677021),
    "cosine": ("fld1\nfcos", 0x3FFE8A51407DA8345C92),
    "arc tangent": ("fld1\nfld1\nfpatan", 0x3FFEC90FDAA22168C235),
    "power": ("fld1\nfchs\nfld1\nfscale\nf2xm1", 0x3FFDD413CCCFE7799212),
    "logarithm": ("fld1\npush 10\nfild dword [esp]\nfyl2x", 0x4000D49A784BCD1B8AFE),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_64_bits(name: str) -> None:
    """To one in the last place, which is a CPU's own (SDM vol. 1, 8.3.10)."""
    source, expected = FUNCTIONS[name]
    found = run(source).engine.state().fpu.st[0]
    assert abs(found - expected) <= 1
    assert extended(found) == pytest.approx(extended(expected))


#: Control words with RC, and the lowest bits of FLDPI (SDM vol. 1, 8.3.8): C90FDAA22168C234C4C6h.
@pytest.mark.parametrize(("rc", "last"), [(0, 5), (1, 4), (2, 5), (3, 4)])
def test_constants_are_rounded_as_rc_says(rc: int, last: int) -> None:
    cpu = run(f"push {0x37F | rc << 10:#x}\nfldcw [esp]\nfldpi")
    assert cpu.engine.state().fpu.st[0] & 0xF == last


def test_runs_in_slices_of_one_are_the_same() -> None:
    source = (
        "push 0x37a\nfldcw [esp]\n"
        + "fld1\nfldz\nfdivp st1, st0\nfnclex\nfadd st0, st6\nfnclex\n" * 3
        + "fnstsw ax\nhlt"
    )
    cpus = [bare_cpu(f"fninit\n{source}", 32) for _ in range(2)]
    assert [cpu.run(slice=size).reason for cpu, size in zip(cpus, (1, 1000), strict=True)] == [ExitReason.HALT] * 2
    assert cpus[0].engine.state().fpu == cpus[1].engine.state().fpu
    assert cpus[0].engine.retired == cpus[1].engine.retired
