"""The packets a client sends, one dataclass each; `stub.parser` reads them. Nothing here knows what a packet does.

Sections cited are those of "Debugging with GDB" (gdb 16), appendix "GDB Remote Serial Protocol". All numbers in
packets are hexadecimal without prefix.
"""

from __future__ import annotations

from emu.record import dataclass
from stub.trace_messages import TraceMessage

#: The machine is the only process there is; gdb calls it that ("Packets", thread-id).
PROCESS = 1


class MessageError(Exception):
    """The packet is of a known kind but malformed; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A packet no parser knows. The answer is the empty packet ("Standard Replies")."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class QuerySupported:
    """`qSupported[:feature;...]` ("General Query Packets"): what the client can do."""

    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartNoAck:
    """`QStartNoAckMode` ("Packet Acknowledgment")."""


@dataclass(frozen=True, slots=True)
class MustReplyEmpty:
    """`vMustReplyEmpty` ("Packets"): the answer shows what an unknown packet gets."""


@dataclass(frozen=True, slots=True)
class ExtendedMode:
    """`!` ("Packets"): the session survives the guest's end; restart is allowed."""


@dataclass(frozen=True, slots=True)
class QueryStop:
    """`?` ("Packets"): why the target stands still."""


@dataclass(frozen=True, slots=True)
class NonStop:
    """`QNonStop:0` and `QNonStop:1` ("Remote Non-Stop"): whether resuming is answered at once, and stops are told of by
    notifications."""

    on: bool


@dataclass(frozen=True, slots=True)
class StopSeen:
    """`vStopped` ("Notification Packets"): the client has the last stop, and asks for more."""


@dataclass(frozen=True, slots=True)
class InterruptAll:
    """`vCtrlC` ("Packets"): in non-stop mode what the Ctrl-C byte is otherwise."""


@dataclass(frozen=True, slots=True)
class ReadRegisters:
    """`g` ("Packets")."""


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """`G XX...` ("Packets"): all registers in the target description's order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReadRegister:
    """`p n` ("Packets")."""

    number: int


@dataclass(frozen=True, slots=True)
class WriteRegister:
    """`P n=r` ("Packets"): `data` in the target's byte order."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """`m addr,length` ("Packets"): `length` bytes, answered in hex."""

    address: int
    length: int


@dataclass(frozen=True, slots=True)
class ReadMemoryBinary:
    """`x addr,length` ("Packets"): answered as `b` and binary data."""

    address: int
    length: int


@dataclass(frozen=True, slots=True)
class GatherMemory:
    """`qv2e.Memory:addr,length;addr,length...`, a packet of our own: several `m` in one."""

    ranges: tuple[tuple[int, int], ...]
    checksum: int  #: CRC-32 of what followed the colon


