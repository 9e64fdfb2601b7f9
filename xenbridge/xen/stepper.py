"""Single steps of a domain's vCPU: RFLAGS.TF, whose exception Xen's monitor takes in place of the guest.

Sources: Xen 4.17, xen/include/public/vm_event.h (interface version 7), io/ring.h, and arch/x86/hvm/svm/svm.c: behind an
instruction that Xen itself executes (IN, MOV to CR0) it puts the exception into the guest, so those are made by
`xenbridge.xen.behalf`. SVM has no monitor trap flag.
"""

from __future__ import annotations

import ctypes as c
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from emu.x86.state import RFLAGS_TF
from xenbridge.xen import context
from xenbridge.xen.behalf import Behalf
from xenbridge.xen.channels import Channels, take_any
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError

#: HVM_PARAM_MONITOR_RING_PFN, and a frame for it where nobody has set one: libxc's special page 2.
_RING_PARAM, _RING_FRAME = 28, 0xFEFFA
_PAGE: Final = 0x1000
#: Of the ring: producer and consumer counts, then entries.
_REQ_PROD, _REQ_EVENT, _RSP_PROD, _ENTRIES, _ENTRY_SIZE, _COUNT = 0, 4, 8, 64, 400, 8
#: Of an entry: version, flags, reason, vcpu.
_HEAD: Final = struct.Struct("<4I")
_VERSION, _PAUSED, _DEBUG_EXCEPTION = 7, 1 << 0, 9
_FLAGS: Final = context.RIP_OFFSET + 8
#: Seconds a step may take: one that waits for an interrupt's handler takes as long as that.
PATIENCE: Final = 10.0
_LOOK_FOR_LIFE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where the vCPU stands; `linear` is CS base + RIP, wrapped as outside 64-bit mode."""

    rip: int
    cs_base: int

    @property
    def linear(self) -> int:
        return (self.cs_base + self.rip) & 0xFFFFFFFF


class Stepper:
    """Steps vCPU 0 of one paused domain. Only one may be on a domain: Xen refuses a second monitor.

    While a step is made the guest's own #DB ends it too. A context manager that lets go of the domain."""

    def __init__(self, domain: Domain) -> None:
        """Raises XenError, as when somebody else monitors the domain."""
        self._domain = domain
        self._channels = Channels(domain.libraries)
        self._behalf = Behalf(domain)
        self._port = 0
        self._taken = 0  # requests taken from the ring
        if not domain.param(_RING_PARAM):
            domain.set_param(_RING_PARAM, _RING_FRAME)
        port = c.c_uint32()
        try:
            self._address = domain.libraries.monitor_enable(domain.domid, c.byref(port))
        except XenError as error:
            self._channels.close()
            raise XenError(f"domain {domain.domid} cannot be stepped: {error}", error.errno) from None
        self._ring = memoryview((c.c_ubyte * _PAGE).from_address(self._address)).cast("B")
        # SHARED_RING_INIT of io/ring.h: the page may be that of a stepper before us.
        struct.pack_into("<4I48x", self._ring, 0, 0, 1, 0, 1)
        try:
            self._port = self._channels.bind(domain.domid, port.value, lambda: None)
            domain.libraries.control["xc_monitor_debug_exceptions"](domain.domid, True, True)
        except XenError:
            self.close()
            raise

    # -- the ring

    def _word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self._ring, offset)[0])

    def _next(self) -> int | None:
        """The offset of the next entry that waits, or None."""
        if self._word(_REQ_PROD) == self._taken & 0xFFFFFFFF:
            return None
        at = _ENTRIES + self._taken % _COUNT * _ENTRY_SIZE
        self._taken += 1
        # Xen tells of the next one only when the count passes this.
        struct.pack_into("<I", self._ring, _REQ_EVENT, self._taken + 1 & 0xFFFFFFFF)
        return at

    def _wait(self, patience: float) -> int:
        """The offset of the entry that tells of the step. A device model of ours is served meanwhile."""
        domain = self._domain
        channels = (self._channels, *(server.channels for server in domain.servers))
        end = time.monotonic() + patience
        while (at := self._next()) is None:
            if not take_any(channels, _LOOK_FOR_LIFE):
                if "shutdown" in domain.states():
                    raise XenError(f"domain {domain.domid} has shut down in a step")
                if time.monotonic() > end:
                    raise XenError(f"domain {domain.domid} has not come to its next instruction in {patience:.0f} s")
        version, _, reason, _ = _HEAD.unpack_from(self._ring, at)
        if (version, reason) != (_VERSION, _DEBUG_EXCEPTION):
            raise XenError(f"Xen tells of an event {reason} in version {version}, not of a step in version {_VERSION}")
        return at

    def _answer(self, at: int) -> None:
        """The vCPU may go on from the entry, when the domain does."""
        answer = bytearray(self._ring[at : at + _ENTRY_SIZE])
        struct.pack_into("<I", answer, 4, _PAUSED)
        put = self._word(_RSP_PROD)
        slot = _ENTRIES + put % _COUNT * _ENTRY_SIZE
        self._ring[slot : slot + _ENTRY_SIZE] = bytes(answer)
        struct.pack_into("<I", self._ring, _RSP_PROD, put + 1 & 0xFFFFFFFF)
        self._channels.notify(self._port)

    # -- steps

    def step(self) -> Place:
        """One instruction of the paused domain, which is paused again behind it; an interrupt's handler that begins
        meanwhile is run to its end. As on any x86, the instruction behind a load of SS belongs to it.

        Raises XenError for an instruction that cannot be stepped, or where none was finished in PATIENCE; then the
        domain is paused where it is."""
        return self.run(lambda place: True)

    def run(self, stop: Callable[[Place], bool], *, patience: float = PATIENCE) -> Place:
        """Steps until `stop` says so of a place. `patience` is for each step. Raises as `step` does."""
        while True:
            if not self._behalf.make():
                self._trap(patience)
            place = self._place()
            if stop(place):
                return place

    def _place(self) -> Place:
        record = self._domain.cpu_record()
        rip = int(struct.unpack_from("<Q", record, context.RIP_OFFSET)[0])
        return Place(rip, int(struct.unpack_from("<Q", record, context.CS_BASE_OFFSET)[0]))

    def _put_flags(self, change: Callable[[int], int]) -> int:
        """Change RFLAGS; what they were."""
        record = bytearray(self._domain.cpu_record())
        flags = int(struct.unpack_from("<Q", record, _FLAGS)[0])
        if (wanted := change(flags)) != flags:
            struct.pack_into("<Q", record, _FLAGS, wanted)
            self._domain.load_cpu_record(bytes(record))
        return flags

    def _trap(self, patience: float) -> None:
        domain = self._domain
        own = self._put_flags(lambda flags: flags | RFLAGS_TF) & RFLAGS_TF
        domain.resume()
        try:
            at = self._wait(patience)
        finally:
            domain.pause()
        self._answer(at)
        self._put_flags(lambda flags: flags & ~RFLAGS_TF | own)

    def close(self) -> None:
        """Let go. A domain that is gone is no error."""
        for step in (self._off, self._unbind):
            try:
                step()
            except XenError:
                continue
        self._channels.close()
        self._behalf.close()
        self._ring.release()
        libc = c.CDLL(None)
        libc.munmap.argtypes = (c.c_void_p, c.c_size_t)
        libc.munmap(self._address, _PAGE)

    def _off(self) -> None:
        self._domain.libraries.control["xc_monitor_disable"](self._domain.domid)

    def _unbind(self) -> None:
        if self._port:
            self._channels.unbind(self._port)
            self._port = 0

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
