"""The save areas of system management mode: the manuals' offsets, and that RSM gives back what an SMI has saved."""

from __future__ import annotations

import random

import pytest

from emu.x86.smm import AREA, LONG, SHORT, entered, resumed, saved
from emu.x86.state import GENERAL, SEGMENTS, CpuState, Segment, Table

#: SDM vol. 3C, "SMRAM State Save Map" (SMBASE + 8000h + ...): register, offset.
SDM_SHORT = {
    "cr0": 0x7FFC, "cr3": 0x7FF8, "rflags": 0x7FF4, "rip": 0x7FF0, "rdi": 0x7FEC, "rsi": 0x7FE8, "rbp": 0x7FE4,
    "rsp": 0x7FE0, "rbx": 0x7FDC, "rdx": 0x7FD8, "rcx": 0x7FD4, "rax": 0x7FD0, "dr6": 0x7FCC, "dr7": 0x7FC8,
    "tr": 0x7FC4, "ldtr": 0x7FC0, "gs": 0x7FBC, "fs": 0x7FB8, "ds": 0x7FB4, "ss": 0x7FB0, "cs": 0x7FAC, "es": 0x7FA8,
    "smbase": 0x7EF8,
}  # fmt: skip
#: APM vol. 2, table of the AMD64 state-save area (SMBASE + FE00h + ...).
APM_LONG = {
    "es": 0x000, "cs": 0x010, "ss": 0x020, "ds": 0x030, "fs": 0x040, "gs": 0x050, "ldtr": 0x070, "tr": 0x090,
    "efer": 0x0D0, "smbase": 0x100, "cr4": 0x148, "cr3": 0x150, "cr0": 0x158, "dr7": 0x160, "dr6": 0x168,
    "rflags": 0x170, "rip": 0x178, "r15": 0x180, "r8": 0x1B8, "rdi": 0x1C0, "rsi": 0x1C8, "rbp": 0x1D0, "rsp": 0x1D8,
    "rbx": 0x1E0, "rdx": 0x1E8, "rcx": 0x1F0, "rax": 0x1F8,
}  # fmt: skip


def state_of(seed: int, *, wide: bool) -> CpuState:
    """A state whose every saved value is its own."""
    rnd = random.Random(seed)
    bits = 64 if wide else 32
    state = CpuState(regs=[rnd.getrandbits(bits) if wide or n < 8 else 0 for n in range(16)], rip=rnd.getrandbits(bits))
    state.rflags = rnd.getrandbits(12) | 2
    for name in (*SEGMENTS, "ldtr", "tr"):
        access = rnd.getrandbits(16) & 0xF0FF | 0x80
        setattr(state, name, Segment(rnd.getrandbits(16), rnd.getrandbits(bits), rnd.getrandbits(32), access))
    state.gdtr, state.idtr = (Table(rnd.getrandbits(bits), rnd.getrandbits(16)) for _ in range(2))
    state.cr3, state.cr4 = rnd.getrandbits(32), rnd.getrandbits(8) | 0x20
    state.cr0, state.efer = (0x80000011, 0x501) if wide else (0x80000011, 0)
    state.dr[6], state.dr[7] = rnd.getrandbits(16), rnd.getrandbits(16)
    state.smbase = rnd.getrandbits(32) & ~0x7FFF
    return state


def value_of(state: CpuState, name: str) -> int:
    if name in GENERAL:
        return state.regs[GENERAL.index(name)]
    if name in ("dr6", "dr7"):
        return state.dr[int(name[2])]
    value = getattr(state, name)
    return value.selector if isinstance(value, Segment) else value


@pytest.mark.parametrize(
    ("layout", "wide", "table", "base", "width"),
    ((SHORT, False, SDM_SHORT, 0x8000, 4), (LONG, True, APM_LONG, AREA, 8)),
)
def test_registers_are_where_the_manuals_have_them(layout, wide, table, base, width):
    for seed in range(20):
        state = state_of(seed, wide=wide)
        area = saved(state, layout)
        assert len(area) == 512
        for name, offset in table.items():
            at = base + offset - AREA
            size = 2 if name in (*SEGMENTS, "ldtr", "tr") else 4 if name == "smbase" else width
            assert int.from_bytes(area[at : at + size], "little") == value_of(state, name), name
        revision = int.from_bytes(area[0xFC:0x100], "little")
        assert revision == (0x20064 if wide else 0x20000)


@pytest.mark.parametrize(("layout", "wide"), ((SHORT, False), (LONG, True)))
@pytest.mark.parametrize("blocked", (False, True))
@pytest.mark.parametrize("halted", (False, True))
def test_rsm_gives_back_what_was_saved(layout, wide, blocked, halted):
    for seed in range(20):
        state = state_of(seed, wide=wide)
        state.nmi_blocked, state.halted = blocked, halted
        inside = entered(state)
        assert inside.smm and inside.nmi_blocked and not inside.halted
        assert (inside.cs.base, inside.cs.selector, inside.rip) == (state.smbase, state.smbase >> 4 & 0xFFFF, 0x8000)
        assert resumed(inside, saved(state, layout), layout) == state


def test_smbase_moves_by_the_area_and_only_if_the_revision_says_so():
    area = bytearray(saved(CpuState(), LONG))
    area[0x100:0x104] = (0xA0000).to_bytes(4, "little")
    moved = resumed(entered(CpuState()), bytes(area), LONG)
    assert moved is not None and moved.smbase == 0xA0000
    area[0xFC:0x100] = bytes(4)
    kept = resumed(entered(CpuState()), bytes(area), LONG)
    assert kept is not None and kept.smbase == 0x30000
