"""Operating modes: which one a state is in, and its widths (SDM vol. 3A, 2.2, 3.4.5, 4.1.1)."""

from __future__ import annotations

import pytest

from emu.x86.modes import Mode, code_bits, gdb_arch, mode_of, paging_label, stack_bits
from emu.x86.state import CpuState, Segment

CODE16, CODE32, CODE64, DATA16, DATA32 = 0x009B, 0xC09B, 0xA09B, 0x0093, 0xC093


def state_with(cr0: int = 0x60000010, cr4: int = 0, efer: int = 0, rflags: int = 2, **segments: Segment) -> CpuState:
    state = CpuState(cr0=cr0, cr4=cr4, efer=efer, rflags=rflags)
    for name, segment in segments.items():
        setattr(state, name, segment)
    return state


PROTECTED, PAGED, IA32E = 0x60000011, 0xE0000011, 0xD00
FLAT32, FLAT64, FLAT16 = (
    Segment(8, 0, 0xFFFFFFFF, CODE32),
    Segment(8, 0, 0xFFFFFFFF, CODE64),
    Segment(8, 0, 0xFFFF, CODE16),
)
STACK32 = Segment(16, 0, 0xFFFFFFFF, DATA32)


@pytest.mark.parametrize(
    ("state", "mode", "bits", "stack", "arch"),
    [
        (CpuState(), Mode.REAL, 16, 16, "i8086"),
        (state_with(ds=Segment(0, 0, 0xFFFFFFFF, DATA16)), Mode.BIG_REAL, 16, 16, "i8086"),
        (state_with(gs=Segment(0, 0, 0xFFF, DATA16)), Mode.BIG_REAL, 16, 16, "i8086"),
        (state_with(ss=Segment(0, 0, 0xFFFF, 0x4093)), Mode.BIG_REAL, 16, 32, "i8086"),
        (state_with(cs=Segment(0, 0, 0xFFFF, 0x409B)), Mode.BIG_REAL, 32, 16, "i386"),
        (state_with(ds=Segment(7, 0x12345, 0xFFFF, DATA16)), Mode.REAL, 16, 16, "i8086"),
        (state_with(cr0=PROTECTED, cs=FLAT16), Mode.PROTECTED16, 16, 16, "i8086"),
        (state_with(cr0=PROTECTED, cs=FLAT32, ss=STACK32), Mode.PROTECTED32, 32, 32, "i386"),
        (state_with(cr0=PROTECTED, cs=FLAT16, ss=STACK32), Mode.PROTECTED16, 16, 32, "i8086"),
        (state_with(cr0=PAGED, rflags=0x20002, cs=Segment(0, 0, 0xFFFF, 0xF3)), Mode.V86, 16, 16, "i8086"),
        (state_with(cr0=PAGED, cr4=0x20, efer=IA32E, cs=FLAT64, ss=STACK32), Mode.LONG64, 64, 64, "i386:x86-64"),
        (state_with(cr0=PAGED, cr4=0x20, efer=IA32E, cs=FLAT32, ss=STACK32), Mode.COMPAT32, 32, 32, "i386"),
        (state_with(cr0=PAGED, cr4=0x20, efer=IA32E, cs=FLAT16), Mode.COMPAT16, 16, 16, "i8086"),
        (state_with(cr0=PROTECTED, efer=0x100, cs=FLAT64), Mode.PROTECTED16, 16, 16, "i8086"),
    ],
)
def test_mode_and_widths_follow_from_control_bits_and_caches(
    state: CpuState, mode: Mode, bits: int, stack: int, arch: str
) -> None:
    assert mode_of(state) is mode
    assert (code_bits(state), stack_bits(state), gdb_arch(state)) == (bits, stack, arch)


@pytest.mark.parametrize(
    ("mode", "label", "bits", "arch", "real"),
    [
        (Mode.REAL, "real", 16, "i8086", True),
        (Mode.BIG_REAL, "big real", 16, "i8086", True),
        (Mode.PROTECTED16, "16-bit protected", 16, "i8086", False),
        (Mode.PROTECTED32, "32-bit protected", 32, "i386", False),
        (Mode.V86, "virtual 8086", 16, "i8086", True),
        (Mode.LONG64, "64-bit", 64, "i386:x86-64", False),
        (Mode.COMPAT32, "32-bit compatibility", 32, "i386", False),
        (Mode.COMPAT16, "16-bit compatibility", 16, "i8086", False),
    ],
)
def test_each_mode_has_a_word_a_width_and_a_gdb_architecture(
    mode: Mode, label: str, bits: int, arch: str, real: bool
) -> None:
    assert (mode.label, mode.bits, mode.gdb_arch, mode.real_addressing) == (label, bits, arch, real)


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "label"),
    [
        (PROTECTED, 0x30, 0, "off"),
        (PAGED, 0, 0, "32-bit"),
        (PAGED, 0x10, 0, "32-bit PSE"),
        (PAGED, 0x30, 0, "PAE"),
        (PAGED, 0x20, IA32E, "4-level"),
        (PAGED, 0x1020, IA32E, "5-level"),
        (PAGED, 0x1020, 0, "PAE"),
    ],
)
def test_paging_mode_follows_from_pg_pae_pse_lma_and_la57(cr0: int, cr4: int, efer: int, label: str) -> None:
    assert paging_label(state_with(cr0=cr0, cr4=cr4, efer=efer)) == label
