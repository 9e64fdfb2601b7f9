"""Drives as INT 13h numbers them: diskettes, disks, CDs, and what El Torito puts in front of them."""

from __future__ import annotations

from emu.devices.floppy_drive import FloppyDrive, SectorId
from emu.devices.ide_cdrom import Cdrom
from emu.firmware.bios.state import Emulation
from emu.media import SECTOR, Disk, DiskError, Geometry
from emu.typed import Protocol

#: INT 13h, AH on return (IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 13h", status).
SUCCESS, INVALID, NO_ADDRESS_MARK, PROTECTED, NOT_FOUND, CHANGED, BOUNDARY = 0x00, 0x01, 0x02, 0x03, 0x04, 0x06, 0x09
CONTROLLER, SEEK_FAILED, TIMED_OUT, NOT_READY = 0x20, 0x40, 0x80, 0xAA
NOT_LOCKED, LOCKED, NOT_REMOVABLE, TOO_MANY_LOCKS = 0xB0, 0xB1, 0xB2, 0xB4  #: (EDD 3.0, table 3)
MOST_LOCKS = 255
FIRST_DISK, FIRST_CD = 0x80, 0xE0
FRAME = 2048
#: The most cylinders and heads that CHS calls can name.
CYLINDERS, HEADS, TRACK_SECTORS = 1024, 255, 63


class DriveError(Exception):
    """`args[0]` is the code for AH; `args[1]` how many sectors were moved before."""


class Drive(Protocol):
    """`sectors` of `size` bytes each; `geometry` None: no CHS calls. `removable` can change its medium."""

    number: int
    size: int
    removable: bool

    @property
    def sectors(self) -> int: ...
    @property
    def geometry(self) -> Geometry | None: ...
    def read(self, lba: int, count: int) -> bytes:
        """Raises DriveError."""

    def write(self, lba: int, data: bytes) -> None:
        """Raises DriveError."""


