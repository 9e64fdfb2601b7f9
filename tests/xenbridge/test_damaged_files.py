"""What each of many damaged files is said to be: record, field and offset, and the reason in words."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

import pytest

from xen_samples import sample
from xenbridge.wire import core, hvm, stream
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import parse_file

CONTEXT, STREAM, CORE = (sample(name) for name in ("s_hvmctx.bin", "s_stream.bin", "s_dump.core"))


def put(data: bytes, at: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return data[:at] + packed + data[at + len(packed) :]


def context(change: Callable[[hvm.Record], Iterable[hvm.Record]]) -> bytes:
    return hvm.build_context(new for record in hvm.parse_context(CONTEXT) for new in change(record))


def renumbered(*names: str, to: int) -> bytes:
    return context(lambda r: [hvm.Record(r.code, to, r.data) if r.name in names else r])


def pages(change: Callable[[list[int], list[bytes]], tuple[list[int], list[bytes]]]) -> bytes:
    """The stream with other frame numbers, types among them, and other pages."""
    out = stream.build_headers(4, 17)
    for record in stream.parse_stream(STREAM).records:
        body = record.body(STREAM)
        if record.type == stream.PAGE_DATA:
            count = int.from_bytes(body[:4], "little")
            numbers, first = list(struct.unpack_from(f"<{count}Q", body, 8)), 8 + 8 * count
            numbers, found = change(numbers, [body[at : at + 4096] for at in range(first, len(body), 4096)])
            body = struct.pack(f"<II{len(numbers)}Q", len(numbers), 0, *numbers) + b"".join(found)
        out += stream.build_record(record.type, body)
    return out


def typed(kind: int, *, data: bool) -> bytes:
    """Frame 0 of another type, with its page or without."""
    return pages(lambda numbers, found: ([numbers[0] | kind << 60, *numbers[1:]], found if data else found[1:]))


def section(name: str, at: int, form: str, value: int) -> bytes:
    """The core with a field of the section's header changed."""
    parsed = core.parse_core(CORE)
    number = [section.name for section in parsed.sections].index(name)
    return put(CORE, parsed.header["e_shoff"] + number * core.SECTION.size + at, form, value)


HVM_CONTEXT = stream.parse_stream(STREAM).find(stream.HVM_CONTEXT)
assert HVM_CONTEXT is not None
CPU = next(record for record in hvm.parse_context(CONTEXT) if record.name == "CPU")
DAMAGED = {
    "a length of 2**32 - 1": (put(STREAM, HVM_CONTEXT.offset - 4, "<I", 0xFFFFFFFF),
                              "HVM_CONTEXT, length at offset 0x865c: 4294967295 bytes, where libxc takes 134217728 at"),
    "a record's length of 2**32 - 8": (put(CONTEXT, CPU.offset - 4, "<I", 0xFFFFFFF8),
                                       "CPU, length at offset 0x24: 4294967288 bytes, of which 4072 are there"),
    "two local APICs": (context(lambda r: [r, r] if r.name == "LAPIC" else [r]),
                        "LAPIC, instance at offset 0x60a: 0: it has a record already"),
    "no END": (CONTEXT[:-8], "END at offset 0x1008: it is missing"),
    "half an END": (STREAM[:-4], "record header, length at offset 0x9674: the data end within it"),
    "a newer header": (put(CONTEXT, 12, "<I", 2), "HEADER, version at offset 0xc: 2: only version 1 is known"),
    "an older stream": (put(STREAM, 12, ">I", 2), "image header, version at offset 0xc: 2: only version 3 is known, so "
                                                  "an older Xen saved it"),
    "vCPU 200 alone": (renumbered("CPU", "LAPIC", to=200), "file, vCPU 0 at offset 0x0: it was offline; the file has "
                                                           "200"),
    "a page of no type": (typed(8, data=True), "PAGE_DATA, pfn[0] at offset 0x5f8: 0x8000000000000000: no type"),
    "a broken page with data": (typed(13, data=True), "PAGE_DATA, page_data at offset 0x7638: 4096 bytes more than the "
                                                      "pages have"),
    "a page without data": (typed(0, data=False), "PAGE_DATA, page_data"),
    "a 32-bit core": (put(CORE, 4, "<B", 1), "ELF header, e_ident at offset 0x0: not a little-endian ELF64 file"),
    "a core of no section": (put(CORE, 60, "<H", 0), "ELF header, e_shstrndx at offset 0x3e: there is no section 1"),
    "notes over the vCPU": (section(".note.Xen", 24, "<Q", 1832), "section header, sh_offset of section 3 at offset "
                                                                  "0x118: .note.Xen and .xen_prstatus overlap"),
    "a note of 4 GiB": (put(CORE, 0x1C4, "<I", 0xFFFFFFF0), "note, descsz at offset 0x1c4: 4294967280 bytes are"),
    "no notes": (section(".note.Xen", 4, "<I", 0), "section headers at offset 0x0: there is no section .note.Xen"),
    "nothing": (b"", "file at offset 0x0: it is empty"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_wrong_is_said(damage: str) -> None:
    data, said = DAMAGED[damage]
    with pytest.raises(WireError, match=f"^{re.escape(said)}"):
        parse_file(data)


def test_what_libxc_takes_is_taken() -> None:
    """Frames in any order, and more than once, where the last counts; page tables' types; broken pages have no data."""
    backwards = parse_file(pages(lambda numbers, found: (numbers[::-1], found[::-1])))
    whole = parse_file(STREAM)
    assert [backwards.read_physical(frame << 12, 4096) for frame in range(8)] == [
        whole.read_physical(frame << 12, 4096) for frame in range(8)
    ]
    again = parse_file(pages(lambda numbers, found: ([*numbers, 7], [*found, b"\xab" * 4096])))
    assert again.read_physical(7 << 12, 4096) == b"\xab" * 4096
    assert parse_file(typed(1, data=True)).read_physical(0, 16) == whole.read_physical(0, 16)
    assert sorted(parse_file(typed(13, data=False)).pages) == list(range(1, 8))
