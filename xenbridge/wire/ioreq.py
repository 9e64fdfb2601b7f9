"""The pages by which a hypervisor hands accesses to a device model: one request a vCPU, and a ring of small writes.

Source: Xen 4.17, xen/include/public/hvm/ioreq.h. Hot paths read the same bytes with `struct`.
"""

from __future__ import annotations

from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from xenbridge.wire.errors import WireError
from xenbridge.wire.schema import Buffer, Layout, Values

SOURCE = "Xen 4.17, xen/include/public/hvm/ioreq.h"
PAGE = 4096
PIO, COPY, PCI_CONFIG, TIMEOFFSET, INVALIDATE = 0, 1, 2, 7, 8
NONE, READY, IN_PROCESS, RESPONSE_READY = range(4)
STATE, POINTER, READ, DOWN = 0x0F, 0x10, 0x20, 0x40  #: of `bits`
BUFFERED_SLOTS = 511

IOREQ = Layout(
    "ioreq",
    SOURCE + ", struct ioreq",
    "addr" / Int64ul * "port or physical address",
    "data" / Int64ul * "the value, or where in guest memory the values are",
    "count" / Int32ul * "repetitions",
    "size" / Int32ul * "of one access, in bytes",
    "vp_eport" / Int32ul * "event channel of the vCPU",
    "_pad0" / Int16ul,
    "bits" / Int8ul * "3:0 state (1 ready, 2 in process, 3 answered), 4 data is a pointer, 5 read, 6 downwards",
    "type" / Int8ul * "0 PIO, 1 MMIO, 2 PCI configuration, 7 time offset, 8 invalidate",
)
IOREQ_PAGE = Layout(
    "shared iopage", SOURCE + ", struct shared_iopage", "vcpu_ioreq" / Array(PAGE // IOREQ.size, Bytes(IOREQ.size))
)
BUFFERED = Layout(
    "buf_ioreq",
    SOURCE + ", struct buf_ioreq",
    "bits" / Int32ul * "7:0 type, 9 read, 11:10 log2 of the size, 31:12 address",
    "data" / Int32ul,
)
BUFFERED_PAGE = Layout(
    "buffered iopage",
    SOURCE + ", struct buffered_iopage",
    "read_pointer" / Int32ul,
    "write_pointer" / Int32ul,
    "buf_ioreq" / Array(BUFFERED_SLOTS, Bytes(BUFFERED.size)),
)


def parse_buffered(data: Buffer, at: int = 0) -> Values:
    """One entry of the ring taken apart: type, dir, size in bytes, addr, data."""
    raw = BUFFERED.parse(data, at)
    bits = raw["bits"]
    return {
        "type": bits & 0xFF, "pad": bits >> 8 & 1, "dir": bits >> 9 & 1, "size": 1 << (bits >> 10 & 3),
        "addr": bits >> 12, "data": raw["data"],
    }  # fmt: skip


def build_buffered(values: Values) -> bytes:
    """Raises WireError for a size that is not 1, 2, 4 or 8, or an address beyond 20 bits."""
    if values["size"] not in (1, 2, 4, 8):
        raise WireError(BUFFERED.name, "size", 0, f"{values['size']}: 1, 2, 4 or 8 bytes are possible")
    if values["addr"] >> 20:
        raise WireError(BUFFERED.name, "addr", 0, f"{values['addr']:#x} has more than 20 bits")
    log = values["size"].bit_length() - 1
    bits = values["type"] | values.get("pad", 0) << 8 | values["dir"] << 9 | log << 10 | values["addr"] << 12
    return BUFFERED.build({"bits": bits, "data": values["data"]})


def pending(page: Buffer) -> list[Values]:
    """What is written to the ring and not yet read, oldest first; an entry of 8 bytes takes two slots, and its upper
    half is joined to `data`. Raises WireError when the pointers are more than the ring apart, or an entry is cut."""
    ring = BUFFERED_PAGE.parse(page)
    first, last = ring["read_pointer"], ring["write_pointer"]
    count = last - first & 0xFFFFFFFF
    if count > BUFFERED_SLOTS:
        raise WireError(BUFFERED_PAGE.name, "write_pointer", 4, f"{count} entries are said to wait, of "
                        f"{BUFFERED_SLOTS} that there are")  # fmt: skip
    found: list[Values] = []
    at = 0
    while at < count:
        entry = parse_buffered(ring["buf_ioreq"][(first + at) % BUFFERED_SLOTS])
        at += 1
        if entry["size"] == 8:
            if at == count:
                raise WireError(BUFFERED_PAGE.name, "buf_ioreq", 8, "the second half of a write of 8 bytes is missing")
            entry["data"] |= parse_buffered(ring["buf_ioreq"][(first + at) % BUFFERED_SLOTS])["data"] << 32
            at += 1
        found.append(entry)
    return found
