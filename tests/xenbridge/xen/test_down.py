"""The state of a vCPU that is down: all that its guest context has, and the rest as it was known."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from emu.x86.state import GENERAL, CpuState, Fpu, Segment, Table
from xenbridge.convert_fpu import build_fxsave
from xenbridge.wire.core import CONTEXT
from xenbridge.xen.down import state_of

SELECTORS = {"es": 0x1000, "cs": 0x2000, "ss": 0x3000, "ds": 0x4000, "fs": 0x5000, "gs": 0x6000}
FPU = Fpu(0x27F, 0x3800, 0x81, 0x123, mxcsr=0x1FA0, fip=0x1111, fdp=0x2222,
          st=[0x3FFF_8000_0000_0000_0000 + n for n in range(8)], xmm=[0xA0 << 120 | n for n in range(16)])  # fmt: skip
#: Each field that is read has a value of its own.
VALUES = {
    **{name: 0x100 + n for n, name in enumerate(GENERAL)}, **SELECTORS, "rip": 0x200, "rflags": 0x46, "flags": 1,
    "fpu_ctxt": build_fxsave(FPU), "ctrlreg": [0x10, 0x301, 0x302, 0x303, 0x200, 0, 0, 0],
    "debugreg": [0x401, 0x402, 0x403, 0x404, 0, 0, 0xFFFF0FF1, 0x402], "fs_base": 0x51234, "gs_base_kernel": 0x61234,
    "gs_base_user": 0x61235,
}  # fmt: skip


class Domain:
    """As far as it is asked."""

    def __init__(self, **changes: Any) -> None:
        self.memory = SimpleNamespace(readable=lambda address, length: 0)
        self.data = CONTEXT.build(CONTEXT.empty() | VALUES | changes)

    def call(self, name: str, vcpu: int, buffer: Any) -> None:
        assert (name, vcpu, len(buffer)) == ("xc_vcpu_getcontext", 0, 5168)
        ctypes.memmove(buffer, self.data, len(self.data))


def found(known: CpuState, **changes: Any) -> CpuState:
    return state_of(Domain(**changes), known)  # type: ignore[arg-type]


def test_what_the_context_has_is_the_state() -> None:
    state = found(CpuState())
    assert state.regs == [0x100 + n for n in range(16)]
    assert (state.rip, state.rflags) == (0x200, 0x46)
    assert (state.cr0, state.cr2, state.cr3, state.cr4) == (0x10, 0x302, 0x303, 0x200)
    assert state.dr == VALUES["debugreg"]
    assert state.fpu == FPU
    assert {name: state.segment(name).selector for name in SELECTORS} == SELECTORS


def test_bases_of_fs_and_gs_are_the_contexts_and_others_those_of_a_load() -> None:
    state = found(CpuState())
    bases = {name: state.segment(name).base for name in SELECTORS}
    assert bases == {name: selector << 4 for name, selector in SELECTORS.items()} | {"fs": 0x51234, "gs": 0x61234}
    assert found(CpuState(), cs=0x2003).gs.base == 0x61235


def test_hidden_parts_stay_where_the_selector_does() -> None:
    known = CpuState()
    for name, selector in SELECTORS.items():
        setattr(known, name, Segment(selector, 0x70000, 0xFFFFFFFF, 0xC093))
    state = found(known)
    for name in SELECTORS:
        segment = state.segment(name)
        assert (segment.limit, segment.access) == (0xFFFFFFFF, 0xC093)
        assert segment.base == {"fs": 0x51234, "gs": 0x61234}.get(name, 0x70000)


def test_what_the_context_has_not_is_as_it_was_known() -> None:
    known = CpuState(gdtr=Table(1, 2), idtr=Table(3, 4), cr8=5, msrs={0x10A: 7})
    known.ldtr, known.tr, known.fpu = Segment(8, 9, 10, 0x82), Segment(16, 17, 18, 0x8B), Fpu(fop=0x77)
    state = found(known, flags=0)
    for name in ("gdtr", "idtr", "cr8", "msrs", "ldtr", "tr", "efer", "fpu"):
        assert getattr(state, name) == getattr(known, name)


@pytest.mark.parametrize("name", ["fpu", "regs", "dr"])
def test_the_known_state_is_not_changed(name: str) -> None:
    known = CpuState()
    before = getattr(known.copy(), name)
    found(known)
    assert getattr(known, name) == before
