"""m, x, qv2e.Memory, qv2e.Same: read memory. M, X: write it. Peeks and pokes: devices are never touched."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from stub import messages
from stub.handlers.base import OK, Answer, Context, Gathered, Handler, constant, error_text
from stub.packet import PACKET_SIZE, escape
from stub.target import HasMemory, TargetError

#: Answers to `qv2e.Same`.
SAME, OTHER = b"1", b"0"
#: Ranges that one `qv2e.Memory` may ask for, and bytes in all of them, which leave room for the `;` of the answer.
GATHERED, GATHERED_BYTES = 1024, PACKET_SIZE // 2 - 1024


def read_memory(context: Context, message: messages.ReadMemory) -> Answer:
    assert context.read is not None
    try:
        # The reply may be shorter than asked for: "Packets", `m`.
        data = context.read(message.address, min(message.length, PACKET_SIZE // 2))
    except TargetError as error:
        return context.error(str(error))
    return data.hex().encode("ascii")


def read_memory_binary(context: Context, message: messages.ReadMemoryBinary) -> Answer:
    assert context.read is not None
    # Each byte may need an escape, and `b` precedes them.
    return b"b" + escape(context.read(message.address, min(message.length, PACKET_SIZE // 2 - 1)))


def gather_memory(context: Context, message: messages.GatherMemory) -> Answer:
    """`m`, and what that packet would say of each range; nothing stands where it would be an error."""
    if len(message.ranges) > GATHERED or sum(length for _, length in message.ranges) > GATHERED_BYTES:
        return context.error(f"one packet gathers {GATHERED} ranges and {GATHERED_BYTES} bytes at most")
    parts = _gather(context, message.ranges)
    context.gathered = None
    answer = b"m" + ";".join([part.hex() for part in parts]).encode("ascii")
    if all(len(part) == length for part, (_, length) in zip(parts, message.ranges, strict=True)):
        context.gathered = Gathered(zlib.crc32(answer, message.checksum), message.ranges, b"".join(parts))
    return answer


def _gather(context: Context, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    assert context.read is not None
    parts = []
    for address, length in ranges:
        try:
            parts.append(context.read(address, length))
        except TargetError:
            parts.append(b"")
    return parts


def same_memory(context: Context, message: messages.SameMemory) -> Answer:
    """C answers it, too (stub/native/known.c)."""
    gathered = context.gathered
    if gathered is None or gathered.checksum != message.checksum:
        return OTHER
    return SAME if b"".join(_gather(context, gathered.ranges)) == gathered.data else OTHER


def write_memory(context: Context, message: messages.WriteMemory) -> Answer:
    assert context.write is not None
    if message.data:
        try:
            context.write(message.address, message.data)
        except TargetError as error:
            return error_text(str(error))
    return OK


HANDLERS = (
    Handler(
        (("m ADDR,LENGTH", "read linear memory, answered in hex"),), messages.ReadMemory, read_memory, (HasMemory,)
    ),
    Handler(
        (("x ADDR,LENGTH", "the same, answered by `b` and bytes"),),
        messages.ReadMemoryBinary,
        read_memory_binary,
        (HasMemory,),
        constant("binary-upload+"),
    ),
    Handler(
        (
            (
                "qv2e.Memory:ADDR,LENGTH;ADDR,LENGTH",
                "any number of `m` in one, for the helper: `m`, then hex of each as far as it can be read, between `;`",
            ),
        ),
        messages.GatherMemory,
        gather_memory,
        (HasMemory,),
    ),
    Handler(
        (
            (
                "qv2e.Same:CHECKSUM",
                "whether all that the last `qv2e.Memory` has read, and read whole, is as it was: `1` or `0`; CHECKSUM "
                "is the CRC-32 of what followed its colon and of its answer",
            ),
        ),
        messages.SameMemory,
        same_memory,
        (HasMemory,),
    ),
    Handler(
        (("M ADDR,LENGTH:HEX", "write linear memory"), ("X ADDR,LENGTH:BYTES", "the same from bytes")),
        messages.WriteMemory,
        write_memory,
        (HasMemory,),
    ),
)
