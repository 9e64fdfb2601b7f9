"""A client that is served: what it sends goes to its session, what that says goes out at once or when there is room.

After an answer the target's thread waits for the next packet itself for a moment. What it has been asked and has
answered already, or has looked up ahead, is then between two calls of the system a look into a dictionary.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stub.links import Link
from stub.session import Event, Session

#: After an answer the target's thread waits a little for the next packet (`Link.linger`), since gdb sends them in
#: bursts and each change of threads costs as much as the packet; so long in all (s) before it looks whether others want
#: the target, too.
LINGER_SECONDS = 0.02


class Connection:
    """A client that is served."""

    def __init__(self, link: Link, wake: Callable[[], None], undisturbed: Callable[[], bool] = lambda: False) -> None:
        """`wake` has the server's thread look at it. `undisturbed`, on the target's thread: nobody but this client
        wants anything of that or of the server."""
        self.link = link
        self.session: Session | None = None
        self._wake, self._undisturbed = wake, undisturbed
        self._lock = threading.Lock()
        self._pending = b""
        self.closing = False  #: close when all is sent
        self.alone = True  #: no other client is served
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
        session.hold(True)  # until this returns, nobody else gets at the target
        try:
            return self._feed(session, data)
        finally:
            session.hold(False)

    def _feed(self, session: Session, data: bytes) -> list[Event]:
        end = time.monotonic() + LINGER_SECONDS
        while True:
            events = session.receive_data(data)
            while self.flush() and session.stalled:
                events += session.receive_data(b"")
            if self._pending or events or not self.alone or not session.answered or not (end := self._goes_on(end)):
                return events
            session.look_ahead(talks=self.link.talks)
            data = self._exchange(session, end)
            if not data:
                return events

    def _goes_on(self, end: float) -> float:
        """Until when to stay, where that was to be until `end`; 0: no longer."""
        now = time.monotonic()
        return end if now < end else now + LINGER_SECONDS if self._undisturbed() else 0.0

    def _exchange(self, session: Session, end: float) -> bytes:
        """Answer what is known; what came else, b"" where nothing did."""
        while True:
            talk = session.begin_quiet() if self.link.talks else None
            if not session.held and talk is None:
                return self.receive(self.link.linger)
            exchanged = self.link.exchange(session.held, end, talk)
            if talk is None:
                session.answered_again(exchanged.answered)
            else:
                session.end_quiet(exchanged)
            data, unsent, self.dead = exchanged.data, exchanged.unsent, exchanged.ended
            if unsent:
                with self._lock:
                    self._pending = unsent
            if data or unsent or self.dead or time.monotonic() < end or not (end := self._goes_on(end)):
                return data

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
