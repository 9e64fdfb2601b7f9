"""Xen's libraries by ctypes: what is there, whether it fits the hypervisor that runs, and each call's errors.

libxendevicemodel, libxenforeignmemory and libxenevtchn have stable interfaces. libxenctrl and the layouts that go
through it belong to one release of Xen: sources are tools/include/xenctrl.h and xen/include/public/domctl.h of 4.17.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

CAPABILITIES: Final = Path("/proc/xen/capabilities")
PRIVCMD: Final = Path("/dev/xen/privcmd")
VERSION: Final = Path("/sys/hypervisor/version")
#: Releases whose layouts are known here: struct xen_domctl_createdomain and xc_dominfo_t change with each.
RELEASES: Final = ("4.17",)
_QUIET: Final = 8  #: XTL_CRITICAL: what the libraries say on stderr by themselves, from this level on

Call = Callable[..., int]


class XenError(Exception):
    """One sentence: what Xen refused or why it is not there. `errno` is 0 where no call failed."""

    def __init__(self, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.errno = errno


class Arch(c.Structure):
    """struct xen_arch_domainconfig of x86."""

    _fields_ = (("emulation_flags", c.c_uint32), ("misc_flags", c.c_uint32))


class CreateDomain(c.Structure):
    """struct xen_domctl_createdomain of 4.17."""

    _fields_ = (
        ("ssidref", c.c_uint32), ("handle", c.c_uint8 * 16), ("flags", c.c_uint32), ("iommu_opts", c.c_uint32),
        ("max_vcpus", c.c_uint32), ("max_evtchn_port", c.c_uint32), ("max_grant_frames", c.c_int32),
        ("max_maptrack_frames", c.c_int32), ("grant_opts", c.c_uint32), ("vmtrace_size", c.c_uint32),
        ("cpupool_id", c.c_uint32), ("arch", Arch),
    )  # fmt: skip


class DomainInfo(c.Structure):
    """xc_dominfo_t of 4.17."""

    _fields_ = (
        ("domid", c.c_uint32), ("ssidref", c.c_uint32), ("bits", c.c_uint32), ("shutdown_reason", c.c_uint32),
        ("pages", c.c_ulong), ("outstanding", c.c_ulong), ("shared", c.c_ulong), ("paged", c.c_ulong),
        ("shared_info_frame", c.c_ulong), ("cpu_time", c.c_uint64), ("max_kib", c.c_ulong), ("online", c.c_uint32),
        ("max_vcpu_id", c.c_uint32), ("handle", c.c_uint8 * 16), ("cpupool", c.c_uint32), ("address_bits", c.c_uint8),
        ("arch", Arch),
    )  # fmt: skip


U8, U16, U32, U64, LONG, INT = c.c_uint8, c.c_uint16, c.c_uint32, c.c_uint64, c.c_ulong, c.c_int
PTR: TypeAlias = c.c_void_p
#: Of libxenctrl, without the handle that comes first.
_CONTROL: Final[dict[str, tuple[Any, ...]]] = {
    "xc_version": (INT, PTR),
    "xc_domain_create": (c.POINTER(U32), c.POINTER(CreateDomain)),
    "xc_domain_max_vcpus": (U32, c.c_uint),
    "xc_domain_setmaxmem": (U32, U64),
    "xc_domain_pause": (U32,),
    "xc_domain_unpause": (U32,),
    "xc_domain_destroy": (U32,),
    "xc_domain_getinfo": (U32, c.c_uint, c.POINTER(DomainInfo)),
    "xc_domain_maximum_gpfn": (U32, c.POINTER(LONG)),
    "xc_domain_populate_physmap_exact": (U32, LONG, c.c_uint, c.c_uint, c.POINTER(U64)),
    "xc_domain_decrease_reservation_exact": (U32, LONG, c.c_uint, c.POINTER(U64)),
    "xc_domain_hvm_getcontext": (U32, PTR, U32),
    "xc_domain_hvm_setcontext": (U32, PTR, U32),
    "xc_domain_send_trigger": (U32, U32, U32),
    "xc_vcpu_getcontext": (U32, U32, PTR),
    "xc_hvm_param_set": (U32, U32, U64),
    "xc_hvm_param_get": (U32, U32, c.POINTER(U64)),
    "xc_set_paging_mempool_size": (U32, U64),
    "xc_monitor_disable": (U32,),
    "xc_monitor_debug_exceptions": (U32, c.c_bool, c.c_bool),
}
#: Of libxendevicemodel, without the handle and the domain.
_DEVICE_MODEL: Final[dict[str, tuple[Any, ...]]] = {
    "create_ioreq_server": (INT, c.POINTER(U16)),
    "get_ioreq_server_info": (U16, c.POINTER(U64), c.POINTER(U64), c.POINTER(U32)),
    "map_io_range_to_ioreq_server": (U16, INT, U64, U64),
    "set_ioreq_server_state": (U16, INT),
    "destroy_ioreq_server": (U16,),
    "set_isa_irq_level": (U8, c.c_uint),
    "set_pci_intx_level": (U16, U8, U8, U8, c.c_uint),
    "inject_msi": (U64, U32),
    "set_mem_type": (INT, U64, U32),
}
_EVENTS: Final[dict[str, tuple[Any, ...]]] = {
    "fd": (), "bind_interdomain": (U32, U32), "pending": (), "unmask": (U32,), "notify": (U32,), "unbind": (U32,),
    "bind_unbound_port": (U32,),
}  # fmt: skip


def check_dom0() -> str:
    """The release of the hypervisor, as "4.17". Raises XenError where this is no dom0, or not one to us."""
    try:
        capabilities = CAPABILITIES.read_text()
    except OSError:
        raise XenError(f"this is no dom0 of Xen: {CAPABILITIES} cannot be read") from None
    if "control_d" not in capabilities:
        raise XenError("this domain of Xen may not control others: it has to be dom0")
    if not os.access(PRIVCMD, os.R_OK | os.W_OK):
        why = "root may open it" if PRIVCMD.exists() else "it is not there: load the module xen-privcmd"
        raise XenError(f"Xen cannot be asked through {PRIVCMD}: {why}")
    try:
        release = ".".join((VERSION / part).read_text().strip() for part in ("major", "minor"))
    except OSError:
        raise XenError(f"the release of Xen is not known: {VERSION} cannot be read") from None
    if release not in RELEASES:
        raise XenError(f"this Xen is {release}: {', '.join(RELEASES)} is what v2e knows the structures of")
    return release


def _open(name: str) -> c.CDLL:
    try:
        return c.CDLL(name, use_errno=True)
    except OSError as error:
        raise XenError(
            f"{name} cannot be opened ({error}): Debian has it in libxenmisc4.17 and lib{name[3:-5]}1"
        ) from None


class Handle:
    """What a library's open function gave. To call with it behind its end, or amid it on another thread, is to reach
    memory that was freed: `call` raises XenError instead."""

    def __init__(self, library: c.CDLL, name: str, value: int) -> None:
        self.library, self.name, self.open = library, name, True
        self._value = PTR(value)
        self._lock = threading.RLock()

    def call(self, function: Any, *arguments: Any) -> Any:
        """What `function` returns for the handle and `arguments`. Raises XenError."""
        with self._lock:
            if not self.open:
                raise XenError(f"{self.name} has been closed", errno.EBADF)
            c.set_errno(0)
            return function(self._value, *arguments)

    def close(self, function: Any) -> None:
        """End it by `function`, once."""
        with self._lock:
            if self.open:
                self.open = False
                function(self._value)


def _checked(function: Any, what: str, handle: Handle) -> Call:
    def call(*arguments: Any) -> int:
        result = handle.call(function, *arguments)
        if result is None or result < 0:
            number = c.get_errno()
            raise XenError(f"{what}: {os.strerror(number) if number else 'it failed'}", number)
        return int(result)

    return call


class Libraries:
    """The four libraries, opened. Every call raises XenError with its name and the reason when it fails.

    `control["xc_domain_pause"](domid)`, `device_model["inject_msi"](domid, address, data)`.
    """

    def __init__(self) -> None:
        self.release = check_dom0()
        control, model = _open(f"libxenctrl.so.{self.release}"), _open("libxendevicemodel.so.1")
        memory, events = _open("libxenforeignmemory.so.1"), _open("libxenevtchn.so.1")
        self._logger = self._silence(_open("libxentoollog.so.1"))
        self._opened: list[Handle] = []
        try:
            xch = self._handle(control, "xc_interface", self._logger, self._logger)
            self.control = {
                name: _checked(self._function(control, name, INT, PTR, *kinds), name, xch)
                for name, kinds in _CONTROL.items()
            }
            self.monitor_enable = _checked(
                self._function(control, "xc_monitor_enable", PTR, PTR, U32, c.POINTER(U32)), "xc_monitor_enable", xch
            )
            dmod = self._handle(model, "xendevicemodel", self._logger)
            self.device_model = {
                name: _checked(self._function(model, f"xendevicemodel_{name}", INT, PTR, U16, *kinds), name, dmod)
                for name, kinds in _DEVICE_MODEL.items()
            }
            self._events = events
            fmem = self._handle(memory, "xenforeignmemory", self._logger)
            sizes = (U32, INT, c.c_size_t, c.POINTER(U64), c.POINTER(INT))
            self._map = self._function(memory, "xenforeignmemory_map", PTR, PTR, *sizes)
            self._map_over = self._function(memory, "xenforeignmemory_map2", PTR, PTR, U32, PTR, INT, INT, *sizes[2:])
            self._unmap = self._function(memory, "xenforeignmemory_unmap", INT, PTR, PTR, c.c_size_t)
            resource = (U16, c.c_uint, c.c_uint, LONG, LONG, c.POINTER(PTR), INT, INT)
            self._resource = self._function(memory, "xenforeignmemory_map_resource", PTR, PTR, *resource)
            self._unresource = self._function(memory, "xenforeignmemory_unmap_resource", INT, PTR, PTR)
            self._fmem = fmem
        except XenError:
            self.close()
            raise

    @staticmethod
    def _silence(library: c.CDLL) -> PTR:
        """A logger that keeps what we say in a sentence from being said twice."""
        create = library.xtl_createlogger_stdiostream
        create.restype, create.argtypes = PTR, (PTR, INT, c.c_uint)
        return PTR(create(PTR.in_dll(c.CDLL(None), "stderr"), _QUIET, 0))

    @staticmethod
    def _function(library: c.CDLL, name: str, result: Any, *kinds: Any) -> Any:
        try:
            function = getattr(library, name)
        except AttributeError:
            raise XenError(f"{library._name} has no {name}: it is not the library of this Xen") from None
        function.restype, function.argtypes = result, kinds
        return function

    def _handle(self, library: c.CDLL, name: str, *loggers: PTR) -> Handle:
        kinds = [PTR] * len(loggers)
        value = self._function(library, f"{name}_open", PTR, *kinds, c.c_uint)(*loggers, 0)
        if not value:
            number = c.get_errno()
            raise XenError(f"{name}_open: {os.strerror(number)}", number)
        handle = Handle(library, name, value)
        self._opened.append(handle)
        return handle

    def _end(self, handle: Handle) -> None:
        handle.close(self._function(handle.library, f"{handle.name}_close", INT, PTR))

    def events(self) -> tuple[dict[str, Call], Callable[[], None]]:
        """Event channels with a descriptor of their own: the calls, as `calls["notify"](port)`, and their end."""
        xce = self._handle(self._events, "xenevtchn", self._logger)
        calls = {
            name: _checked(
                self._function(self._events, f"xenevtchn_{name}", INT, PTR, *kinds), f"event channel {name}", xce
            )
            for name, kinds in _EVENTS.items()
        }

        def close() -> None:
            if xce.open:
                self._opened.remove(xce)
                self._end(xce)

        return calls, close

    def map_pages(self, domid: int, frames: list[int], protection: int) -> tuple[int, list[int]]:
        """Map guest frames; the address, and for each frame 0 or what speaks against it. Raises XenError."""
        numbers, errors = (U64 * len(frames))(*frames), (INT * len(frames))()
        address = self._fmem.call(self._map, domid, protection, len(frames), numbers, errors)
        if not address:
            number = c.get_errno()
            raise XenError(f"memory of domain {domid} cannot be mapped: {os.strerror(number)}", number)
        return int(address), list(errors)

    def map_over(self, domid: int, frames: list[int], protection: int, address: int, flags: int) -> list[int]:
        """Map guest frames at `address` of this process; for each 0 or what speaks against it. Raises XenError."""
        numbers, errors = (U64 * len(frames))(*frames), (INT * len(frames))()
        if not self._fmem.call(self._map_over, domid, address, protection, flags, len(frames), numbers, errors):
            number = c.get_errno()
            raise XenError(f"memory of domain {domid} cannot be mapped: {os.strerror(number)}", number)
        return list(errors)

    def unmap_pages(self, address: int, count: int) -> None:
        """What is still mapped when the libraries are closed stays so."""
        if self._fmem.open:
            self._fmem.call(self._unmap, address, count)

    def map_resource(self, domid: int, kind: int, id: int, frame: int, count: int, protection: int) -> tuple[int, PTR]:
        """Map `count` frames of a resource of the domain; their address, and what `unmap_resource` takes."""
        address = PTR(None)
        handle = self._fmem.call(self._resource, domid, kind, id, frame, count, c.byref(address), protection, 0)
        if not handle or not address.value:
            number = c.get_errno()
            raise XenError(f"a resource of domain {domid} cannot be mapped: {os.strerror(number)}", number)
        return address.value, PTR(handle)

    def unmap_resource(self, handle: PTR) -> None:
        if self._fmem.open:
            self._fmem.call(self._unresource, handle)

    def close(self) -> None:
        """Give all handles back."""
        while self._opened:
            self._end(self._opened.pop())
