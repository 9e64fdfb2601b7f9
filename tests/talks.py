"""A client on a plain socket, and the server of a machine for it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from emu.debugger import Debugger
from emu.worker import Worker
from machines import debugger as make_debugger
from stub.packet import frame
from stub.serve import serve_debugger

PATIENCE = 60
GREETINGS = (
    "qSupported:multiprocess+;swbreak+;hwbreak+;qXfer:features:read+;vContSupported+;error-message+", "QStartNoAckMode",
    "qXfer:features:read:target.xml:0,1ffff", "?",
)  # fmt: skip


class Talks:
    """A client on a socket of a machine's server."""

    def __init__(self, address: str) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.said: list[bytes] = []
        self.log: tuple[str, ...] = ()
        for greeting in GREETINGS:
            self.ask(greeting)
        self.said.clear()

    def ask(self, payload: str | bytes) -> bytes:
        return self.send(frame(payload.encode() if isinstance(payload, str) else payload))

    def send(self, packet: bytes) -> bytes:
        """The answer's payload to what may be no packet."""
        self.socket.sendall(packet)
        answer = b""
        while answer[-3:-2] != b"#":
            piece = self.socket.recv(1 << 16)
            assert piece, "the server has gone"
            answer += piece
        answer = answer.lstrip(b"+")
        self.said.append(answer)
        return answer[1:-3]


@contextlib.contextmanager
def served(firmware: bytes) -> Iterator[tuple[Talks, Debugger, Worker]]:
    debugger = make_debugger(firmware)
    worker = Worker(debugger)
    worker.start()
    errors: list[BaseException] = []
    server = serve_debugger(debugger, worker, "127.0.0.1:0", on_error=errors.append)
    talks = Talks(server.start())
    try:
        yield talks, debugger, worker
        talks.log = server.packet_log()
    finally:
        talks.socket.close()
        server.close()
        worker.close()
    assert errors == []
