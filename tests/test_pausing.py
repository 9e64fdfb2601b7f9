"""Runs that end after some time of the host's: tests/pausing.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from emu.debugger import Debugger
from emu.stops import StopKind
from machines import debugger, rom
from pausing import run_for

LATE = 10  #: seconds until a run that nobody ends is ended all the same


@pytest.fixture
def spinning() -> Iterator[Debugger]:
    made = debugger(rom("l: inc dword [0x500]\njmp l"))
    late = threading.Timer(LATE, made.machine.request_stop)
    late.start()
    yield made
    late.cancel()
    late.join()


def test_a_run_ends_though_who_asked_for_it_is_slow_to_come_back(
    spinning: Debugger, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = spinning.machine
    request_stop = machine.request_stop

    def slow() -> None:
        request_stop()
        time.sleep(0.2)

    monkeypatch.setattr(machine, "request_stop", slow)
    began = time.monotonic()
    assert run_for(spinning, 0.02).kind is StopKind.INTERRUPTED
    assert time.monotonic() - began < LATE
    assert machine.executor.retired


def test_a_stop_left_over_does_not_shorten_the_next_run(spinning: Debugger) -> None:
    spinning.machine.request_stop()
    began = time.monotonic()
    run_for(spinning, 0.05)
    assert time.monotonic() - began >= 0.05
    assert spinning.machine.executor.retired


def test_a_guest_that_ends_by_itself_is_not_waited_for() -> None:
    made = debugger(rom("mov al, 3\nout 0xf4, al"))
    began = time.monotonic()
    assert run_for(made, 3 * LATE).exit_code == 3
    assert time.monotonic() - began < LATE
