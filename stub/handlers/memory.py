"""m, x: read memory. M, X: write it. Peeks and pokes: devices are never touched."""

from __future__ import annotations

from stub import messages
from stub.handlers.base import OK, Answer, Context, Handler, constant, error_text
from stub.packet import PACKET_SIZE, escape
from stub.target import HasMemory, TargetError


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
        (("M ADDR,LENGTH:HEX", "write linear memory"), ("X ADDR,LENGTH:BYTES", "the same from bytes")),
        messages.WriteMemory,
        write_memory,
        (HasMemory,),
    ),
)
