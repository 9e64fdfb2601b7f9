"""The packets of tracepoints, one dataclass each: "Debugging with GDB", "Tracepoint Packets".

A tracepoint is named by its number and its address (linear), as one of gdb's may have several places.
"""

from __future__ import annotations

from emu.record import dataclass


@dataclass(frozen=True, slots=True)
class CollectRegisters:
    """`R MASK`: the registers of these numbers, bit 0 the first."""

    mask: int


@dataclass(frozen=True, slots=True)
class CollectMemory:
    """`M BASEREG,OFFSET,LENGTH`: `length` bytes at `offset` from the register of this number, None: an address."""

    register: int | None
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Evaluate:
    """`X LENGTH,CODE`: an agent expression, which collects by its own instructions."""

    code: bytes


TraceAction = CollectRegisters | CollectMemory | Evaluate


@dataclass(frozen=True, slots=True)
class TraceInit:
    """`QTinit`: no tracepoints, no frames."""


@dataclass(frozen=True, slots=True)
class DefineTracepoint:
    """`QTDP:N:ADDR:ENA:STEP:PASS[:XLEN,CODE][-]`: `steps` are those of while-stepping, `passes` the hits that end the
    trace (0: none do), `condition` an agent expression (b"": none), `more`: actions follow."""

    number: int
    address: int
    enabled: bool
    steps: int
    passes: int
    condition: bytes = b""
    more: bool = False


@dataclass(frozen=True, slots=True)
class DefineActions:
    """`QTDP:-N:ADDR:[S]ACTION...[-]`: `stepping`: they belong to while-stepping; `text` is how they were written."""

    number: int
    address: int
    actions: tuple[TraceAction, ...]
    text: str
    stepping: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class TraceSource:
    """`QTDPsrc:N:ADDR:TYPE:START:SLEN:BYTES`: a piece of what the person typed, at `start` of `length` bytes in all,
    kept for clients that come later."""

    number: int
    address: int
    kind: str
    start: int
    length: int
    text: bytes


@dataclass(frozen=True, slots=True)
class EnableTracepoint:
    """`QTEnable:N:ADDR` and `QTDisable:N:ADDR`."""

    number: int
    address: int
    on: bool


@dataclass(frozen=True, slots=True)
class DefineVariable:
    """`QTDV:N:VALUE:BUILTIN:NAME`: a trace state variable, of 64 bits with a sign."""

    number: int
    value: int
    builtin: bool
    name: str


@dataclass(frozen=True, slots=True)
class TraceReadOnly:
    """`QTro:START1,END1:...`: what does not change, and need not be collected to be seen in a frame."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TraceStart:
    """`QTStart`."""


@dataclass(frozen=True, slots=True)
class TraceStop:
    """`QTStop`."""


@dataclass(frozen=True, slots=True)
class TraceDisconnected:
    """`QTDisconnected:FLAG`: whether the trace goes on when the client goes."""

    on: bool


@dataclass(frozen=True, slots=True)
class TraceBuffer:
    """`QTBuffer:circular:FLAG` and `QTBuffer:size:BYTES` (-1: as much as there may be)."""

    circular: bool | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class TraceNotes:
    """`QTNotes:user:HEX;notes:HEX;tstop:HEX;`: words to be kept with the trace; None leaves them."""

    user: bytes | None = None
    notes: bytes | None = None
    stop: bytes | None = None


@dataclass(frozen=True, slots=True)
class QueryTrace:
    """`qTStatus`."""


@dataclass(frozen=True, slots=True)
class QueryTracepoint:
    """`qTP:N:ADDR`."""

    number: int
    address: int


@dataclass(frozen=True, slots=True)
class QueryVariable:
    """`qTV:N`."""

    number: int


@dataclass(frozen=True, slots=True)
class ListTracepoints:
    """`qTfP` (from the first) and `qTsP` (the next)."""

    first: bool


@dataclass(frozen=True, slots=True)
class ListVariables:
    """`qTfV` and `qTsV`."""

    first: bool


@dataclass(frozen=True, slots=True)
class SelectFrame:
    """`QTFrame:...`: `kind` is "number" (`value`: -1 for none), or how to find the next one: "pc" (at address `value`),
    "tracepoint" (of that number), "range" and "outside" (of `value` to `last`, inclusive)."""

    kind: str
    value: int
    last: int = 0


@dataclass(frozen=True, slots=True)
class ReadTraceBuffer:
    """`qTBuffer:OFFSET,LENGTH`: the frames as a trace file has them."""

    offset: int
    length: int


TraceMessage = (
    TraceInit | DefineTracepoint | DefineActions | TraceSource | EnableTracepoint | DefineVariable | TraceReadOnly
    | TraceStart | TraceStop | TraceDisconnected | TraceBuffer | TraceNotes | QueryTrace | QueryTracepoint
    | QueryVariable | ListTracepoints | ListVariables | SelectFrame | ReadTraceBuffer
)  # fmt: skip
