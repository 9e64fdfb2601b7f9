"""What the check of each block reaches, and the size of the TLB: nothing of it shows in what the guest does."""

from __future__ import annotations

import ctypes

import pytest

from bare_cpu import CODE, BareCpu, bare_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER, Helper
from emu.unicorn_layout import ENV_TLB

pytestmark = pytest.mark.skipif(not isinstance(HELPER, Helper), reason=f"no C helper: {HELPER}")
PAGE, ENTRY = 0x1000, 64
#: Adds up a word of each of so many pages, so often.
PAGES, ROUNDS = 800, 40
WALK = f"""
    mov edx, {ROUNDS}
    xor eax, eax
r:  mov esi, 0x10000
    mov ecx, {PAGES}
p:  add eax, [esi]
    inc dword [esi]
    add esi, {PAGE}
    dec ecx
    jnz p
    dec edx
    jnz r
    hlt
"""


def entries(cpu: BareCpu, mode: int = 2) -> int:
    """How many entries the TLB has, of accesses of ring 0 (CPUTLBDescFast.mask: emu/native/fast.h)."""
    return ctypes.c_uint64.from_address(cpu.engine._ov.env_address + ENV_TLB + 16 * mode).value // ENTRY + 1


def end(cpu: BareCpu) -> tuple[object, bytes]:
    return cpu.engine.state(), bytes(cpu.memory.view)


def walked(slice: int = 1 << 30) -> BareCpu:
    cpu = bare_cpu(WALK, 32)
    assert cpu.run(budget=1 << 24, slice=slice).reason is ExitReason.HALT
    return cpu


def test_a_tlb_that_is_filled_over_and_over_grows_to_what_is_touched() -> None:
    cpu = bare_cpu(WALK, 32)
    before = entries(cpu)
    assert before < PAGES
    cpu.run(budget=1 << 24)
    assert PAGES <= entries(cpu) <= 4 * PAGES


def test_a_tlb_that_is_large_enough_is_left_as_it_is() -> None:
    cpu = bare_cpu(WALK.replace(f"ecx, {PAGES}", "ecx, 50"), 32)
    before = entries(cpu)
    cpu.run(budget=1 << 24)
    assert entries(cpu) == before


def test_how_it_grows_shows_in_nothing() -> None:
    whole = walked()
    assert whole.engine.state().regs[0] == PAGES * ROUNDS * (ROUNDS - 1) // 2
    for size in (1009, 50_021):
        assert end(walked(size)) == end(whole)


def test_the_control_structure_lies_where_a_displacement_reaches_it() -> None:
    assert isinstance(HELPER, Helper)
    cpu, other = bare_cpu("hlt", 32), bare_cpu("hlt", 32)
    places = [ctypes.addressof(c.engine._control) for c in (cpu, other)]
    assert places[0] != places[1]
    for one, place in zip((cpu, other), places, strict=True):
        assert place % PAGE == 0
        assert abs(place - one.engine._ov.env_address) < 1 << 31


def test_a_control_structure_that_is_far_away_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = walked()
    monkeypatch.setattr(HELPER, "page", lambda env: None)
    far = walked(50_021)
    assert end(far) == end(whole)
    assert far.engine.run_loop == "fast"


def test_a_breakpoint_that_comes_or_goes_is_met_by_blocks_that_were_made_before() -> None:
    cpu = bare_cpu("l: inc eax\nnop\njmp l", 32)
    run = cpu.engine.run
    assert run(3000).reason is ExitReason.BUDGET
    assert cpu.engine.linear_pc == CODE
    for address, executed in ((CODE + 1, 1), (CODE, 2)):
        cpu.engine.set_breakpoints([address])
        exit = run(100)
        assert (exit.reason, exit.executed, cpu.engine.linear_pc) == (ExitReason.BREAKPOINT, executed, address)
        cpu.engine.set_breakpoints([])
        assert run(3000).executed == 3000
        assert cpu.engine.linear_pc == address
