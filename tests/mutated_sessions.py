"""Recorded sessions of a real gdb, changed by chance, on the real machine: no thread, no socket, no clock.

A session is its number: the same changes, the same pieces, the same run of the guest each time. The machine is put back
to power-on behind each, so that one serves them all. A finding is an exception; `soak_sessions.py` runs many.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from asm import assemble
from emu.debugger import Debugger, Stop
from emu.machine import MachineConfig, build_machine
from gdb_recording import LOOP, RECORDED
from stub.adapter import OWNER, DebuggerTarget
from stub.packet import PACKET_SIZE, frame
from stub.session import Close, RunCommand, Session
from stub.voice import HIGH_WATER
from stub_fuzzing import Finding

#: Instructions that the guest executes at a time, while it runs.
PIECE = 500
MEMORY = 1 << 20  #: bytes of RAM: all of it is put back behind each session
#: One session in so many looks on, compresses its answers, is made a second time with nothing held.
LOOKS_ON, COMPRESSED, AGAIN = 8, 8, 16
ROUNDS = 1_000  #: at most, of answers to one piece, each of which leaves something to be sent first
NOISE = (b"", b"0", b"1", b"ffffffff", b"ffffffffffffffff", b",", b";", b":", b"=", b"-", b"-1", b"p1.1", b"p-1", b"\0")
NUMBERS = (b"0", b"1", b"7f", b"fff", b"1000", b"20000", b"7fffffff", b"ffffffff", b"100000000", b"ffffffffffffffff")


def recordings() -> dict[str, list[bytes]]:
    """The sessions in tests/stub/recorded: each packet, and each byte between two, alone."""
    whole = {path.stem: path.read_bytes() for path in sorted(RECORDED.glob("*.rsp"))}
    return {name: re.findall(rb"\$[^#]*#..|.", data, re.DOTALL) for name, data in whole.items()}


class Mutator:
    """Makes of a number what some client sends: pieces, as they arrive one by one."""

    def __init__(self) -> None:
        self.whole = recordings()
        self._names = sorted(self.whole)

    def pieces(self, rng: random.Random) -> list[bytes]:
        found = list(self.whole[rng.choice(self._names)])
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6, 9, 14))):
            rng.choice(
                (self._lose, self._repeat, self._swap, self._graft, self._damage, self._rewrite, self._rewrite,
                 self._number, self._number, self._intrude)
            )(rng, found)  # fmt: skip
        if rng.random() < 0.2:  # the client is killed
            del found[rng.randrange(len(found)) :]
            found += [piece[: rng.randrange(len(piece) + 1)] for piece in found[-1:]]
        return list(_arriving(rng, found))

    def _lose(self, rng: random.Random, found: list[bytes]) -> None:
        at = rng.randrange(len(found))
        del found[at : min(at + rng.randint(1, 4), len(found) - 1)]

    def _repeat(self, rng: random.Random, found: list[bytes]) -> None:
        at = rng.randrange(len(found))
        found[at:at] = found[at : at + rng.randint(1, 6)] * rng.choice((1, 1, 2, 5))

    def _swap(self, rng: random.Random, found: list[bytes]) -> None:
        one, other = rng.randrange(len(found)), rng.randrange(len(found))
        found[one], found[other] = found[other], found[one]

    def _graft(self, rng: random.Random, found: list[bytes]) -> None:
        other = self.whole[rng.choice(self._names)]
        start = rng.randrange(len(other))
        at = rng.randrange(len(found))
        found[at:at] = other[start : start + rng.randint(1, 20)]

    def _damage(self, rng: random.Random, found: list[bytes]) -> None:
        at = rng.randrange(len(found))
        piece = found[at]
        where = rng.randrange(len(piece) + 1)
        found[at] = piece[:where] + rng.randbytes(rng.randint(0, 4)) + piece[where + rng.randint(0, 3) :]

    def _rewrite(self, rng: random.Random, found: list[bytes]) -> None:
        at = rng.randrange(len(found))
        payload = found[at][1:-3]
        where = rng.randrange(len(payload) + 1)
        noise = rng.choice(NOISE) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 4))
        found[at] = frame(payload[:where] + noise + payload[where + rng.randint(0, 4) :])

    def _number(self, rng: random.Random, found: list[bytes]) -> None:
        at = rng.randrange(len(found))
        payload = found[at][1:-3]
        if places := [match.span() for match in re.finditer(rb"[0-9a-f]+", payload)]:
            start, end = rng.choice(places)
            found[at] = frame(payload[:start] + rng.choice(NUMBERS) + payload[end:])

    def _intrude(self, rng: random.Random, found: list[bytes]) -> None:
        what = rng.choice((b"\x03", b"\x03", b"-", b"+", b"$#00", rng.randbytes(rng.randint(1, 40))))
        found.insert(rng.randrange(len(found)), what)


def _arriving(rng: random.Random, found: list[bytes]) -> Iterator[bytes]:
    """Pieces as a network hands them over: most as they were sent, some together, some in parts."""
    joins, splits = rng.random() < 0.2, rng.random() < 0.2
    waiting = b""
    for piece in found:
        waiting += piece
        if joins and rng.random() < 0.5:
            continue
        if splits and len(waiting) > 1 and rng.random() < 0.3:
            at = rng.randrange(1, len(waiting))
            yield waiting[:at]
            waiting = waiting[at:]
        yield waiting
        waiting = b""
    if waiting:
        yield waiting


class Desk:
    """What a Worker is to a target, on the caller's thread: the guest runs when `run` says so, and for how long."""

    def __init__(self, debugger: Debugger) -> None:
        self.debugger = debugger
        self.listeners: list[Callable[[Stop], None]] = []
        self._posted: list[Callable[[], object]] = []
        self._interrupted = False

    def add_listener(self, listener: Callable[[Stop], None], *, steps: bool = True) -> None:
        self.listeners.append(listener)

    def remove_listener(self, listener: Callable[[Stop], None]) -> None:
        with suppress(ValueError):
            self.listeners.remove(listener)

    def post(self, fn: Callable[[], object]) -> None:
        self._posted.append(fn)

    def interrupt(self) -> None:
        self._interrupted = True

    def resume(self, begin: Callable[[], None]) -> None:
        begin()
        self._interrupted = False
        self.run()

    def step(self) -> None:
        if (stop := self.debugger.single_step()) is None:
            self.resume(self.debugger.begin_step)
        else:
            self._tell(stop)

    def run(self) -> None:
        """What was posted, then a piece of the guest's run, if it runs."""
        while self._posted:
            self._posted.pop(0)()
        if self.debugger.running:
            interrupted = self._interrupted and self.debugger.begun_at is None
            stop = self.debugger.stop() if interrupted else self._piece()
            if stop is not None:
                self._tell(stop)
        self._interrupted = False

    def _piece(self) -> Stop | None:
        """All of a piece: where the machine wants to be looked at, a pump ends sooner, and a Worker goes on."""
        executor, begun = self.debugger.machine.executor, self.debugger.begun_at
        end = (executor.retired if begun is None else begun) + PIECE
        left = PIECE
        while (stop := self.debugger.pump(left)) is None and (left := end - executor.retired) > 0:
            pass
        return stop

    def _tell(self, stop: Stop) -> None:
        for listener in tuple(self.listeners):
            listener(stop)


