"""Ends a running KVM_RUN: by a signal to the vCPU's thread, from any thread, or at an instant of the host's clock.

The signal is blocked in the thread and open only while KVM_RUN is in the kernel (KVM_SET_SIGNAL_MASK), so it needs no
handler, and one that comes too early ends the next KVM_RUN instead of being lost. The clock is a POSIX timer whose
expiry is that signal, for that thread (timer_create(2), SIGEV_THREAD_ID).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
from typing import Final

from xenbridge.kvm import abi
from xenbridge.kvm.abi import KvmError, ioctl

#: One of the real-time signals, behind those that C libraries use themselves and the first ones, which people take.
SIGNAL: Final = signal.SIGRTMIN + 11
_CLOCK_MONOTONIC, _SIGEV_THREAD_ID = 1, 4
_ITIMERSPEC: Final = struct.Struct("4q")
_SECOND: Final = 1_000_000_000


class _Sigevent(ctypes.Structure):
    """struct sigevent of x86-64 (asm-generic/siginfo.h)."""

    _fields_ = [("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int), ("tid", ctypes.c_int),
                ("pad", ctypes.c_int * 11)]  # fmt: skip


class Kicker:
    """For the vCPU with this file descriptor, whose kvm_run has `immediate_exit`. Raises KvmError."""

    def __init__(self, fd: int, immediate_exit: ctypes.c_uint8) -> None:
        self._immediate_exit = immediate_exit
        self._lock = threading.Lock()
        self._thread = 0  #: that of the last KVM_RUN
        self._inside = False
        self._due = 0  # when the timer expires, ns
        self._timer: ctypes.c_void_p | None = None
        self._times = ctypes.create_string_buffer(_ITIMERSPEC.size)
        # struct kvm_signal_mask: the length of a sigset, and the set: none is blocked.
        ioctl(fd, "SET_SIGNAL_MASK", ctypes.create_string_buffer(struct.pack("<IQ", 8, 0)))

    def begin(self, nanoseconds: int, now: int) -> None:
        """This thread is about to run the vCPU, for at most so long from `now` (CLOCK_MONOTONIC, ns). It may be
        interrupted before, by a timer that was set for another run: setting one costs more than going on once in a
        while. Without effect on a kick that has come already."""
        if self._thread != threading.get_ident():
            self._adopt()
        if not now < self._due <= now + nanoseconds:
            self._due = now + nanoseconds
            self._set(max(1, nanoseconds))
        with self._lock:
            self._inside = True

    def end(self) -> None:
        """The vCPU does not run any more. The timer may still come: it ends a later KVM_RUN, which then goes on."""
        with self._lock:
            self._inside = False

    def kick(self) -> None:
        """From any thread: KVM_RUN ends now, or will at once when it begins. `immediate_exit` stays set."""
        self._immediate_exit.value = 1
        with self._lock:
            if self._inside and self._thread != threading.get_ident():
                signal.pthread_kill(self._thread, SIGNAL)

    def drain(self) -> None:
        """Take back signals that came; else each KVM_RUN would end at once."""
        while signal.sigtimedwait((SIGNAL,), 0) is not None:
            pass

    def _adopt(self) -> None:
        """The vCPU has another thread now: signals and timer are to be its."""
        self.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, (SIGNAL,))
        event = _Sigevent(signo=SIGNAL, notify=_SIGEV_THREAD_ID, tid=threading.get_native_id())
        timer = ctypes.c_void_p()
        if abi.timer_create(_CLOCK_MONOTONIC, ctypes.addressof(event), ctypes.addressof(timer)):
            number = ctypes.get_errno()
            raise KvmError(f"no timer can be had for the vCPU: {os.strerror(number)}", number)
        self._timer, self._thread = timer, threading.get_ident()

    def _set(self, nanoseconds: int) -> None:
        assert self._timer is not None, "begin() has made it"
        _ITIMERSPEC.pack_into(self._times, 0, 0, 0, *divmod(nanoseconds, _SECOND))
        abi.timer_settime(self._timer, 0, self._times, None)

    def close(self) -> None:
        """Give the timer back."""
        if self._timer is not None:
            abi.timer_delete(self._timer)
            self._timer, self._thread, self._due = None, 0, 0
            self.drain()
