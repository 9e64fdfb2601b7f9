"""qXfer: documents read in pieces: the target description and the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emu.record import dataclass
from stub import messages
from stub.features import target_xml
from stub.handlers import traceframes
from stub.handlers.base import UNSUPPORTED, Answer, Context, Handler, error_text
from stub.markup import attribute, content
from stub.offers import offers
from stub.packet import PACKET_SIZE, escape
from stub.target import ConditionalPoints, HasRegisters, MapsMemory, Target, TargetError
from stub.trace_target import Traces


@dataclass(frozen=True, slots=True)
class Document:
    """An object of qXfer:OBJECT:read. `make(context, annex)` gives its text, or None for an unknown annex."""

    help: str
    make: Callable[[Context, str], str | None]
    requires: tuple[type[Any], ...] = ()

    def active(self, target: Target) -> bool:
        return all(offers(target, protocol) for protocol in self.requires)


def description(context: Context, annex: str) -> str | None:
    """The registers of the present mode: from now on the client numbers registers by this description."""
    if annex != "target.xml" or context.registers is None:
        return None
    context.description = context.registers.describe()
    context.fetched = True
    return target_xml(context.description)


def threads(context: Context, annex: str) -> str | None:
    if annex:
        return None
    target = context.target
    told = [(context.thread_id(t), t, target.thread_name(t), target.thread_text(t)) for t in target.threads()]
    if told != context.threads[0]:  # gdb asks at each stop, and mostly it is the same
        rows = (
            f'<thread id="{id}" core="{thread - 1}" name={attribute(name)}>{content(text)}</thread>'
            for id, thread, name, text in told
        )
        context.threads = told, f'<?xml version="1.0"?>\n<threads>{"".join(rows)}</threads>\n'
    return context.threads[1]


def memory_map(context: Context, annex: str) -> str | None:
    """ROM is `rom`. What is not in the map does not exist to gdb, which refuses it by itself: so are registers of
    devices, the only addresses at which there is something that no look touches. All else is `ram`, holes too, as gdb
    keeps the map that it has read, and page tables may put memory there; what cannot be read is for `m` to say.

    Under paging there is no map, and gdb asks for everything. Raises TargetError then: a map without rows is malformed
    to gdb."""
    target = context.target
    if annex or not offers(target, MapsMemory):
        return None
    ranges = target.special_ranges()
    if ranges is None:
        raise TargetError("paging is on: what a linear address is, is for the page tables to say")
    rows, at = [], 0
    for special in ranges:
        rows.append(("ram", at, special.start))
        if special.readable:
            rows.append(("rom", special.start, special.end))
        at = special.end
    # The last byte of 64 bits is left out: an end of 2 to the 64th is 0 to gdb, which `info mem` shows as 0x100000000
    # while the architecture has 32 bits, as it has without paging.
    rows.append(("ram", at, (1 << 64) - 1))
    text = "".join(
        f'<memory type="{kind}" start="{start:#x}" length="{end - start:#x}"/>\n'
        for kind, start, end in rows
        if start < end
    )
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
        f'"http://sourceware.org/gdb/gdb-memory-map.dtd">\n<memory-map>\n{text}</memory-map>\n'
    )


DOCUMENTS = {
    "features": Document(
        "the target description of the present mode (annex `target.xml`), made afresh", description, (HasRegisters,)
    ),
    "memory-map": Document(
        "what is memory and what ROM, by linear addresses, made afresh; refused under paging", memory_map, (MapsMemory,)
    ),
    "traceframe-info": Document(
        "what the trace frame that is looked at has collected", traceframes.frame_info, (Traces, ConditionalPoints)
    ),
    "threads": Document("the threads with their modes", threads),
}


def features(context: Context) -> tuple[str, ...]:
    return tuple(f"qXfer:{name}:read+" for name, document in DOCUMENTS.items() if document.active(context.target))


def transfer(context: Context, message: messages.Transfer) -> Answer:
    document = DOCUMENTS.get(message.object)
    if document is None or not document.active(context.target):
        return UNSUPPORTED
    # Made afresh at each start of a read; the pieces that follow are of the same text.
    if message.offset == 0 or (message.object, message.annex) != context.document_name:
        text = document.make(context, message.annex)
        if text is None:
            # "General Query Packets", qXfer: E00 is a malformed request or a wrong annex.
            if "error-message+" not in context.client:
                return b"E00"
            if message.object == "traceframe-info" and not message.annex:
                return error_text("no trace frame is chosen: `tfind` chooses one")
            return error_text(f"no annex {message.annex!r}")
        context.document_name, context.document = (message.object, message.annex), text.encode("utf-8")
    return piece(context.document, message.offset, message.length)


def piece(document: bytes, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset` on, behind `m` if there are more, else `l`."""
    end = offset + min(length, PACKET_SIZE // 2 - 1)
    return (b"m" if end < len(document) else b"l") + escape(document[offset:end])


HANDLERS = (
    Handler(
        tuple((f"qXfer:{name}:read:ANNEX:OFFSET,LENGTH", document.help) for name, document in DOCUMENTS.items()),
        messages.Transfer,
        transfer,
        features=features,
    ),
)
