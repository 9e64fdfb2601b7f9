"""The libxc migration stream, version 3: headers, then records, among them the pages and the HVM save context.

Source: Xen 4.17, docs/specs/libxc-migration-stream.pandoc, tools/libs/guest/xg_sr_stream_format.h. Nothing is copied
in parsing: what is kept of a record is where it is, and of a page the same, so memory goes with the file's own size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from construct import Array, Int8ul, Int16ub, Int16ul, Int32ub, Int32ul, Int64ub, Int64ul, Struct

from xenbridge.wire.errors import WireError
from xenbridge.wire.pages import (
    NAME,
    PAGE,
    PAGE_DATA,
    PAGE_DATA_HEADER,
    PAGE_SHIFT,
    RecordTable,
    add_pages,
    skip_empty,
)
from xenbridge.wire.schema import Buffer, Layout, Values

SOURCE = "Xen 4.17, docs/specs/libxc-migration-stream.pandoc"
MARKER, IDENT = (1 << 64) - 1, 0x58454E46
VERSION = 3
HVM_DOMAIN = 2

IMAGE_HEADER = Layout(
    "image header",
    SOURCE + ", Image Header",
    "marker" / Int64ub * "all ones",
    "id" / Int32ub * "XENF",
    "version" / Int32ub * "3",
    "options" / Int16ub * "bit 0: big-endian",
    "_res1" / Int16ub,
    "_res2" / Int32ub,
)
DOMAIN_HEADER = Layout(
    "domain header",
    SOURCE + ", Domain Header",
    "type" / Int32ul * "1 PV, 2 HVM",
    "page_shift" / Int16ul * "12",
    "_res1" / Int16ul,
    "xen_major" / Int32ul,
    "xen_minor" / Int32ul,
)
RECORD_HEADER = Layout(
    "record header",
    SOURCE + ", Records",
    "type" / Int32ul * "bit 31: may be ignored by who does not know it",
    "length" / Int32ul * "of the body, in bytes; padding to a multiple of 8 follows",
)
TSC_INFO = Layout(
    "X86_TSC_INFO",
    SOURCE + ", X86_TSC_INFO",
    "mode" / Int32ul,
    "khz" / Int32ul,
    "nsec" / Int64ul,
    "incarnation" / Int32ul,
    "_res1" / Int32ul,
)
PARAMS_HEADER = Layout(
    "HVM_PARAMS", SOURCE + ", HVM_PARAMS; `count` entries follow", "count" / Int32ul, "_res1" / Int32ul
)
PARAM = Layout(
    "HVM_PARAMS entry",
    SOURCE + ", HVM_PARAMS; numbers in xen/include/public/hvm/params.h",
    "index" / Int64ul,
    "value" / Int64ul,
)
CPUID_LEAF = Layout(
    "X86_CPUID_POLICY entry",
    "Xen 4.17, xen/include/public/arch-x86/xen.h, xen_cpuid_leaf_t",
    *(name / Int32ul for name in ("leaf", "subleaf", "eax", "ebx", "ecx", "edx")),
)
MSR_ENTRY = Layout(
    "X86_MSR_POLICY entry",
    "Xen 4.17, xen/include/public/arch-x86/xen.h, xen_msr_entry_t",
    "idx" / Int32ul,
    "flags" / Int32ul,
    "val" / Int64ul,
)
UART = Struct(
    "ier" / Int8ul, "fcr" / Int8ul, "lcr" / Int8ul, "mcr" / Int8ul, "scr" / Int8ul, "_pad" / Int8ul, "divisor" / Int16ul
)
V2E_LAYOUT = Layout(
    "V2E",
    "v2e; an optional record, which Xen ignores, of what its own records have no place for",
    "version" / Int32ul * "1",
    "flags"
    / Int32ul
    * "of vCPU 0: 0 halted, 1 RIP was set back to the HLT, 2 interrupt shadow, 3 NMIs blocked, 4 NMI waits",
    "lapic_tick" / Int32ul * "ns a count of the local APIC's timer; 10 in Xen",
    "_res1" / Int32ul,
    "uarts" / Array(2, UART) * "COM1 and COM2",
)
END, TSC, HVM_CONTEXT, HVM_PARAMS = 0x0, 0x8, 0x9, 0xA
VERIFY, CHECKPOINT, STATIC_DATA_END, CPUID_POLICY, MSR_POLICY = 0xD, 0xE, 0x10, 0x11, 0x12
NAMES = {
    END: "END", PAGE_DATA: NAME, 0x2: "X86_PV_INFO", 0x3: "X86_PV_P2M_FRAMES", 0x4: "X86_PV_VCPU_BASIC",
    0x5: "X86_PV_VCPU_EXTENDED", 0x6: "X86_PV_VCPU_XSAVE", 0x7: "SHARED_INFO", TSC: "X86_TSC_INFO",
    HVM_CONTEXT: "HVM_CONTEXT", HVM_PARAMS: "HVM_PARAMS", 0xB: "TOOLSTACK", 0xC: "X86_PV_VCPU_MSRS",
    VERIFY: "VERIFY", CHECKPOINT: "CHECKPOINT", 0xF: "CHECKPOINT_DIRTY_PFN_LIST",
    STATIC_DATA_END: "STATIC_DATA_END", CPUID_POLICY: "X86_CPUID_POLICY", MSR_POLICY: "X86_MSR_POLICY",
}  # fmt: skip
OPTIONAL = 1 << 31
V2E = OPTIONAL | 0x763265
#: Pages a PAGE_DATA record has at most when libxc writes it (MAX_BATCH_SIZE).
BATCH = 1024
#: Bytes of a record's body at most, as libxc has it (xg_sr_stream_format.h, REC_LENGTH_MAX).
MAX_LENGTH = 128 << 20
#: What a stream, or libxl's around it, may have of records without pages: one that Xen saves has about ten, whatever
#: its vCPUs are, and a file of empty ones would cost a hundred times its size in memory.
MAX_RECORDS = 1 << 16
#: Entries of a record that is a list: Xen has about 40 HVM parameters and some hundred leaves of CPUID.
MAX_ENTRIES = 1 << 12
#: RECORD_HEADER, and libxl's of the same form, without a schema's cost: a large stream has many.
_HEAD = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """`offset` is that of the body in the file, `length` without the padding."""

    type: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        return NAMES.get(self.type, "V2E" if self.type == V2E else f"type {self.type:#x}")

    @property
    def padded(self) -> int:
        """Bytes of the body and the padding behind it."""
        return -(-self.length // 8) * 8

    def body(self, data: Buffer) -> bytes:
        return bytes(data[self.offset : self.offset + self.length])

    def rebuilt(self, data: Buffer) -> bytes:
        """Header, body and padding. Writers pad with zeros, but no reader of Xen's looks (xg_sr_common.c, read_record;
        libxl_stream_read.c), so what is there is no error, and is kept."""
        return _HEAD.pack(self.type, self.length) + bytes(data[self.offset : self.offset + self.padded])


class Records(Sequence[StreamRecord]):
    """A stream's records, which become objects when they are asked for."""

    def __init__(self) -> None:
        self.table = RecordTable()
        self._last: dict[int, int] = {}  #: type to the index of the last one that was added by `append`

    def append(self, record: StreamRecord) -> None:
        """Behind the others."""
        self._last[record.type] = len(self)
        self.table.add(record.type, record.offset, record.length)

    def find(self, type: int) -> StreamRecord | None:
        """The last record of that type; of pages, the last that was not found among many without any."""
        at = self._last.get(type)
        return None if at is None else self[at]

    def __len__(self) -> int:
        return len(self.table.types)

    @overload
    def __getitem__(self, index: int) -> StreamRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StreamRecord]: ...
    def __getitem__(self, index: int | slice) -> StreamRecord | Sequence[StreamRecord]:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        return StreamRecord(self.table.types[index], self.table.offsets[index], self.table.lengths[index])


