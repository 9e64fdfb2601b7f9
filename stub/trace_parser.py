"""Reads the packets of tracepoints into messages: "Debugging with GDB", "Tracepoint Packets"."""

from __future__ import annotations

from collections.abc import Callable

from stub import trace_messages as m
from stub.fields import expressions, hexadecimal, number, pair
from stub.messages import MessageError

_Parser = Callable[[bytes], m.TraceMessage]
#: "-1" as gdb writes it in each place: by a sign, or in the digits of an int or a long.
_NONE = (b"-1", b"ffffffff", b"ffffffffffffffff")


def _parts(rest: bytes, count: int, what: str) -> list[bytes]:
    """`count` fields with colons between them; the last has what is left."""
    parts = rest.split(b":", count - 1)
    if len(parts) < count:
        raise MessageError(f"{what} has {count} parts, and {len(parts)} came")
    return parts


def _flag(text: bytes, what: str) -> bool:
    if text not in (b"0", b"1"):
        raise MessageError(f"{what} is 0 or 1")
    return text == b"1"


def _define(rest: bytes) -> m.TraceMessage:
    more = rest.endswith(b"-")
    text = rest[:-1] if more else rest
    if text.startswith(b"-"):
        return _actions(text[1:], more)
    parts = _parts(text, 5, "a tracepoint")
    passes, *options = parts[4].split(b":")
    if parts[2] not in (b"E", b"D"):
        raise MessageError("a tracepoint is E, enabled, or D, disabled")
    condition = b""
    for option in options:
        if option[:1] != b"X":
            raise MessageError("fast and static tracepoints are not served: they patch code, which nothing here does")
        found = expressions(option)
        if len(found) != 1 or not found[0]:
            raise MessageError("the condition of a tracepoint is one agent expression")
        condition = found[0]
    return m.DefineTracepoint(
        number(parts[0], "tracepoint's number"),
        number(parts[1], "address"),
        parts[2] == b"E",
        number(parts[3], "number of steps"),
        number(passes, "pass count"),
        condition,
        more,
    )


def _actions(text: bytes, more: bool) -> m.TraceMessage:
    which, address, rest = _parts(text, 3, "a list of actions")
    stepping = rest.startswith(b"S")
    rest = rest[1:] if stepping else rest
    words, found = rest.decode("latin-1"), []
    while rest:
        action, rest = _action(rest)
        found.append(action)
    return m.DefineActions(
        number(which, "tracepoint's number"), number(address, "address"), tuple(found), words, stepping, more
    )


def _action(text: bytes) -> tuple[m.TraceAction, bytes]:
    """The first action, and what follows it."""
    kind, rest = text[:1], text[1:]
    if kind == b"R":
        digits = rest[: _digits(rest)]
        if not digits:
            raise MessageError("the mask of registers is not a hexadecimal number")
        return m.CollectRegisters(int(digits, 16)), rest[len(digits) :]
    if kind == b"M":
        base, offset, tail = _commas(rest)
        length = tail[: _digits(tail)]
        register = None if base.lower() in _NONE else number(base, "base register")
        negative = offset.startswith(b"-")
        distance = number(offset[1:] if negative else offset, "offset")
        what = m.CollectMemory(register, -distance if negative else distance, number(length, "length"))
        return what, tail[len(length) :]
    if kind == b"X":
        size, comma, _ = rest.partition(b",")
        end = 1 + len(size) + 1 + 2 * number(size, "length of an agent expression") if comma else len(text)
        (code,) = expressions(text[:end]) or (b"",)
        return m.Evaluate(code), text[end:]
    raise MessageError("an action of a tracepoint is R, M or X")


def _digits(text: bytes) -> int:
    """How many hexadecimal digits come first."""
    return len(text) - len(text.lstrip(b"0123456789abcdefABCDEF"))


def _commas(text: bytes) -> tuple[bytes, bytes, bytes]:
    parts = text.split(b",", 2)
    if len(parts) < 3:
        raise MessageError("memory to be collected has a base register, an offset and a length")
    return parts[0], parts[1], parts[2]


