"""What a session remembers: the last packets, for a failure's report; words that no packet may carry yet; and answers
that still hold."""

from __future__ import annotations

from collections import deque

from stub.exchange import Known, known
from stub.packet import unescape

#: Packets remembered.
LOG_LENGTH = 200
#: Bytes of a packet shown.
LOG_WIDTH = 160


def _printable(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


class PacketLog:
    """The last packets."""

    def __init__(self) -> None:
        #: what was sent which way, as `note` and `again` have it
        self._packets: deque[tuple[str, bytes, int] | tuple[bytes, bytes]] = deque(maxlen=LOG_LENGTH)

    def note(self, arrow: str, payload: bytes) -> None:
        """`arrow` is `<-` from the client, `->` to it."""
        self._packets.append((arrow, payload[:LOG_WIDTH], len(payload)))

    def again(self, packet: bytes, payload: bytes) -> None:
        """`packet`, as it came, was answered by `payload` as it had been before."""
        self._packets.append((packet, payload))

    @property
    def lines(self) -> tuple[str, ...]:
        """In printable characters, long ones cut."""
        return tuple(
            f"{arrow} {''.join(map(_printable, head))}{f' ... {length} bytes' if length > LOG_WIDTH else ''}"
            for arrow, head, length in self._all()[-LOG_LENGTH:]
        )

    def _all(self) -> list[tuple[str, bytes, int]]:
        found: list[tuple[str, bytes, int]] = []
        for noted in tuple(self._packets):
            if len(noted) == 3:
                found.append(noted)
            else:
                packet, payload = noted
                asked = unescape(packet[1:-3])
                found += ("<-", asked[:LOG_WIDTH], len(asked)), ("->", payload[:LOG_WIDTH], len(payload))
        return found


class KeptWords:
    """Output in non-stop mode, which has no packet for it, until a command's answer takes it; bounded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._words: list[str] = []
        self._length = self._lost = 0

    def keep(self, text: str) -> None:
        """`text`, or the fact that it had no room."""
        if self._length + len(text) > self._most:
            self._lost += 1
            return
        self._words.append(text)
        self._length += len(text)

    def take(self) -> str:
        """All of it, once."""
        if self._lost:
            self._words.append(f"({self._lost} pieces of output were dropped: no command took them)\n")
        text = "".join(self._words)
        self._words.clear()
        self._length = self._lost = 0
        return text


#: Answers that are kept at a time, and bytes of the longest of them.
ANSWERS, ANSWER_LENGTH = 64, 4096


class HeldAnswers:
    """What was answered to looks at a target that stands still, while nobody else gets at it and nothing but looks is
    asked: gdb asks the same several times at each stop. A packet's bytes as they came are what is looked up."""

    __slots__ = ("_staying", "asked", "held", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Known] = {}
        self._staying: dict[bytes, Known] = {}  #: what holds as long as the mode is the same
        self.held = False
        #: the packets that were answered from here, or would be, since the target has stopped
        self.asked: dict[bytes, None] = {}

    def hold(self, held: bool) -> None:
        """True: from now on nobody but this client does anything to the target. False: that is over."""
        self.held = held
        self.known.clear()
        self._staying = {}

    def forget(self, *, resumed: bool = False) -> None:
        """Something else than a look was asked for; `resumed`: to run, and no more."""
        self.known.clear()
        if not resumed:
            self._staying = {}

    def stepped(self, moded: bool) -> None:
        """The target has made steps; `moded`: its mode is another."""
        self.known.clear()
        self.settle(moded)
        self.asked.clear()

    def settle(self, moded: bool) -> None:
        """The target stands; `moded`: in another mode than when this was called last. What holds for the mode is known
        again, or over."""
        if moded:
            self._staying = {}
        self.known.update(self._staying)
        self._staying = {packet: known for packet, known in self.known.items() if known.stays}

    def keep(self, packet: bytes, payload: bytes, framed: bytes, *, ahead: bool = False, stays: bool = False) -> None:
        """`packet` was answered by `payload`, in its frame `framed`; or, `ahead`, it will be if it comes. `stays`:
        the same holds behind a step that leaves the CPU's mode."""
        if self.held and len(payload) <= ANSWER_LENGTH:
            if len(self.known) >= ANSWERS:
                self.known.clear()
            self.known[packet] = known(packet, payload, framed, stays=stays)
            if not ahead:
                if len(self.asked) >= ANSWERS:
                    self.asked.clear()
                self.asked[packet] = None
