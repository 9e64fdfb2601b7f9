"""What a stub answers to packets on a plain socket, without a gdb that takes its own time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import guests
from bench.sides import BenchError, Side

#: How long a side is asked in its turn, s; how many turns a sample of the other figures is worth; and how long a stub
#: may take for one answer, s.
WINDOW, TURNS, PATIENCE = 0.1, 4, 20.0
#: Where the guest never writes.
SCRATCH = 0x100000
PAGE, PIECE = 4096, 1024
#: The most that all three stubs give in one answer: 4 KiB of packet hold it in hex.
READ_AT_ONCE = 2000
BREAKPOINT = b"0,%x,1" % guests.LOOP_ADDRESS

#: Something to be done once.
Once = Callable[[], object]


class Client:
    """Asks a stub one thing after another, with acknowledgements where it cannot do without."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer, self._acknowledges = b"", True
        features = self.ask(b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+")
        if b"QStartNoAckMode+" in features and self.ask(b"QStartNoAckMode") == b"OK":
            self._acknowledges = False
        self.has_binary = self.ask(b"X%x,0:" % SCRATCH) == b"OK"
        self.largest = READ_AT_ONCE
        for feature in features.split(b";"):
            if feature.startswith(b"PacketSize="):
                self.largest = int(feature[len(b"PacketSize=") :], 16) // 2 - 4
        self.ask(b"qXfer:features:read:target.xml:0,ffb")  # QEMU answers `p` behind it
        self.ask(b"?")

    def close(self) -> None:
        self._socket.close()

    def ask(self, payload: bytes) -> bytes:
        """The answer's payload, as it was sent. Raises BenchError."""
        try:
            self._socket.sendall(b"$%b#%02x" % (payload, sum(payload) & 0xFF))
            while True:
                start = self._buffer.find(b"$")
                end = self._buffer.find(b"#", start) if start >= 0 else -1
                if end >= 0 and len(self._buffer) >= end + 3:
                    break
                piece = self._socket.recv(1 << 16)
                if not piece:
                    raise BenchError(f"the stub left when it was sent {payload[:20]!r}")
                self._buffer += piece
            answer, self._buffer = self._buffer[start + 1 : end], self._buffer[end + 3 :]
            if self._acknowledges:
                self._socket.sendall(b"+")
        except OSError as error:
            raise BenchError(f"the stub did not answer {payload[:20]!r}: {error}") from None
        return answer

    def good(self, payload: bytes) -> bytes:
        """As `ask`. Raises BenchError for an answer that says no."""
        answer = self.ask(payload)
        if not answer or answer[:1] == b"E":
            raise BenchError(f"the stub answers {payload[:20]!r} by {answer[:40]!r}")
        return answer

    def to_loop(self) -> None:
        """Into the loop of `guests.loop_disk`."""
        self.good(b"Z0,%x,1" % guests.BOOT_ADDRESS)
        self.good(b"vCont;c")
        self.good(b"z0,%x,1" % guests.BOOT_ADDRESS)
        for _ in range(3):
            self.good(b"vCont;s")


def _registers(client: Client) -> Once:
    return lambda: client.good(b"g")


def _read_word(client: Client) -> Once:
    return lambda: client.good(b"m%x,4" % SCRATCH)


def _read_page(client: Client) -> Once:
    """In as many packets as the stub needs."""

    def once() -> None:
        at = 0
        while at < PAGE:
            at += len(client.good(b"m%x,%x" % (SCRATCH + at, min(client.largest, PAGE - at)))) // 2

    return once


def _write_word(client: Client) -> Once:
    return lambda: client.good(b"M%x,4:00112233" % SCRATCH)


def _write_piece(client: Client) -> Once:
    """By `M` where there is no `X`."""
    head = b"%x,%x:" % (SCRATCH, PIECE)
    payload = b"X" + head + b"Z" * PIECE if client.has_binary else b"M" + head + b"5a" * PIECE
    return lambda: client.good(payload)


def _step(client: Client) -> Once:
    return lambda: client.good(b"vCont;s")


def _breakpoint_cycle(client: Client) -> Once:
    """What gdb does at each hit of a breakpoint."""

    def once() -> None:
        for payload in (b"vCont;c", b"z" + BREAKPOINT, b"vCont;s", b"Z" + BREAKPOINT):
            client.good(payload)

    return once


def _to_next_hit(client: Client) -> Once:
    return lambda: client.good(b"vCont;c")


@dataclass(frozen=True)
class RawFigure:
    """One row. `once` gives what is done over and over; `point` is set before and taken away behind it."""

    name: str
    once: Callable[[Client], Once]
    point: bytes = b""
    unit: str = "1/s"
    higher_is_better: bool = True
    aim: str = "0.7x QEMU's"
    first: bytes = b""  #: what is asked before each time, which is not timed


FIGURES = (
    RawFigure("raw g", _registers),
    RawFigure("raw g behind a step", _registers, first=b"vCont;s"),
    RawFigure("raw m of 4 bytes", _read_word),
    RawFigure("raw m of 4 KiB", _read_page),
    RawFigure("raw M of 4 bytes", _write_word),
    RawFigure("raw X of 1 KiB (QEMU: M)", _write_piece),
    RawFigure("raw vCont;s", _step),
    RawFigure("raw breakpoint cycle: c z s Z", _breakpoint_cycle, BREAKPOINT),
    RawFigure("raw watchpoint hits", _to_next_hit, b"2,%x,4" % guests.COUNTER_ADDRESS),
)


def _rate(once: Once, first: Once | None) -> float:
    """How often a second; the time of `first`, which comes before each, does not count."""
    done, spent, end = 0, 0.0, time.perf_counter() + WINDOW
    while (begin := time.perf_counter()) < end:
        if first is not None:
            first()
            begin = time.perf_counter()
        once()
        spent += time.perf_counter() - begin
        done += 1
    return done / spent


def _first(client: Client, figure: RawFigure) -> Once | None:
    return (lambda: client.good(figure.first)) if figure.first else None


def samples(
    figures: Sequence[RawFigure], sides: Sequence[Side], runs: int, folder: Path
) -> Iterator[tuple[RawFigure, dict[str, list[float]]]]:
    """Each figure with the samples of each side: all have their machines open and are asked in short turns, since a
    busy host changes its pace within a second."""
    if not figures:
        return
    disk = guests.loop_disk(folder / "loop.img")
    with contextlib.ExitStack() as stack:
        clients: dict[str, Client] = {}
        for side in sides:
            served = stack.enter_context(side.serve("seabios", disk))
            clients[side.name] = stack.enter_context(contextlib.closing(Client(served.address)))
            clients[side.name].to_loop()
        for figure in figures:
            doing = {name: (figure.once(client), _first(client, figure)) for name, client in clients.items()}
            found: dict[str, list[float]] = {name: [] for name in clients}
            for name, client in clients.items():
                if figure.point:
                    client.good(b"Z" + figure.point)
                doing[name][0]()  # not counted
            for _ in range(runs * TURNS):
                for name, (once, first) in doing.items():
                    found[name].append(_rate(once, first))
            if figure.point:
                for client in clients.values():
                    client.good(b"z" + figure.point)
            yield figure, found
