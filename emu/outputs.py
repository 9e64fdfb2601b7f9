"""What the guest's consoles have sent: passed on, kept for views and matching."""

from __future__ import annotations

from collections.abc import Callable

NAMES = ("serial", "serial2", "parallel", "debugcon")
KEPT = 1 << 20  #: characters of each console's output kept


class Outputs:
    """`on_text`, where set, is told a console's name after each piece that it has sent."""

    def __init__(self) -> None:
        self.on_text: Callable[[str], None] | None = None
        self.muted = False  #: what is sent is dropped: it has been sent before
        self.total = dict.fromkeys(NAMES, 0)  #: characters that each console has sent, since it was made
        self._kept = {name: bytearray() for name in NAMES}

    def sent(self, name: str, sink: Callable[[bytes], None] | None, data: bytes) -> None:
        """The console `name` has sent `data`; `sink` is where it goes."""
        if self.muted:
            return
        kept = self._kept[name]
        kept += data
        self.total[name] += len(data)
        if len(kept) > KEPT:
            del kept[: KEPT // 2]
        if sink is not None:
            sink(data)
        if self.on_text is not None:
            self.on_text(name)

    def text(self, name: str, last: int = KEPT) -> str:
        """What the console `name` has sent, as Latin-1 text: at most the `last` characters."""
        return self._kept[name][-last:].decode("latin-1")

    def take(self, other: Outputs) -> None:
        """What `other` has sent, and passed on, was sent here."""
        for name in NAMES:
            if count := other.total[name]:
                self.sent(name, None, other.text(name, min(count, KEPT)).encode("latin-1"))

    def clear(self) -> None:
        for kept in self._kept.values():
            kept.clear()
