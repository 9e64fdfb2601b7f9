"""Checked mode on a bare CPU: what is asked when, and how a violation is counted, recorded and sliced."""

from __future__ import annotations

import pytest

from bare_cpu import CODE, BareCpu, bare_cpu, flat_state
from emu.engine import ExitReason
from emu.x86.state import CpuState, Segment

LIMITED = Segment(0x18, 0x8000, 0xFFF, 0x4093)


def limited(source: str, **segments: Segment) -> BareCpu:
    """Flat 32-bit code whose named segments are replaced; without an IDT a violation ends in shutdown."""
    cpu = bare_cpu(source, 32)
    state: CpuState = cpu.engine.state()
    for name, segment in segments.items():
        setattr(state, name, segment)
    state.idtr.limit = 0
    cpu.engine.load(state)
    return cpu


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_violation_counts_one_and_has_no_effect(size: int) -> None:
    cpu = limited("inc eax\nmov [fs:0xffd], eax\nhlt", fs=LIMITED)
    before = cpu.memory.save()
    exit = cpu.run(slice=size)
    assert exit.reason is ExitReason.SHUTDOWN
    assert [(f.vector, f.code, f.linear, f.retired) for f in exit.faults][:1] == [(13, 0, CODE + 1, 1)]
    assert cpu.engine.retired == 2
    assert cpu.memory.save() == before


def test_breakpoints_do_not_keep_checks_from_being_made() -> None:
    cpu = limited("inc eax\nl: mov eax, [fs:0xffd]\nhlt", fs=LIMITED)
    cpu.engine.set_breakpoints([CODE + 0x100])
    assert cpu.run().reason is ExitReason.SHUTDOWN


def test_a_segment_that_is_loaded_later_is_checked_from_then_on() -> None:
    cpu = limited("mov eax, [ds:0x9000]\npush dword 0x10\npop fs\nmov eax, [fs:0xffd]\nhlt", fs=LIMITED)
    assert cpu.run().reason is ExitReason.HALT


def asked_in_the_gate(monkeypatch: pytest.MonkeyPatch, source: str, **segments: Segment) -> tuple[list[int], BareCpu]:
    """Run, and the addresses at which the portable loop asked its checker."""
    monkeypatch.setenv("V2E_ENGINE", "gate")
    asked: list[int] = []
    cpu = limited(source, **segments)
    checks = cpu.engine._checks
    original = checks._violation
    checks._violation = lambda at: asked.append(at) or original(at)  # type: ignore[method-assign,func-returns-value]
    assert cpu.run().reason is ExitReason.HALT
    return asked, cpu


def test_flat_code_with_unused_null_segments_is_not_asked_before_each_instruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, _ = asked_in_the_gate(monkeypatch, "times 50 inc eax\nhlt", gs=Segment(0, 0, 0, 0x10000))
    assert asked == []


def test_code_with_a_limited_data_segment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = asked_in_the_gate(monkeypatch, "times 50 inc eax\nhlt", ds=Segment(0x18, 0, 0xFFFF, 0x93))
    start = flat_state().rip
    assert asked == list(range(start, start + 51))
