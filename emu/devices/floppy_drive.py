"""A floppy drive and its diskette: standard formats, where sectors stand under the head at an instant, change line.

Sources: ECMA-70, ECMA-99, ECMA-100, ECMA-125, ECMA-147 (track formats of the diskettes: cells, sectors, speeds);
Intel 82077AA data sheet, "Format a track" (MFM fields and gaps).
The spindle is at speed as soon as its motor is on. A raw image holds 512-byte sectors of the standard numbering; what
FORMAT TRACK makes besides, and deleted data marks, are kept in the drive's state.
"""

from __future__ import annotations

import copy

from emu.media import SECTOR, Disk
from emu.named import NamedTuple
from emu.record import dataclass, field

#: Bytes of an MFM sector: sync 12, address mark 4, ID 4, CRC 2; then gap 22, sync 12, data mark 4, data, CRC 2.
ID_BYTES, DATA_BYTES = 22, 40


#: The mechanics (spindle, bits under the head, steps, head load) are so many times faster than real ones. BIOSes poll
#: while they wait, and a real diskette takes a minute to read: 6,000,000,000 instructions of the virtual CPU. A host
#: that moves data by programmed I/O has the real time for each sector.
HASTE = 50


class Format(NamedTuple):
    """`rates`: data rates (kbit/s) at which it reads; `drive`: the capacity (KiB) of the drive it belongs in."""

    cylinders: int
    heads: int
    sectors: int
    rates: tuple[int, ...]
    rpm: int
    drive: int


#: By KiB. 40-track diskettes are in a drive whose spindle follows the density select line, so that software may take
#: it for a 300 rpm drive at 250 kbit/s or a 360 rpm drive at 300.
FORMATS = {
    160: Format(40, 1, 8, (250, 300), 300, 360),
    180: Format(40, 1, 9, (250, 300), 300, 360),
    320: Format(40, 2, 8, (250, 300), 300, 360),
    360: Format(40, 2, 9, (250, 300), 300, 360),
    720: Format(80, 2, 9, (250,), 300, 1440),
    1200: Format(80, 2, 15, (500,), 360, 1200),
    1440: Format(80, 2, 18, (500,), 300, 1440),
    2880: Format(80, 2, 36, (1000,), 300, 2880),
}
LARGEST = max(FORMATS) * 1024


def format_of(disk: Disk) -> Format:
    """By size; another size by the BIOS parameter block, if that describes the whole image; else the smallest of 1440
    and 2880 KiB that holds it, whose rest is empty sectors."""
    size = disk.sectors // 2
    if disk.sectors % 2 == 0 and size in FORMATS:
        return FORMATS[size]
    found = disk.bpb_geometry()
    if found is not None:
        heads, sectors = found
        cylinders, odd = divmod(disk.sectors, heads * sectors)
        if not odd and 35 <= cylinders <= 84 and heads <= 2 and 8 <= sectors <= 42:
            rate, drive = (1000, 2880) if sectors > 21 else (500, 1440) if sectors > 10 else (250, 1440)
            return Format(cylinders, heads, sectors, (rate,), 300, drive)
    return FORMATS[1440 if disk.sectors <= 2880 else 2880]


class SectorId(NamedTuple):
    """The ID field: cylinder, head, record, size code (128 << N bytes)."""

    c: int
    h: int
    r: int
    n: int


@dataclass(slots=True)
class Track:
    """A track as FORMAT TRACK left it: its IDs in order, the rate, and data of sectors that the image cannot hold."""

    ids: tuple[SectorId, ...]
    rate: int
    data: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class DriveState:
    """`cylinder`: where the head is. `tracks` and `deleted` are by (cylinder, side) and (cylinder, side, index);
    `behind` are sectors written behind the end of a short image, which the image never gets."""

    cylinder: int = 0
    changed: bool = True
    behind: dict[int, bytes] = field(default_factory=dict)
    tracks: dict[tuple[int, int], Track] = field(default_factory=dict)
    deleted: list[tuple[int, int, int]] = field(default_factory=list)


