"""Changed sessions of which C answers what it can: by a real pair of sockets, on one thread, with no clock.

A socket of whole messages (unix(7), SOCK_SEQPACKET) hands over one piece at a time, though all have been sent, so that
the loop in C goes through several on end as it does for a client that says one behind the other. What is answered and
what is left behind has to be what a session gives that is fed the same pieces by Python alone.
"""

from __future__ import annotations

import ctypes
import random
import socket
from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from emu.debugger import Stop
from gdb_recording import WORK
from mutated_sessions import NUMBERS, PIECE, Desk, Ground, Mutator, _hear, _parting
from stub.adapter import DebuggerTarget
from stub.connection import Connection
from stub.exchange import Exchanged, Known, Talk
from stub.known import Library
from stub.links import CHUNK, SocketLink
from stub.packet import frame
from stub.session import Close, RunCommand, Session
from stub_fuzzing import Finding

#: Bytes that a socket holds in each direction.
ROOM = 1 << 22
#: Pieces that are sent before the guest may run.
MOST_SENT = 40
GREETINGS = (
    b"qSupported:multiprocess+;swbreak+;hwbreak+;qXfer:features:read+;vContSupported+;error-message+",
    b"QStartNoAckMode", b"qXfer:features:read:target.xml:0,1ffff", b"?",
)  # fmt: skip
#: A packet that runs.
GO = b"vCont;c:p1.-1"
#: Packets that step, and what clients say behind a step.
STEPS = (b"vCont;s:p1.1;c:p1.-1", b"vCont;s:p1.1;c:p1.-1", b"s", b"vCont;s", b"vCont;S05:p1.1;c", b"S05")
LOOKS = (
    b"m500,4", b"m500,4", b"m%x,1" % WORK, b"m%x,40" % (WORK & ~63), b"mfffffff0,10", b"mffe,4", b"ma0000,4", b"m0,400",
    b"m0,401", b"qXfer:threads:read::0,1000", b"g", b"qC", b"p8",
)  # fmt: skip
OTHERS = (
    b"qSupported:swbreak+", GREETINGS[0], b"QStartNoAckMode", b"Qqemu.PhyMemMode:1", b"Qqemu.PhyMemMode:0",
    b"Qqemu.sstep=5", b"Qqemu.sstep=7", b"P0=01000000", b"P9=02030000", b"P9=02000000", b"M500,4:ff000000",
    b"X500,1:a", b"M%x,1:90" % WORK, b"qRcmd,627265616b73", GO, b"c", b"QNonStop:1", b"QNonStop:0",
    GREETINGS[2], b"vMustReplyEmpty", b"m500", b"Z0,%x,1" % WORK, b"z0,%x,1" % WORK, b"Hg1", b"vRun;", b"!",
)  # fmt: skip
POINTS = (b"2,500,4", b"4,502,2", b"3,ffe,2", b"2,600,1")
#: Pieces that are no packet.
SCRAPS = (b"\x03", b"\x03", b"$m500,", b"$m500,4", b"$m500,4#", b"#fd", b"+", b"-", b"$m500,4#00", b"$#00", b"$M500,1:")


