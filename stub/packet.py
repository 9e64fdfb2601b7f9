"""Framing of the gdb remote protocol, without I/O: bytes in, events out; payloads in, bytes out.

The grammar is that of "Debugging with GDB", appendix "GDB Remote Serial Protocol", sections "Overview" (framing,
checksums, escapes, run-length encoding), "Packet Acknowledgment" and "Interrupts".
"""

from __future__ import annotations

import re
import zlib

from emu.record import dataclass

#: "Interrupts": the byte that interrupts a running target, sent outside packets.
INTERRUPT = 0x03
ESCAPE = 0x7D  #: "Overview": `}` escapes the next byte, which is sent XORed with 20h
REPEAT = 0x2A  #: "Overview": `*` repeats the byte before it; the count is the next byte minus 29
REPEAT_BIAS = 29
_DOLLAR = 0x24
#: "Overview": a count byte must be printable, at most 126.
MAX_REPEAT = 126 - REPEAT_BIAS
#: Counts whose byte would be `#`, `$`, `+` or `-`.
BAD_REPEATS = frozenset(c - REPEAT_BIAS for c in b"#$+-")
#: The longest payload taken, in bytes as sent; advertised as PacketSize.
PACKET_SIZE = 0x20000

_OUTSIDE = re.compile(rb"\++|-+|\x03|\$")
_WHOLE = re.compile(rb"\$([^#$}*]*)#([0-9a-fA-F]{2})")
#: What stands for each byte behind an escape.
_ESCAPED = tuple(bytes((byte ^ 0x20,)) for byte in range(256))
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)
#: What two digits behind `#` say, in either case.
_CHECKSUMS = {
    bytes((a, b)): int(bytes((a, b)), 16) for a in b"0123456789abcdefABCDEF" for b in b"0123456789abcdefABCDEF"
}
#: adler32 sums bytes modulo 65521; a piece of 256 bytes cannot reach that.
_PIECE = 256
#: Packets that were good once, as the same ones come again and again, and the longest of them, bytes.
_GOOD, _GOOD_LENGTH = 512, 64


@dataclass(frozen=True, slots=True)
class Ack:
    """`+`: the last packet arrived."""


