"""XSAVE, XSAVEOPT and XRSTOR: #PF before any effect (SDM vol. 3A, 6.5), and the pointers of the x87 in the image (vol.
1, 13.5.1), which FXSAVE64 has in 64-bit code too. Bochs's CPU has no XSAVE; the SDM's layout is the oracle.
"""

from __future__ import annotations

import struct

import pytest

from bare_cpu import CODE, TABLES, BareCpu, bare_cpu
from emu.engine import ExitReason
from run_loops import needs_helper

pytestmark = needs_helper

AREA = 0x5E00  #: the header, at 512, begins the second page
OSXSAVE, OSFXSR, OSXMMEXCPT = 1 << 18, 1 << 9, 1 << 10
TS = 8  #: of CR0
X87, SSE = 1, 2
WRITE = 2


def prepared(instruction: str, *, features: int, absent: tuple[int, ...] = ()) -> BareCpu:
    """A CPU in 64-bit code before the instruction, whose operand is RBX, AREA; the pages `absent` are not there."""
    cpu = bare_cpu(f"mov eax, 3\nxor edx, edx\nxor ecx, ecx\nxsetbv\nmov eax, {features:#x}\n{instruction}\nhlt", 64)
    state = cpu.engine.state()
    state.cr4 |= OSXSAVE | OSFXSR | OSXMMEXCPT
    state.regs[3] = AREA
    state.fpu.fcw, state.fpu.ftw, state.fpu.mxcsr = 0x33F, 0xFF, 0x1FA0
    state.fpu.st = [0x3FFF_8000_0000_0000_0000 + n for n in range(8)]
    state.fpu.xmm = [0x0123_4567_89AB_CDEF << 64 | n for n in range(16)]
    for page in absent:
        cpu.write(TABLES + 0x3000 + 8 * (page >> 12), bytes(8))
    cpu.engine.load(state)
    assert cpu.engine.run(5).executed == 5
    return cpu


def fault_of(cpu: BareCpu) -> tuple[int, int | None, int]:
    cpu.engine.run(1)
    (fault, *_) = cpu.faults
    return fault.vector, fault.code, fault.cr2


def filled(cpu: BareCpu, length: int = 0x1000) -> bytes:
    pattern = bytes(n * 7 & 0xFF for n in range(length))
    cpu.write(AREA, pattern)
    return pattern


@pytest.mark.parametrize("name", ["xsave", "xsaveopt", "xsave64"])
@pytest.mark.parametrize("features", [X87, SSE, X87 | SSE])
def test_a_store_that_faults_in_the_header_has_stored_nothing(name: str, features: int) -> None:
    cpu = prepared(f"{name} [rbx]", features=features, absent=(0x6000,))
    before = filled(cpu)
    assert fault_of(cpu) == (14, WRITE, 0x6000)
    assert cpu.read(AREA, len(before)) == before


def test_a_load_that_faults_has_loaded_nothing() -> None:
    for absent, expected in ((0x6000, 0x6000), (0x5000, AREA)):
        cpu = prepared("xrstor [rbx]", features=X87 | SSE, absent=(absent,))
        image = bytearray(576)
        struct.pack_into("<HHB", image, 0, 0x37F, 0x3800, 0)
        struct.pack_into("<I", image, 24, 0x1F80)
        struct.pack_into("<Q", image, 512, X87 | SSE)
        cpu.write(AREA, bytes(image))
        before = cpu.engine.state().fpu
        assert fault_of(cpu) == (14, 0, expected)
        assert cpu.engine.state().fpu == before


def test_what_is_not_asked_for_is_not_touched() -> None:
    """Components that are not enabled would lie on the page behind."""
    cpu = prepared("xsave [rbx]", features=0xFFFF_FFFF, absent=(0x7000,))
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.read32(AREA + 512) & 3 == 3


@pytest.mark.parametrize("name", ["xsave", "xsaveopt", "xsave64", "xrstor", "xrstor64"])
def test_with_cr0_ts_it_is_device_not_available_whatever_the_operand_is(name: str) -> None:
    """#NM (SDM vol. 2D) comes before #GP of an operand that is not aligned, or not there; #UD before it."""
    for place, has, expected in ((AREA, OSXSAVE, 7), (AREA + 1, OSXSAVE, 7), (0x7000, OSXSAVE, 7), (AREA, 0, 6)):
        cpu = prepared(f"{name} [rbx]", features=X87 | SSE, absent=(0x7000,))
        before, state = filled(cpu), cpu.engine.state()
        state.cr0, state.cr4, state.regs[3] = state.cr0 | TS, state.cr4 & ~OSXSAVE | has, place
        cpu.engine.load(state)
        cpu.engine.run(1)
        assert cpu.faults[0].vector == expected
        assert (cpu.read(AREA, len(before)), cpu.engine.state().fpu) == (before, state.fpu)


POINTERS = """
        fninit
        mov dword [0x7800], 0x0340
        fldcw [0x7800]
        fld1
        mov dword [0x7804], 0
divide: fdiv dword [0x7804]
"""


@pytest.mark.parametrize("name", ["xsave", "xsaveopt", "fxsave"])
@pytest.mark.parametrize("wide", [False, True])
def test_the_image_has_the_pointers_of_what_was_not_masked(name: str, wide: bool) -> None:
    """With REX.W offsets of 64 bits, otherwise of 32 with the selectors (SDM vol. 1, table 10-2 and 10.5.1.1); D8h with
    ModRM 34h is 034h of FOP (8.1.9)."""
    suffix = "64" if wide else ""
    cpu = prepared(f"{POINTERS}{name}{suffix} [rbx]\n{name.replace('save', 'rstor').replace('opt', '')}{suffix} [rbx]",
                   features=X87 | SSE)  # fmt: skip
    filled(cpu)
    cpu.write(AREA + 512, bytes(64))
    assert cpu.run().reason is ExitReason.HALT
    (fop,) = struct.unpack_from("<H", cpu.read(AREA, 576), 6)
    fip, fdp = struct.unpack_from("<QQ", cpu.read(AREA, 576), 8)
    code = cpu.read(CODE, 0x100)
    divide = CODE + code.index(bytes.fromhex("d8342504780000"))
    assert fop == 0x034
    if wide:
        assert (fip, fdp) == (divide, 0x7804)
    else:
        assert (fip & 0xFFFF_FFFF, fdp & 0xFFFF_FFFF) == (divide, 0x7804)
        state = cpu.engine.state()
        assert (fip >> 32, fdp >> 32) == (state.cs.selector, state.ds.selector)
    fpu = cpu.engine.state().fpu
    assert (fpu.fop, fpu.fip, fpu.fdp) == (0x034, divide, 0x7804)