@dataclass(frozen=True, slots=True)
class SameMemory:
    """`qv2e.Same:checksum`, a packet of our own: whether what the last `qv2e.Memory` read is as it was. `checksum` is
    CRC-32 (zlib's) of what followed that packet's colon and of its answer, one behind the other."""

    checksum: int


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """`M addr,length:hex` and `X addr,length:binary` ("Packets")."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SearchMemory:
    """`qSearch:memory:address;length;pattern` ("General Query Packets"): the pattern is binary data."""

    address: int
    length: int
    pattern: bytes


@dataclass(frozen=True, slots=True)
class ChecksumMemory:
    """`qCRC:addr,length` ("General Query Packets")."""

    address: int
    length: int


@dataclass(frozen=True, slots=True)
class QemuQuery:
    """`qqemu.NAME`, and `Qqemu.NAME`, by which pwndbg asks whether it speaks to QEMU (QEMU's docs/system/gdb.rst):
    what a mode of QEMU's stub is; `Supported`: which there are."""

    name: str


@dataclass(frozen=True, slots=True)
class QemuSet:
    """`Qqemu.NAME=HEX` and `Qqemu.NAME:HEX` (QEMU's docs/system/gdb.rst)."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Action:
    """What a thread is to do: `kind` is `c` continue, `s` step, `r` step while the PC is in [start, end), `t` stop.
    `signal` is gdb's number of a signal to deliver (0: none), `thread` None for all."""

    kind: str
    signal: int = 0
    start: int = 0
    end: int = 0
    thread: int | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """`vCont;action...` ("Packets"), and `c` `C` `s` `S`, which may name an `address` to resume at."""

    actions: tuple[Action, ...]
    address: int | None = None


@dataclass(frozen=True, slots=True)
class Reverse:
    """`bs` and `bc` ("Packets"): backwards, one instruction if `steps`, else to the stop before."""

    steps: bool


@dataclass(frozen=True, slots=True)
class QueryResume:
    """`vCont?` ("Packets")."""


@dataclass(frozen=True, slots=True)
class InsertPoint:
    """`Z type,addr,kind` ("Packets"): 0 software, 1 hardware breakpoint, 2 write, 3 read, 4 access watchpoint. `kind`
    is the breakpoint's size or the bytes watched. `conditions` are agent expressions of which one has to hold,
    `commands` ones to be run instead of stopping; `persist`: these stay when the client goes."""

    type: int
    address: int
    kind: int
    conditions: tuple[bytes, ...] = ()
    commands: tuple[bytes, ...] = ()
    persist: bool = False


@dataclass(frozen=True, slots=True)
class RemovePoint:
    """`z type,addr,kind` ("Packets")."""

    type: int
    address: int
    kind: int


@dataclass(frozen=True, slots=True)
class SetThread:
    """`H op thread-id` ("Packets"): `op` is `g` or `c`; `thread` 0 is any, -1 all."""

    op: str
    thread: int


@dataclass(frozen=True, slots=True)
class ThreadAlive:
    """`T thread-id` ("Packets")."""

    thread: int


@dataclass(frozen=True, slots=True)
class CurrentThread:
    """`qC` ("General Query Packets")."""


@dataclass(frozen=True, slots=True)
class QueryAttached:
    """`qAttached[:pid]` ("General Query Packets")."""


@dataclass(frozen=True, slots=True)
class FirstThreads:
    """`qfThreadInfo` ("General Query Packets")."""


@dataclass(frozen=True, slots=True)
class NextThreads:
    """`qsThreadInfo` ("General Query Packets")."""


@dataclass(frozen=True, slots=True)
class ThreadExtra:
    """`qThreadExtraInfo,thread-id` ("General Query Packets")."""

    thread: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """`qXfer:object:read:annex:offset,length` ("General Query Packets")."""

    object: str
    annex: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MonitorCommand:
    """`qRcmd,hex` ("General Query Packets"): gdb's `monitor`."""

    text: str


@dataclass(frozen=True, slots=True)
class SymbolsAvailable:
    """`qSymbol::` ("General Query Packets"): the client offers to look up symbols."""


@dataclass(frozen=True, slots=True)
class Kill:
    """`k` and `vKill;pid` ("Packets"). `replies`: the second form is answered, the first is not."""

    replies: bool


@dataclass(frozen=True, slots=True)
class Attach:
    """`vAttach;pid` ("Packets", extended mode): answered with a stop reply."""


@dataclass(frozen=True, slots=True)
class Detach:
    """`D[;pid]` ("Packets")."""


@dataclass(frozen=True, slots=True)
class Restart:
    """`R XX` ("Packets", extended mode, no reply) and `vRun;...` (answered with a stop reply)."""

    replies: bool


Message = (
    Unknown | QuerySupported | StartNoAck | MustReplyEmpty | ExtendedMode | QueryStop | NonStop | StopSeen
    | InterruptAll | ReadRegisters | WriteRegisters
    | ReadRegister | WriteRegister | ReadMemory | ReadMemoryBinary | GatherMemory | SameMemory | WriteMemory | Resume
    | Reverse | QueryResume
    | InsertPoint | RemovePoint | SetThread | ThreadAlive | CurrentThread | QueryAttached | FirstThreads | NextThreads
    | ThreadExtra | SearchMemory | ChecksumMemory | QemuQuery | QemuSet | Transfer | MonitorCommand | SymbolsAvailable
    | Kill | Attach | Detach | Restart | TraceMessage
)  # fmt: skip
