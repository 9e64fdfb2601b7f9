"""qSearch, qCRC: memory looked through here instead of being sent over."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from stub import messages
from stub.handlers.base import Answer, Context, Handler
from stub.target import HasMemory, Swept, TargetError

#: The most that one packet may look through, in units of `stub.target.Swept`, since the guest and every other client
#: wait for it, and gdb for two seconds (its `remotetimeout`). It is 128 MiB in one piece, or 64 MiB in scattered pages.
MOST = 1 << 14
#: Bytes of the longest checksum: it is to be refused before it is made.
MAX_CHECKSUM = 1 << 26
#: Where pages are asked for one by one: bytes read at a time, and what one that is not there costs.
PIECE, MISS = 1 << 16, 8
_PAGE = 0x1000
#: Each byte's bits in reverse.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _pieces(context: Context, address: int, length: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of all that can be read, in order. Raises TargetError where that is more than one packet may
    look through; who goes on from where it says has the last `overlap` bytes again."""
    left, sweeps = MOST, context.sweeps
    swept = sweeps.sweep(address, length, context.physical) if sweeps is not None else _asked(context, address, length)
    for at, data, work in swept:
        left -= work
        if left < 0:
            raise TargetError(
                f"up to {max(address, at - overlap):#x} is all that one packet may look through: go on from there, "
                "or ask for less"
            )
        if data:
            yield at, data


def _asked(context: Context, address: int, length: int) -> Iterator[Swept]:
    """As SweepsMemory, of what can only be read."""
    assert context.read is not None
    at, end = address, address + length
    while at < end:
        want = min(PIECE, end - at)
        try:
            data = context.read(at, want)
        except TargetError:
            data = b""
        yield at, data, 1 + want // PIECE if data else MISS
        at += len(data)
        if len(data) < want:
            at = (at | _PAGE - 1) + 1  # memory begins and ends with pages


def search_memory(context: Context, message: messages.SearchMemory) -> Answer:
    """`1,address` or `0`. Where nothing can be read nothing is found, and the search goes on behind it."""
    pattern = message.pattern
    if not pattern:
        raise TargetError("there is no pattern to search for")
    tail, end = b"", message.address
    for at, data in _pieces(context, message.address, message.length, len(pattern) - 1):
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
    if message.length > MAX_CHECKSUM:
        raise TargetError(f"{message.length:#x} bytes are too many for one packet: ask for {MAX_CHECKSUM:#x} at most")
    crc, reached = 0, message.address
    for at, data in _pieces(context, message.address, message.length):
        if at != reached:
            break
        crc = zlib.crc32(data.translate(_REVERSED), crc)
        reached += len(data)
    if reached < message.address + message.length:
        context.read(reached, 1)  # says why it cannot be read
        raise TargetError(f"{reached:#x}: cannot be read")
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