class FloppyDrive:
    """A drive with the diskette `disk`, at the end of the cable."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.format = format_of(disk)
        self.revolution_ns = 60_000_000_000 // (self.format.rpm * HASTE)
        self.last_cylinder = self.format.cylinders + 2  # drives can step a little further than the last track
        self.state = DriveState()

    def power_on(self) -> None:
        """The change line is set until the head steps; what is on the diskette stays."""
        self.state.changed, self.state.cylinder = True, 0

    def save(self) -> DriveState:
        return copy.deepcopy(self.state)

    def restore(self, state: DriveState) -> None:
        self.state = copy.deepcopy(state)

    def step(self, steps: int) -> None:
        """Step pulses; negative ones go out to track 0. Any pulse resets the change line."""
        s = self.state
        if steps:
            s.cylinder = min(max(s.cylinder + steps, 0), self.last_cylinder)
            s.changed = False

    # -- what is on the track

    def _standard(self, side: int) -> tuple[SectorId, ...]:
        f, cylinder = self.format, self.state.cylinder
        if cylinder >= f.cylinders or side >= f.heads:
            return ()
        return tuple(SectorId(cylinder, side, r, 2) for r in range(1, f.sectors + 1))

    def ids(self, side: int, rate: int) -> tuple[SectorId, ...]:
        """The ID fields that can be read at `rate` (kbit/s; negative in single density), in the order in which they
        pass after the index hole."""
        track = self.state.tracks.get((self.state.cylinder, side))
        if track is not None:
            return track.ids if rate == track.rate else ()
        return self._standard(side) if rate in self.format.rates else ()

    def _lba(self, side: int, index: int) -> int | None:
        """The image's sector for the sector under the head, None when the image has none for its ID."""
        s = self.state
        track = s.tracks.get((s.cylinder, side))
        f = self.format
        if track is None:
            return (s.cylinder * f.heads + side) * f.sectors + index
        sector = track.ids[index]
        if sector not in self._standard(side) or sector in track.ids[:index] or index in track.data:
            return None
        return (s.cylinder * f.heads + side) * f.sectors + sector.r - 1

    def read(self, side: int, index: int, size: int) -> bytes:
        """Raises DiskError. Sectors behind the end of a short image are zeros."""
        lba = self._lba(side, index)
        if lba is None:
            return self.state.tracks[self.state.cylinder, side].data.get(index, b"").ljust(size, b"\0")[:size]
        return self.disk.read(lba, 1) if lba < self.disk.sectors else self.state.behind.get(lba, bytes(SECTOR))

    def write(self, side: int, index: int, data: bytes, deleted: bool) -> None:
        """Raises DiskError."""
        s = self.state
        lba = self._lba(side, index)
        if lba is None or len(data) != SECTOR:
            track = s.tracks.setdefault((s.cylinder, side), Track(self._standard(side), self.format.rates[0]))
            track.data[index] = data
        elif lba < self.disk.sectors:
            self.disk.write(lba, data)
        else:
            s.behind[lba] = data
        mark = (s.cylinder, side, index)
        if deleted and mark not in s.deleted:
            s.deleted.append(mark)
        elif not deleted and mark in s.deleted:
            s.deleted.remove(mark)

    def is_deleted(self, side: int, index: int) -> bool:
        return (self.state.cylinder, side, index) in self.state.deleted

    def format_track(self, side: int, ids: tuple[SectorId, ...], rate: int, fill: int, size: int) -> None:
        """`size`: bytes of each data field, whatever the ID fields say. Raises DiskError."""
        s = self.state
        key = (s.cylinder, side)
        s.deleted = [mark for mark in s.deleted if mark[:2] != key]
        s.tracks.pop(key, None)
        if ids != self._standard(side) or rate not in self.format.rates:
            s.tracks[key] = Track(ids, rate)
        if size != SECTOR and key not in s.tracks:
            s.tracks[key] = Track(ids, rate)
        for index in range(len(ids)):
            self.write(side, index, bytes((fill,)) * size, deleted=False)

    # -- rotation

    def next_index(self, now: int, pulses: int = 1) -> int:
        """When the index hole passes for the `pulses`th time after `now`, ns."""
        return (now // self.revolution_ns + pulses) * self.revolution_ns

    def passes(self, now: int, count: int, rate: int) -> list[tuple[int, int]]:
        """(when, index) of the ends of the ID fields that pass in the next revolution, `count` evenly on the track."""
        start = now - now % self.revolution_ns
        field_ns = ID_BYTES * 8_000_000 // (rate * HASTE)
        ends = [(start + i * self.revolution_ns // count + field_ns, i) for i in range(count)]
        return sorted((when if when > now else when + self.revolution_ns, i) for when, i in ends)

    def data_ns(self, size: int, rate: int) -> int:
        """From the end of an ID field to the end of its `size` bytes of data."""
        return (DATA_BYTES + size) * 8_000_000 // (rate * HASTE)
