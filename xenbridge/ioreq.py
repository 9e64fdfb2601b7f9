"""Xen's I/O request, the form in which accesses travel between hypervisor and device model, by struct.

Source: Xen 4.17, xen/include/public/hvm/ioreq.h (struct ioreq, 32 bytes, little-endian).
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

#: addr, data, count, size, vp_eport, pad, then the bit fields and the type.
LAYOUT: Final = struct.Struct("<QQIIIHBB")
SIZE: Final = LAYOUT.size
DATA_OFFSET: Final = 8
PORT_OFFSET: Final = 24  #: vp_eport, the event channel of the vCPU
STATE_OFFSET: Final = 30  #: the byte whose low four bits are the state
INDIRECT, READS = 0x10, 0x20  #: others of its bits


class State(enum.IntEnum):
    """Who is to act on a request (STATE_IOREQ_*, STATE_IORESP_READY)."""

    NONE = 0
    READY = 1  #: the device model
    IN_PROCESS = 2
    ANSWERED = 3  #: the hypervisor


class Type(enum.IntEnum):
    """What is accessed (IOREQ_TYPE_*)."""

    PIO = 0
    COPY = 1  #: memory-mapped
    PCI_CONFIG = 2
    TIMEOFFSET = 7  #: the guest has set its clock
    INVALIDATE = 8  #: drop what is mapped of the guest's memory


class IoreqError(Exception):
    """One sentence: a request that cannot be one."""


@dataclass(frozen=True, slots=True)
class Ioreq:
    """An access of `count` elements of `size` bytes each (1, 2, 4 or 8).

    `address` is a port or a physical address. `data` is the value, or with `indirect` the physical address of the
    elements in the guest's memory, which follow each other downwards where `down` is set. `reads`: the guest reads.
    """

    type: Type
    address: int
    size: int
    reads: bool
    data: int = 0
    count: int = 1
    indirect: bool = False
    down: bool = False
    state: State = State.READY
    port: int = 0  #: of the vCPU's event channel

    def pack(self) -> bytes:
        """The 32 bytes."""
        bits = self.state | self.indirect << 4 | self.reads << 5 | self.down << 6
        return LAYOUT.pack(self.address, self.data, self.count, self.size, self.port, 0, bits, self.type)

    @property
    def mask(self) -> int:
        """All bits of an element."""
        return (1 << 8 * self.size) - 1


def unpack(raw: bytes | memoryview, offset: int = 0) -> Ioreq:
    """The request at `offset`. Raises IoreqError for fewer bytes than one has, a type or a state that there is none of,
    or a size that no access has."""
    if len(raw) - offset < SIZE:
        raise IoreqError(f"an I/O request has {SIZE} bytes, and {max(len(raw) - offset, 0)} are there")
    address, data, count, size, port, _, bits, kind = LAYOUT.unpack_from(raw, offset)
    try:
        state, type = State(bits & 15), Type(kind)
    except ValueError as error:
        raise IoreqError(f"an I/O request at offset {offset:#x} is none: {error}") from None
    if size not in (1, 2, 4, 8) and type in (Type.PIO, Type.COPY):
        raise IoreqError(f"an I/O request at offset {offset:#x} is for {size} bytes: 1, 2, 4 or 8 are possible")
    return Ioreq(
        type, address, size, bool(bits & READS), data, count, bool(bits & INDIRECT), bool(bits & 0x40), state, port
    )


def read(type: Type, address: int, size: int) -> Ioreq:
    """A request that reads one element."""
    return Ioreq(type, address, size, True)


def write(type: Type, address: int, size: int, value: int) -> Ioreq:
    """A request that writes one element."""
    return Ioreq(type, address, size, False, value)
