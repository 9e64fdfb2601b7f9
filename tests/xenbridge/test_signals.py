"""SIGIO of a descriptor, with a pipe in a hypervisor's place: by the handler in C, and by the thread where there is
none."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.engine import ExitReason
from machines import debugger, rom
from xenbridge import signals as module
from xenbridge.signals import LIBRARY, Library, Signals

#: What is told of and what is not: `(reader, writer)`.
Pipe = tuple[int, int]


@pytest.fixture(params=["handler", "thread"])
def library(request: pytest.FixtureRequest) -> Library | None:
    if request.param == "thread":
        return None
    if LIBRARY is None:
        pytest.skip("the C library of xenbridge.signals was not built")
    return LIBRARY


@pytest.fixture
def handler() -> Library:
    if LIBRARY is None:
        pytest.skip("the C library of xenbridge.signals was not built")
    return LIBRARY


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def came(met: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not met() and time.monotonic() < end:
        time.sleep(0.001)
    return met()


def test_each_write_is_told_to_the_owner_of_its_descriptor(pipe: Pipe, library: Library | None) -> None:
    reader, writer = pipe
    other = os.pipe()
    told: list[bytes] = []
    others: list[bytes] = []
    with Signals(library) as signals:
        signals.add(reader, lambda: told.append(os.read(reader, 10)))
        signals.add(other[0], lambda: others.append(os.read(other[0], 10)))
        for count in range(1, 4):
            os.write(writer, b"x")
            assert came(lambda count=count: len(told) == count)  # type: ignore[misc]
        assert (others, signals.count) == ([], 3)
        os.write(other[1], b"y")
        assert came(lambda: others == [b"y"])
    for end in other:
        os.close(end)


def test_what_came_before_is_told_at_once(pipe: Pipe, library: Library | None) -> None:
    reader, writer = pipe
    os.write(writer, b"x")
    told = []
    with Signals(library) as signals:
        signals.add(reader, lambda: told.append(os.read(reader, 10)))
        assert told == [b"x"]


def test_a_signal_is_not_lost_on_a_main_thread_that_waits_for_something_else(
    pipe: Pipe, library: Library | None
) -> None:
    """Of a handler of Python's it would be, now and then: that runs when the main thread comes by."""
    reader, writer = pipe
    left = threading.Semaphore(0)

    def answer() -> None:
        os.read(reader, 10)
        left.release()

    with Signals(library) as signals:
        signals.add(reader, answer)
        for _ in range(2000):
            os.write(writer, b"x")
            assert left.acquire(timeout=60)
        assert signals.count == 2000


def test_a_removed_descriptor_raises_no_signal_and_the_handler_of_others_stays(
    pipe: Pipe, library: Library | None
) -> None:
    reader, writer = pipe
    before = signal.getsignal(signal.SIGIO)
    with Signals(library) as signals:
        signals.add(reader, lambda: None)
        signals.remove(reader)
        os.write(writer, b"x")
        time.sleep(0.02)
        assert signals.count == 0
    assert signal.getsignal(signal.SIGIO) == before


def test_a_descriptor_that_is_none_is_refused(library: Library | None) -> None:
    descriptor = 1 << 20
    with Signals(library) as signals:
        with pytest.raises(OSError, match="Bad file descriptor"):
            signals.add(descriptor, lambda: None)
        assert not (library and library.installed())


def test_a_descriptor_beyond_what_select_knows_is_watched(pipe: Pipe, library: Library | None) -> None:
    reader = fcntl.fcntl(pipe[0], fcntl.F_DUPFD_CLOEXEC, 1024)
    told: list[bytes] = []
    with Signals(library) as signals:
        signals.add(reader, lambda: told.append(os.read(reader, 10)))
        os.write(pipe[1], b"x")
        assert came(lambda: told == [b"x"])
    os.close(reader)


def test_a_callback_that_fails_at_once_leaves_nothing_watched(pipe: Pipe, library: Library | None) -> None:
    def fail() -> None:
        raise ValueError("the callback")

    os.write(pipe[1], b"x")
    with Signals(library) as signals:
        with pytest.raises(ValueError, match="the callback"):
            signals.add(pipe[0], fail)
        assert not fcntl.fcntl(pipe[0], fcntl.F_GETFL) & os.O_ASYNC
        assert not (library and library.installed())


def test_a_descriptor_is_watched_once(pipe: Pipe, library: Library | None) -> None:
    with Signals(library) as signals:
        signals.add(pipe[0], lambda: None)
        with pytest.raises(OSError, match="is watched already"):
            signals.add(pipe[0], lambda: None)
        signals.remove(pipe[0])
        assert not (library and library.installed())


def test_a_callback_that_fails_is_told_and_ends_nothing(
    pipe: Pipe, library: Library | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: failed.append(str(args.exc_value)))
    told: list[bytes] = []

    def answer() -> None:
        told.append(os.read(pipe[0], 10))
        raise ValueError("the callback")

    with Signals(library) as signals:
        signals.add(pipe[0], answer)
        for count in (1, 2):
            os.write(pipe[1], b"x")
            assert came(lambda count=count: len(failed) == count)  # type: ignore[misc]
    assert (told, failed) == ([b"x"] * 2, ["the callback"] * 2)


def test_a_descriptor_that_was_closed_before_leaves_neither_thread_nor_handler(library: Library | None) -> None:
    reader, writer = os.pipe()
    before = threading.active_count()
    with Signals(library) as signals:
        signals.add(reader, lambda: None)
        os.close(reader)
    os.close(writer)
    assert threading.active_count() == before
    assert not (library and library.installed())


# -- the handler


