"""An ioreq server: the device model's end of the accesses that a domain makes to ports and memory we claim.

Source: Xen 4.17, xen/include/public/hvm/{ioreq,dm_op}.h.
"""

from __future__ import annotations

import contextlib
import ctypes as c
import mmap
import time
from collections.abc import Callable
from typing import Final, Protocol

from xenbridge import ioreq
from xenbridge.ioreq import Ioreq, State, Type
from xenbridge.xen.channels import Channels, Patience, take_any
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import PAGE

#: XENMEM_resource_ioreq_server; frame 0 has the buffered requests, frame 1 those that wait for an answer.
_RESOURCE: Final = 0
#: MAX_NR_IOREQ_SERVERS of xen/include/asm-x86/hvm/domain.h: they are numbered from 0.
_MOST: Final = 8
#: Seconds between two looks at whether a device model has answered.
_LOOK: Final = 0.0005
_SPACES: Final = {Type.PIO: 0, Type.COPY: 1}
_RW: Final = mmap.PROT_READ | mmap.PROT_WRITE


class Device(Protocol):
    """What answers accesses: one element each. `type` is PIO or COPY, sizes are bytes."""

    def read(self, type: Type, address: int, size: int) -> int: ...

    def write(self, type: Type, address: int, size: int, value: int) -> None: ...


class IoreqServer:
    """One server of one domain, for vCPU 0. Requests are handled on the thread that takes the channels' events."""

    def __init__(self, domain: Domain, channels: Channels, handle: Callable[[Ioreq], None]) -> None:
        """`handle` is told of each request, and has to see to it that `answer` is called. Raises XenError."""
        self._domain, self.channels, self._handle = domain, channels, handle
        self._call, self._domid = domain.libraries.device_model, domain.domid
        number = c.c_uint16()
        # 0: no buffered requests (HVM_IOREQSRV_BUFIOREQ_OFF). Xen buffers writes to the VGA's window where it can, and
        # a device model that takes them later than its other requests answers out of order.
        self._call["create_ioreq_server"](self._domid, 0, c.byref(number))
        self.id = number.value
        self._resource: c.c_void_p | None = None
        self._port = 0
        try:
            address, self._resource = domain.libraries.map_resource(self._domid, _RESOURCE, self.id, 1, 1, _RW)
            self._page = memoryview((c.c_ubyte * PAGE).from_address(address)).cast("B")
            self._call["set_ioreq_server_state"](self._domid, self.id, 1)
            remote = int.from_bytes(self._page[ioreq.PORT_OFFSET : ioreq.PORT_OFFSET + 4], "little")
            self._port = channels.bind(self._domid, remote, self._event)
            domain.servers.append(self)
        except XenError:
            self.close()
            raise

    def claim(self, type: Type, first: int, last: int) -> None:
        """Accesses to these ports, or physical addresses, come to us. Raises XenError, as when they are another's."""
        self._call["map_io_range_to_ioreq_server"](self._domid, self.id, _SPACES[type], first, last)

    def _event(self) -> None:
        if self._page[ioreq.STATE_OFFSET] & 15 == State.READY:
            request = ioreq.unpack(self._page)
            self._set_state(State.IN_PROCESS)
            self._handle(request)

    def _set_state(self, state: State) -> None:
        self._page[ioreq.STATE_OFFSET] = self._page[ioreq.STATE_OFFSET] & 0xF0 | state

    @property
    def busy(self) -> bool:
        """The vCPU is in an access of ours that its registers take part in: it waits for the answer, or has not taken
        it yet."""
        return _holds(self._page)

    @property
    def untaken(self) -> bool:
        """The vCPU has not taken the answer yet, which its registers take part in."""
        return self.busy and self._page[ioreq.STATE_OFFSET] & 15 == State.ANSWERED

    def answer(self, value: int = 0) -> None:
        """The request is done; `value` is what it read. The vCPU goes on."""
        self._page[ioreq.DATA_OFFSET : ioreq.DATA_OFFSET + 8] = value.to_bytes(8, "little")
        self._set_state(State.ANSWERED)
        self.channels.notify(self._port)

    def close(self) -> None:
        """Give the ranges back. Errors are those of a domain that is gone already, and nobody's concern."""
        if self in self._domain.servers:
            self._domain.servers.remove(self)
        with contextlib.suppress(XenError):
            if self._port:
                self.channels.unbind(self._port)
        self._port = 0
        with contextlib.suppress(XenError):
            self._call["destroy_ioreq_server"](self._domid, self.id)
        if self._resource is not None:
            if hasattr(self, "_page"):
                self._page.release()
            self._domain.libraries.unmap_resource(self._resource)
            self._resource = None


def _holds(page: memoryview) -> bool:
    """The access in a server's page has to be finished before its vCPU is given other registers. One OUT that was
    answered has not: nothing of it is left to do."""
    bits, type = page[ioreq.STATE_OFFSET], page[ioreq.STATE_OFFSET + 1]
    answered_out = bits & 15 == State.ANSWERED and type == Type.PIO and not bits & (ioreq.READS | ioreq.INDIRECT)
    return bits & 15 != State.NONE and not answered_out


def accessing(domain: Domain) -> bool:
    """An access of vCPU 0 waits for a device model, whoever that is: Xen finishes it in the registers that the vCPU has
    then, so it must not be given others. Dom0 may look at each server's page, as all of them are dom0's."""
    ours = {server.id: server for server in domain.servers}
    if any(server.busy for server in ours.values()):
        return True
    if domain.ours:  # and nobody else's
        return False
    for id in set(range(_MOST)) - set(ours):
        try:
            domain.libraries.device_model["get_ioreq_server_info"](domain.domid, id, None, None, None)
            address, resource = domain.libraries.map_resource(domain.domid, _RESOURCE, id, 1, 1, _RW)
        except XenError:
            continue  # there is no server of this number
        try:
            if _holds(memoryview((c.c_ubyte * PAGE).from_address(address)).cast("B")):
                return True
        finally:
            domain.libraries.unmap_resource(resource)
    return False


def pause_between_accesses(domain: Domain, patience: float) -> bool:
    """Pause the domain where no access of its waits for a device model; those of ours are served meanwhile. False when
    one has not answered in a `Patience` of so many seconds: then it is paused all the same."""
    waited = Patience(patience)
    while True:
        domain.pause()
        if not accessing(domain):
            return True
        if waited.over:
            return False
        domain.resume()
        if domain.serving:
            take_any(domain.serving, _LOOK)
        else:
            time.sleep(_LOOK)


def serve(domain: Domain, device: Device, request: Ioreq) -> int:
    """Do a request of the guest; returns what it reads, 0 for a write.

    The elements of a repeated string instruction are in the guest's memory, as REP INS, OUTS, and MOVS of device memory
    have them."""
    if request.type not in (Type.PIO, Type.COPY):
        return 0
    if not request.indirect:
        if request.reads:
            return device.read(request.type, request.address, request.size) & request.mask
        device.write(request.type, request.address, request.size, request.data & request.mask)
        return 0
    step = -request.size if request.down else request.size
    for index in range(request.count):
        # A port stays, a device's memory moves on with the guest's.
        at = request.address + (step * index if request.type is Type.COPY else 0)
        memory = request.data + step * index
        if request.reads:
            value = device.read(request.type, at, request.size) & request.mask
            domain.memory.write(memory, value.to_bytes(request.size, "little"))
        else:
            value = int.from_bytes(domain.memory.read(memory, request.size), "little")
            device.write(request.type, at, request.size, value)
    return 0
