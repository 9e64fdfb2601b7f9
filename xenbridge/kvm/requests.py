"""Accesses that a borrowed vCPU makes for the guest: the bytes of an ioreq in, those of its answer out.

A request costs an entry and an exit of KVM's, some 4 us; as much Python beside it would double that, so the C library
(native/request.c) does it where it was built, and `Requests` where not.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, Final

from xenbridge.bridge import BridgeError, Owned
from xenbridge.ioreq import LAYOUT, State, Type
from xenbridge.kvm import abi, hop, parked
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.vcpu import INTERRUPTED, Vcpu

#: What an access needs of kvm_run, as indices of 64-bit, 32-bit and 16-bit words: registers, what of them was written
#: here, the exit's reason, and the port of EXIT_IO.
_RAX, _RBX, _RDX = ((abi.AT_REGS + getattr(abi.Regs, name).offset) // 8 for name in ("rax", "rbx", "rdx"))
_RIP, _RFLAGS = ((abi.AT_REGS + getattr(abi.Regs, name).offset) // 8 for name in ("rip", "rflags"))
_DIRTY, _REASON, _PORT = abi.RUN_DIRTY // 8, abi.RUN_REASON // 4, (abi.RUN_UNION + 2) // 2
#: Plain numbers, as an enumeration's cost more than the rest of the way.
_READS, _READY, _ANSWERED = 0x20, int(State.READY), int(State.ANSWERED)
_ENTRIES: Final = {(int(type), reads, size): entry for (type, reads, size), entry in parked.ENTRIES.items()}
MASKS: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF}
_RESERVED_FLAG: Final = 2
_RANGES: Final = 16
DONE, UNUSUAL, NOBODY = range(3)


class Requests:
    """Those of the vCPU `cpu`, whose registers are those of `parked`, to the devices `owned`."""

    def __init__(self, cpu: Vcpu, owned: Sequence[Owned]) -> None:
        self.cpu, self._fd = cpu, cpu.fd
        page = memoryview(cpu.page)
        self._made = 0
        #: makes one access for the 32 bytes of a request, and gives those of its answer, or what `unanswered` explains
        self.make: Callable[[bytes], Any] = self.exchange
        self._words, self._reasons, self._ports = page.cast("Q"), page.cast("I"), page.cast("H")
        self._spans = {
            int(kind): [range(o.first, o.last + 1) for o in owned if o.type is kind] for kind in (Type.PIO, Type.COPY)
        }

    @property
    def made(self) -> int:
        """How many accesses the vCPU has made."""
        return self._made

    def unanswered(self, came: Any) -> None:
        """`make` has given `came` in place of bytes. Returns where nothing was done, as the request is not for one
        element of 1, 2 or 4 bytes of an owned device. Raises BridgeError where nothing in the kernel answers."""

    def exchange(self, raw: bytes) -> bytes | None:
        """As `make`; None, with nothing done, or BridgeError as of `unanswered`."""
        address, data, count, size, port, _, bits, type = LAYOUT.unpack(raw)
        reads = bits & _READS
        entry = _ENTRIES.get((type, reads != 0, size))
        if entry is None or count != 1 or bits & ~_READS != _READY or not self._owns(type, address, size):
            return None
        words = self._words
        words[_RAX], words[_RBX], words[_RDX] = 0 if reads else data, address, address
        words[_RIP], words[_RFLAGS] = entry, _RESERVED_FLAG
        words[_DIRTY] |= abi.SYNC_REGS
        self._made += 1
        if abi.call(self._fd, abi.RUN, 0) < 0:
            self._run_again()
        if self._reasons[_REASON] != abi.EXIT_IO or self._ports[_PORT] != parked.DOOR:
            raise self._nobody(address)
        data = words[_RAX] & MASKS[size] if reads else 0
        return LAYOUT.pack(address, data, 1, size, port, 0, _ANSWERED | reads, type)

    def _owns(self, type: int, address: int, size: int) -> bool:
        return any(address in span and address + size <= span.stop for span in self._spans[type])

    def _run_again(self) -> None:
        """KVM_RUN has failed: go on where that was but an interruption."""
        try:
            if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
                raise KvmError(f"KVM_RUN failed: {os.strerror(ctypes.get_errno())}")
            while self.cpu.run() == INTERRUPTED:
                pass
        except KvmError as error:
            raise BridgeError(str(error)) from None

    def _nobody(self, address: int) -> BridgeError:
        name = abi.EXIT_NAMES.get(self._reasons[_REASON], "an exit that is not known")
        return BridgeError(f"nobody in the kernel answers {address:#x}: KVM ended with {name}")


class _Ioreq(ctypes.Structure):
    """struct ioreq of native/request.c, for its size and the address."""

    _fields_ = (("address", c_uint64), ("data", c_uint64), ("count", c_uint32), ("size", c_uint32), ("port", c_uint32),
                ("pad", c_uint16), ("bits", c_uint8), ("type", c_uint8))  # fmt: skip


class Lent(ctypes.Structure):
    """struct lent of native/request.c."""

    _fields_ = (("run", c_void_p), ("fd", c_int32), ("door", c_uint32), ("request", _Ioreq),
                ("entries", c_uint64 * 12), ("owned", c_uint64 * (2 * 2 * _RANGES)), ("made", c_uint64))  # fmt: skip
    made: int


class FastRequests(Requests):
    """See Requests. `library` has native/request.c. Raises BridgeError for more than 16 ranges of a kind."""

    def __init__(self, cpu: Vcpu, owned: Sequence[Owned], library: hop.Library) -> None:
        super().__init__(cpu, owned)
        lent = self.lent = Lent(ctypes.addressof(c_uint8.from_buffer(cpu.page)), cpu.fd, parked.DOOR)
        for n, size in enumerate((1, 2, 4)):
            for kind in (Type.PIO, Type.COPY):
                for reads in (False, True):
                    lent.entries[kind * 6 + reads * 3 + n] = parked.ENTRIES[kind, reads, size]
        for kind in (Type.PIO, Type.COPY):
            spans = [(o.first, o.last) for o in owned if o.type is kind]
            if len(spans) > _RANGES:
                raise BridgeError(f"{len(spans)} ranges of one kind are owned: there is room for {_RANGES}")
            spans += [(1, 0)] * (_RANGES - len(spans))
            for n, (first, last) in enumerate(spans):
                at = 2 * (kind * _RANGES + n)
                lent.owned[at], lent.owned[at + 1] = first, last
        at = ctypes.addressof(lent)
        self.make, self.bare = library.direct("request", at), library.direct("bare", at)

    @property
    def made(self) -> int:
        """See Requests."""
        return self.lent.made

    def exchange(self, raw: bytes) -> bytes | None:
        """See Requests."""
        came = self.make(raw)
        if isinstance(came, bytes):
            return came
        self.unanswered(came)
        return None

    def unanswered(self, came: int) -> None:
        """See Requests. It is what v2e_request of native/request.c says."""
        if came == NOBODY:
            raise self._nobody(self.lent.request.address)
        if came != UNUSUAL:
            raise BridgeError(f"KVM_RUN failed: {os.strerror(-came)}")


def make_requests(cpu: Vcpu, owned: Sequence[Owned]) -> Requests:
    """By the C library where there is one, and where it has the same layout."""
    library = hop.LIBRARY
    if library is None or library.lent_size != ctypes.sizeof(Lent):
        return Requests(cpu, owned)
    return FastRequests(cpu, owned, library)
