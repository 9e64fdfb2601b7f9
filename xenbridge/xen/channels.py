"""Event channels: how Xen tells dom0 that something has happened, as one descriptor."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Final

from xenbridge.xen.libraries import Libraries

#: Seconds between two looks that count for a patience at most; who waits looks more often.
_MOST_BETWEEN_LOOKS: Final = 1.0
_SELF: Final = 0x7FF0  #: DOMID_SELF, public/xen.h


class Patience:
    """How long something is waited for that has to come: seconds in which it was looked for.

    A process, or a whole machine, that was stopped or given no processor has not waited meanwhile: of the time between
    two looks no more counts than there is where it runs."""

    def __init__(self, seconds: float) -> None:
        self.left, self._seen = seconds, time.monotonic()

    @property
    def over(self) -> bool:
        """Nothing of it is left at this look."""
        now = time.monotonic()
        self.left -= min(now - self._seen, _MOST_BETWEEN_LOOKS)
        self._seen = now
        return self.left <= 0


class Channels:
    """The event channels of one opening of /dev/xen/evtchn. A port that is bound has a handler, which is called on the
    thread that takes the events; between event and `take` the port stays masked, so nothing is lost and nothing
    repeats."""

    def __init__(self, libraries: Libraries) -> None:
        self._events, self._close = libraries.events()
        self._handlers: dict[int, Callable[[], None]] = {}
        self.descriptor = self._events["fd"]()
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLIN)

    def bind(self, domid: int, remote: int, handler: Callable[[], None]) -> int:
        """The local port of the domain's port `remote`. Raises XenError."""
        port = self._events["bind_interdomain"](domid, remote)
        self._handlers[port] = handler
        return port

    def bell(self) -> int:
        """A port whose `notify`, from any thread, is an event here that is about nothing: who waits at the descriptor
        looks. Raises XenError."""
        ours = self._events["bind_unbound_port"](_SELF)
        self._events["bind_interdomain"](_SELF, ours)
        return ours

    def unbind(self, port: int) -> None:
        self._handlers.pop(port, None)
        self._events["unbind"](port)

    def notify(self, port: int) -> None:
        self._events["notify"](port)

    def take(self, seconds: float | None = 0.0) -> bool:
        """Handle one event; waits for it up to `seconds` (None: for ever). False when none came."""
        if not self._poll.poll(None if seconds is None else max(int(seconds * 1000 + 0.999), 0)):
            return False
        port = self._events["pending"]()
        # Unmasked first: what happens while the handler runs makes another event.
        self._events["unmask"](port)
        if handler := self._handlers.get(port):
            handler()
        return True

    def wait(self, met: Callable[[], bool], seconds: float) -> bool:
        """Handle events until `met`; False when that took longer than a `Patience` of so many seconds."""
        patience = Patience(seconds)
        while not met():
            if patience.over:
                return False
            self.take(min(patience.left, _MOST_BETWEEN_LOOKS))
        return True

    def close(self) -> None:
        """Unbind all."""
        self._handlers.clear()
        self._close()


def serve_until(descriptor: int, channels: Sequence[Channels], seconds: float, *, once: bool = False) -> bool:
    """Handle their events, with `once` one of each, until `descriptor` can be read; False when that did not come, or
    took longer than `seconds`."""
    end, poll = time.monotonic() + seconds, select.poll()
    for number in (descriptor, *(one.descriptor for one in channels)):
        poll.register(number, select.POLLIN)
    while (left := end - time.monotonic()) > 0:
        if any(number == descriptor for number, _ in poll.poll(int(left * 1000 + 0.999))):
            return True
        taken = [one.take() for one in channels]
        if once and any(taken):
            return False
    return False


def take_any(channels: Sequence[Channels], seconds: float) -> bool:
    """Handle what the first of them that has events has; False when none came in time."""
    poll = select.poll()
    for one in channels:
        poll.register(one.descriptor, select.POLLIN)
    poll.poll(max(int(seconds * 1000 + 0.999), 0))
    taken = [one.take() for one in channels]
    return any(taken)
