"""What `xl save` puts around a libxc stream: a header with the domain's configuration, and libxl's own stream.

Source: Xen 4.17, tools/xl/xl.h (struct save_file_header), docs/specs/libxl-migration-stream.pandoc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from construct import Bytes, Int32ub, Int32ul, Int64ub

from xenbridge.wire.errors import WireError
from xenbridge.wire.schema import Buffer, Layout, Values
from xenbridge.wire.stream import Stream, StreamRecord, check_count, parse_head, parse_stream
from xenbridge.wire.stream import rebuild as rebuild_stream

MAGIC = b"Xen saved domain, xl format\n \0 \r"
BYTE_ORDER = 0x01020304
JSON, STREAM_V2 = 1, 2  #: mandatory flags
LIBXL_IDENT, LIBXL_VERSION = 0x4C6962786C466D74, 2

XL_HEADER = Layout(
    "xl header",
    "Xen 4.17, tools/xl/xl.h, struct save_file_header; `optional_data_len` bytes follow",
    "magic" / Bytes(32),
    "byteorder" / Int32ul * "01020304h",
    "mandatory_flags" / Int32ul * "0 the configuration is JSON, 1 a libxl stream follows",
    "optional_flags" / Int32ul,
    "optional_data_len" / Int32ul * "u32 length of the configuration, then that",
)
LIBXL_HEADER = Layout(
    "libxl header",
    "Xen 4.17, docs/specs/libxl-migration-stream.pandoc, Header",
    "ident" / Int64ub * "LibxlFmt",
    "version" / Int32ub * "2",
    "options" / Int32ub * "bit 0: big-endian, bit 1: converted from the legacy format",
)
LIBXL_RECORD = Layout(
    "libxl record header",
    "Xen 4.17, docs/specs/libxl-migration-stream.pandoc, Record Overview",
    "type" / Int32ul * "bit 31: may be ignored by who does not know it",
    "length" / Int32ul * "of the body, in bytes; padding to a multiple of 8 follows",
)
EMULATOR_HEADER = Layout(
    "emulator record",
    "Xen 4.17, docs/specs/libxl-migration-stream.pandoc, Emulator Records; the emulator's own data follow",
    "id" / Int32ul * "1 QEMU traditional, 2 QEMU upstream",
    "index" / Int32ul,
)
END, LIBXC_CONTEXT, EMULATOR_XENSTORE, EMULATOR_CONTEXT = range(4)
NAMES = {
    END: "END", LIBXC_CONTEXT: "LIBXC_CONTEXT", EMULATOR_XENSTORE: "EMULATOR_XENSTORE_DATA",
    EMULATOR_CONTEXT: "EMULATOR_CONTEXT", 4: "CHECKPOINT_END", 5: "CHECKPOINT_STATE",
}  # fmt: skip
OPTIONAL = 1 << 31


@dataclass
class XlFile:
    """`config` as it stands in the header; `stream` the libxc stream; `records` libxl's, bodies by their offset."""

    header: Values
    config: bytes
    libxl: Values
    stream: Stream
    records: list[StreamRecord] = field(default_factory=list)


def is_xl(data: Buffer) -> bool:
    """True for a file that begins as `xl save` writes it."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def parse_xl(data: Buffer) -> XlFile:
    """Raises WireError."""
    header = XL_HEADER.parse(data)
    if header["magic"] != MAGIC:
        raise WireError(XL_HEADER.name, "magic", 0, "not that of a domain saved by xl")
    if header["byteorder"] != BYTE_ORDER:
        raise WireError(XL_HEADER.name, "byteorder", 32, f"{header['byteorder']:#x}: another byte order than a PC's")
    if header["mandatory_flags"] & ~(JSON | STREAM_V2) or not header["mandatory_flags"] & STREAM_V2:
        raise WireError(XL_HEADER.name, "mandatory_flags", 36, f"{header['mandatory_flags']:#x}: only a libxl stream "
                        "with a configuration in either form is known")  # fmt: skip
    at = XL_HEADER.size
    length = header["optional_data_len"]
    if length > len(data) - at:
        raise WireError(XL_HEADER.name, "optional_data_len", 44, f"{length} bytes, of which {len(data) - at} are there")
    optional = bytes(data[at : at + length])
    at += length
    libxl = LIBXL_HEADER.parse(data, at)
    if libxl["ident"] != LIBXL_IDENT:
        raise WireError(LIBXL_HEADER.name, "ident", at, f"{libxl['ident']:#x}, not {LIBXL_IDENT:#x}")
    if libxl["version"] != LIBXL_VERSION:
        raise WireError(LIBXL_HEADER.name, "version", at + 8, f"{libxl['version']}: only version {LIBXL_VERSION} is "
                        "known")  # fmt: skip
    if libxl["options"]:
        raise WireError(LIBXL_HEADER.name, "options", at + 12, f"{libxl['options']:#x}: none is known")
    at += LIBXL_HEADER.size
    stream: Stream | None = None
    records: list[StreamRecord] = []
    while not records or records[-1].type != END:
        record = parse_head(LIBXL_RECORD, data, at)
        name = NAMES.get(record.type, f"libxl type {record.type:#x}")
        check_count(name, len(records) + 1, at)
        if record.padded > len(data) - record.offset:
            left = len(data) - record.offset
            raise WireError(name, "length", at + 4, f"{record.length} bytes with padding, of which {left} are there")
        if record.type not in NAMES and not record.type & OPTIONAL:
            raise WireError(name, "type", at, "a record that must be understood and is not: a newer Xen saved it")
        records.append(record)
        at = record.offset + record.padded
        if record.type == LIBXC_CONTEXT:
            stream = parse_stream(data, at)
            at = stream.end
    if stream is None:
        raise WireError("libxl stream", "", at, "it has no LIBXC_CONTEXT")
    if at != len(data):
        raise WireError("libxl stream", "END", at, f"{len(data) - at} bytes follow it")
    return XlFile(header, optional, libxl, stream, records)


def rebuild(data: Buffer, file: XlFile, write: Callable[[bytes], object]) -> None:
    """Write `file`, which was parsed from `data`, again, record by record."""
    write(XL_HEADER.build(file.header) + file.config + LIBXL_HEADER.build(file.libxl))
    for record in file.records:
        write(record.rebuilt(data))
        if record.type == LIBXC_CONTEXT:
            rebuild_stream(data, file.stream, write)


def build_xl(config: bytes, libxc: bytes, emulators: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A file as `xl save` writes it: `config` is JSON, `libxc` a whole stream, `emulators` (type, body) of libxl's
    records behind it."""
    optional = len(config).to_bytes(4, "little") + config
    header = {
        "magic": MAGIC, "byteorder": BYTE_ORDER, "mandatory_flags": JSON | STREAM_V2, "optional_flags": 0,
        "optional_data_len": len(optional),
    }  # fmt: skip
    out = bytearray(XL_HEADER.build(header) + optional)
    out += LIBXL_HEADER.build({"ident": LIBXL_IDENT, "version": LIBXL_VERSION, "options": 0})
    out += LIBXL_RECORD.build({"type": LIBXC_CONTEXT, "length": 0}) + libxc
    for type, body in (*emulators, (END, b"")):
        out += LIBXL_RECORD.build({"type": type, "length": len(body)}) + body + bytes(-len(body) % 8)
    return bytes(out)
