"""Breakpoints of DR0 to DR3 on execution are compared with linear addresses, whatever the base of CS is.

SDM vol. 3B, 17.2.1; 17.3.1.1 for RF. Unicorn by itself goes on for ever where the base is not 0.
"""

from __future__ import annotations

import pytest

from bare_cpu import CODE
from emu.engine import ExitReason
from emu.unicorn_engine import HELPER
from emu.x86.state import Segment
from run_loops import SLICES, make, run_without_the_helper

LOOPS = ("gate",) if isinstance(HELPER, str) else ("fast", "gate")
RF = 1 << 16


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(("number", "at", "rf"), [(0, 2, False), (3, 0, False), (1, 0, True)])
def test_one_in_code_with_a_base_is_met(loop: str, bits: int, number: int, at: int, rf: bool) -> None:
    for size in SLICES:
        cpu = make(loop, "nop\nnop\nnop\nnop\nhlt", bits)
        state = cpu.engine.state()
        access = 0x9B if bits == 16 else 0xC09B
        state.cs = Segment(CODE >> 4 if bits == 16 else 8, CODE, 0xFFFF if bits == 16 else 0xFFFFFFFF, access)
        state.rip = 0
        state.dr[number], state.dr[7] = CODE + at, 1 << 2 * number
        state.rflags |= RF if rf else 0
        cpu.engine.load(state)
        exit = cpu.run(6, size)
        if rf:
            assert exit.reason is ExitReason.HALT
            assert not cpu.faults
        else:
            assert [(fault.vector, fault.rip, fault.retired) for fault in cpu.faults[:1]] == [(1, at, at)]
            assert cpu.engine.state().dr[6] & 0xF == 1 << number
        cpu.engine.close()


@pytest.mark.slow
def test_the_same_without_the_helper() -> None:
    assert "passed" in run_without_the_helper(__file__, "with_a_base and gate")
