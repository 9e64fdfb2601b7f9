"""How a bridge tells of an interrupt: a signal each, and nothing else ever, on every hypervisor."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bridges import (
    EOI,
    ICR,
    MOST_SWITCHES,
    PATIENCE,
    SELF,
    initialise,
    kinds,
    lapic,
    made,
    port,
    switches_in,
    until,
)
from xenbridge.bridge import MachineBridge
from xenbridge.signals import Signals

KINDS = kinds()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bridge(kind: str) -> Iterator[MachineBridge]:
    with made(kind) as found:
        initialise(found)
        yield found


def test_a_request_while_the_vcpu_waits_for_an_interrupt_is_answered(bridge: MachineBridge) -> None:
    """And it goes on waiting behind it."""
    bridge.listen(True)
    for value in range(64):
        port(bridge, 0x21, value | 0xC0)
        assert port(bridge, 0x21) == value | 0xC0
    lapic(bridge, ICR, SELF | 0x61)
    assert until(lambda: bridge.take() == 0x61)
    bridge.listen(False)


def test_each_interrupt_is_one_signal(bridge: MachineBridge) -> None:
    told: list[bool] = []
    vectors = []
    with Signals() as signals:
        signals.add(bridge.descriptor, lambda: told.append(True))
        bridge.listen(True)
        for vector in range(0x40, 0x54):
            lapic(bridge, ICR, SELF | vector)
            end = time.monotonic() + PATIENCE
            while not told and time.monotonic() < end:
                signal.sigtimedwait([], 0.02)
            told.clear()
            vectors.append(bridge.take())
            lapic(bridge, EOI, 0)
        bridge.listen(False)
        count = signals.count
        signals.remove(bridge.descriptor)
    assert vectors == list(range(0x40, 0x54))
    assert count == 20


def test_a_guest_that_is_not_disturbed_costs_no_signal_and_no_look(bridge: MachineBridge) -> None:
    """No polling: while nothing comes nobody is told anything, no thread wakes, and no time of the process is used."""
    with Signals() as signals:
        signals.add(bridge.descriptor, lambda: None)
        begun = time.process_time()
        switches_in(0)
        looks = time.process_time() - begun  # what counting takes: in an emulated dom0 more than all else
        bridge.listen(True)
        begun = time.process_time()
        woken = switches_in(1.0)
        used = time.process_time() - begun
        bridge.listen(False)
        assert signals.count == 0
        signals.remove(bridge.descriptor)
    assert woken <= MOST_SWITCHES
    assert used < 0.05 + 2 * looks


def test_the_count_of_wakes_sees_a_poll_of_50_ms() -> None:
    """The test above would: twenty looks a second of one thread are more than it lets pass."""
    ends = threading.Event()

    def poll() -> None:
        while not ends.wait(0.05):
            pass

    thread = threading.Thread(target=poll)
    thread.start()
    woken = switches_in(1.0)
    ends.set()
    thread.join()
    assert woken > MOST_SWITCHES


def test_the_descriptor_belongs_to_the_hypervisor_whose_interrupt_it_is(kind: str) -> None:
    with made(kind) as first, made(kind) as second, Signals() as signals:
        told: list[int] = []
        for number, bridge in enumerate((first, second)):
            initialise(bridge)
            signals.add(bridge.descriptor, lambda number=number: told.append(number))
            bridge.listen(True)
        lapic(second, ICR, SELF | 0x61)
        assert until(lambda: bool(told))
        assert told == [1]
        assert (first.take(), second.take()) == (None, 0x61)
        for bridge in (first, second):
            signals.remove(bridge.descriptor)