@dataclass(frozen=True, slots=True)
class Nak:
    """`-`: send the last packet again."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The Ctrl-C byte."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A whole packet; `payload` is unescaped."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """A frame that cannot be used; `why` is one sentence."""

    why: str


Event = Ack | Nak | Interrupt | Packet | Damaged


def checksum(data: bytes | bytearray) -> int:
    """The sum of the bytes modulo 256 ("Overview")."""
    if len(data) <= _PIECE:
        return zlib.adler32(data, 0) & 0xFF
    total = 0
    for start in range(0, len(data), _PIECE):
        total += zlib.adler32(data[start : start + _PIECE], 0) & 0xFFFF
    return total & 0xFF


def escape(data: bytes) -> bytes:
    """`data` as the binary part of a reply: `}` `#` `$` `*` escaped."""
    return data.replace(b"}", b"}]").replace(b"#", b"}\x03").replace(b"$", b"}\x04").replace(b"*", b"}\n")


def unescape(data: bytes) -> bytes:
    """The reverse of `escape`. Raises ValueError when the last byte is an escape without its byte."""
    if ESCAPE not in data:
        return data
    first, *others = data.split(b"}")
    if b"" not in others:
        return first + b"".join([_ESCAPED[part[0]] + part[1:] for part in others])
    out, parts = [first], iter(others)
    for part in parts:
        if part:
            out += _ESCAPED[part[0]], part[1:]
        elif (behind := next(parts, None)) is not None:
            out += _ESCAPED[ESCAPE], behind  # an escape is what is escaped
        else:
            raise ValueError("an escape without the byte it escapes")
    return b"".join(out)


def compress(data: bytes) -> bytes:
    """Run-length encoding of an escaped payload; never longer than `data`."""

    def run(match: re.Match[bytes]) -> bytes:
        byte, left = match[1], len(match[0])
        out = bytearray()
        while left:
            out += byte
            left -= 1
            count = min(left, MAX_REPEAT)
            while count in BAD_REPEATS:
                count -= 1
            if count >= 3:
                out += bytes((REPEAT, count + REPEAT_BIAS))
                left -= count
        return bytes(out)

    return _RUN.sub(run, data)


def expand(data: bytes) -> bytes:
    """The reverse of `compress`. Raises ValueError for a repeat without a byte before it or with a bad count."""
    if REPEAT not in data:
        return data
    out = bytearray()
    position = 0
    while (star := data.find(b"*", position)) >= 0:
        out += data[position:star]
        if not out or star + 1 >= len(data) or not 3 <= data[star + 1] - REPEAT_BIAS <= MAX_REPEAT:
            raise ValueError("a repeat without a byte before it or with a bad count")
        out += out[-1:] * (data[star + 1] - REPEAT_BIAS)
        position = star + 2
    out += data[position:]
    return bytes(out)


#: How a packet ends, by its checksum.
_ENDS = tuple(b"#%02x" % value for value in range(256))


def frame(payload: bytes) -> bytes:
    """`$payload#checksum`; the payload is escaped already where it must be."""
    if len(payload) <= _PIECE:
        return b"$" + payload + _ENDS[zlib.adler32(payload, 0) & 0xFF]
    return b"$" + payload + _ENDS[checksum(payload)]


def notification(payload: bytes) -> bytes:
    """`%payload#checksum`, which is not acknowledged ("Notification Packets")."""
    return b"%%%b#%02x" % (payload, checksum(payload))


class _Again:
    """Nothing to report yet, but the buffer holds more."""


class Decoder:
    """Takes bytes, gives events. Never raises, and never keeps more than one packet of `limit` bytes beside what was
    given to it and not yet taken.

    `repeats`: expand run-length encoding, which stubs send and clients do not (a client's binary data may hold a
    plain `*`).
    """

    def __init__(self, limit: int = PACKET_SIZE, *, repeats: bool = False) -> None:
        self._limit = limit
        self._repeats = repeats
        self._buffer = bytearray()
        self._good: dict[bytes, bytes] = {}  #: payloads of packets as they came
        self._scanned = 0  #: bytes of an unfinished packet that hold no `#`
        self._skipping = False  #: in a packet over the limit, of which nothing is kept

    def receive_data(self, data: bytes) -> None:
        """More bytes from the peer."""
        self._buffer += data

    def whole(self, data: bytes) -> bytes | None:
        """The payload of the one good packet that `data` from the peer is, as it nearly always is. None where it is
        something else, has to be unescaped, or follows what is kept: then nothing was taken."""
        if self.midway:
            return None
        if (known := self._good.get(data)) is not None:
            return known
        if (match := _WHOLE.fullmatch(data)) is None:
            return None
        payload = match[1]
        if checksum(payload) != _CHECKSUMS[match[2]] or len(payload) > self._limit:
            return None
        if len(data) <= _GOOD_LENGTH:
            if len(self._good) >= _GOOD:
                self._good.clear()
            self._good[data] = payload
        return payload

    @property
    def buffered(self) -> int:
        """Bytes kept."""
        return len(self._buffer)

    @property
    def midway(self) -> bool:
        """Of a packet a part has come, or bytes are kept: what comes next means what it means behind them."""
        return bool(self._buffer) or self._skipping

    def next_event(self) -> Event | None:
        """The next event, None when more bytes are needed."""
        while self._buffer:
            if self._skipping:
                event = self._skip()
            elif self._buffer[0] == _DOLLAR:
                event = self._packet()
            else:
                event = self._outside()
            if not isinstance(event, _Again):
                return event
        return None

    def _outside(self) -> Event | _Again | None:
        buffer = self._buffer
        match = _OUTSIDE.search(buffer)
        if match is None:
            buffer.clear()
            return None
        byte, start, end = match[0][0], match.start(), match.end()
        del match  # a match holds the buffer, which then cannot be resized
        if byte == _DOLLAR:
            del buffer[:start]
            return _Again()
        del buffer[:end]
        return Ack() if byte == 0x2B else Nak() if byte == 0x2D else Interrupt()

    def _packet(self) -> Event | _Again | None:
        """The packet at the buffer's head."""
        buffer = self._buffer
        end = buffer.find(b"#", max(1, self._scanned))
        # A `$` in a packet is always escaped: a bare one is the start of a packet whose predecessor was cut off.
        start = buffer.rfind(b"$", max(1, self._scanned), end if end >= 0 else len(buffer))
        if start > 0:
            del buffer[:start]
            self._scanned = 0
            return _Again()
        if (end if end >= 0 else len(buffer)) > self._limit + 1:
            self._skipping, self._scanned = True, 0
            del buffer[:1]  # a `$` from here on is the next packet's
            return _Again()
        if end < 0 or len(buffer) < end + 3:
            self._scanned = len(buffer) if end < 0 else end
            return None
        payload, said = bytes(buffer[1:end]), _CHECKSUMS.get(bytes(buffer[end + 1 : end + 3]))
        self._scanned = 0
        if said is None:
            del buffer[: end + 1]  # the digits may be the start of the next packet
            return Damaged("a packet without a checksum")
        del buffer[: end + 3]
        if said != checksum(payload):
            return Damaged("a packet with a wrong checksum")
        try:
            return Packet(unescape(expand(payload) if self._repeats else payload))
        except ValueError as error:
            return Damaged(f"a packet with {error}")

    def _skip(self) -> Event | _Again | None:
        """Drop the rest of a packet over the limit."""
        buffer = self._buffer
        end, start = buffer.find(b"#"), buffer.find(b"$")
        if start >= 0 and (end < 0 or start < end):
            del buffer[:start]
            self._skipping = False
            return _Again()
        if end < 0:
            buffer.clear()
            return None
        if len(buffer) < end + 3:
            del buffer[:end]
            return None
        del buffer[: end + 3]
        self._skipping = False
        return Damaged(f"a packet longer than {self._limit} bytes (PacketSize)")
