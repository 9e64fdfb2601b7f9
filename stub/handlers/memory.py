"""m, x, qv2e.Memory: read memory. M, X: write it. Peeks and pokes: devices are never touched."""

from __future__ import annotations

from stub import messages
from stub.handlers.base import OK, Answer, Context, Handler, constant, error_text
from stub.packet import PACKET_SIZE, escape
from stub.target import HasMemory, TargetError

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
    assert context.read is not None
    if len(message.ranges) > GATHERED or sum(length for _, length in message.ranges) > GATHERED_BYTES:
        return context.error(f"one packet gathers {GATHERED} ranges and {GATHERED_BYTES} bytes at most")
    parts = []
    for address, length in message.ranges:
        try:
            parts.append(context.read(address, length).hex())
        except TargetError:
            parts.append("")
    return b"m" + ";".join(parts).encode("ascii")


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
        (("M ADDR,LENGTH:HEX", "write linear memory"), ("X ADDR,LENGTH:BYTES", "the same from bytes")),
        messages.WriteMemory,
        write_memory,
        (HasMemory,),
    ),
)
