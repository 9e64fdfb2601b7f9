"""`python -m bench.floor`: what of a gdb session is gdb's own and the kernel's, which no stub can save.

A figure is measured with v2e behind a tape recorder first. Then what v2e said to each packet is said again by a program
that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import re
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import gdb_figures
from bench.sides import BenchError, Qemu, Served, Side, V2e

#: How long the recorder waits for an answer, s.
PATIENCE = 60.0
CHUNK = 1 << 16
_ENDS = re.compile(rb"\$[^#]*#[0-9a-f]{2}\Z")
_RESUMES = b"$vCont;"

_UNSUPPORTED = b"$#00"

#: What was answered to packets as they came, from one resumption to the next.
Tape = list[dict[bytes, bytes]]

#: Name, unit, how it is measured, and how that becomes a time.
FIGURES: tuple[tuple[str, str, Callable[[Side, Path], float], Callable[[float], float]], ...] = (
    ("attach", "ms", gdb_figures.attach, lambda ms: ms),
    ("a step of stepi 1000", "us", gdb_figures.stepi_many, lambda rate: 1e6 / rate),
    ("stepi", "us", gdb_figures.stepi_single, lambda rate: 1e6 / rate),
    ("hit of a watchpoint", "us", gdb_figures.watch_hits, lambda rate: 1e6 / rate),
)


def _packet(data: bytes) -> bytes:
    """The packet of `data`, behind an acknowledgement; b"" where that is all."""
    return data[data.find(b"$") :] if b"$" in data else b""


def _connected() -> socket.socket:
    """A port of its own on the loopback interface."""
    return socket.create_server(("127.0.0.1", 0))


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


def _accept(listener: socket.socket) -> socket.socket:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Recorder(Side):
    """v2e, with what is said on `tape`."""

    def __init__(self) -> None:
        super().__init__("v2e", ())
        self.tape: Tape = [{}]

    @contextlib.contextmanager
    def serve(self, firmware: str, disk: Path | None) -> Iterator[Served]:
        self.tape.clear()
        self.tape.append({})
        with V2e().serve(firmware, disk) as served, _connected() as listener:
            thread = threading.Thread(target=self._pass_on, args=(listener, served.address), daemon=True)
            thread.start()
            yield Served(_address(listener), served.pid)

    def _pass_on(self, listener: socket.socket, address: str) -> None:
        host, _, port = address.rpartition(":")
        with _accept(listener) as gdb, socket.create_connection((host, int(port)), PATIENCE) as stub:
            while data := gdb.recv(CHUNK):
                stub.sendall(data)
                if not (packet := _packet(data)):
                    continue
                answer = b""
                while not _ENDS.search(answer):
                    if not (piece := stub.recv(CHUNK)):
                        return
                    answer += piece
                if packet.startswith(_RESUMES):
                    self.tape.append({})
                self.tape[-1][packet] = answer
                gdb.sendall(answer)


def _say_again(listener: socket.socket, tape: Tape) -> None:
    at = 0
    with _accept(listener) as gdb:
        while data := gdb.recv(CHUNK):
            if not (packet := _packet(data)):
                continue
            if packet.startswith(_RESUMES):
                at += 1
            gdb.sendall(tape[at].get(packet, _UNSUPPORTED))


class Again(Side):
    """What says again what `tape` has."""

    def __init__(self, tape: Tape) -> None:
        super().__init__("instant", ())
        self._tape = tape

    @contextlib.contextmanager
    def serve(self, firmware: str, disk: Path | None) -> Iterator[Served]:
        with _connected() as listener:
            process = multiprocessing.get_context("fork").Process(target=_say_again, args=(listener, self._tape))
            process.start()
            assert process.pid is not None
            try:
                yield Served(_address(listener), process.pid)
            finally:
                process.kill()
                process.join()


def main() -> int:
    """Returns an exit status: 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="samples of each figure (default 5)")
    runs = max(1, parser.parse_args().runs)
    print(f"{f'median of {runs}':<24}{'':>4}{'instant':>10}{'v2e':>10}{'QEMU':>10}{'QEMU/v2e':>10}{'at most':>10}")
    try:
        with tempfile.TemporaryDirectory(prefix="v2e-bench-") as name:
            folder = Path(name)
            for title, unit, measure, time_of in FIGURES:
                recorder = Recorder()
                measure(recorder, folder)
                sides: tuple[Side, ...] = (Again(recorder.tape), V2e(), Qemu())
                samples: list[list[float]] = [[] for _ in sides]
                for _ in range(runs):
                    for found, side in zip(samples, sides, strict=True):
                        found.append(time_of(measure(side, folder)))
                instant, ours, theirs = map(statistics.median, samples)
                cells = f"{instant:>10.4g}{ours:>10.4g}{theirs:>10.4g}{theirs / ours:>9.2f}x{theirs / instant:>9.2f}x"
                print(f"{title:<24}{unit:>4}{cells}", flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
