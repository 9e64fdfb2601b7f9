"""qT, QTFrame: how a trace goes, what is defined, what was collected. "Debugging with GDB", "Tracepoint Packets"."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stub import trace_messages as m
from stub.handlers.base import OK, Answer, Context, Handler
from stub.offers import offers
from stub.packet import PACKET_SIZE
from stub.target import ConditionalPoints, TargetError
from stub.trace_target import Traces
from stub.tracing import Experiment, Frame, Tracepoint

_MASK = (1 << 64) - 1
_END = b"l"


def status(context: Context, message: m.QueryTrace) -> Answer:
    experiment, buffer = context.experiment, context.experiment.buffer
    fields = [f"T{experiment.running:d}"]
    if not experiment.running:
        fields.append(_reason(experiment))
    fields += [
        f"tframes:{len(buffer.frames):x}",
        f"tcreated:{buffer.created:x}",
        f"tfree:{buffer.capacity - buffer.used:x}",
        f"tsize:{buffer.capacity:x}",
        f"circular:{buffer.circular:d}",
        f"disconn:{experiment.stays:d}",
    ]
    if experiment.reason != "tnotrun":
        fields += [f"starttime:{experiment.started:x}", f"stoptime:{experiment.stopped:x}"]
    fields += [f"username:{experiment.user.hex()}", f"notes:{experiment.notes.hex()}"]
    return ";".join(fields).encode("ascii")


def _reason(experiment: Experiment) -> str:
    """`tstop` and `terror` have a text between the colons. That of `tstop` may be left out, but gdb 13's `tsave` then
    takes the length of none and dies."""
    text = f"{experiment.text.encode().hex()}:" if experiment.reason in ("tstop", "terror") else ""
    return f"{experiment.reason}:{text}{experiment.culprit:x}"


def tracepoint(context: Context, message: m.QueryTracepoint) -> Answer:
    point = context.experiment.point(message.number, message.address)
    return b"V%x:%x" % (point.hits, point.usage)


def variable(context: Context, message: m.QueryVariable) -> Answer:
    """In a frame, what it has collected."""
    if context.frame is not None:
        found = [value for number, value in context.frame.variables if number == message.number]
        return b"V%x" % (found[-1] & _MASK) if found else b"U"
    try:
        return b"V%x" % context.experiment.value(message.number)
    except TargetError:
        return b"U"


def list_points(context: Context, message: m.ListTracepoints) -> Answer:
    if message.first:
        context.listed = [
            piece.encode("latin-1") for point in context.experiment.points.values() for piece in _point_pieces(point)
        ]
    return context.listed.pop(0) if context.listed else _END


def _point_pieces(point: Tracepoint) -> Iterator[str]:
    """As `parse_tracepoint_definition` of gdb takes them: the definition, actions, and what the person typed."""
    name = f"{point.number:x}:{point.address:x}"
    condition = f":X{len(point.condition):x},{point.condition.hex()}" if point.condition else ""
    yield f"T{name}:{'E' if point.enabled else 'D'}:{point.steps:x}:{point.passes:x}{condition}"
    for text in point.texts:
        yield f"A{name}:{text}"
    for text in point.step_texts:
        yield f"S{name}:{text}"
    for kind, source in point.sources.items():
        for part in bytes(source).split(b"\n"):
            yield f"Z{name}:{kind}:0:{len(part):x}:{part.hex()}"


def list_variables(context: Context, message: m.ListVariables) -> Answer:
    if message.first:
        context.listed = [
            f"{v.number:x}:{v.initial & _MASK:x}:{v.builtin:d}:{v.name.encode().hex()}".encode("ascii")
            for v in context.experiment.variables.values()
        ]
    return context.listed.pop(0) if context.listed else _END


def select(context: Context, message: m.SelectFrame) -> Answer:
    """`FnTp`, or `F-1` where there is none, and then all stays as it was."""
    buffer = context.experiment.buffer
    if message.kind == "number" and message.value == -1:
        context.look_at(None)
        return OK
    fits = _fitting(message)
    candidates = buffer.after(None if message.kind == "number" else context.frame)
    found = next(((number, frame) for number, frame in candidates if fits(number, frame)), None)
    if found is None:
        return b"F-1"
    number, frame = found
    context.look_at(frame)
    return b"F%xT%x" % (number, frame.tracepoint)


def _fitting(message: m.SelectFrame) -> Callable[[int, Frame], bool]:
    value, last = message.value, message.last
    match message.kind:
        case "number":
            return lambda number, frame: number == value
        case "pc":
            return lambda number, frame: frame.address == value
        case "tracepoint":
            return lambda number, frame: frame.tracepoint == value
        case "range":
            return lambda number, frame: value <= frame.address <= last
    return lambda number, frame: not value <= frame.address <= last


def read_buffer(context: Context, message: m.ReadTraceBuffer) -> Answer:
    """The frames one behind another; registers as this client's description has them. `l` at the end."""
    raw = _raw(context)
    piece = raw[message.offset : message.offset + min(message.length, PACKET_SIZE // 2)]
    return piece.hex().encode("ascii") if piece else _END


def _raw(context: Context) -> bytes:
    layout, buffer = context.layout(), context.experiment.buffer
    key = ("trace buffer", f"{id(layout)} {buffer.emptied} {buffer.created} {len(buffer.frames)}")
    if context.document_name != key:
        context.document_name = key
        context.document = b"".join(frame.encoded(_registers(context, frame)) for frame in buffer.frames)
    return context.document


def _registers(context: Context, frame: Frame) -> bytes:
    """Unknown ones are zero, since a trace file has no way to say so."""
    target = context.target
    if frame.registers is None:
        return b""
    assert offers(target, Traces)
    return b"".join(
        target.snapshot_register(frame.registers, register) or bytes(register.size)
        for register in context.layout().registers
    )


def frame_info(context: Context, annex: str) -> str | None:
    """`qXfer:traceframe-info:read`: what was collected, so that gdb asks for nothing else."""
    frame = context.frame
    if annex or frame is None:
        return None
    rows = "".join(f'<memory start="{start:#x}" length="{len(data):#x}"/>\n' for start, data in frame.memory)
    rows += "".join(f'<tvar id="{number:#x}"/>\n' for number, _ in frame.variables)
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE traceframe-info SYSTEM "traceframe-info.dtd">\n'
        f"<traceframe-info>\n{rows}</traceframe-info>\n"
    )


_REQUIRES = (Traces, ConditionalPoints)
HANDLERS = (
    Handler(
        (("qTStatus", "whether a trace runs, why not, and how full its buffer is"),), m.QueryTrace, status, _REQUIRES
    ),
    Handler(
        (("qTP:N:PLACE", "hits of a tracepoint, and bytes of its frames"),), m.QueryTracepoint, tracepoint, _REQUIRES
    ),
    Handler(
        (("qTV:N", "a trace state variable; in a frame, what it has collected"),), m.QueryVariable, variable, _REQUIRES
    ),
    Handler(
        (("qTfP", "the tracepoints, one piece an answer"), ("qTsP", "the next piece")),
        m.ListTracepoints,
        list_points,
        _REQUIRES,
    ),
    Handler(
        (("qTfV", "the trace state variables, one an answer"), ("qTsV", "the next")),
        m.ListVariables,
        list_variables,
        _REQUIRES,
    ),
    Handler(
        (
            ("QTFrame:N", "look at a frame instead of the machine, `ffffffff` for the machine again"),
            ("QTFrame:pc:ADDR", "the next one collected at this address"),
            ("QTFrame:tdp:N", "the next one of this tracepoint"),
            ("QTFrame:range:START:END", "the next one between these addresses"),
            ("QTFrame:outside:START:END", "the next one not between them"),
        ),
        m.SelectFrame,
        select,
        _REQUIRES,
    ),
    Handler(
        (("qTBuffer:OFFSET,LENGTH", "the frames as a trace file has them"),), m.ReadTraceBuffer, read_buffer, _REQUIRES
    ),
)
