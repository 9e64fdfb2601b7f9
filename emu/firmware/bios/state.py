"""What the BIOS keeps outside the guest's memory: which device is being booted, and a CD's emulated drive."""

from __future__ import annotations

from emu.record import dataclass
from emu.typed import Protocol

FLOPPY_TYPES = {1: (80, 2, 15), 2: (80, 2, 18), 3: (80, 2, 36)}  #: El Torito media types, cylinders, heads, sectors
NO_EMULATION, HARD_DISK = 0, 4


@dataclass(frozen=True, slots=True)
class Emulation:
    """A CD booted by El Torito (1.0, "Boot catalog"). `media`: 0 no emulation, 1 to 3 diskettes, 4 hard disk. `drive`
    is the number it has, `cdrom` the index of the drive with the disc, `place` where that is (0 to 3, from the primary
    channel's device 0 on), `lba` where the image begins in frames of 2048
    bytes, `entry` the rest of the catalog's entry that INT 13h, AH=4Bh tells."""

    media: int
    drive: int
    cdrom: int
    place: int
    lba: int
    cylinders: int = 0
    heads: int = 0
    sectors: int = 0
    segment: int = 0x07C0
    count: int = 4

    @property
    def text(self) -> str:
        what = {NO_EMULATION: "CD without emulation", HARD_DISK: "hard disk of a CD"}.get(
            self.media, "diskette of a CD"
        )
        return f"{what}, drive {self.drive:02x}h"


@dataclass(slots=True)
class BiosState:
    """`calls` counts services and their continuations; `attempt` is the index of the device in the boot order,
    `locks` how often INT 13h AH=45h locked the CD of each place."""

    calls: int = 0
    attempt: int = 0
    emulation: Emulation | None = None
    locks: tuple[int, ...] = (0, 0, 0, 0)


class Keeper(Protocol):
    """Who has the state."""

    state: BiosState
