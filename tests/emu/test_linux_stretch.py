"""A stretch of Linux's start runs alike in thousands of pieces: small slices, stops, points, saved states.

The kernel is decompressed once; the stretch begins in its own work, with paging, interrupts and translations replaced.
test_linux_determinism.py goes through more of the boot in fewer pieces.
"""

from __future__ import annotations

from typing import Any

import pytest

from emu.debugger import Debugger
from emu.unicorn_engine import HELPER
from kernels import linux, state_at
from reproducible import (
    Guest,
    check_asynchronous_stops,
    check_breakpoints,
    check_flushes,
    check_saving,
    check_slices,
    check_watchpoints,
    run_to,
    stack_watch,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(HELPER, str), reason=f"without the helper this takes minutes: {HELPER}"),
]

#: Behind decompression and the kernel's first message.
BEGIN, LENGTH = 2_440_000_000, 20_000_000
#: In that stretch, where single steps and points are compared.
STARTS = (BEGIN + 1_000_000, BEGIN + 15_000_000)
#: Where enough accesses to the stack follow.
WATCHED = (BEGIN + 15_000_000,)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    state, sent = state_at(BEGIN, tmp_path_factory)
    assert "Linux version 6" in sent

    def make(**config: Any) -> Debugger:
        resumed = linux(**config)
        resumed.machine.restore(state)
        return resumed

    return Guest(make, lambda debugger: run_to(debugger, BEGIN + LENGTH), BEGIN)


@pytest.fixture(scope="module")
def whole(kernel: Guest) -> Guest:
    """From the same instant ten times as far."""
    return Guest(kernel.make, lambda debugger: run_to(debugger, BEGIN + 10 * LENGTH), BEGIN)


@pytest.fixture(scope="module")
def quarter(kernel: Guest) -> Guest:
    """From the same instant a quarter as far."""
    return Guest(kernel.make, lambda debugger: run_to(debugger, BEGIN + LENGTH // 4), BEGIN)


@pytest.mark.parametrize("length", [777, 1000, 12345, 10**6, 10**8])
def test_the_length_of_slices_changes_nothing(kernel: Guest, length: int) -> None:
    check_slices(kernel, length)


def test_slices_of_13_instructions_change_nothing(quarter: Guest) -> None:
    """Of a quarter, which is 380,000 of them; `make soak` has them of ten times all."""
    check_slices(quarter, 13)


def test_5000_stops_from_a_thread_change_nothing(kernel: Guest) -> None:
    check_asynchronous_stops(kernel, 5000)


@pytest.mark.parametrize("start", STARTS)
def test_5000_breakpoints_stop_where_single_steps_pass(kernel: Guest, start: int) -> None:
    check_breakpoints(kernel, start, steps=60_000, count=5000)


@pytest.mark.parametrize("start", WATCHED)
def test_5000_watchpoints_stop_where_they_stop_single_steps(kernel: Guest, start: int) -> None:
    check_watchpoints(kernel, start, (stack_watch(kernel, start),), count=5000)


def test_1000_points_of_saving_and_restoring_change_nothing(kernel: Guest) -> None:
    check_saving(kernel, 1000)


def test_flushes_at_200_instants_change_nothing(kernel: Guest) -> None:
    check_flushes(kernel, 200)


@pytest.mark.soak
@pytest.mark.parametrize("length", [13, 777, 1000])
def test_the_length_of_slices_changes_nothing_ten_times_as_far(whole: Guest, length: int) -> None:
    check_slices(whole, length)


@pytest.mark.soak
def test_1000_points_of_saving_and_restoring_change_nothing_ten_times_as_far(whole: Guest) -> None:
    check_saving(whole, 1000)


@pytest.mark.soak
def test_stops_from_a_thread_change_nothing_ten_times_as_far(whole: Guest) -> None:
    check_asynchronous_stops(whole, 5000)
