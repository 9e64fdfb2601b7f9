"""Alignment checks of single instructions, in either run loop, and what they are not to touch.

SDM vol. 3A, 6.15, "Interrupt 17". tests/cpu/test_checks.py has the rest beside Bochs: cpu_align, cpu_align64.
"""

from __future__ import annotations

import pytest

from bare_cpu import GDT, BareCpu
from emu.engine import CheckLevel
from emu.x86.operands import decode
from emu.x86.segcheck import misaligned
from emu.x86.state import Segment
from run_loops import SLICES, make, needs_helper, outcome

AM, AC = 1 << 18, 1 << 18
UNALIGNED = 17


def ring_3(name: str, source: str, bits: int = 32, *, am: bool = True, ac: bool = True) -> BareCpu:
    """The program in ring 3; its faults are recorded, and end the run."""
    cpu = make(name, source, bits, CheckLevel.FULL)
    for selector, access in ((0x18, 0xFB), (0x20, 0xF3)):
        cpu.write(GDT + selector, bytes.fromhex(f"ffff000000{access:02x}cf00"))
    state = cpu.engine.state()
    state.cs = Segment(0x1B, 0, 0xFFFFFFFF, 0xC0FB)
    for segment in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, segment, Segment(0x23, 0, 0xFFFFFFFF, 0xC0F3))
    state.cr0 |= AM if am else 0
    state.rflags |= AC if ac else 0
    cpu.engine.load(state)
    return cpu


LOOP = "mov ecx, 50\nl: mov eax, [0x5000]\nadd eax, [0x5004]\npush eax\npop ebx\nloop l\n"


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
def test_an_operand_is_refused_where_all_three_ask_for_it(name: str) -> None:
    for am, ac in ((True, True), (True, False), (False, True)):
        cpu = ring_3(name, "mov eax, [0x5001]\nud2", am=am, ac=ac)
        cpu.run()
        assert cpu.faults[0].vector == (UNALIGNED if am and ac else 6)
        cpu.engine.close()


@needs_helper
def test_where_it_comes_does_not_depend_on_the_loop_or_on_slices() -> None:
    source = LOOP + "mov edx, 0x6000\nmov [edx + 2], ax\nmov [edx + 2], eax\n"
    found = []
    for name, sizes in (("gate", (1_000_000,)), ("fast", SLICES)):
        for size in sizes:
            cpu = ring_3(name, source)
            found.append(outcome(cpu, size))
            cpu.engine.close()
    assert all(result == found[0] for result in found)
    assert found[0][1] == 1 + 50 * 5 + 3


@needs_helper
def test_code_that_does_not_ask_has_no_checks() -> None:
    """CR0.AM alone, as kernels leave it, adds nothing to what is translated."""

    def guarded(*, am: bool, ac: bool) -> int:
        cpu = ring_3("fast", LOOP + "ud2", am=am, ac=ac)
        cpu.run()
        statistics = cpu.engine.statistics
        assert statistics is not None
        cpu.engine.close()
        return statistics.guarded

    assert guarded(am=False, ac=True) == guarded(am=True, ac=False) == 0
    assert guarded(am=True, ac=True) >= 4


@pytest.mark.parametrize(
    ("code", "granule", "before"),
    [
        ("8a07", 1, 0), ("8b07", 4, 0), ("668b07", 2, 0), ("6207", 4, 0), ("666207", 2, 0), ("c407", 4, 0),
        ("66c407", 2, 0), ("ff2f", 4, 0), ("dd37", 4, 0), ("66d937", 2, 0), ("db2f", 8, 0), ("dd07", 8, 0),
        ("0f0107", 4, 2), ("0fc70f", 8, 0), ("0f6f07", 8, 0), ("660f6f07", 1, 0), ("f30f6f07", 1, 0),
        ("0fae07", 1, 0), ("0f1807", 1, 0), ("a5", 4, 0), ("50", 1, 0),
    ],
)  # fmt: skip
def test_what_the_portable_loop_asks_of_an_operand(code: str, granule: int, before: int) -> None:
    """[EDI] at each of 16 addresses; the table of section 6.15, and 3.5.1 for SGDT."""
    instruction = decode(bytes.fromhex(code), 32, 32)
    for at in range(16):
        regs = [0, 0, 0, 0, 0x7000, 0, 0x6000, 0x5000 + at]
        wrong = bool((at + before) % granule)
        assert misaligned([0] * 6, regs, instruction) is wrong
