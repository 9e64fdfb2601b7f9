"""Ends a wait from another thread, or from a signal handler: a descriptor that can be waited for with others."""

from __future__ import annotations

import os


class Woken(Exception):
    """The wake was set before what was waited for came."""


class Wake:
    """One eventfd. `set` may be called from any thread and in a signal handler; the rest is one thread's. Whoever waits
    polls `descriptor`."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = True

    def set(self) -> None:
        """End the wait that is going on, or else the next one."""
        if self._open:
            os.eventfd_write(self.descriptor, 1)

    def taken(self) -> bool:
        """It was set since this was asked last."""
        try:
            return os.eventfd_read(self.descriptor) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._open = False
        os.close(self.descriptor)