def translated(disk: Disk) -> Geometry:
    """The geometry its contents were made with, if they tell and CHS calls can name it; else that of an ATA disk up to
    1024 cylinders, and the LBA-assisted translation of 63 sectors a track above (EDD 3.0, annex B; Phoenix, "LBA
    assisted translation")."""
    found = disk.geometry()
    if found.cylinders <= CYLINDERS or found.heads > 16:
        return found._replace(cylinders=min(found.cylinders, CYLINDERS), heads=min(found.heads, HEADS))
    tracks = disk.sectors // TRACK_SECTORS
    heads = next((h for h in (16, 32, 64, 128) if tracks <= CYLINDERS * h), HEADS)
    return Geometry(min(tracks // heads, CYLINDERS), heads, TRACK_SECTORS)


class HardDisk:
    """An ATA disk."""

    size, removable = SECTOR, False

    def __init__(self, number: int, disk: Disk) -> None:
        self.number, self._disk = number, disk
        self._geometry: Geometry | None = None

    @property
    def sectors(self) -> int:
        return self._disk.sectors

    @property
    def geometry(self) -> Geometry:
        """As POST found it; a new partition table does not change it."""
        if self._geometry is None:
            self._geometry = translated(self._disk)
        return self._geometry

    def forget(self) -> None:
        """POST looks anew."""
        self._geometry = None

    def read(self, lba: int, count: int) -> bytes:
        try:
            return self._disk.read(lba, count)
        except DiskError:
            raise DriveError(CONTROLLER, 0) from None

    def write(self, lba: int, data: bytes) -> None:
        try:
            self._disk.write(lba, data)
        except DiskError:
            raise DriveError(PROTECTED if self._disk.write_protected else CONTROLLER, 0) from None


class Diskette:
    """A diskette drive, whose head is moved as its controller would move it."""

    size, removable = SECTOR, True

    def __init__(self, number: int, drive: FloppyDrive) -> None:
        self.number, self.drive = number, drive

    @property
    def geometry(self) -> Geometry:
        f = self.drive.format
        return Geometry(f.cylinders, f.heads, f.sectors)

    @property
    def sectors(self) -> int:
        f = self.drive.format
        return f.cylinders * f.heads * f.sectors

    def _find(self, lba: int) -> tuple[int, int]:
        """Seek; the side and the place on the track of a sector."""
        f, drive = self.drive.format, self.drive
        track, sector = divmod(lba, f.sectors)
        cylinder, side = divmod(track, f.heads)
        drive.step(cylinder - drive.state.cylinder or (1 if drive.state.changed and not cylinder else 0))
        drive.step(cylinder - drive.state.cylinder)
        for rate in f.rates:
            ids = drive.ids(side, rate)
            if (wanted := SectorId(cylinder, side, sector + 1, 2)) in ids:
                return side, ids.index(wanted)
        raise DriveError(NOT_FOUND if any(drive.ids(side, rate) for rate in f.rates) else NO_ADDRESS_MARK, 0)

    def read(self, lba: int, count: int) -> bytes:
        out = bytearray()
        for i in range(count):
            try:
                out += self.drive.read(*self._find(lba + i), SECTOR)
            except DiskError:
                raise DriveError(CONTROLLER, i) from None
            except DriveError as error:
                raise DriveError(error.args[0], i) from None
        return bytes(out)

    def write(self, lba: int, data: bytes) -> None:
        for i in range(len(data) // SECTOR):
            try:
                side, index = self._find(lba + i)
                self.drive.write(side, index, data[i * SECTOR : (i + 1) * SECTOR], deleted=False)
            except DiskError:
                code = PROTECTED if self.drive.disk.write_protected else CONTROLLER
                raise DriveError(code, i) from None
            except DriveError as error:
                raise DriveError(error.args[0], i) from None

    def format(self, cylinder: int, side: int, ids: tuple[SectorId, ...], fill: int) -> None:
        """Raises DriveError."""
        self.drive.step(cylinder - self.drive.state.cylinder)
        try:
            self.drive.format_track(side, ids, self.drive.format.rates[0], fill, SECTOR)
        except DiskError:
            raise DriveError(PROTECTED if self.drive.disk.write_protected else CONTROLLER, 0) from None


class CdDrive:
    """A CD in frames of 2048 bytes."""

    size, removable = FRAME, True
    geometry = None

    def __init__(self, number: int, place: int, drive: Cdrom) -> None:
        """`place` is 0 to 3, from the primary channel's device 0 on."""
        self.number, self.place, self.drive = number, place, drive

    @property
    def sectors(self) -> int:
        return self.drive.frames

    def read(self, lba: int, count: int) -> bytes:
        if self.drive.state.open:
            raise DriveError(NOT_READY, 0)
        try:
            return b"".join(self.drive.frame(lba + i) for i in range(count))
        except DiskError:
            raise DriveError(CONTROLLER, 0) from None

    def write(self, lba: int, data: bytes) -> None:
        raise DriveError(PROTECTED, 0)


class Emulated:
    """A diskette or disk that is an image on a CD."""

    size, removable = SECTOR, False

    def __init__(self, emulation: Emulation, cd: CdDrive) -> None:
        self.number, self._emulation, self._cd = emulation.drive, emulation, cd
        self.geometry: Geometry | None = Geometry(emulation.cylinders, emulation.heads, emulation.sectors)

    @property
    def sectors(self) -> int:
        e = self._emulation
        return min(e.cylinders * e.heads * e.sectors, (self._cd.sectors - e.lba) * (FRAME // SECTOR))

    def read(self, lba: int, count: int) -> bytes:
        first = lba // 4
        frames = (lba + count + 3) // 4 - first
        data = self._cd.read(self._emulation.lba + first, frames)
        skip = lba % 4 * SECTOR
        return data[skip : skip + count * SECTOR]

    def write(self, lba: int, data: bytes) -> None:
        raise DriveError(PROTECTED, 0)