def test_another_handler_that_was_installed_meanwhile_stays(handler: Library, pipe: Pipe) -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGIO)
    try:
        with Signals() as signals:
            signals.add(pipe[0], lambda: None)
            signal.signal(signal.SIGIO, lambda number, frame: heard.append(number))
        os.kill(os.getpid(), signal.SIGIO)
        assert came(lambda: heard == [signal.SIGIO])
    finally:
        signal.signal(signal.SIGIO, before)


def test_the_handler_is_there_while_a_descriptor_is_watched(handler: Library, pipe: Pipe) -> None:
    """Two of these in one process: the last descriptor takes it away."""
    other = os.pipe()
    with Signals() as first, Signals() as second:
        assert not handler.installed()
        first.add(pipe[0], lambda: None)
        second.add(other[0], lambda: None)
        first.remove(pipe[0])
        assert handler.installed()
        second.remove(other[0])
        assert not handler.installed()
    for end in other:
        os.close(end)


def test_the_handler_sets_its_bytes_on_the_main_thread_before_anything_of_python_runs(
    handler: Library, pipe: Pipe
) -> None:
    """The main thread is kept in C with Python's lock held, so that no other thread can run Python; it writes to the
    pipe itself, and looks at the bytes behind that system call."""
    reader, writer = pipe
    library, flags = ctypes.PyDLL(None), (ctypes.c_uint8 * 2)()
    told = threading.Event()
    at = ctypes.addressof(flags)
    with Signals() as signals:
        signals.add(reader, told.set, (at, at + 1))
        # one call into C: the kernel delivers the signal at its end, before it returns
        assert library.write(writer, b"x", 1) == 1
        assert list(flags) == [1, 1]
        assert told.wait(5)


@pytest.mark.parametrize("own_thread", [True, False])
def test_the_signal_stops_a_machine_exactly(handler: Library, pipe: Pipe, own_thread: bool) -> None:
    """The engine ends its run by the byte alone, between two instructions: nobody else asks it to. Whether it runs on
    the main thread or another."""
    reader, writer = pipe
    machine = debugger(rom("again: inc dword [0x500]\njmp again")).machine
    executor, ends = machine.executor, []
    flag = executor.stop_flag
    assert flag is not None
    while executor.run(1).reason is ExitReason.REQUEST:
        pass  # what was asked for while the machine was built
    with Signals() as signals:
        signals.add(reader, lambda: None, (flag,))

        def run() -> None:
            ends.append(executor.run(1 << 40))

        later = threading.Timer(0.1, lambda: os.write(writer, b"x"))
        later.start()
        if own_thread:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(20)
        else:
            run()
        later.join()
    assert [end.reason for end in ends] == [ExitReason.REQUEST]
    # Behind JMP, CLI, XOR and MOV each round is INC and JMP.
    rounds = executor.retired - 4
    assert rounds > 1000
    assert int.from_bytes(machine.memory.read(0x500, 4), "little") == (rounds + 1) // 2 % (1 << 32)
    machine.close()


def test_two_that_come_together_are_both_heard(handler: Library, pipe: Pipe) -> None:
    """SIGIO is not queued: while it is blocked, two are one. The handler asks each descriptor."""
    other = os.pipe()
    flags = (ctypes.c_uint8 * 2)()
    at = ctypes.addressof(flags)
    with Signals() as signals:
        signals.add(pipe[0], lambda: None, (at,))
        signals.add(other[0], lambda: None, (at + 1,))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        os.write(pipe[1], b"x")
        os.write(other[1], b"x")
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        assert came(lambda: list(flags) == [1, 1])
    for end in other:
        os.close(end)


def test_a_thread_that_does_not_block_it_has_it_where_the_main_thread_does(handler: Library, pipe: Pipe) -> None:
    flags = (ctypes.c_uint8 * 1)()
    with Signals() as signals:
        signals.add(pipe[0], lambda: None, (ctypes.addressof(flags),))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        os.write(pipe[1], b"x")
        heard = came(lambda: flags[0] == 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        assert heard


def test_whoever_had_sigio_before_has_it_too_and_has_it_again(handler: Library, pipe: Pipe) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, frame: heard.append(number))
    try:
        with Signals() as signals:
            signals.add(pipe[0], lambda: None)
            os.write(pipe[1], b"x")
            assert came(lambda: heard == [signal.SIGIO])
        os.kill(os.getpid(), signal.SIGIO)
        assert came(lambda: heard == [signal.SIGIO] * 2)
    finally:
        signal.signal(signal.SIGIO, before)


def test_a_signal_that_is_on_its_way_at_the_end_does_not_end_the_process(handler: Library) -> None:
    """SIGIO's default action is to terminate. It is pending, as it is blocked, when the handler is taken away."""
    script = """
import os, signal
from xenbridge.signals import Signals
for _ in range(200):
    reader, writer = os.pipe()
    with Signals() as signals:
        signals.add(reader, lambda: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        os.write(writer, b"x")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO,))
    os.close(reader)
    os.close(writer)
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60,
        cwd=Path(module.__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_more_descriptors_than_there_is_room_for_are_refused_in_a_sentence(handler: Library) -> None:
    pipes = [os.pipe() for _ in range(65)]
    with Signals() as signals:
        for reader, _ in pipes[:64]:
            signals.add(reader, lambda: None)
        with pytest.raises(OSError, match="SIGIO cannot be had for another descriptor: Too many open files"):
            signals.add(pipes[64][0], lambda: None)
        signals.remove(pipes[7][0])
        signals.add(pipes[64][0], lambda: None)
    assert not handler.installed()
    for end in (end for both in pipes for end in both):
        os.close(end)


def test_a_library_of_other_sources_is_not_used(handler: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sources_checksum", lambda: 12345)
    assert module.load_library() is None