@dataclass
class Stream:
    """What a stream says, in the order in which it says it. `pages`: frame number to offset in the file."""

    image: Values
    domain: Values
    records: Records = field(default_factory=Records)
    pages: dict[int, int] = field(default_factory=dict)
    end: int = 0  #: behind the END record

    def find(self, type: int) -> StreamRecord | None:
        """The last record of that type, which is not PAGE_DATA."""
        return self.records.find(type)


def parse_stream(data: Buffer, start: int = 0) -> Stream:
    """The stream that begins at `start`; what is behind its END is not looked at. Raises WireError."""
    image = IMAGE_HEADER.parse(data, start)
    for name, value, known in (("marker", image["marker"], MARKER), ("id", image["id"], IDENT)):
        if value != known:
            raise WireError(IMAGE_HEADER.name, name, start + (8 if name == "id" else 0), f"{value:#x}, not {known:#x}")
    if image["version"] != VERSION:
        age = "a newer" if image["version"] > VERSION else "an older"
        raise WireError(IMAGE_HEADER.name, "version", start + 12, f"{image['version']}: only version {VERSION} is "
                        f"known, so {age} Xen saved it")  # fmt: skip
    if image["options"] & 1:
        raise WireError(IMAGE_HEADER.name, "options", start + 16, "a big-endian stream, which no PC writes")
    at = start + IMAGE_HEADER.size
    domain = DOMAIN_HEADER.parse(data, at)
    if domain["type"] != HVM_DOMAIN:
        raise WireError(DOMAIN_HEADER.name, "type", at, f"{domain['type']}: only HVM domains (2) are known")
    if domain["page_shift"] != PAGE_SHIFT:
        raise WireError(DOMAIN_HEADER.name, "page_shift", at + 4, f"{domain['page_shift']}: pages have 4 KiB (12)")
    stream = Stream(image, domain)
    at += DOMAIN_HEADER.size
    others, type = 0, -1
    while type != END:
        if at >= len(data):
            raise WireError(NAMES[END], "", at, "it is missing")
        record = _record(data, at)
        type = record.type
        stream.records.append(record)
        at = record.offset + record.padded
        if type != PAGE_DATA:
            others += 1
            check_count(record.name, others, record.offset - _HEAD.size)
            continue
        add_pages(data, record.offset, record.length, stream.pages)
        if record.length < PAGE:
            at = skip_empty(data, at, stream.records.table, stream.pages)
    stream.end = at
    return stream


