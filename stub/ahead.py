"""What a client is going to ask at a stop, guessed from what it has asked at the one before.

gdb asks the same at each stop of a kind, of memory at the program counter and of much else: what is guessed is looked
up while gdb is busy with the stop. A wrong guess costs a look that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stub import messages
from stub.meanings import Meanings
from stub.packet import frame
from stub.target import Description

#: Packets that are guessed at one stop.
MOST = 8


class Block(NamedTuple):
    """A packet that reads memory around the program counter, and what of the first such packet's answer is its own."""

    packet: bytes
    part: slice


class Ahead:
    """The guesses of one client."""

    def __init__(self) -> None:
        self._sizes: list[int] = []  #: of blocks of memory around the program counter, the largest first
        self._others: list[bytes] = []
        self._guessed: dict[bytes, None] = {}
        self._reply = b""  #: to the last stop
        self._before = b""  #: to the one behind which the last guesses were made
        self.due = False  #: there was a stop behind which nothing was guessed yet

    def stopped(self, reply: bytes) -> None:
        """The client has been told of a stop by `reply`."""
        self._reply, self.due = reply, True

    def lost(self) -> None:
        """The client has been told of stops that nobody knows of here."""
        self._reply, self._before, self.due = b"", b"", False
        self._guessed = {}

    def guess(
        self,
        asked: Mapping[bytes, None],
        meanings: Meanings,
        description: Description | None,
    ) -> tuple[list[Block], list[bytes]]:
        """What is going to be asked behind the last stop, as packets: blocks of which each lies in the first, and
        others. `asked` was since the stop before; `description` is the one by which the client knows
        registers."""
        self.due = False
        if asked.keys() != self._guessed.keys():
            self._learn(list(asked)[:MOST], meanings, _pc_of(self._before, description))
        self._before = self._reply
        blocks: list[Block] = []
        if self._sizes and (pc := _pc_of(self._reply, description)) is not None:
            start = pc & -self._sizes[0]
            for size in self._sizes:
                at = pc & -size
                part = slice(2 * (at - start), 2 * (at - start + size))
                blocks.append(Block(frame(b"m%x,%x" % (at, size)), part))
        self._guessed = dict.fromkeys((*(block.packet for block in blocks), *self._others))
        return blocks, self._others

    def _learn(self, asked: list[bytes], meanings: Meanings, pc: int | None) -> None:
        """`asked` was with the program counter at `pc`, if that is known. Memory at a multiple of its length, a power
        of two, with the program counter in it is asked of another place at another stop; all else is the same."""
        sizes, self._others = set(), []
        for packet in asked:
            message = meanings.of(packet[1:-3]).message
            if isinstance(message, messages.ReadMemory) and pc is not None:
                size = message.length
                if size and not size & size - 1 and message.address == pc & -size:
                    sizes.add(size)
                    continue
            self._others.append(packet)
        self._sizes = sorted(sizes, reverse=True)


def _pc_of(reply: bytes, description: Description | None) -> int | None:
    """The program counter that a stop reply has, if any."""
    if description is None or description.pc_key is None:
        return None
    key, digits = description.pc_key
    at = reply.find(key)
    if at < 0:
        return None
    value = reply[at + len(key) :].partition(b";")[0]
    # One of another width was told by another description, before the guest changed its mode.
    return int.from_bytes(bytes.fromhex(value.decode("ascii")), "little") if len(value) == digits else None
