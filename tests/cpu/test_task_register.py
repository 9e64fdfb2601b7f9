"""A task register that holds no task state segment, as RSM may leave it: #TS (SDM vol. 3A, 6.15)."""

from __future__ import annotations

import pytest

from bare_cpu import CODE, GDT, TABLES, BareCpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER
from emu.x86.state import Segment, Table
from run_loops import make, needs_helper, run_without_the_helper

IDT = 0xA000
TSS = 0x9000
USER = 4  #: U/S of a page table entry
TS, GP = 10, 13


LOOPS = [pytest.param("fast", marks=needs_helper), "gate"]


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("access", [0x8C, 0x0B, 0])
@pytest.mark.parametrize("event", ["int 3", "ud2"])
def test_a_stack_that_no_task_has_is_an_invalid_tss(name: str, bits: int, access: int, event: str) -> None:
    cpu = outer_ring(name, f"{event}\nhlt", bits)
    state = cpu.engine.state()
    state.tr = Segment(0x30, TSS, 0x67, access & ~0x80 if bits == 64 else access)
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert (cpu.faults[1].vector, (cpu.faults[1].code or 0) & ~1) == (TS, 0x30)


@pytest.mark.slow
def test_nothing_of_this_needs_the_helper_to_be_loaded() -> None:
    assert " passed" in run_without_the_helper(__file__, "not loaded")


@pytest.mark.parametrize("bits", [32, 64])
def test_ltr_of_a_null_selector_does_no_harm_in_the_portable_loop(bits: int) -> None:
    """It is #GP(0) on a CPU; Unicorn loads it. Then a stack of an inner ring is asked for."""
    cpu = outer_ring("gate", "xor eax, eax\nltr ax\njmp l\nl: hlt", bits)
    state = cpu.engine.state()
    for name in ("cs", "ss"):
        segment = state.segment(name)
        segment.selector &= ~3
        segment.access &= ~0x60
    cpu.engine.load(state)
    exit = cpu.run()
    if not isinstance(HELPER, str):
        assert cpu.faults[0].vector == GP
        return
    assert exit.reason is ExitReason.HALT
    state = cpu.engine.state()
    for name in ("cs", "ss"):
        segment = state.segment(name)
        segment.selector |= 3
        segment.access |= 0x60
    state.rip, state.halted = CODE, False
    cpu.write(CODE, b"\xcc\xf4")
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert (cpu.faults[1].vector, (cpu.faults[1].code or 0) & ~1) == (TS, 0)


def outer_ring(name: str, source: str, bits: int) -> BareCpu:
    """Ring 3, whose INT3 and #UD have handlers in ring 0."""
    cpu = make(name, source, bits)
    state = cpu.engine.state()
    for name in ("cs", "ss"):
        segment = state.segment(name)
        segment.selector |= 3
        segment.access |= 3 << 5
    code, step = (0x18, 16) if bits == 64 else (8, 8)
    for vector in (3, 6):
        cpu.write(IDT + step * vector, (0x1800 | code << 16 | 0xEE00 << 32).to_bytes(8, "little"))
    for entry in (TABLES, TABLES + 0x1000, TABLES + 0x2000, *range(TABLES + 0x3000, TABLES + 0x3200, 8)):
        cpu.write(entry, bytes((cpu.read(entry, 1)[0] | USER,)))
    cpu.write(TSS + 4, (0x8000 | 0x10 << 32).to_bytes(8, "little"))  # ESP0 and SS0
    state.idtr, state.gdtr = Table(IDT, 0x3FF), Table(GDT, 0x3F)
    cpu.engine.load(state)
    return cpu
