"""The built-in tour image: its ROM bytes, where each of its modes begins, and the lines it prints."""

from __future__ import annotations

import struct

from emu.firmware.assembled import assembled
from emu.record import dataclass

#: Offset of the table of stops in the ROM: 16 bytes an entry, a little-endian linear address and 12 bytes of name
#: padded with zeros; an address of 0 ends it (the head of tour.asm).
TABLE = 0xFF00
_ENTRY = struct.Struct("<I12s")

#: What the tour calls each stop in the line it prints there.
_LABELS = {
    "real": "real",
    "big-real": "big real",
    "pm16": "16-bit protected",
    "pm32": "32-bit protected",
    "pse": "4 MiB paging",
    "pae": "PAE paging",
    "v86": "V86",
    "long64": "64-bit long",
    "compat": "compatibility",
    "real-again": "real again",
}
#: The last line, printed before the debug exit with code 0.
DONE = "tour: done"


@dataclass(frozen=True, slots=True)
class TourStop:
    """A mode of the tour. `linear` is the linear address of the first instruction executed in it; `tick` is how many
    timer interrupts the tour has taken when it prints `line`."""

    name: str  #: as in the ROM's table: "big-real", "pm16", ...
    linear: int
    mode_label: str  #: as printed: "16-bit protected"
    tick: int

    @property
    def line(self) -> str:
        """What the tour prints in this mode, on the screen and on COM1."""
        return f"tour: {self.mode_label}, tick {self.tick}"


def rom() -> bytes:
    """The assembled ROM: 64 KiB that end at 4 GiB, and at 1 MiB in the low copy."""
    return assembled("tour.bin")


def stops() -> tuple[TourStop, ...]:
    """The modes in the order in which the tour enters them, read from the ROM's own table."""
    image = rom()
    found: list[TourStop] = []
    for offset in range(TABLE, len(image), _ENTRY.size):
        linear, raw = _ENTRY.unpack_from(image, offset)
        if not linear:
            break
        name = raw.rstrip(b"\0").decode("ascii")
        found.append(TourStop(name, linear, _LABELS[name], len(found) + 1))
    return tuple(found)


def lines() -> tuple[str, ...]:
    """All that the tour prints, in order."""
    return (*(stop.line for stop in stops()), DONE)
