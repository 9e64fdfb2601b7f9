"""Reads packets into messages. Nothing here knows what a packet does.

All numbers in packets are hexadecimal without prefix; sections cited are those named in `stub.messages`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from stub import trace_parser
from stub.fields import expressions, hexadecimal, number, pair, span, thread_id
from stub.messages import (
    PROCESS,
    Action,
    Attach,
    ChecksumMemory,
    CurrentThread,
    Detach,
    ExtendedMode,
    FirstThreads,
    GatherMemory,
    InsertPoint,
    InterruptAll,
    Kill,
    Message,
    MessageError,
    MonitorCommand,
    MustReplyEmpty,
    NextThreads,
    NonStop,
    QemuQuery,
    QemuSet,
    QueryAttached,
    QueryResume,
    QueryStop,
    QuerySupported,
    ReadMemory,
    ReadMemoryBinary,
    ReadRegister,
    ReadRegisters,
    RemovePoint,
    Restart,
    Resume,
    Reverse,
    SameMemory,
    SearchMemory,
    SetThread,
    StartNoAck,
    StopSeen,
    SymbolsAvailable,
    ThreadAlive,
    ThreadExtra,
    Transfer,
    Unknown,
    WriteMemory,
    WriteRegister,
    WriteRegisters,
)

_Parser = Callable[[bytes], Message]


def _process(rest: bytes) -> None:
    """The process of a packet that may name one. Raises MessageError for one that does not exist."""
    if rest and number(rest, "process") != PROCESS:
        raise MessageError(f"there is no process {int(rest, 16)}: the machine is process {PROCESS}")


def _of_process(message: Message) -> _Parser:
    def parser(rest: bytes) -> Message:
        _process(rest)
        return message

    return parser


def _query_supported(rest: bytes) -> Message:
    return QuerySupported(tuple(f for f in rest.lstrip(b":").decode("latin-1").split(";") if f))


def _write_register(rest: bytes) -> Message:
    which, equals, data = rest.partition(b"=")
    if not equals:
        raise MessageError("there is no = between register and value")
    return WriteRegister(number(which, "register number"), hexadecimal(data, "value"))


def _write_memory(rest: bytes) -> Message:
    head, data = _colon(rest)
    address, length = span(head)
    return _sized(address, length, hexadecimal(data, "data"))


def _write_binary(rest: bytes) -> Message:
    head, data = _colon(rest)
    address, length = span(head)
    return _sized(address, length, data)


def _colon(rest: bytes) -> tuple[bytes, bytes]:
    head, colon, data = rest.partition(b":")
    if not colon:
        raise MessageError("there is no colon between length and data")
    return head, data


def _sized(address: int, length: int, data: bytes) -> WriteMemory:
    if length != len(data):
        raise MessageError(f"the length says {length} bytes and {len(data)} follow")
    return WriteMemory(address, data)


def _address(rest: bytes) -> int | None:
    return number(rest, "address") if rest else None


def _with_signal(kind: str, rest: bytes) -> Message:
    signal, semicolon, address = rest.partition(b";")
    where = number(address, "address") if semicolon else None
    return Resume((Action(kind, number(signal, "signal")),), where)


def _vcont(rest: bytes) -> Message:
    actions = tuple(_action(part) for part in rest.split(b";") if part)
    if not actions:
        raise MessageError("vCont names no action")
    return Resume(actions)


def _action(text: bytes) -> Action:
    body, colon, who = text.partition(b":")
    thread = thread_id(who) if colon else None
    thread = None if thread == -1 else thread
    kind, rest = chr(body[0]) if body else "", body[1:]
    if kind in ("c", "s", "t") and not rest:
        return Action(kind, thread=thread)
    if kind in ("C", "S"):
        return Action(kind.lower(), number(rest, "signal"), thread=thread)
    if kind == "r":
        start, end = pair(rest, "start", "end")
        if end < start:
            raise MessageError(f"the range ends at {end:#x}, before its start {start:#x}")
        return Action(kind, start=start, end=end, thread=thread)
    raise MessageError("vCont names an action that is none of c, C, s, S, t, r")


def _point(rest: bytes) -> tuple[int, int, int]:
    parts = rest.split(b",")
    if len(parts) != 3:
        raise MessageError("a breakpoint packet has a type, an address and a kind")
    return number(parts[0], "type"), number(parts[1], "address"), number(parts[2], "kind")


def _insert_point(rest: bytes) -> Message:
    """`TYPE,ADDR,KIND[;COND...][;cmds:PERSIST,CMD...]`, where each expression is `XLENGTH,HEX`."""
    place, *sections = rest.split(b";")
    conditions: tuple[bytes, ...] = ()
    commands: tuple[bytes, ...] = ()
    persist = False
    for section in sections:
        if section.startswith(b"cmds:"):
            flag, comma, body = section.removeprefix(b"cmds:").partition(b",")
            if not comma:
                raise MessageError("there is no comma behind the persistence of the commands")
            persist = bool(number(flag, "persistence"))
            commands += expressions(body)
        elif section:
            conditions += expressions(section)
    return InsertPoint(*_point(place), conditions, commands, persist)


def _set_thread(rest: bytes) -> Message:
    if rest[:1] not in (b"g", b"c"):
        raise MessageError("H is followed by g or c")
    return SetThread(chr(rest[0]), thread_id(rest[1:]))


def _transfer(rest: bytes) -> Message:
    parts = rest.decode("latin-1").split(":")
    if len(parts) < 4 or parts[1] != "read":
        return Unknown(b"qXfer:" + rest)
    offset, length = pair(parts[-1].encode("latin-1"), "offset", "length")
    return Transfer(parts[0], ":".join(parts[2:-1]), offset, length)


def _non_stop(rest: bytes) -> Message:
    if rest not in (b"0", b"1"):
        raise MessageError("QNonStop takes 0 or 1")
    return NonStop(rest == b"1")


def _search(rest: bytes) -> Message:
    """`memory:ADDRESS;LENGTH;PATTERN`, where the pattern may hold any byte."""
    if not rest.startswith(b"memory:"):
        return Unknown(b"qSearch:" + rest)
    parts = rest.removeprefix(b"memory:").split(b";", 2)
    if len(parts) != 3:
        raise MessageError("a search has an address, a length and a pattern")
    return SearchMemory(number(parts[0], "address"), number(parts[1], "length"), parts[2])


#: Names of `qqemu.` and `Qqemu.`; in the latter `=` or `:` precedes the value.
_QEMU = re.compile(rb"([A-Za-z]+)(?:[=:](.*))?", re.DOTALL)


def _qemu(payload: bytes) -> Message:
    match = _QEMU.fullmatch(payload[len(b"qqemu.") :])
    if match is None:
        return Unknown(payload)
    name = match[1].decode("ascii")
    return QemuQuery(name) if match[2] is None else QemuSet(name, number(match[2], "value"))


def _monitor(rest: bytes) -> Message:
    return MonitorCommand(hexadecimal(rest, "command").decode("utf-8", "replace"))


#: One-letter packets.
_LETTERS: dict[int, _Parser] = {
    ord("!"): lambda rest: ExtendedMode(),
    ord("?"): lambda rest: QueryStop(),
    ord("g"): lambda rest: ReadRegisters(),
    ord("G"): lambda rest: WriteRegisters(hexadecimal(rest, "value")),
    ord("p"): lambda rest: ReadRegister(number(rest, "register number")),
    ord("P"): _write_register,
    ord("m"): lambda rest: ReadMemory(*span(rest)),
    ord("x"): lambda rest: ReadMemoryBinary(*span(rest)),
    ord("M"): _write_memory,
    ord("X"): _write_binary,
    ord("c"): lambda rest: Resume((Action("c"),), _address(rest)),
    ord("s"): lambda rest: Resume((Action("s"),), _address(rest)),
    ord("C"): lambda rest: _with_signal("c", rest),
    ord("S"): lambda rest: _with_signal("s", rest),
    ord("b"): lambda rest: Reverse(steps=rest == b"s") if rest in (b"s", b"c") else Unknown(b"b" + rest),
    ord("Z"): _insert_point,
    ord("z"): lambda rest: RemovePoint(*_point(rest.partition(b";")[0])),
    ord("H"): _set_thread,
    ord("T"): lambda rest: ThreadAlive(thread_id(rest)),
    ord("k"): lambda rest: Kill(replies=False),
    ord("D"): lambda rest: _of_process(Detach())(rest.removeprefix(b";")),
    ord("R"): lambda rest: Restart(replies=False),
}
#: Named packets, by what precedes their first `:` `;` or `,`; the parser gets the rest behind that character.
_NAMES: dict[bytes, _Parser] = {
    b"qSupported": _query_supported,
    b"QStartNoAckMode": lambda rest: StartNoAck(),
    b"vMustReplyEmpty": lambda rest: MustReplyEmpty(),
    b"QNonStop": _non_stop,
    b"vStopped": lambda rest: StopSeen(),
    b"vCtrlC": lambda rest: InterruptAll(),
    b"vCont": _vcont,
    b"vCont?": lambda rest: QueryResume(),
    b"vKill": _of_process(Kill(replies=True)),
    b"vAttach": _of_process(Attach()),
    b"vRun": lambda rest: Restart(replies=True),
    b"qC": lambda rest: CurrentThread(),
    b"qAttached": _of_process(QueryAttached()),
    b"qfThreadInfo": lambda rest: FirstThreads(),
    b"qsThreadInfo": lambda rest: NextThreads(),
    b"qThreadExtraInfo": lambda rest: ThreadExtra(thread_id(rest)),
    b"qSearch": _search,
    b"qv2e.Memory": lambda rest: GatherMemory(tuple(map(span, rest.split(b";"))), zlib.crc32(rest)),
    b"qv2e.Same": lambda rest: SameMemory(number(rest, "checksum")),
    b"qCRC": lambda rest: ChecksumMemory(*pair(rest, "address", "length")),
    b"qXfer": _transfer,
    b"qRcmd": _monitor,
    b"qSymbol": lambda rest: SymbolsAvailable(),
    **trace_parser.NAMES,
}
_NAME = re.compile(rb"[^:;,]*")


def parse(payload: bytes) -> Message:
    """The message in a packet's unescaped payload. Raises MessageError for a malformed one of a known kind."""
    if not payload:
        return Unknown(payload)
    if payload[0] in b"qQv":
        if payload[1:6] == b"qemu.":
            return _qemu(payload)
        match = _NAME.match(payload)
        name = match[0] if match else b""
        named = _NAMES.get(name)
        return named(payload[len(name) + 1 :]) if named else Unknown(payload)
    letter = _LETTERS.get(payload[0])
    return letter(payload[1:]) if letter else Unknown(payload)
