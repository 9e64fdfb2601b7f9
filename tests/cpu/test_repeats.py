"""What an event behind an iteration of a repeated string instruction pushes, in both run loops.

The SDM (vol. 3B, 17.3.1.1): RF is 1 behind any iteration but the last, for interrupts and traps alike, and EIP is
that of the instruction then; behind the last one EIP is the next instruction's, and RF 0. Bochs, beside which
tests/cpu/test_checks.py runs the same image, agrees about EIP and pushes RF as 0.
"""

from __future__ import annotations

import functools
import re

import pytest

import oracles
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine

FRAME = re.compile(r"([0-9A-F]{2}):-@0008\.([0-9A-F]{8})/f([0-9A-F]{8})")
RF = 1 << 16
#: Prefix of a check's name -> the vectors of its events: the timer's, or debug exceptions.
VECTORS = {"middle": {"20"}, "one": {"20"}, "none": {"20"}, "step": {"01"}, "watch": {"01"}}


@pytest.fixture(params=["fast", "gate"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gate":
        monkeypatch.setenv("V2E_ENGINE", "gate")
    return str(request.param)


@functools.cache
def events(_loop: str) -> dict[str, list[tuple[str, int, bool]]]:
    """Of each check: the vector, EIP less the instruction's address, and RF of each event."""
    session = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=oracles.assemble_image("cpu_repeat"))))
    session.set_limit(3_000_000)
    session.begin_continue()
    session.run()
    found = {}
    for line in session.machine.debugcon_text().splitlines():
        name, _, rest = line.partition(" @")
        if rest:
            at = int(rest[:8], 16)
            found[name] = [(v, int(eip, 16) - at, bool(int(f, 16) & RF)) for v, eip, f in FRAME.findall(rest)]
    session.machine.close()
    return found


def of(loop: str, prefix: str) -> dict[str, list[tuple[str, int, bool]]]:
    found = {name: frames for name, frames in events(loop).items() if name.startswith(prefix)}
    assert found
    assert all(frames and {v for v, _, _ in frames} == VECTORS[prefix] for frames in found.values()), found
    return found


def test_an_interrupt_between_two_iterations_pushes_rf_and_comes_back_to_the_instruction(loop: str) -> None:
    for name, frames in of(loop, "middle").items():
        assert [(eip, rf) for _, eip, rf in frames] == [(0, True)], name


@pytest.mark.parametrize("prefix", ["one", "none"])
def test_an_interrupt_behind_the_last_iteration_pushes_what_follows(loop: str, prefix: str) -> None:
    for name, frames in of(loop, prefix).items():
        ((_, eip, rf),) = frames
        assert 1 <= eip <= 3, name
        assert not rf, name


@pytest.mark.parametrize(
    ("name", "iterations"),
    [
        ("step-stosb-3", 3), ("step-stosb-1", 1), ("step-stosb-0", 1), ("step-movsd-2", 2), ("step-repe-cmpsb-3", 3),
        ("step-repe-scasb-3", 1), ("step-no-repeat", 1),
    ],
)  # fmt: skip
def test_a_single_step_pushes_rf_behind_each_iteration_but_the_last(loop: str, name: str, iterations: int) -> None:
    frames = of(loop, "step")[name]
    assert [rf for _, _, rf in frames[:iterations]] == [True] * (iterations - 1) + [False]
    assert [eip == 0 for _, eip, _ in frames[:iterations]] == [True] * (iterations - 1) + [False]
    assert not any(rf for _, _, rf in frames[iterations:])


@pytest.mark.parametrize(
    ("name", "middle"),
    [
        ("watch-first", True),
        ("watch-middle", True),
        ("watch-last", False),
        ("watch-only", False),
        ("watch-movsb", True),
    ],
)
def test_a_data_breakpoint_pushes_rf_behind_each_iteration_but_the_last(loop: str, name: str, middle: bool) -> None:
    ((_, eip, rf),) = of(loop, "watch")[name]
    assert (eip == 0, rf) == (middle, middle)
