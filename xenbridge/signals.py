"""SIGIO: the signal that a hypervisor's descriptor raises, led to whom the descriptor belongs to.

Its handler is C's (native/sigio.c), on the main thread unless that blocks it: it sets the bytes that stop the machine
before its next instruction, and rings a bell, by which a thread of ours does what is Python's. Where the library was
not built that thread takes the signal itself (sigwaitinfo). A handler of Python's would be late and lose some: Python
runs it when the main thread comes by, and a signal that arrives just before that begins to wait does not end the wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from xenbridge.native import sources_checksum

#: F_SETOWN for one thread (fcntl(2)).
F_SETOWN_EX, F_OWNER_TID = 15, 0
_OWNER: Final = struct.Struct("ii")  #: struct f_owner_ex
_FLAGS: Final = 2  #: bytes that the handler sets, at most


class Library:
    """The functions of the C library. Raises OSError or AttributeError where it is not there or not whole, or was built
    from other sources."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        library.v2e_sigio_sources.restype = ctypes.c_uint32
        if library.v2e_sigio_sources() not in (0, sources_checksum()):
            raise OSError("xenbridge/native was built from other sources than this package's")
        self.add, self.remove = library.v2e_sigio_add, library.v2e_sigio_remove
        self.add.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.count = library.v2e_sigio_count
        self.count.restype = ctypes.c_uint64
        self.installed = library.v2e_sigio_installed
        #: of the table there, which is the process's
        self.lock = threading.Lock()


def load_library() -> Library | None:
    """The library; None where it was not built."""
    folder = Path(__file__).parent / "native"
    path = next((p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_sigio{suffix}").exists()), None)
    try:
        return None if path is None else Library(str(path))
    except (OSError, AttributeError):
        return None


LIBRARY: Final = load_library()


class Signals:
    """Has SIGIO of any number of descriptors, without using any time while none comes.

    `close`, or leaving it as a context manager, ends that: whoever had SIGIO before has it again."""

    def __init__(self, library: Library | None = LIBRARY) -> None:
        self._library = library
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._places: dict[int, int] = {}
        self._lock = threading.Lock()
        self._counted = 0
        self._ends = False
        self._ready = threading.Event()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC) if library is not None else -1
        wait = self._wait_for_signal if library is None else self._wait_for_bell
        self._thread = threading.Thread(target=wait, name="v2e-sigio", daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def count(self) -> int:
        """Signals that came for a descriptor of these."""
        if self._library is None:
            return self._counted
        return self._counted + sum(int(self._library.count(place)) for place in self._places.values())

    def add(self, descriptor: int, callback: Callable[[], None], flags: Sequence[int] = ()) -> None:
        """`callback` is called, on a thread of its own, when `descriptor` becomes readable. It only tells: whoever
        reads the descriptor does it elsewhere. `flags` are the addresses of up to two bytes that are set to 1 before,
        the first one first, by the signal's handler where that is C's; they stay where they are until `remove`. Raises
        OSError for a descriptor that is none or is watched already, or where there are too many."""
        with self._lock:
            if descriptor in self._callbacks:
                raise OSError(errno.EEXIST, f"SIGIO of descriptor {descriptor} is watched already")
            self._callbacks[descriptor] = callback
        if self._library is not None:
            self._watch(self._library, descriptor, flags)
        try:
            if self._library is not None:
                fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
            else:
                thread = self._thread.native_id or os.getpid()
                fcntl.fcntl(descriptor, F_SETOWN_EX, _OWNER.pack(F_OWNER_TID, thread))
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        except OSError:
            self._forget(descriptor)
            raise
        try:
            # What came before the flag was set has raised no signal.
            if self._readable([descriptor]):
                callback()
        except BaseException:
            self.remove(descriptor)
            raise

    def _watch(self, library: Library, descriptor: int, flags: Sequence[int]) -> None:
        first, second = (*flags, *(0,) * (_FLAGS - len(flags)))
        with library.lock:
            place: int = library.add(descriptor, self._bell, first, second)
        if place < 0:
            with self._lock:
                del self._callbacks[descriptor]
            raise OSError(-place, f"SIGIO cannot be had for another descriptor: {os.strerror(-place)}")
        self._places[descriptor] = place

    def remove(self, descriptor: int) -> None:
        """No signal any more."""
        with self._lock:
            known = descriptor in self._callbacks
        if known:
            with contextlib.suppress(OSError):  # it has been closed, and raises none any more
                flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_ASYNC)
            self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        with self._lock:
            del self._callbacks[descriptor]
        if self._library is not None:
            place = self._places.pop(descriptor)
            with self._library.lock:
                self._counted += self._library.count(place)
                self._library.remove(place)

    @staticmethod
    def _readable(descriptors: list[int]) -> list[int]:
        asked = select.poll()  # select(2) knows no descriptor from 1,024 on
        for descriptor in descriptors:
            asked.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, events in asked.poll(0) if events & (select.POLLIN | select.POLLHUP)]

    def _tell(self) -> None:
        with self._lock:  # a descriptor that is removed may be closed at once
            called = [self._callbacks[readable] for readable in self._readable(list(self._callbacks))]
        for callback in called:
            try:
                callback()
            except Exception:  # one's failure is not the others'
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _wait_for_bell(self) -> None:
        """The thread, where the handler is C's."""
        self._ready.set()
        while True:
            os.eventfd_read(self._bell)
            if self._ends:
                return
            self._tell()

    def _wait_for_signal(self) -> None:
        """The thread, where there is no handler: a signal that comes while it is not waiting stays pending."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        self._ready.set()
        while True:
            signal.sigwaitinfo((signal.SIGIO,))
            if self._ends:
                return
            self._counted += 1
            self._tell()

    def close(self) -> None:
        for descriptor in list(self._callbacks):
            self.remove(descriptor)
        if not self._thread.is_alive():
            return
        self._ends = True
        if self._library is not None:
            os.eventfd_write(self._bell, 1)
        else:
            assert self._thread.ident is not None
            signal.pthread_kill(self._thread.ident, signal.SIGIO)
        self._thread.join()
        if self._library is not None:
            os.close(self._bell)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