def parse_head(layout: Layout, data: Buffer, at: int) -> StreamRecord:
    """The record whose head, of type and length, is at `at`; `layout` is the head's. Raises WireError where the data
    end within it; the body is not looked at."""
    head = bytes(data[at : at + _HEAD.size])
    if len(head) < _HEAD.size:
        layout.short(at, len(head))
    type, length = _HEAD.unpack(head)
    return StreamRecord(type, at + _HEAD.size, length)


def check_count(name: str, count: int, at: int) -> None:
    """Raises WireError where the record at `at` is one more without pages than any stream has."""
    if count > MAX_RECORDS:
        raise WireError(name, "", at, f"more than {MAX_RECORDS} records without pages, where a domain has about ten")


def _record(data: Buffer, at: int) -> StreamRecord:
    record = parse_head(RECORD_HEADER, data, at)
    if record.length > MAX_LENGTH:
        raise WireError(record.name, "length", at + 4, f"{record.length} bytes, where libxc takes {MAX_LENGTH} at most")
    if record.padded > len(data) - record.offset:
        left = len(data) - record.offset
        raise WireError(record.name, "length", at + 4, f"{record.length} bytes with padding, of which {left} are there")
    if record.type not in NAMES and not record.type & OPTIONAL:
        raise WireError(record.name, "type", at, "a record that must be understood and is not: a newer Xen saved it")
    if record.type in (END, STATIC_DATA_END) and record.length:
        raise WireError(record.name, "length", at + 4, f"{record.length} bytes, where there are none")
    return record


