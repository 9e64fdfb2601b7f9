"""SIGIO: the signal that a hypervisor's descriptor raises, led to whom the descriptor belongs to."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

#: F_SETOWN for one thread (fcntl(2)). A signal that any thread may take would often find another than the main one,
#: whose wait it does not end: then it is not handled until something else does.
F_SETOWN_EX, F_OWNER_TID = 15, 0
_OWNER: Final = struct.Struct("ii")  #: struct f_owner_ex


class Signals:
    """Handles SIGIO for any number of descriptors. The handler runs on the main thread, so that is where it is made.

    `close`, or leaving it as a context manager, puts back what was before."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.count = 0  #: signals that came
        self._before = signal.signal(signal.SIGIO, self._handle)

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """`callback` is called, on the main thread, when `descriptor` becomes readable. It only tells: whoever reads
        the descriptor does it elsewhere. Raises OSError for a descriptor that raises no signal."""
        self._callbacks[descriptor] = callback
        fcntl.fcntl(descriptor, F_SETOWN_EX, _OWNER.pack(F_OWNER_TID, threading.main_thread().native_id or os.getpid()))
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
        # What came before the flag was set has raised no signal.
        if self._readable([descriptor]):
            callback()

    def remove(self, descriptor: int) -> None:
        """No signal any more."""
        if self._callbacks.pop(descriptor, None) is not None:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_ASYNC)

    @staticmethod
    def _readable(descriptors: list[int]) -> list[int]:
        return select.select(descriptors, [], [], 0)[0]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        for descriptor in self._readable(list(self._callbacks)):
            self._callbacks[descriptor]()

    def close(self) -> None:
        for descriptor in list(self._callbacks):
            self.remove(descriptor)
        signal.signal(signal.SIGIO, self._before)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
