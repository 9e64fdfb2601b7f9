"""SIGIO of a descriptor, with a pipe in a hypervisor's place."""

import os
import signal
import threading
import time

import pytest

from xenbridge.signals import Signals


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def came(met, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not met() and time.monotonic() < end:
        time.sleep(0.001)
    return met()


def test_each_write_is_told_to_the_owner_of_its_descriptor(pipe) -> None:
    reader, writer = pipe
    other = os.pipe()
    told, others = [], []
    with Signals() as signals:
        signals.add(reader, lambda: told.append(os.read(reader, 10)))
        signals.add(other[0], lambda: others.append(os.read(other[0], 10)))
        for count in range(1, 4):
            os.write(writer, b"x")
            assert came(lambda count=count: len(told) == count)
        assert (others, signals.count) == ([], 3)
        os.write(other[1], b"y")
        assert came(lambda: others == [b"y"])
    for end in other:
        os.close(end)


def test_what_came_before_is_told_at_once(pipe) -> None:
    reader, writer = pipe
    os.write(writer, b"x")
    told = []
    with Signals() as signals:
        signals.add(reader, lambda: told.append(os.read(reader, 10)))
        assert told == [b"x"]


def test_a_signal_is_not_lost_on_a_main_thread_that_waits_for_something_else(pipe) -> None:
    """Of a handler it would be, now and then: Python runs it when the main thread comes by."""
    reader, writer = pipe
    left = threading.Semaphore(0)

    def answer() -> None:
        os.read(reader, 10)
        left.release()

    with Signals() as signals:
        signals.add(reader, answer)
        for _ in range(2000):
            os.write(writer, b"x")
            assert left.acquire(timeout=60)


def test_a_removed_descriptor_raises_no_signal_and_the_handler_of_others_stays(pipe) -> None:
    reader, writer = pipe
    before = signal.getsignal(signal.SIGIO)
    with Signals() as signals:
        signals.add(reader, lambda: None)
        signals.remove(reader)
        os.write(writer, b"x")
        time.sleep(0.02)
        assert signals.count == 0
    assert signal.getsignal(signal.SIGIO) == before
