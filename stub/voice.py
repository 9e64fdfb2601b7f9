"""What a session says: packets and notifications on their way out, output in words, and the log of what was said."""

from __future__ import annotations

from stub.packet import PACKET_SIZE, compress, frame, notification
from stub.remembered import KeptWords, PacketLog

#: While more than this waits to be sent, no further packet is handled: a client that does not read costs no memory.
HIGH_WATER = 4 * PACKET_SIZE


class Voice:
    """One connection's."""

    def __init__(self, *, compressed: bool) -> None:
        """`compressed`: run-length encode packets."""
        self._log = PacketLog()
        self._out = bytearray()
        self._last = b""  #: the last packet sent, for a NAK
        self._compressed = compressed
        self._unread = 0  #: pieces of output dropped, as the client did not read
        self._kept = KeptWords(HIGH_WATER)

    def data_to_send(self) -> bytes:
        """Bytes for the client, once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    @property
    def log(self) -> tuple[str, ...]:
        """The last packets: `<-` from the client, `->` to it, in printable characters, long ones cut."""
        return self._log.lines

    def _send(self, payload: bytes) -> None:
        self._log.note("->", payload)
        self._last = self._framed(payload)
        self._out += self._last

    def _framed(self, payload: bytes) -> bytes:
        return frame(compress(payload) if self._compressed else payload)

    def _announce(self, payload: bytes) -> None:
        """As a notification."""
        self._log.note("->", payload)
        self._out += notification(payload)

    def _print(self, text: str) -> None:
        """`O` packets, each within PacketSize."""
        step = PACKET_SIZE // 4
        data = text.encode("utf-8", "replace")
        for start in range(0, len(data), step):
            self._send(b"O" + data[start : start + step].hex().encode("ascii"))

    def _print_some(self, text: str) -> bool:
        """Print `text`, if the client reads; else it loses that, and is told so later. False when it was lost."""
        if len(self._out) >= HIGH_WATER:
            self._unread += 1
            return False
        if self._unread:
            lost, self._unread = self._unread, 0
            text = f"({lost} pieces of output were dropped: they came faster than they were read)\n{text}"
        self._print(text)
        return True