class Exchanging(Mutator):
    """Sessions of a client that steps and looks, changed as recorded ones are; one piece in so many as `noise` says is
    damaged besides."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self._noise = noise

    def pieces(self, rng: random.Random) -> list[bytes]:
        if rng.random() < 0.3:
            return super().pieces(rng)
        found = [frame(greeting) for greeting in GREETINGS]
        step = STEPS[0]
        for _ in range(rng.randint(5, 60)):
            kind = rng.random()
            if kind < 0.6:
                for _ in range(rng.choice((1, 1, 2, 5, 20))):
                    found.append(frame(step))
                    found += [frame(rng.choice(LOOKS)) for _ in range(rng.choice((0, 1, 3)))]
            elif kind < 0.65:
                found += self._hits(rng)
            elif kind < 0.75:
                point = rng.choice(POINTS)
                found += [
                    frame(letter + point) for letter in rng.choice(((b"Z",), (b"z",), (b"Z", b"z"), (b"z", b"Z")))
                ]
            elif kind < 0.8:
                step = rng.choice(STEPS)
            elif kind < 0.9:
                found.append(frame(rng.choice(OTHERS)))
            elif kind < 0.95:
                found.append(rng.choice((b"", b"", b"", frame(step))) + rng.choice(SCRAPS))
            else:
                found += [self._damaged(rng) for _ in range(rng.randint(1, 4))]
        if self._noise:
            found[4:] = [self._damaged(rng, p) if rng.random() < self._noise else p for p in found[4:]]
        return [piece for piece in found if piece]

    def _hits(self, rng: random.Random) -> list[bytes]:
        """Runs from one hit of a watchpoint to the next; most have it taken out and put in again, as gdb does."""
        put, take = (frame(letter + POINTS[0]) for letter in (b"Z", b"z"))
        found = [put]
        for _ in range(rng.choice((2, 5, 12))):
            found += [frame(GO), *(frame(rng.choice(LOOKS)) for _ in range(rng.choice((0, 1, 3))))]
            if rng.random() < 0.7:
                found += [take, frame(rng.choice(LOOKS)), put]
        return [*found, take]

    def _damaged(self, rng: random.Random, packet: bytes = b"") -> bytes:
        """Something that is nearly `packet`, or one that C knows."""
        packet = packet or frame(rng.choice((*LOOKS, *STEPS)))
        if rng.random() < 0.5:
            at = rng.randrange(len(packet))
            return packet[:at] + rng.randbytes(rng.randint(0, 2)) + packet[at + rng.randint(0, 2) :]
        return frame(b"m" + rng.choice((*NUMBERS, b"500")) + b"," + rng.choice((*NUMBERS, b"4")))


class Left(NamedTuple):
    """What a session leaves behind."""

    fingerprint: object
    last_stop: Stop | None
    events: tuple[object, ...]


class Telling(SocketLink):
    """Says what came of each exchange."""

    def __init__(self, connection: socket.socket, library: Library | None) -> None:
        super().__init__(connection, library)
        connection.setblocking(False)  # what is sent is there
        self.came: Counter[str] = Counter()

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        exchanged = super().exchange(answers, until, talk)
        if self.talks:
            self.came["answered"] += len(exchanged.answered)
        else:
            self.came["by Python"] += len(exchanged.answered)
        self.came["stepped"] += exchanged.stepped
        self.came["begun"] += exchanged.begun
        self.came["met"] += exchanged.met
        self.came["written"] += exchanged.written
        self.came["out"] += len(exchanged.out)
        return exchanged


class Exact(Telling):
    """Each piece is taken by a call of its own, into room of just its size, for a library that finds what is read
    beyond."""

    def __init__(self, connection: socket.socket, library: Library | None) -> None:
        super().__init__(connection, library)
        libc = ctypes.CDLL(None)
        self._allocate, self._free = libc.malloc, libc.free
        self._allocate.restype, self._allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self._free.restype, self._free.argtypes = None, [ctypes.c_void_p]

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        exchanger = self._exchanger
        assert exchanger is not None
        try:
            size = len(self._socket.recv(CHUNK, socket.MSG_PEEK))
        except BlockingIOError:
            return super().exchange(answers, until, talk)
        room = self._allocate(size)
        exchanger._room = ctypes.c_void_p(room)
        exchanger._exchange.data, exchanger._exchange.size = room, size
        try:
            return super().exchange(answers, 0.0, talk)
        finally:
            self._free(room)


class QuietDesk(Desk):
    """What a Worker is to a target that steps and runs quietly, too."""

    def begin_quiet(self, *, runs: bool = False, watches: Container[int] = ()) -> object:
        return self.debugger.begin_quiet(PIECE if runs else 0, watches)


class ExchangeGround(Ground):
    """Each session is played by a session alone, with Python's loop of exchanges and with that in C."""

    def __init__(self, library: Library, *, exact: bool = False) -> None:
        """`exact`: as `Exact` says, and with noise."""
        super().__init__()
        self.debugger.reset()  # as in front of each session but the first
        self.mutator = Exchanging(0.2 if exact else 0.0)
        self.library, self._link = library, Exact if exact else Telling
        self.came: Counter[str] = Counter()  #: of all sessions

    def session(self, number: int) -> None:
        rng = random.Random(number)
        pieces = self.mutator.pieces(rng)
        batches = [pieces[:4]] if pieces[:1] == [frame(GREETINGS[0])] else []
        at = len(batches) and 4
        while at < len(pieces):
            count = rng.choice((1, 3, 10, MOST_SENT))
            batches.append(pieces[at : at + count])
            at += count
        self.compare(batches, rng.random())

    def compare(self, batches: list[list[bytes]], pace: float = 0.0) -> list[bytes]:
        """Raises for a difference; else what is answered to each batch."""
        by_python, left = self.converse(batches, random.Random(pace), Plain)
        ways = {"Python's loop": partial(Wire, Telling, None), "C": partial(Wire, self._link, self.library)}
        for name, way in ways.items():
            said, left_behind = self.converse(batches, random.Random(pace), way)
            if by_python != said:
                raise Finding(f"{name} answers in another way than a session alone: {_parting(by_python, said)}")
            if left != left_behind:
                raise Finding(f"{name} leaves behind what a session alone does not: {left} and {left_behind}")
        return by_python

    def converse(
        self, batches: list[list[bytes]], rng: random.Random, make: Callable[[Session], Plain | Wire]
    ) -> tuple[list[bytes], Left]:
        """What is answered to each batch, behind which the guest runs for as long as `rng` says."""
        debugger, errors = self.debugger, list[Exception]()
        desk = QuietDesk(debugger)
        target = DebuggerTarget(debugger, desk)  # type: ignore[arg-type]
        session = Session(target, has_runner=True, on_error=errors.append)
        wire = make(session)
        said = []
        try:
            for batch in batches:
                parts = [piece[at : at + CHUNK] for piece in batch for at in range(0, len(piece), CHUNK)]
                out, closes = wire.hear(parts)
                pace = rng.random()
                if debugger.running or pace < 0.3:
                    desk.run()
                    if debugger.running and pace < 0.7:
                        desk.interrupt()
                        desk.run()
                said.append(out + wire.told())
                if closes:
                    break
        finally:
            self.came += wire.close()
        session.disconnected()
        desk.run()
        if debugger.running:
            desk.interrupt()
            desk.run()
        left = Left(debugger.fingerprint(), debugger.last_stop, tuple(debugger.events()))
        sent = b"".join(piece for batch in batches for piece in batch)
        self._assert_nothing_is_left(desk, errors, sent, target)
        return said, left


