"""The only socket code: addresses and the byte streams behind them: TCP, a Unix socket, two pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Mapping
from typing import Protocol

from emu.record import dataclass
from stub.exchange import Exchanged, Known, Talk, exchange
from stub.known import Exchanger, Library, load_library

#: Bytes taken from a client at a time.
CHUNK = 0x10000
#: Bytes of a Unix socket's path (unix(7), sun_path), without the final zero.
MAX_PATH = 107
STDIO = "stdio"
_READ, _WRITE = select.POLLIN, select.POLLOUT
#: How long `linger` waits, ms.
LINGER_MS = 2
#: Of send(2): neither a signal where nobody reads, nor waiting for room.
_SENDING = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
#: struct timeval (socket(7), SO_RCVTIMEO): seconds and microseconds, each a long.
_TIMEVAL = struct.Struct("ll")
#: Of tcp(7): seconds of silence, seconds between two probes, probes: a host that has gone is missed in 2 minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class ServerError(Exception):
    """The server cannot be had at this address; one sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to serve: `path` of a Unix socket, or `host` and `port` (0: a free one), or neither: standard input and
    output."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_stdio(self) -> bool:
        return not self.host and not self.path


def parse_address(text: str) -> Address:
    """HOST:PORT, PORT (on the loopback interface), a path with a slash in it, or `stdio`. Raises ServerError."""
    if text == STDIO:
        return Address()
    path = text.removeprefix("unix:")
    if "/" in path or path != text:
        if not path or len(os.fsencode(path)) > MAX_PATH:
            raise ServerError(f"{path!r} cannot be a socket's path: it has 1 to {MAX_PATH} bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ServerError(
            f"{text!r} is no address for gdb: give HOST:PORT, PORT (0 to 65535, 0 for a free one), a socket's path with"
            " a slash in it, or stdio"
        )
    return Address(host.removeprefix("tcp:").strip("[]") or "127.0.0.1", int(port))


class Link(Protocol):
    """A byte stream that never blocks but in `linger`. `talks`: `exchange` does what `talk` says."""

    @property
    def talks(self) -> bool: ...

    def fileno(self) -> int: ...

    def write_fileno(self) -> int: ...

    def receive(self) -> bytes:
        """What has come, b"" at the end. Raises BlockingIOError, OSError."""

    def linger(self) -> bytes:
        """What comes within LINGER_MS, b"" at the end. Raises BlockingIOError, OSError."""

    def send(self, data: bytes) -> int:
        """How much was taken. Raises BlockingIOError, OSError."""

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        """Answer what comes and is known: see `stub.exchange`; it may come back sooner."""

    def close(self) -> None: ...


class SocketLink:
    """A connection. The descriptor blocks, for at most LINGER_MS, so that waiting for a packet and taking it are one
    call of the system; all else says that it is not to wait (MSG_DONTWAIT of recv(2))."""

    def __init__(self, connection: socket.socket, library: Library | None = None) -> None:
        """`library` exchanges what is known, where there is one."""
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, LINGER_MS * 1000))
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():  # named so on Linux; elsewhere the system's own times hold
                if hasattr(socket, option):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._socket = connection
        self._exchanger = None if library is None else Exchanger(library, connection.fileno(), CHUNK)
        self.talks = library is not None

    def fileno(self) -> int:
        return self._socket.fileno()

    write_fileno = fileno

    def receive(self) -> bytes:
        return self._socket.recv(CHUNK, socket.MSG_DONTWAIT)

    def linger(self) -> bytes:
        return self._socket.recv(CHUNK)

    def send(self, data: bytes) -> int:
        return self._socket.send(data, _SENDING)

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        if self._exchanger is None:
            return exchange(self, answers, until)
        return self._exchanger.exchange(answers, until, talk)

    def finish(self) -> None:
        """Nothing more will be sent; what the peer still sends is read until it goes, so that it gets the answer."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class PipeLink:
    """Descriptors whose blocking mode is shared with other processes, and so is left alone."""

    talks = False

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink

    def fileno(self) -> int:
        return self._source

    def write_fileno(self) -> int:
        return self._sink

    def receive(self) -> bytes:
        return os.read(self._source, CHUNK)

    def linger(self) -> bytes:
        ready = select.poll()
        ready.register(self._source, _READ)
        if not ready.poll(LINGER_MS):
            raise BlockingIOError
        return self.receive()

    def send(self, data: bytes) -> int:
        ready = select.poll()
        ready.register(self._sink, _WRITE)
        if not ready.poll(0):
            raise BlockingIOError
        return os.write(self._sink, data[: select.PIPE_BUF])  # this much never blocks when poll says ready

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        return exchange(self, answers, until)

    def close(self) -> None:
        pass  # not ours


def listen(where: Address, waiting: int) -> tuple[Listener, str]:
    """What clients connect to, and the address in the form that gdb's `target remote` takes. Raises ServerError."""
    listener = _bind_path(where.path) if where.path else _bind_port(where)
    listener.listen(waiting)
    listener.setblocking(False)
    if where.path:
        return Listener(listener), where.path
    host, port = listener.getsockname()[:2]
    return Listener(listener), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener:
    """Gives links."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._library = load_library()

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> tuple[SocketLink, str] | None:
        """The next client and what to call it; None for one that has gone again."""
        try:
            accepted, peer = self._listener.accept()
        except OSError:
            return None
        return SocketLink(accepted, self._library), f"{peer[0]}:{peer[1]}" if isinstance(
            peer, tuple
        ) else "a local process"

    def close(self) -> None:
        self._listener.close()


class Waker:
    """Ends another thread's wait."""

    def __init__(self) -> None:
        self._heard, self._said = socket.socketpair()
        self._heard.setblocking(False)
        self._said.setblocking(False)

    def fileno(self) -> int:
        return self._heard.fileno()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: there is nobody to wake
            self._said.send(b"w")

    def heard(self) -> None:
        """Take what has woken."""
        with contextlib.suppress(BlockingIOError):
            self._heard.recv(4096)

    def close(self) -> None:
        self._heard.close()
        self._said.close()


def _bind_port(where: Address) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServerError(f"no host is called {where.host!r} ({error.strerror})") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise ServerError(_why(error, f"port {where.port} on {where.host}")) from None
    return listener


def _bind_path(path: str) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
    except OSError as error:
        listener.close()
        raise ServerError(_why(error, f"socket {path}")) from None
    return listener


def _why(error: OSError, what: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{what} is in use by another program: choose another address, or port 0 for a free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{what} is not permitted to this user: choose another address"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what} is not an address of this computer"
    return f"{what} cannot be served: {error.strerror}"


def _remove_stale(path: str) -> None:
    """A socket that nobody listens on is left over from a killed server. Raises ServerError for what is in use."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServerError(f"{path} exists and is not a socket: choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise ServerError(_why(error, f"socket {path}")) from None
        else:
            raise ServerError(f"socket {path} is in use by another program: choose another path")
