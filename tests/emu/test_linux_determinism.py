"""Linux runs alike in whatever pieces: slices, stops from a thread, breakpoints, flushes, saved and restored.

The kernel is decompressed once; every comparison goes on from there, through 300 million instructions of its start.
"""

from __future__ import annotations

import threading

import pytest

from emu.debugger import BreakKind, Debugger
from emu.machine import MachineState, MachineStop
from emu.stops import StopKind
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.until import parse_until
from emu.views import FingerprintView
from kernels import linux, state_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(isinstance(HELPER, str), reason=f"without the helper this takes minutes: {HELPER}"),
]

#: In the last part of decompression, and in the kernel's work with paging, interrupts and translations replaced.
BEGIN, END = 2_200_000_000, 2_500_000_000


def run_to(debugger: Debugger, retired: int) -> None:
    debugger.set_until(parse_until(f"insns:{retired}"))
    debugger.begin_continue()
    stop = debugger.run()
    assert stop.kind is StopKind.EVENT, stop.text


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> MachineState:
    return state_at(BEGIN, tmp_path_factory)[0]


@pytest.fixture(scope="module")
def expected(begun: MachineState) -> FingerprintView:
    return finish(resumed(begun))


def resumed(state: MachineState, **config: object) -> Debugger:
    debugger = linux(**config)
    debugger.machine.restore(state)
    return debugger


def finish(debugger: Debugger) -> FingerprintView:
    run_to(debugger, END)
    fingerprint = debugger.fingerprint()
    assert "Linux version 6" in debugger.machine.serial_text()
    debugger.machine.close()
    return fingerprint


@pytest.mark.parametrize("length", [10**8, 10**6, 12345])
def test_the_length_of_slices_changes_nothing(begun: MachineState, expected: FingerprintView, length: int) -> None:
    assert finish(resumed(begun, slice=length)) == expected


def test_stops_from_a_thread_change_nothing(begun: MachineState, expected: FingerprintView) -> None:
    debugger = resumed(begun)
    done = threading.Event()

    def disturb() -> None:
        while not done.wait(0.002):
            debugger.machine.request_stop()

    thread = threading.Thread(target=disturb)
    thread.start()
    stops = 0
    try:
        while (exit := debugger.machine.run(END)).reason is not MachineStop.LIMIT:
            assert exit.reason is MachineStop.REQUEST
            stops += 1
    finally:
        done.set()
        thread.join()
    assert stops > 100
    assert debugger.fingerprint() == expected
    debugger.machine.close()


def test_breakpoints_change_nothing(begun: MachineState, expected: FingerprintView) -> None:
    debugger = resumed(begun)
    # in the scheduler's, the console's and the timer's way: places found by stopping at arbitrary instants
    places = set()
    for retired in range(BEGIN + 150_000_000, END, 25_000_000):
        run_to(debugger, retired)
        places.add(debugger.machine.executor.linear_pc)
    debugger.machine.close()
    debugger = resumed(begun)
    for place in places:
        debugger.add_breakpoint(BreakKind.EXECUTE, place)
    debugger.set_until(parse_until(f"insns:{END}"))
    hits = 0
    while True:
        debugger.begin_continue()
        if (stop := debugger.run()).kind is StopKind.EVENT:
            break
        assert stop.kind is StopKind.BREAKPOINT, stop.text
        assert stop.linear_pc in places
        hits += 1
        if hits == 5000:
            for point in debugger.breakpoint_list():
                debugger.remove_breakpoint(point.id)
    assert hits >= len(places)
    assert debugger.fingerprint() == expected
    debugger.machine.close()


def test_flushes_change_nothing(begun: MachineState, expected: FingerprintView) -> None:
    debugger = resumed(begun)
    executor = debugger.machine.executor
    assert isinstance(executor, UnicornEngine)
    for retired in range(BEGIN + 7_777_777, END, 7_777_777):
        run_to(debugger, retired)
        executor._loop.flush()
    assert finish(debugger) == expected


def test_going_on_in_another_machine_changes_nothing(begun: MachineState, expected: FingerprintView) -> None:
    # expected itself comes from a restored machine; so this one goes on without, and is then saved time and again
    debugger = linux()
    run_to(debugger, BEGIN)
    for retired in range(BEGIN + 70_000_001, END, 70_000_001):
        run_to(debugger, retired)
        state = debugger.machine.save()
        debugger.machine.close()
        debugger = resumed(state)
    run_to(debugger, END)
    assert debugger.fingerprint() == expected
    debugger.machine.close()
