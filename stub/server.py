"""Serves gdb on TCP, a Unix socket or a pair of pipes, in its own thread. The first client has the target, or the next
where that one says nothing; those that come while it is there look on.

Bytes that come in are handled by the session on the thread that owns the target (`call` gets them there); what it has
to say is sent from there at once, and by the server's thread later when the client is slow. Nothing a client does can
make that thread wait for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from stub.connection import Connection
from stub.handlers.base import error_text
from stub.links import STDIO, Address, Link, Listener, PipeLink, ServerError, SocketLink, Waker, listen, parse_address
from stub.packet import frame
from stub.session import Close, Event, RunCommand, Session

__all__ = ["STDIO", "Address", "Server", "ServerError", "parse_address"]
T = TypeVar("T")
_READ, _WRITE = select.POLLIN, select.POLLOUT
_SETTLE = 0.01  #: seconds between two looks of `settle`
#: Clients that look on at the same time.
MAX_ONLOOKERS = 4
#: Clients more than that are told that others are served, until they go; more replace the oldest.
MAX_REFUSED = 8


#: Makes a session: (compressed, on_output) to it.
SessionFactory = Callable[[bool, Callable[[], None]], Session]


def _silent(connection: Connection) -> bool:
    """It has said nothing that is a packet, and nothing waits to be read."""
    session = connection.session
    if session is None or not session.silent:
        return False
    poll = select.poll()
    poll.register(connection.link.fileno(), _READ)
    return not poll.poll(0)


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
        look_command: Callable[[str], str] | None = None,
        wanted: Callable[[], bool] = lambda: True,
        on_error: Callable[[BaseException], None] = lambda error: None,
        prepare: Callable[[], None] = lambda: None,
        pipes: tuple[int, int] = (0, 1),
    ) -> None:
        """`make_onlooker` makes the sessions of clients that look on; None: there are none, a second client is refused.
        `call` runs a function on the target's thread and returns what it returns. `run_command` runs a monitor
        command, on a thread of its own, and returns its output; `look_command` is for clients that look on. `wanted`
        says, on the target's thread, whether somebody waits for that.
        `on_error` is told what went wrong inside. `prepare` is called on the server's thread when the address can be
        reached, so that a client finds done what takes time. `pipes`: the descriptors that `stdio` means."""
        self._where = parse_address(address) if isinstance(address, str) else address
        self._make_session, self._make_onlooker = make_session, make_onlooker
        self._call, self._wanted = call, wanted
        self._run_command, self._look_command = run_command, look_command
        self._on_error, self._prepare = on_error, prepare
        self._pipes = pipes
        self._listener: Listener | None = None
        self._connection: Connection | None = None  #: the client that has the target
        self._onlookers: list[Connection] = []
        self._peer = ""
        self._refused: list[SocketLink] = []
        self._closing = False
        self._events: deque[tuple[Connection, list[Event]]] = deque()  #: of monitor commands that have ended
        self._waker = Waker()
        self._knocks = select.poll()  #: what else than its clients the server's thread waits for
        self._knocks.register(self._waker, _READ)
        self._thread = threading.Thread(target=self._main, name="v2e-gdb", daemon=True)

    def start(self) -> str:
        """Begin to serve. Returns the address in the form that gdb's `target remote` takes. Raises ServerError."""
        try:
            shown = self._listen()
        except ServerError:
            self._waker.close()
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

    def settle(self, seconds: float) -> None:
        """Give the clients so long to hear of the guest's last stop, before `close`. Not on the server's thread."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sessions = [one.session for one in self._connections]
            if not any(session is not None and session.owes for session in sessions) or self.wait(_SETTLE):
                return

    def close(self) -> None:
        """End: the client is disconnected, the address free. Not on the target's thread, which is needed for it."""
        self._closing = True
        self._waker.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10)

    def _listen(self) -> str:
        where = self._where
        if where.is_stdio:
            self._call(lambda: self._connect(PipeLink(*self._pipes), "standard input"))
            return STDIO
        self._listener, shown = listen(where, MAX_REFUSED)
        self._knocks.register(self._listener, _READ)
        return shown

    def _undisturbed(self) -> bool:
        """On the target's thread, for which this server's waits: nothing else is to be done by either."""
        return not (self._wanted() or self._closing or self._events or self._refused or self._knocks.poll(0))

    # -- the server's thread

    def _main(self) -> None:
        try:
            self._prepare()
            while not self._closing:
                self._turn()
        except Exception as error:
            self._on_error(error)
        finally:
            self._end()

    @property
    def _connections(self) -> list[Connection]:
        """Those that look on come first: what they sent before the guest was let go is heard before it stops again."""
        return [*self._onlookers, *([] if self._connection is None else [self._connection])]

    def _count(self) -> None:
        """While somebody looks on nobody is waited for before the others are heard."""
        connections = self._connections
        for connection in connections:
            connection.alone = len(connections) == 1

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        poll = select.poll()
        poll.register(self._waker, _READ)
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
        if self._waker.fileno() in ready:
            self._waker.heard()
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

    def _serve(self, connection: Connection, ready: set[int]) -> None:
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

    def _on_target(self, connection: Connection, fn: Callable[[], list[Event]]) -> list[Event]:
        """Run `fn` on the target's thread. A target that is gone takes its client with it."""
        out: list[Event] = []
        try:
            self._call(lambda: out.extend(fn()))
        except Exception as error:
            self._on_error(error)
            connection.dead = True
        return out

    def _handle(self, connection: Connection, events: list[Event]) -> None:
        for event in events:
            match event:
                case Close():
                    connection.closing = True
                case RunCommand(text):
                    threading.Thread(
                        target=self._command, args=(connection, text), name="v2e-gdb-monitor", daemon=True
                    ).start()

    def _command(self, connection: Connection, text: str) -> None:
        """On a thread of its own, so that a long command stops nobody."""
        output = failure = ""
        run = self._run_command if connection is self._connection else self._look_command
        try:
            output = run(text) if run is not None else ""
        except Exception as error:
            failure = str(error) or type(error).__name__
        events = self._on_target(connection, lambda: connection.finish_command(output, failure))
        self._events.append((connection, events))
        self._waker.wake()

    def _connect(self, link: Link, peer: str) -> None:
        connection = Connection(link, self._waker.wake, self._undisturbed)
        connection.session = self._make_session(isinstance(link, PipeLink), connection.flush_and_wake)
        self._connection, self._peer = connection, peer
        self._count()

    def _look_on(self, link: Link, make: SessionFactory) -> None:
        connection = Connection(link, self._waker.wake)
        connection.session = make(False, connection.flush_and_wake)
        connection.session.vacate(lambda: self._connection is None)
        self._onlookers.append(connection)
        self._count()

    def _disconnect(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
        else:
            self._onlookers.remove(connection)
        self._count()
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
        accepted = self._listener.accept()
        if accepted is None:
            return
        link, name = accepted
        if self._connection is not None and _silent(self._connection):
            self._disconnect(self._connection)  # whoever speaks has the target
        if self._connection is None:
            self._welcome(link, lambda: self._connect(link, name))
            return
        make = self._make_onlooker
        if make is not None and len(self._onlookers) < MAX_ONLOOKERS:
            self._welcome(link, lambda: self._look_on(link, make))
            return
        self._refused.append(link)
        if len(self._refused) > MAX_REFUSED:
            self._refused.pop(0).close()

    def _welcome(self, link: SocketLink, connect: Callable[[], None]) -> None:
        try:
            self._call(connect)
        except Exception as error:
            self._on_error(error)
            link.close()

    def _refuse(self, link: SocketLink) -> None:
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
        self._waker.close()
