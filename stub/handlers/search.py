"""qSearch, qCRC: memory looked through here instead of being sent over."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from stub import messages
from stub.handlers.base import Answer, Context, Handler
from stub.target import HasMemory, TargetError

#: The most that one packet may look through, in bytes, since the guest and every other client wait for it.
MAX_LENGTH = 1 << 28
#: Bytes read at a time.
PIECE = 1 << 16
_PAGE = 0x1000
#: Each byte's bits in reverse.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _bounded(length: int) -> None:
    if length > MAX_LENGTH:
        raise TargetError(f"{length:#x} bytes are too many for one packet: ask for {MAX_LENGTH:#x} at most")


def _pieces(read: Callable[[int, int], bytes], address: int, length: int) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of all that can be read, in order."""
    at, end = address, address + length
    while at < end:
        want = min(PIECE, end - at)
        try:
            data = read(at, want)
        except TargetError:
            data = b""
        if data:
            yield at, data
        at += len(data)
        if len(data) < want:
            at = (at | _PAGE - 1) + 1  # memory begins and ends with pages


def search_memory(context: Context, message: messages.SearchMemory) -> Answer:
    """`1,address` or `0`. Where nothing can be read nothing is found, and the search goes on behind it."""
    assert context.read is not None
    pattern = message.pattern
    if not pattern:
        raise TargetError("there is no pattern to search for")
    _bounded(message.length)
    tail, end = b"", message.address
    for at, data in _pieces(context.read, message.address, message.length):
        if at != end:
            tail = b""
        text = tail + data
        if (found := text.find(pattern)) >= 0:
            return b"1,%x" % (at - len(tail) + found)
        tail, end = text[len(text) - len(pattern) + 1 :] if len(text) >= len(pattern) else text, at + len(data)
    return b"0"


def checksum_memory(context: Context, message: messages.ChecksumMemory) -> Answer:
    """`C` and the checksum ("General Query Packets", qCRC): polynomial 04C11DB7h, highest bit first, from FFFFFFFFh on,
    not inverted at the end. zlib has the same with the bits of each byte, and of the result, the other way round."""
    assert context.read is not None
    _bounded(message.length)
    crc, at, end = 0, message.address, message.address + message.length
    while at < end:
        data = context.read(at, min(PIECE, end - at))
        assert data, "a target reads one byte at least, or refuses"
        crc = zlib.crc32(data.translate(_REVERSED), crc)
        at += len(data)
    return b"C%x" % int(f"{crc ^ 0xFFFFFFFF:032b}"[::-1], 2)


HANDLERS = (
    Handler(
        (("qSearch:memory:ADDR;LENGTH;BYTES", "where the bytes are first; what cannot be read is passed over"),),
        messages.SearchMemory,
        search_memory,
        (HasMemory,),
    ),
    Handler(
        (("qCRC:ADDR,LENGTH", "the CRC-32 of memory, as `compare-sections` wants it"),),
        messages.ChecksumMemory,
        checksum_memory,
        (HasMemory,),
    ),
)
