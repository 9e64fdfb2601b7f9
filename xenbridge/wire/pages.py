"""PAGE_DATA records of a migration stream: which frames a domain has, and where in the file each one's bytes are.

Source: Xen 4.17, docs/specs/libxc-migration-stream.pandoc, PAGE_DATA. A stream has as many of them as its domain needs,
and the least one has 24 bytes, so what each costs is kept small.
"""

from __future__ import annotations

from array import array
from typing import Final

from construct import Int32ul, Int64ul

from xenbridge.wire.errors import WireError
from xenbridge.wire.schema import Buffer, Layout

SOURCE = "Xen 4.17, docs/specs/libxc-migration-stream.pandoc, PAGE_DATA"
NAME: Final = "PAGE_DATA"
PAGE_SHIFT, PAGE = 12, 4096
#: The record's type.
PAGE_DATA: Final = 0x1

PAGE_DATA_HEADER = Layout(
    NAME,
    SOURCE + "; `count` pfn of 8 bytes (63:60 type, 51:0 frame) and the pages follow",
    "count" / Int32ul,
    "_res1" / Int32ul,
)
PFN = Layout("pfn", SOURCE, "pfn" / Int64ul)
PFN_BITS: Final = (1 << 52) - 1
#: Types of pages that have no data: broken, allocate only, invalid.
WITHOUT_DATA = frozenset((0xD, 0xE, 0xF))
UNKNOWN_TYPES = frozenset((0x5, 0x6, 0x7, 0x8))
#: The highest bytes of the frame numbers of those without data.
_DROPPED = frozenset(kind << 4 for kind in WITHOUT_DATA)
_LEAST_DROPPED: Final = min(WITHOUT_DATA) << 60
_RESERVED: Final = 0xFF << 52
#: Bytes of a file that are looked through at once for records without pages.
BLOCK: Final = 1 << 16


class RecordTable:
    """Types, and offsets and lengths of bodies in bytes, of a stream's records: 16 bytes each, where an object each
    would take more than the least record has in the file."""

    def __init__(self) -> None:
        self.types, self.offsets, self.lengths = array("I"), array("Q"), array("I")

    def add(self, type: int, offset: int, length: int) -> None:
        """Behind the others."""
        self.types.append(type)
        self.offsets.append(offset)
        self.lengths.append(length)


def add_pages(data: Buffer, offset: int, length: int, pages: dict[int, int]) -> None:
    """Take into `pages`, frame number to offset in the file, what the record's body of `length` bytes at `offset` says.
    Raises WireError."""
    end = offset + length
    first = offset + PAGE_DATA_HEADER.size
    if first > end:
        PAGE_DATA_HEADER.short(offset, length)
    count = int.from_bytes(data[offset : offset + 4], "little")
    if not count:  # libxc refuses it too: tools/libs/guest/xg_sr_restore.c, handle_page_data
        raise WireError(NAME, "count", offset, "0: a record of pages has at least one")
    if count * PFN.size > end - first:
        raise WireError(NAME, "count", offset, f"{count} frame numbers in {end - first} bytes")
    at = first + count * PFN.size
    if at == end and _drop_pages(memoryview(data[first:at]), pages):
        return
    numbers = memoryview(data[first:at]).cast("Q")
    for n, raw in enumerate(numbers):
        kind, frame = raw >> 60, raw & PFN_BITS
        if kind in UNKNOWN_TYPES or raw & _RESERVED:
            raise WireError(NAME, f"pfn[{n}]", first + n * PFN.size, f"{raw:#x}: no type of page that is known")
        if kind in WITHOUT_DATA:
            pages.pop(frame, None)
            continue
        if end - at < PAGE:
            raise WireError(NAME, f"page_data of pfn {frame:#x}", at, f"{end - at} bytes are left for a page")
        pages[frame] = at
        at += PAGE
    if at != end:
        raise WireError(NAME, "page_data", at, f"{end - at} bytes more than the pages have")


def _drop_pages(numbers: memoryview, pages: dict[int, int]) -> bool:
    """What a record without any page says, all at once: xl saves a million frames that have no data, up to those below
    4 GiB, and a look at each would take most of the time. False where one of them is of another type."""
    kinds = set(bytes(numbers[7::8]))
    if not kinds <= _DROPPED or max(bytes(numbers[6::8]), default=0) > 0xF:
        return False
    frames = bytearray(numbers)
    frames[7::8] = bytes(len(frames) // 8)
    named = memoryview(frames).cast("Q")
    if not pages.keys().isdisjoint(named):
        for frame in pages.keys() & set(named):
            del pages[frame]
    return True


def skip_empty(data: Buffer, at: int, records: RecordTable, pages: dict[int, int]) -> int:
    """Take in records without any page from `at` on, as many as follow one another, and return where the first one is
    that is something else, or is wrong in any way, or is longer than BLOCK.

    It is the same as `add_pages` of each. Millions of them may be in a file, of a single frame each, and reading each
    by itself takes ten times as long."""
    types, offsets, lengths = records.types.append, records.offsets.append, records.lengths.append
    drop = pages.pop
    while True:
        block = bytes(data[at : at + BLOCK])
        words = memoryview(block[: len(block) & ~7]).cast("Q").tolist()
        here, behind = 0, len(words) - 2
        while here < behind:
            head, count = words[here], words[here + 1] & 0xFFFFFFFF
            length = 8 + 8 * count
            if head != length << 32 | PAGE_DATA or not 0 < count <= behind - here:
                break
            if count == 1:
                raw = words[here + 2]
                if raw < _LEAST_DROPPED or raw & _RESERVED:
                    break
                drop(raw & PFN_BITS, None)
            else:
                for raw in words[here + 2 : here + 2 + count]:
                    if raw < _LEAST_DROPPED or raw & _RESERVED:
                        return at + 8 * here
                    drop(raw & PFN_BITS, None)
            types(PAGE_DATA)
            offsets(at + 8 * here + 8)
            lengths(length)
            here += 2 + count
        if not here:
            return at
        at += 8 * here