class Ground:
    """The machine of the recordings, at power-on in front of each session."""

    def __init__(self) -> None:
        self.mutator = Mutator()
        self.debugger = Debugger(build_machine(MachineConfig(memory=MEMORY, firmware=assemble(LOOP))))

    def close(self) -> None:
        self.debugger.machine.close()

    def session(self, number: int) -> None:
        """Raises for a finding."""
        rng = random.Random(number)
        pieces = self.mutator.pieces(rng)
        looks_on, compressed = rng.randrange(LOOKS_ON) == 0, rng.randrange(COMPRESSED) == 0
        pace = rng.random()
        said = self.play(pieces, random.Random(pace), looks_on=looks_on, compressed=compressed)
        if rng.randrange(AGAIN) == 0:
            again = self.play(pieces, random.Random(pace), looks_on=looks_on, compressed=compressed, held=False)
            if said != again:
                raise Finding(f"with nothing held the answers are others: {_parting(said, again)}")

    def play(
        self,
        pieces: list[bytes],
        rng: random.Random | None = None,
        *,
        looks_on: bool = False,
        compressed: bool = False,
        held: bool = True,
    ) -> list[bytes]:
        """What is answered to each piece. `rng` says how long the guest runs between two; without, a piece each."""
        debugger, errors = self.debugger, list[Exception]()
        desk = Desk(debugger)
        if looks_on:
            desk.resume(debugger.begin_continue)
        target = DebuggerTarget(debugger, desk)  # type: ignore[arg-type]
        session = Session(
            target, has_runner=True, compressed=compressed, looks_on=looks_on, on_error=errors.append
        )  # fmt: skip
        said = []
        for piece in pieces:
            session.hold(held)
            out, closes = _hear(session, piece)
            if held and session.answered:
                session.look_ahead()
            pace = 0.0 if rng is None else rng.random()
            if debugger.running or pace < 0.3:
                session.hold(False)
                desk.run()
                if debugger.running and pace < 0.7:
                    if looks_on:
                        out += _hear(session, b"\x03")[0]
                    else:
                        desk.interrupt()
                        desk.run()
            said.append(out + session.data_to_send())
            if closes:
                break
        session.hold(False)
        session.disconnected()
        desk.run()
        self._assert_nothing_is_left(desk, errors, b"".join(pieces), target)
        return said

    def _assert_nothing_is_left(self, desk: Desk, errors: list[Exception], sent: bytes, target: DebuggerTarget) -> None:
        left = desk.debugger.breakpoint_list()
        desk.debugger.remove_owned(OWNER)
        desk.debugger.reset()
        desk.debugger._next_id = 1  # answers name breakpoints by their numbers,
        desk.debugger._removed.clear()  # and none comes back with an old one
        if errors:
            raise Finding("an error within the session") from errors[0]
        if desk.listeners:
            raise Finding("a listener is left behind")
        if left and not (target.experiment.stays or re.search(rb"cmds:(?!0,)", sent)):
            raise Finding(f"left behind: {left}")


def _hear(session: Session, data: bytes) -> tuple[bytes, bool]:
    """What a server does with bytes: the answer, and whether it is to close."""
    out, closes = b"", False
    events = session.receive_data(data)
    for _ in range(ROUNDS):
        if session.buffered > HIGH_WATER + 3 * PACKET_SIZE:
            raise Finding(f"{session.buffered} bytes are held")
        out += session.data_to_send()
        closes |= any(isinstance(event, Close) for event in events)
        if any(isinstance(event, RunCommand) for event in events):
            events = session.command_finished("done")
        elif session.stalled:
            events = session.receive_data(b"")
        else:
            return out, closes
    raise Finding("a session that comes to no end of its answers")


def _parting(one: list[bytes], other: list[bytes]) -> str:
    """Where two runs of answers part."""
    for at, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return f"to piece {at}: {first[:400]!r} and {second[:400]!r}"
    return f"{len(one)} and {len(other)} answers"
