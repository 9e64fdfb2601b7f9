"""libxc's own writing and reading of streams, for domains of ours, which no toolstack keeps.

Source: Xen 4.17, tools/include/xenguest.h: xc_domain_save, xc_domain_restore and their callbacks.
"""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable
from pathlib import Path

from machines import COM1
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen.channels import Channels
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.server import Device, IoreqServer, serve

_CALLBACK = c.CFUNCTYPE(c.c_int, c.c_void_p)
_DIRTY = c.CFUNCTYPE(c.c_int, c.c_uint32, c.c_uint, c.c_void_p)
_STATIC = c.CFUNCTYPE(c.c_int, c.c_uint, c.c_void_p)
_RESULTS = c.CFUNCTYPE(None, c.c_uint64, c.c_uint64, c.c_void_p)
SUSPEND = 2  #: SHUTDOWN_suspend


class SaveCallbacks(c.Structure):
    _fields_ = (
        ("suspend", _CALLBACK), ("precopy_policy", c.c_void_p), ("postcopy", c.c_void_p), ("checkpoint", c.c_void_p),
        ("wait_checkpoint", c.c_void_p), ("switch_qemu_logdirty", _DIRTY), ("data", c.c_void_p),
    )  # fmt: skip


class RestoreCallbacks(c.Structure):
    _fields_ = (
        ("static_data_done", _STATIC), ("suspend", c.c_void_p), ("postcopy", c.c_void_p), ("checkpoint", c.c_void_p),
        ("wait_checkpoint", c.c_void_p), ("restore_results", _RESULTS), ("data", c.c_void_p),
    )  # fmt: skip


class Guests:
    """libxenguest with a handle of its own."""

    def __init__(self, libraries: Libraries) -> None:
        self._libraries = libraries
        control = c.CDLL(f"libxenctrl.so.{libraries.release}", use_errno=True)
        control.xc_interface_open.restype = c.c_void_p
        self._handle = c.c_void_p(control.xc_interface_open(None, None, 0))
        self._close = control.xc_interface_close
        self._shutdown = control.xc_domain_shutdown
        self._guest = c.CDLL(f"libxenguest.so.{libraries.release}", use_errno=True)

    def save(self, served: Served, path: Path) -> None:
        """Write the domain's stream; it is shut down then, as it would be for a migration. An access that waits for its
        device model is finished first, so that is served meanwhile."""
        domain = served.domain

        def suspend(_: int) -> int:
            self._shutdown(self._handle, c.c_uint32(domain.domid), SUSPEND)
            return served.run(lambda: "shutdown" in domain.states(), 30)

        callbacks = SaveCallbacks(suspend=_CALLBACK(suspend), switch_qemu_logdirty=_DIRTY(lambda *_: 0))
        with open(path, "wb") as file:
            self._checked(self._guest.xc_domain_save(
                self._handle, file.fileno(), c.c_uint32(domain.domid), 0, c.byref(callbacks), 0, -1), "xc_domain_save",
            )  # fmt: skip

    def restore(self, path: Path, memory: int) -> Domain:
        """A new paused domain of at most `memory` bytes that the stream fills. Raises XenError."""
        domain = Domain.create(self._libraries, 0)
        try:
            self._libraries.control["xc_domain_setmaxmem"](domain.domid, memory // 1024 + 1024)
            callbacks = RestoreCallbacks(
                static_data_done=_STATIC(lambda *_: 0), restore_results=_RESULTS(lambda *_: None)
            )
            store, console = c.c_ulong(), c.c_ulong()
            with open(path, "rb") as file:
                self._checked(self._guest.xc_domain_restore(
                    self._handle, file.fileno(), c.c_uint32(domain.domid), 0, c.byref(store), c.c_uint32(0), 0,
                    c.byref(console), c.c_uint32(0), 0, c.byref(callbacks), -1), "xc_domain_restore",
                )  # fmt: skip
        except XenError:
            domain.destroy()
            raise
        return domain

    @staticmethod
    def _checked(result: int, what: str) -> None:
        if result:
            raise XenError(f"{what} failed: {os.strerror(c.get_errno())}", c.get_errno())

    def close(self) -> None:
        self._close(self._handle)


class Served:
    """A domain of ours that exists already, with our device model for COM1. A context manager that destroys it."""

    def __init__(self, domain: Domain, device: Device) -> None:
        self.domain, self._device = domain, device
        self.channels = Channels(domain.libraries)
        self.server = IoreqServer(domain, self.channels, self._serve)
        self.server.claim(Type.PIO, COM1, COM1 + 7)

    def _serve(self, request: Ioreq) -> None:
        self.server.answer(serve(self.domain, self._device, request))

    def run(self, met: Callable[[], bool], seconds: float) -> bool:
        """Let it run until `met`; False when that took longer than `seconds`. It runs on afterwards."""
        self.domain.resume()
        return self.channels.wait(met, seconds)

    def close(self) -> None:
        self.server.close()
        self.channels.close()
        self.domain.destroy()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
