"""The only socket code: serves gdb on TCP, a Unix socket or a pair of pipes, in its own thread. The first client has
the target; those that come while it is there look on.

Bytes that come in are handled by the session on the thread that owns the target (`call` gets them there); what it has
to say is sent from there at once, and by the server's thread later when the client is slow. Nothing a client does can
make that thread wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from stub.handlers.base import error_text
from stub.packet import frame
from stub.session import Close, Event, RunCommand, Session

T = TypeVar("T")
#: Bytes taken from a client at a time.
CHUNK = 0x10000
#: After an answer the target's thread waits this long (ms) for the next packet, since gdb sends them in bursts and each
#: change of threads costs as much as the packet; and no longer than this in all (s), as others want the target, too.
LINGER_MS, LINGER_SECONDS = 2, 0.02
#: Clients that look on at the same time.
MAX_ONLOOKERS = 4
#: Clients more than that are told that others are served, until they go; more replace the oldest.
MAX_REFUSED = 8
#: Bytes of a Unix socket's path (unix(7), sun_path), without the final zero.
MAX_PATH = 107
STDIO = "stdio"
_READ, _WRITE = select.POLLIN, select.POLLOUT
#: Of send(2): neither a signal where nobody reads, nor waiting for room.
_SENDING = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
#: struct timeval (socket(7), SO_RCVTIMEO): seconds and microseconds, each a long.
_TIMEVAL = struct.Struct("ll")


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


class _Link(Protocol):
    """A byte stream that never blocks but in `linger`."""

    def fileno(self) -> int: ...

    def write_fileno(self) -> int: ...

    def receive(self) -> bytes:
        """What has come, b"" at the end. Raises BlockingIOError, OSError."""

    def linger(self) -> bytes:
        """What comes within LINGER_MS, b"" at the end. Raises BlockingIOError, OSError."""

    def send(self, data: bytes) -> int:
        """How much was taken. Raises BlockingIOError, OSError."""

    def close(self) -> None: ...


class _SocketLink:
    """The descriptor blocks, for at most LINGER_MS, so that waiting for a packet and taking it are one call of the
    system; all else says that it is not to wait (MSG_DONTWAIT of recv(2))."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, LINGER_MS * 1000))
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = connection

    def fileno(self) -> int:
        return self._socket.fileno()

    write_fileno = fileno

    def receive(self) -> bytes:
        return self._socket.recv(CHUNK, socket.MSG_DONTWAIT)

    def linger(self) -> bytes:
        return self._socket.recv(CHUNK)

    def send(self, data: bytes) -> int:
        return self._socket.send(data, _SENDING)

    def finish(self) -> None:
        """Nothing more will be sent; what the peer still sends is read until it goes, so that it gets the answer."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class _PipeLink:
    """Descriptors whose blocking mode is shared with other processes, and so is left alone."""

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

    def close(self) -> None:
        pass  # not ours


class _Connection:
    """A client that is served."""

    def __init__(self, link: _Link, wake: Callable[[], None]) -> None:
        self.link = link
        self.session: Session | None = None
        self._wake = wake
        self._lock = threading.Lock()
        self._pending = b""
        self.closing = False  #: close when all is sent
        self.dead = False

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def flush(self) -> bool:
        """On the target's thread: send what the session has to say. True when all of it has gone out."""
        session = self.session
        if session is None:
            return True
        with self._lock:
            if not self._pending:
                self._pending = session.data_to_send()
            return self._send()

    def flush_and_wake(self) -> None:
        if not self.flush():
            self._wake()

    def drain(self) -> bool:
        """On the server's thread: send what was left over. True when all of it has gone out."""
        with self._lock:
            return self._send()

    def _send(self) -> bool:
        while self._pending and not self.dead:
            try:
                sent = self.link.send(self._pending)
            except BlockingIOError:
                return False
            except OSError:
                self.dead = True
                self._wake()
                break
            self._pending = self._pending[sent:]
        if self.dead:
            self._pending = b""
        return not self.dead

    def feed(self, data: bytes) -> list[Event]:
        """On the target's thread: let the session handle `data`, and what comes right behind the answer."""
        session = self.session
        assert session is not None
        end = time.monotonic() + LINGER_SECONDS
        while True:
            events = session.receive_data(data)
            while self.flush() and session.stalled:
                events += session.receive_data(b"")
            if events or self._pending or not session.answered or time.monotonic() >= end:
                return events
            data = self.receive(self.link.linger)
            if not data:
                return events

    def receive(self, receive: Callable[[], bytes]) -> bytes:
        """What has come by one of the link's ways, b"" for nothing. Notes the client's end in `dead`."""
        try:
            data = receive()
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.dead = not data
        return data

    def finish_command(self, output: str, failure: str) -> list[Event]:
        """On the target's thread: a monitor command has ended."""
        session = self.session
        if session is None:
            return []
        return session.command_finished(output, failure) + self.feed(b"")


