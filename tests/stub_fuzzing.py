"""What a fuzzer feeds: bytes to a session, packets to a session, bytes to the agent expressions. `fuzz.py` runs it.

The first byte of an input says what the rest is. A finding is an exception: an error within the session, more memory
than a client may cost, something left behind by a client that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from stub.agent import AgentError, parse
from stub.packet import PACKET_SIZE, frame
from stub.session import RunCommand, Session
from stub.voice import HIGH_WATER
from stub_fakes import GDB_FEATURES, RAM, FakeTarget

#: Sessions as clients have them, in packets: all-stop, non-stop, a trace, and one that looks on.
SESSIONS: dict[str, tuple[str, ...]] = {
    "plain": (
        GDB_FEATURES, "vMustReplyEmpty", "QStartNoAckMode", "!", "Hg0", "qXfer:features:read:target.xml:0,1ffff",
        "qTStatus", "?", "qXfer:threads:read::0,1000", "qAttached", "Hc-1", "qC", "g", "m10100,40", "x10100,40",
        "X10100,3:abc", "Z0,10180,1;X3,220127;cmds:0,X1,27", "Z2,500,4", "vCont?", "vCont;c", "p8", "P0=78563412",
        "z0,10180,1", "vCont;s:1;c", "vCont;r10181,10190:1", "qRcmd,7063", "G00000000", "qSearch:memory:0;1000;ab",
        "qCRC:0,100", "qv2e.Memory:7c00,4;0,0;ffffffff,2", "qv2e.Same:0", "qqemu.sstepbits", "Qqemu.PhyMemMode:1",
        "vKill;1", "vRun;", "R00", "c", "D;1",
    ),
    "non-stop": (
        GDB_FEATURES, "QStartNoAckMode", "!", "QNonStop:1", "qAttached", "?", "vStopped", "vCont;c", "vCont;t:1",
        "vStopped", "vCont;s:1", "vStopped", "m500,4", "g", "Z0,10180,1", "vCont;c:p1.-1", "vStopped", "qRcmd,7063",
        "vCont;c", "vCtrlC", "vStopped", "D;1", "vAttach;1", "vStopped", "QNonStop:0", "vKill;1",
    ),
    "trace": (
        GDB_FEATURES, "QStartNoAckMode", "QTinit", "QTDV:2:5:0:6e", "QTBuffer:size:400", "QTBuffer:circular:1",
        "QTDP:1:10180:E:2:5:X3,220127-", "QTDP:-1:10180:R1ffMFFFFFFFF,500,10-",
        "QTDP:-1:10180:X10,2c0002220102 2d0002292e00020427-".replace(" ", ""), "QTDP:-1:10180:SR1",
        "QTDPsrc:1:10180:at:0:8:2a30783130313830",
        "QTro:600,700", "QTEnable:1:10180", "QTNotes:user:61;notes:62;tstop:63;", "QTDisconnected:0", "QTStart",
        "arrive", "arrive", "qTStatus", "qTP:1:10180", "qTV:2", "QTStop", "QTFrame:0", "g", "p8", "m500,10", "m600,4",
        "qXfer:traceframe-info:read::0,1000", "QTFrame:pc:10180", "QTFrame:outside:0:1", "qTBuffer:0,1000",
        "QTFrame:ffffffff", "qTfP", "qTsP", "qTsP", "qTfV", "qTsV", "vCont;c",
    ),
}  # fmt: skip
RAW, PACKETS, LOOKS_ON, AGENT = range(4)
#: What parts two packets of an input.
SEPARATOR = b"\n"
#: The place where the trace above collects.
TRACED = 0x10180


class Finding(Exception):
    """What must not be."""


def seeds() -> Iterator[tuple[str, bytes]]:
    """Inputs to begin with: (name, bytes)."""
    for name, packets in SESSIONS.items():
        payloads = [packet.encode("latin-1") for packet in packets]
        yield f"{name}-packets", bytes((PACKETS,)) + SEPARATOR.join(payloads)
        yield f"{name}-looks", bytes((LOOKS_ON,)) + SEPARATOR.join(payloads)
        yield f"{name}-raw", bytes((RAW,)) + b"".join(map(frame, payloads))
    for number, code in enumerate(("26000824000101001327", "2300 0d01 2202 02 210002", "2201 2200 05 27 2f 30 0004")):
        yield f"agent-{number}", bytes((AGENT,)) + bytes.fromhex(code)


class _World:
    """Enough for an agent expression to run in; `seen` is what it has last given."""

    seen: object = None

    def register(self, number: int) -> int:
        return number * 0x101

    def load(self, address: int, size: int) -> bytes:
        if address >= RAM:
            raise AgentError("not mapped")
        return bytes(size)

    def text(self, text: str) -> None:
        self.seen = text

    def collect(self, address: int, length: int) -> None:
        self.seen = address, length

    def variable(self, number: int) -> int:
        return number

    def set_variable(self, number: int, value: int) -> None:
        self.seen = number, value

    def collect_variable(self, number: int) -> None:
        self.seen = number


def _agent(code: bytes) -> None:
    try:
        parse(code).run(_World())
    except AgentError:
        return


class _Peer:
    """A session, and what its server does for it."""

    def __init__(self, looks_on: bool) -> None:
        self.errors: list[Exception] = []
        self.target = FakeTarget()
        self.session = Session(self.target, has_runner=True, looks_on=looks_on, on_error=self.errors.append)

    def feed(self, data: bytes) -> None:
        self.session.hold(not self.target.active)  # as long as nobody else does anything to the target
        events = self.session.receive_data(data)
        if self.session.buffered > HIGH_WATER + 3 * PACKET_SIZE:
            raise Finding(f"{self.session.buffered} bytes are held")
        while self.session.data_to_send():
            events += self.session.receive_data(b"")
        for event in events:
            if isinstance(event, RunCommand):
                self.session.command_finished("done")
                self.session.data_to_send()
        if self.target.active:
            self.target.interrupt()
            self.session.data_to_send()

    def end(self) -> None:
        if not self.target.experiment.stays and self.target.experiment.running and self.target.traced == {}:
            installed = [p for p in self.target.experiment.points.values() if p.complete]
            if installed:
                raise Finding("a trace runs that collects nothing")
        self.session.disconnected()
        if self.errors:
            raise Finding("an error within the session") from self.errors[0]
        if self.target.listener is not None:
            raise Finding("a listener is left behind")


def feed(data: bytes) -> None:
    """Raises for a finding."""
    kind, rest = (data[0] % 4, data[1:]) if data else (RAW, b"")
    if kind == AGENT:
        _agent(rest)
        return
    peer = _Peer(kind == LOOKS_ON)
    if kind == RAW:
        peer.feed(rest)
    else:
        for payload in rest.split(SEPARATOR):
            if payload == b"arrive":
                peer.target.arrive(TRACED)
            else:
                peer.feed(frame(payload.replace(b"}", b"").replace(b"#", b"").replace(b"$", b"")))
    peer.end()