def _place(rest: bytes) -> tuple[int, int]:
    which, address = _parts(rest, 2, "a tracepoint's name")
    return number(which, "tracepoint's number"), number(address, "address")


def _source(rest: bytes) -> m.TraceMessage:
    which, address, kind, start, length, text = _parts(rest, 6, "a tracepoint's source")
    return m.TraceSource(
        number(which, "tracepoint's number"),
        number(address, "address"),
        kind.decode("latin-1"),
        number(start, "start"),
        number(length, "length"),
        hexadecimal(text, "source"),
    )


def _variable(rest: bytes) -> m.TraceMessage:
    which, value, builtin, name = _parts(rest, 4, "a trace state variable")
    return m.DefineVariable(
        number(which, "variable's number"),
        number(value, "value"),
        bool(number(builtin, "built-in flag")),
        hexadecimal(name, "name").decode("utf-8", "replace"),
    )


def _read_only(rest: bytes) -> m.TraceMessage:
    return m.TraceReadOnly(tuple(pair(part, "start", "end") for part in rest.split(b":") if part))


def _buffer(rest: bytes) -> m.TraceMessage:
    what, value = _parts(rest, 2, "a property of the trace buffer")
    if what == b"circular":
        return m.TraceBuffer(circular=_flag(value, "circular"))
    if what == b"size":
        return m.TraceBuffer(size=-1 if value.lower() in _NONE else number(value, "size"))
    raise MessageError("the trace buffer has circular and size")


def _notes(rest: bytes) -> m.TraceMessage:
    found: dict[bytes, bytes] = {}
    for part in filter(None, rest.split(b";")):
        name, _, text = part.partition(b":")
        found[name] = hexadecimal(text, "note")
    return m.TraceNotes(found.get(b"user"), found.get(b"notes"), found.get(b"tstop"))


def _frame(rest: bytes) -> m.TraceMessage:
    kind, *values = rest.split(b":")
    if not values:
        return m.SelectFrame("number", -1 if kind.lower() in _NONE else number(kind, "frame's number"))
    names = {b"pc": ("pc", 1), b"tdp": ("tracepoint", 1), b"range": ("range", 2), b"outside": ("outside", 2)}
    if kind not in names or len(values) != names[kind][1]:
        raise MessageError("a trace frame is a number, pc, tdp, range or outside")
    return m.SelectFrame(names[kind][0], *(number(value, "value") for value in values))


#: As `stub.parser._NAMES`.
NAMES: dict[bytes, _Parser] = {
    b"QTinit": lambda rest: m.TraceInit(),
    b"QTDP": _define,
    b"QTDPsrc": _source,
    b"QTEnable": lambda rest: m.EnableTracepoint(*_place(rest), on=True),
    b"QTDisable": lambda rest: m.EnableTracepoint(*_place(rest), on=False),
    b"QTDV": _variable,
    b"QTro": _read_only,
    b"QTStart": lambda rest: m.TraceStart(),
    b"QTStop": lambda rest: m.TraceStop(),
    b"QTDisconnected": lambda rest: m.TraceDisconnected(_flag(rest, "QTDisconnected")),
    b"QTBuffer": _buffer,
    b"QTNotes": _notes,
    b"QTFrame": _frame,
    b"qTStatus": lambda rest: m.QueryTrace(),
    b"qTP": lambda rest: m.QueryTracepoint(*_place(rest)),
    b"qTV": lambda rest: m.QueryVariable(number(rest, "variable's number")),
    b"qTfP": lambda rest: m.ListTracepoints(first=True),
    b"qTsP": lambda rest: m.ListTracepoints(first=False),
    b"qTfV": lambda rest: m.ListVariables(first=True),
    b"qTsV": lambda rest: m.ListVariables(first=False),
    b"qTBuffer": lambda rest: m.ReadTraceBuffer(*pair(rest, "offset", "length")),
}
