"""What a client is going to ask at a stop, guessed from what it has asked at the one before.

gdb asks the same at each stop of a kind, of memory at the program counter and of much else: what is guessed is looked
up while gdb is busy with the stop. A wrong guess costs a look that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stub import messages
from stub.packet import frame
from stub.target import Description

#: Packets that are guessed at one stop.
MOST = 8
#: A packet, or how many bytes at the program counter, at an address that is a multiple of it, are read by `m`.
Guess = bytes | int


class Ahead:
    """The guesses of one client."""

    def __init__(self) -> None:
        self._guesses: list[Guess] = []
        self._guessed: list[bytes] = []  #: as packets
        self._pc: int | None = None
        self._reply = b""
        self.due = False  #: there was a stop behind which nothing was guessed yet

    def stopped(self, reply: bytes) -> None:
        """The client has been told of a stop by `reply`."""
        self._reply, self.due = reply, True

    def guess(
        self,
        asked: Iterable[bytes],
        meaning: Callable[[bytes], messages.Message],
        description: Description | None,
    ) -> list[bytes]:
        """What is going to be asked behind the last stop, as packets. `asked` was since the stop before; `meaning` is
        that of a payload; `description` is the one by which the client knows registers."""
        self.due = False
        if (was := list(asked)) != self._guessed:
            self._guesses = [self._generalised(packet, meaning) for packet in was[:MOST]]
        self._pc = _pc_of(self._reply, description)
        self._guessed = [packet for guess in self._guesses if (packet := self._now(guess)) is not None]
        return self._guessed

    def _now(self, guess: Guess) -> bytes | None:
        """The packet that is guessed at this stop."""
        if isinstance(guess, bytes):
            return guess
        return None if self._pc is None else frame(b"m%x,%x" % (self._pc & -guess, guess))

    def _generalised(self, packet: bytes, meaning: Callable[[bytes], messages.Message]) -> Guess:
        """A packet of the last stop, as it is to be at others."""
        message = meaning(packet[1:-3])
        if isinstance(message, messages.ReadMemory) and self._pc is not None:
            length = message.length
            if length & length - 1 == 0 and length and message.address == self._pc & -length:
                return length
        return packet


def _pc_of(reply: bytes, description: Description | None) -> int | None:
    """The program counter that a stop reply has, if any."""
    if description is None or description.pc_key is None:
        return None
    key, digits = description.pc_key
    at = reply.find(key)
    if at < 0:
        return None
    at += len(key)
    return int.from_bytes(bytes.fromhex(reply[at : at + digits].decode("ascii")), "little")