class Plain:
    """A client that Python alone answers, with nothing held."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def hear(self, batch: list[bytes]) -> tuple[bytes, bool]:
        """What is answered, and whether it is to be closed."""
        said = b""
        for piece in batch:
            out, closes = _hear(self._session, piece)
            said += out
            if closes:
                return said, True
        return said, False

    def told(self) -> bytes:
        """What is said besides."""
        return self._session.data_to_send()

    def close(self) -> Counter[str]:
        return Counter()


class Wire:
    """A client at the other end of a pair of sockets."""

    def __init__(self, link: type[Telling], library: Library | None, session: Session) -> None:
        self._client, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._client, ours):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        self._client.setblocking(False)
        self._link = link(ours, library)
        self._connection = Connection(self._link, lambda: None, lambda: True)
        self._connection.session = session

    def hear(self, batch: list[bytes]) -> tuple[bytes, bool]:
        connection, waiting, said = self._connection, list(reversed(batch)), b""
        while True:
            with suppress(BlockingIOError):  # the rest when there is room
                while waiting:
                    self._client.send(waiting[-1])
                    waiting.pop()
            data = connection.receive(self._link.receive)
            if not data and not waiting:
                return said, False
            events = connection.feed(data)
            while True:
                said += self._read()
                if any(isinstance(event, Close) for event in events):
                    return said, True
                if any(isinstance(event, RunCommand) for event in events):
                    events = connection.finish_command("done", "")
                elif connection.pending:
                    events = connection.feed(b"") if connection.drain() else []
                elif connection.dead:
                    raise Finding("the connection is dead")
                else:
                    break

    def told(self) -> bytes:
        while not self._connection.flush():
            pass
        return self._read()

    def _read(self) -> bytes:
        said = b""
        while True:
            try:
                data = self._client.recv(ROOM)
            except BlockingIOError:
                return said
            if not data:
                return said
            said += data

    def close(self) -> Counter[str]:
        self._client.close()
        self._link.close()
        return self._link.came