def parse_list(name: str, header: Layout | None, entry: Layout, data: Buffer, record: StreamRecord) -> list[Values]:
    """The entries of a record that is a list, with a count before them where it has a `header`. Raises WireError."""
    at, end = record.offset, record.offset + record.length
    if header is not None:
        count = header.parse(data, at, end)["count"]
        at += header.size
        if count * entry.size != end - at:
            raise WireError(name, "count", record.offset, f"{count} entries of {entry.size} bytes in {end - at} bytes")
    elif (end - at) % entry.size:
        raise WireError(
            name, "length", record.offset - 4, f"{end - at} bytes are no whole number of entries of {entry.size}"
        )
    if (count := (end - at) // entry.size) > MAX_ENTRIES:
        raise WireError(name, "length", record.offset - 4, f"{count} entries, of which {MAX_ENTRIES} are more than any "
                        "Xen has")  # fmt: skip
    return [entry.parse(data, place) for place in range(at, end, entry.size)]


def params(data: Buffer, stream: Stream) -> dict[int, int]:
    """The HVM parameters, by number. Raises WireError."""
    record = stream.find(HVM_PARAMS)
    if record is None:
        return {}
    entries = parse_list("HVM_PARAMS", PARAMS_HEADER, PARAM, data, record)
    return {entry["index"]: entry["value"] for entry in entries}


def ours(data: Buffer, stream: Stream) -> Values | None:
    """What v2e adds; None in a stream that is not v2e's, or of a version that is not known. Raises WireError."""
    record = stream.find(V2E)
    if record is None:
        return None
    values = V2E_LAYOUT.parse(data, record.offset, record.offset + record.length)
    return values if values["version"] == 1 else None


def build_params(values: dict[int, int]) -> bytes:
    """The body of an HVM_PARAMS record."""
    entries = b"".join(PARAM.build({"index": index, "value": value}) for index, value in values.items())
    return PARAMS_HEADER.build({"count": len(values), "_res1": 0}) + entries


def build_record(type: int, body: bytes = b"") -> bytes:
    """A record with its header and padding."""
    return RECORD_HEADER.build({"type": type, "length": len(body)}) + body + bytes(-len(body) % 8)


def build_headers(xen_major: int, xen_minor: int) -> bytes:
    """Both headers of an HVM domain's stream."""
    image = {"marker": MARKER, "id": IDENT, "version": VERSION, "options": 0, "_res1": 0, "_res2": 0}
    domain = {
        "type": HVM_DOMAIN, "page_shift": PAGE_SHIFT, "_res1": 0, "xen_major": xen_major, "xen_minor": xen_minor,
    }  # fmt: skip
    return IMAGE_HEADER.build(image) + DOMAIN_HEADER.build(domain)


def build_pages(pages: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """PAGE_DATA records of (frame, 4096 bytes), each of as many as libxc puts in one."""
    batch: list[tuple[int, bytes]] = []

    def record() -> bytes:
        head = PAGE_DATA_HEADER.build({"count": len(batch), "_res1": 0})
        numbers = b"".join(frame.to_bytes(8, "little") for frame, _ in batch)
        return build_record(PAGE_DATA, head + numbers + b"".join(page for _, page in batch))

    for entry in pages:
        batch.append(entry)
        if len(batch) == BATCH:
            yield record()
            batch.clear()
    if batch:
        yield record()


def rebuild(data: Buffer, stream: Stream, write: Callable[[bytes], object]) -> None:
    """Write `stream`, which was parsed from `data`, again, record by record."""
    write(IMAGE_HEADER.build(stream.image) + DOMAIN_HEADER.build(stream.domain))
    for record in stream.records:
        write(record.rebuilt(data))
