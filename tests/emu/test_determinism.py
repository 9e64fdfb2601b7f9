"""The same image and inputs give the same run, to the instruction, however it is sliced, stepped, watched or broken
into. Proved on SeaBIOS, from reset to a boot sector that prints by INT 10h and reads by INT 13h."""

from __future__ import annotations

import functools
import random

import pytest

from emu.debugger import BreakKind, Debugger, StopKind
from emu.views import FingerprintView
from machines import reading_debugger
from reproducible import run_to


def session(**config: object) -> Debugger:
    return reading_debugger(**config)


def finish(debugger: Debugger) -> FingerprintView:
    debugger.set_limit(50_000_000)
    debugger.begin_continue()
    stop = debugger.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x55), stop.text
    return debugger.fingerprint()


@functools.cache
def reference() -> FingerprintView:
    return finish(session())


def test_the_boot_sector_ran_on_real_firmware() -> None:
    debugger = session()
    finish(debugger)
    assert "boot sector reached" in debugger.screen().text
    assert debugger.machine.executor.retired > 1_000_000


@pytest.mark.parametrize("length", [*(pytest.param(n, marks=pytest.mark.slow) for n in (10, 137)), 1000, 100_000])
def test_the_length_of_slices_changes_nothing(length: int) -> None:
    assert finish(session(slice=length)) == reference()


@pytest.mark.parametrize("start", [50_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (700_000, 1_500_000))])
def test_single_stepping_through_a_part_changes_nothing(start: int) -> None:
    debugger = session()
    run_to(debugger, start)
    for _ in range(20):
        debugger.begin_step(500)
        assert debugger.run().kind is StopKind.STEP
    assert finish(debugger) == reference()


def test_stepping_through_the_boot_sectors_bios_calls_changes_nothing() -> None:
    debugger = session()
    point = debugger.add_breakpoint(BreakKind.EXECUTE, 0x7C00)
    debugger.begin_continue()
    assert debugger.run().kind is StopKind.BREAKPOINT
    debugger.remove_breakpoint(point.id)
    for _ in range(60):
        debugger.begin_over()
        debugger.run()
    assert finish(debugger) == reference()


@pytest.mark.slow
def test_breakpoints_and_watchpoints_change_nothing() -> None:
    debugger = session()
    debugger.add_breakpoint(BreakKind.EXECUTE, 0x7C00).ignore = 1 << 30
    debugger.add_breakpoint(BreakKind.EXECUTE, 0xFE05B).ignore = 1 << 30
    for address in (0x46C, 0x410, 0x7000, 0xB8000):
        debugger.add_breakpoint(BreakKind.ACCESS, address, 4).ignore = 1 << 30
    assert finish(debugger) == reference()
    assert any(point.hits for point in debugger.breakpoint_list())


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 4))])
def test_saving_and_restoring_at_random_points_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    debugger = session()
    total = reference().retired
    for retired in sorted(rng.sample(range(1, total), 4)):
        run_to(debugger, retired)
        state = debugger.save()
        debugger = session()
        debugger.restore(state)
    assert finish(debugger) == reference()


def test_stops_from_another_thread_change_nothing() -> None:
    from emu.worker import Worker

    debugger = session()
    debugger.set_limit(50_000_000)
    worker = Worker(debugger)
    worker.start()
    rng = random.Random(7)
    stops = 0
    while True:
        worker.resume(debugger.begin_continue)
        stop = worker.wait(rng.random() * 0.004)
        if stop is None:
            worker.interrupt()
            stop = worker.wait(60)
        assert stop is not None
        if stop.kind is StopKind.EXIT:
            break
        assert stop.kind is StopKind.INTERRUPTED
        stops += 1
    worker.close()
    assert stops > 5
    assert debugger.fingerprint() == reference()