#: Makes a session: (compressed, on_output) to it.
SessionFactory = Callable[[bool, Callable[[], None]], Session]


class Server:
    """Serves clients at an address: one that has the target, and some that look on; more are told so and let go."""

    def __init__(
        self,
        address: str | Address,
        make_session: SessionFactory,
        *,
        call: Callable[[Callable[[], object]], object],
        make_onlooker: SessionFactory | None = None,
        run_command: Callable[[str], str] | None = None,
        on_error: Callable[[BaseException], None] = lambda error: None,
        pipes: tuple[int, int] = (0, 1),
    ) -> None:
        """`make_onlooker` makes the sessions of clients that look on; None: there are none, a second client is refused.
        `call` runs a function on the target's thread and returns what it returns. `run_command` runs a monitor
        command, on a thread of its own, and returns its output. `on_error` is told what went wrong inside. `pipes`: the
        descriptors that `stdio` means."""
        self._where = parse_address(address) if isinstance(address, str) else address
        self._make_session, self._make_onlooker = make_session, make_onlooker
        self._call = call
        self._run_command = run_command
        self._on_error = on_error
        self._pipes = pipes
        self._listener: socket.socket | None = None
        self._connection: _Connection | None = None  #: the client that has the target
        self._onlookers: list[_Connection] = []
        self._peer = ""
        self._refused: list[_SocketLink] = []
        self._closing = False
        self._events: deque[tuple[_Connection, list[Event]]] = deque()  #: of monitor commands that have ended
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._main, name="v2e-gdb", daemon=True)

    def start(self) -> str:
        """Begin to serve. Returns the address in the form that gdb's `target remote` takes. Raises ServerError."""
        try:
            shown = self._listen()
        except ServerError:
            self._wake_in.close()
            self._wake_out.close()
            raise
        self._thread.start()
        return shown

    @property
    def connected(self) -> bool:
        """True while a client is served."""
        return self._connection is not None or bool(self._onlookers)

    def packet_log(self) -> tuple[str, ...]:
        """The last packets of the client that has the target: `<-` from it, `->` to it."""
        connection = self._connection
        session = connection.session if connection else None
        return session.log if session else ()

    def wait(self, timeout: float | None = None) -> bool:
        """Until the server has ended (standard input at its end, or `close`); False if it still serves."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End: the client is disconnected, the address free. Not on the target's thread, which is needed for it."""
        self._closing = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10)

    # -- listening

    def _listen(self) -> str:
        where = self._where
        if where.is_stdio:
            self._call(lambda: self._connect(_PipeLink(*self._pipes), "standard input"))
            return STDIO
        listener = self._bind_path(where.path) if where.path else self._bind_port(where)
        listener.listen(MAX_REFUSED)
        listener.setblocking(False)
        self._listener = listener
        if where.path:
            return where.path
        host, port = listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _bind_port(self, where: Address) -> socket.socket:
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

    def _bind_path(self, path: str) -> socket.socket:
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            os.chmod(path, 0o600)
        except OSError as error:
            listener.close()
            raise ServerError(_why(error, f"socket {path}")) from None
        return listener

    # -- the server's thread

    def _main(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception as error:
            self._on_error(error)
        finally:
            self._end()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: there is nobody to wake
            self._wake_out.send(b"w")

    @property
    def _connections(self) -> list[_Connection]:
        return [*([] if self._connection is None else [self._connection]), *self._onlookers]

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        poll = select.poll()
        poll.register(self._wake_in, _READ)
        if self._listener is not None:
            poll.register(self._listener, _READ)
        for link in self._refused:
            poll.register(link.fileno(), _READ)
        connections = self._connections
        for connection in connections:
            session = connection.session
            if not connection.pending and not connection.closing and session is not None and session.wants_data:
                poll.register(connection.link.fileno(), _READ)
            if connection.pending:
                poll.register(connection.link.write_fileno(), _WRITE)
        ready = {fd for fd, _ in poll.poll()}
        if self._wake_in.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
        while self._events:
            owner, late = self._events.popleft()
            if owner in connections:
                self._handle(owner, late)
        for connection in connections:
            self._serve(connection, ready)
        for link in [link for link in self._refused if link.fileno() in ready]:
            self._refuse(link)
        if self._listener is not None and self._listener.fileno() in ready:
            self._accept()

    def _serve(self, connection: _Connection, ready: set[int]) -> None:
        events: list[Event] = []
        if connection.pending:
            if connection.link.write_fileno() in ready and connection.drain() and not connection.closing:
                events = self._on_target(connection, lambda: connection.feed(b""))
        elif connection.link.fileno() in ready and not connection.closing:
            data = connection.receive(connection.link.receive)
            if data:
                events = self._on_target(connection, lambda: connection.feed(data))
        self._handle(connection, events)
        if connection.dead or (connection.closing and not connection.pending):
            self._disconnect(connection)

    def _on_target(self, connection: _Connection, fn: Callable[[], list[Event]]) -> list[Event]:
        """Run `fn` on the target's thread. A target that is gone takes its client with it."""
        out: list[Event] = []
        try:
            self._call(lambda: out.extend(fn()))
        except Exception as error:
            self._on_error(error)
            connection.dead = True
        return out

    def _handle(self, connection: _Connection, events: list[Event]) -> None:
        for event in events:
            match event:
                case Close():
                    connection.closing = True
                case RunCommand(text):
                    threading.Thread(
                        target=self._command, args=(connection, text), name="v2e-gdb-monitor", daemon=True
                    ).start()

    def _command(self, connection: _Connection, text: str) -> None:
        """On a thread of its own, so that a long command stops nobody."""
        output = failure = ""
        try:
            output = self._run_command(text) if self._run_command is not None else ""
        except Exception as error:
            failure = str(error) or type(error).__name__
        events = self._on_target(connection, lambda: connection.finish_command(output, failure))
        self._events.append((connection, events))
        self._wake()

    def _connect(self, link: _Link, peer: str) -> None:
        connection = _Connection(link, self._wake)
        connection.session = self._make_session(isinstance(link, _PipeLink), connection.flush_and_wake)
        self._connection, self._peer = connection, peer

    def _look_on(self, link: _Link, make: SessionFactory) -> None:
        connection = _Connection(link, self._wake)
        connection.session = make(False, connection.flush_and_wake)
        self._onlookers.append(connection)

    def _disconnect(self, connection: _Connection) -> None:
        if connection is self._connection:
            self._connection = None
        else:
            self._onlookers.remove(connection)
        session = connection.session
        if session is not None:

            def end() -> list[Event]:
                session.disconnected()
                connection.session = None
                return []

            self._on_target(connection, end)
        connection.link.close()
        if self._where.is_stdio:
            self._closing = True

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            accepted, peer = self._listener.accept()
        except OSError:
            return  # it has gone again
        link = _SocketLink(accepted)
        if self._connection is None:
            name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a local process"
            self._welcome(link, lambda: self._connect(link, name))
            return
        make = self._make_onlooker
        if make is not None and len(self._onlookers) < MAX_ONLOOKERS:
            self._welcome(link, lambda: self._look_on(link, make))
            return
        self._refused.append(link)
        if len(self._refused) > MAX_REFUSED:
            self._refused.pop(0).close()

    def _welcome(self, link: _SocketLink, connect: Callable[[], None]) -> None:
        try:
            self._call(connect)
        except Exception as error:
            self._on_error(error)
            link.close()

    def _refuse(self, link: _SocketLink) -> None:
        """Answer whatever a second client says, then wait for it to go."""
        try:
            data = link.receive()
            if data and b"#" in data:
                others = f" and {len(self._onlookers)} look on" if self._onlookers else ""
                text = f"another client is connected ({self._peer}){others}: disconnect it first"
                link.send(b"+" + frame(error_text(text)))
                link.finish()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._refused.remove(link)
            link.close()

    def _end(self) -> None:
        for connection in self._connections:
            self._disconnect(connection)
        for link in self._refused:
            link.close()
        if self._listener is not None:
            self._listener.close()
            if self._where.path:
                with contextlib.suppress(OSError):
                    os.unlink(self._where.path)
        self._closing = True
        self._wake_in.close()
        self._wake_out.close()


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
