"""SIGIO: the signal that a hypervisor's descriptor raises, led to whom the descriptor belongs to.

It is directed to a thread that waits for nothing else (sigwaitinfo), not handled: Python runs a handler on the main
thread when that comes by, and a signal that arrives just before the main thread begins to wait does not end the wait.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Callable
from typing import Final

#: F_SETOWN for one thread (fcntl(2)).
F_SETOWN_EX, F_OWNER_TID = 15, 0
_OWNER: Final = struct.Struct("ii")  #: struct f_owner_ex


class Signals:
    """Waits for SIGIO of any number of descriptors, without using any time meanwhile.

    `close`, or leaving it as a context manager, ends that."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self.count = 0  #: signals that came
        self._ends = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="v2e-sigio", daemon=True)
        self._thread.start()
        self._ready.wait()

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """`callback` is called, on a thread of its own, when `descriptor` becomes readable. It only tells: whoever
        reads the descriptor does it elsewhere. Raises OSError for a descriptor that raises no signal."""
        with self._lock:
            self._callbacks[descriptor] = callback
        fcntl.fcntl(descriptor, F_SETOWN_EX, _OWNER.pack(F_OWNER_TID, self._thread.native_id or os.getpid()))
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        # What came before the flag was set has raised no signal.
        if self._readable([descriptor]):
            callback()

    def remove(self, descriptor: int) -> None:
        """No signal any more."""
        with self._lock:
            known = self._callbacks.pop(descriptor, None) is not None
        if known:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_ASYNC)

    @staticmethod
    def _readable(descriptors: list[int]) -> list[int]:
        return select.select(descriptors, [], [], 0)[0]

    def _wait(self) -> None:
        """The thread: a signal that comes while it is not waiting stays pending."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGIO,))
        self._ready.set()
        while True:
            signal.sigwaitinfo((signal.SIGIO,))
            if self._ends:
                return
            self.count += 1
            with self._lock:  # a descriptor that is removed may be closed at once
                called = [self._callbacks[readable] for readable in self._readable(list(self._callbacks))]
            for callback in called:
                callback()

    def close(self) -> None:
        for descriptor in list(self._callbacks):
            self.remove(descriptor)
        if self._thread.is_alive():
            self._ends = True
            assert self._thread.ident is not None
            signal.pthread_kill(self._thread.ident, signal.SIGIO)
            self._thread.join()

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
