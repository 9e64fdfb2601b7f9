"""What the packets of one client mean to its session, kept, as gdb sends the same ones again and again."""

from __future__ import annotations

from typing import NamedTuple

from stub import messages
from stub.handlers.base import Handler
from stub.parser import parse
from stub.states import LOOKS, POINTS

#: Packets whose meaning is kept, and the longest of them, bytes.
KNOWN, KNOWN_LENGTH = 512, 48


class Meaning(NamedTuple):
    """What a packet says, who answers it (None: nobody), whether it is but a look, the answer to which holds until
    something changes, whether it may change what looks see, whether it is a look whose answer a step changes only with
    the CPU's mode, and whether it is `m`."""

    message: messages.Message
    handler: Handler | None
    looks: bool
    changes: bool
    stays: bool
    reads: bool


class Meanings:
    """Of packets that `handlers` answer. `looks_on`: another client has the target, and may change it at any time."""

    def __init__(self, handlers: dict[type[messages.Message], Handler], *, looks_on: bool) -> None:
        self._handlers, self._looks_on = handlers, looks_on
        self._known: dict[bytes, Meaning] = {}

    def of(self, payload: bytes) -> Meaning:
        """Raises MessageError for a packet of a known kind that is malformed."""
        return self._known.get(payload) or self._parse(payload)

    def _parse(self, payload: bytes) -> Meaning:
        message = parse(payload)
        stays = type(message) is messages.Transfer and message.object == "threads"
        looks = (stays or type(message) in LOOKS) and not self._looks_on
        changes = not looks and type(message) not in POINTS
        meaning = Meaning(
            message,
            self._handlers.get(type(message)),
            looks,
            changes,
            stays and looks,
            type(message) is messages.ReadMemory,
        )
        if len(payload) <= KNOWN_LENGTH:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[payload] = meaning
        return meaning
