"""INT 13h: which drive a number means, and the calls by cylinder, head and sector.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 13h". Sectors are moved between image and memory
at once, without the controllers (docs/architecture.md, "The built-in BIOS").
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.floppy_drive import SectorId
from emu.firmware.bios import bda
from emu.firmware.bios.disk_extensions import Extensions
from emu.firmware.bios.drives import (
    BOUNDARY,
    CHANGED,
    FIRST_CD,
    FIRST_DISK,
    INVALID,
    NOT_FOUND,
    SUCCESS,
    CdDrive,
    Diskette,
    Drive,
    DriveError,
    Emulated,
    HardDisk,
)
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.state import HARD_DISK, NO_EMULATION, Keeper
from emu.media import SECTOR

DISKETTE_TABLE = (0xF000, 0xEFC7)  #: in the ROM
#: AH=08h, BL, by the capacity in KiB that the drive belongs to
DRIVE_TYPES = {360: 1, 1200: 2, 720: 3, 1440: 4, 2880: 5}
DISKETTE_DRIVES = 2  #: places for them; what is not there answers as such
EXTENSIONS = range(0x41, 0x49)  #: which diskettes and drives of El Torito's emulation have not
EMULATION_STATUS, ALL_EMULATIONS = 0x4B, 0x7F  #: El Torito 1.0, INT 13h AH=4Bh: DL=7Fh is each emulated drive
MOST_SECTORS = 128  #: of one call
DMA_PAGE = 0x10000


class Disks:
    """INT 13h and INT 40h."""

    def __init__(self, hardware: Hardware, keeper: Keeper) -> None:
        self._hardware, self._keeper = hardware, keeper
        self.floppies = [Diskette(i, drive) for i, drive in enumerate(hardware.floppies)]
        self.disks = [HardDisk(FIRST_DISK + i, disk) for i, disk in enumerate(hardware.disks)]
        self.cds = [CdDrive(FIRST_CD + i, *placed) for i, placed in enumerate(hardware.cdroms)]
        self.extensions = Extensions(hardware, keeper)
        self._calls: dict[int, Callable[[Frame, Drive], None]] = {
            0x00: self._reset,
            0x01: self._status,
            0x02: self._read,
            0x03: self._write,
            0x04: self._verify,
            0x05: self._format,
            0x08: self._parameters,
            0x09: self._nothing("initialize drive"),
            0x0C: self._seek,
            0x0D: self._reset,
            0x10: self._nothing("test drive ready"),
            0x11: self._nothing("recalibrate"),
            0x14: self._nothing("controller diagnostic"),
            0x15: self._kind,
            0x16: self._change,
            0x17: self._nothing("set diskette type"),
            0x18: self._media_type,
            **self.extensions.calls,
        }

    def find(self, number: int) -> Drive | None:
        """The drive that answers to a number now: an emulated one takes the first place of its kind."""
        emulation = self._keeper.state.emulation
        if emulation is not None:
            cd = self.cds[emulation.cdrom]
            if number == emulation.drive:
                return cd if emulation.media == NO_EMULATION else Emulated(emulation, cd)
            if emulation.media != NO_EMULATION and (number < FIRST_DISK) == (emulation.drive < FIRST_DISK):
                number -= number < FIRST_CD
        drives: list[Diskette] | list[HardDisk] | list[CdDrive] = self.floppies
        first = 0
        if number >= FIRST_CD:
            drives, first = self.cds, FIRST_CD
        elif number >= FIRST_DISK:
            drives, first = self.disks, FIRST_DISK
        return drives[number - first] if number - first < len(drives) else None

    def count(self, number: int) -> int:
        """How many drives of the kind of `number` there are."""
        emulation = self._keeper.state.emulation
        hard = number >= FIRST_DISK
        more = emulation is not None and emulation.media != NO_EMULATION and (emulation.media == HARD_DISK) == hard
        return (len(self.disks) if hard else len(self.floppies)) + more

    def service(self, f: Frame) -> None:
        """INT 13h. The status is kept for AH=01h, but by that call itself."""
        number, ah = f.dl, f.ah
        emulation = self._keeper.state.emulation
        whole = ah == EMULATION_STATUS and number == ALL_EMULATIONS and emulation is not None
        drive = self.find(emulation.drive if whole and emulation else number)
        call = self._calls.get(ah)
        if drive is None and ah in (0x08, 0x15) and number < DISKETTE_DRIVES:
            self._absent_diskette(f)
        elif drive is None and ah == 0x00 and number < FIRST_DISK:
            f.name = ("reset: drive %02Xh", number)
            f.succeed()
        elif drive is None or call is None or (ah in EXTENSIONS and isinstance(drive, Diskette | Emulated)):
            f.name = ("function %02Xh: drive %02Xh%s", ah, number, "" if drive else ", which is not there")
            f.fail(INVALID)
        else:
            try:
                call(f, drive)
            except DriveError as error:
                f.fail(error.args[0])
                f.result = ("error %02Xh", error.args[0])
        if ah != 0x01:
            status = bda.DISK_STATUS if number >= FIRST_DISK else bda.FLOPPY_STATUS
            self._hardware.put(status, f.ah if f.carry else SUCCESS)

    # -- calls

    def _nothing(self, name: str) -> Callable[[Frame, Drive], None]:
        def call(f: Frame, drive: Drive) -> None:
            f.name = (f"{name}: drive %02Xh", drive.number)
            f.succeed()

        return call

    def _reset(self, f: Frame, drive: Drive) -> None:
        f.name = ("reset: drive %02Xh", drive.number)
        f.succeed()

    def _status(self, f: Frame, drive: Drive) -> None:
        f.name = ("status of the last call: drive %02Xh", drive.number)
        status = self._hardware.byte(bda.DISK_STATUS if drive.number >= FIRST_DISK else bda.FLOPPY_STATUS)
        f.ah, f.carry = status, status != 0
        f.result = ("%02Xh", status)

    def _place(self, f: Frame, drive: Drive, name: str) -> tuple[int, int]:
        """LBA and number of sectors that the registers name. Raises DriveError."""
        cylinder, head, sector, count = f.ch | (f.cl & 0xC0) << 2, f.dh, f.cl & 0x3F, f.al
        f.name = (
            f"{name}: drive %02Xh, cylinder %d, head %d, sector %d, %d sector%s, buffer %04X:%04X",
            drive.number, cylinder, head, sector, count, "" if count == 1 else "s", f.es, f.bx,
        )  # fmt: skip
        g = drive.geometry
        if g is None or not 0 < count <= MOST_SECTORS or not sector:
            raise DriveError(INVALID, 0)
        if cylinder >= g.cylinders or head >= g.heads or sector > g.sectors:
            raise DriveError(NOT_FOUND if isinstance(drive, Diskette) else INVALID, 0)
        lba = (cylinder * g.heads + head) * g.sectors + sector - 1
        if lba + count > drive.sectors:
            raise DriveError(NOT_FOUND, 0)
        return lba, count

    def _buffer(self, f: Frame, drive: Drive, count: int) -> int:
        """The address of ES:BX. Raises DriveError where the diskettes' DMA would cross a page of 64 KiB."""
        address: int = f.es * 16 + f.bx
        if isinstance(drive, Diskette) and address % DMA_PAGE + count * SECTOR > DMA_PAGE:
            raise DriveError(BOUNDARY, 0)
        return address

    def _moved(self, f: Frame, count: int) -> None:
        f.succeed()
        f.al = count
        f.result = ("ok",)

    def _read(self, f: Frame, drive: Drive) -> None:
        f_al = f.al
        try:
            lba, count = self._place(f, drive, "read")
            address = self._buffer(f, drive, count)
            self._hardware.write(address, drive.read(lba, count))
        except DriveError as error:
            f.al = error.args[1]
            raise
        self._moved(f, f_al)

    def _write(self, f: Frame, drive: Drive) -> None:
        count = f.al
        try:
            lba, count = self._place(f, drive, "write")
            address = self._buffer(f, drive, count)
            drive.write(lba, self._hardware.read(address, count * SECTOR))
        except DriveError as error:
            f.al = error.args[1]
            raise
        self._moved(f, count)

    def _verify(self, f: Frame, drive: Drive) -> None:
        try:
            lba, count = self._place(f, drive, "verify")
            drive.read(lba, count)
        except DriveError as error:
            f.al = error.args[1]
            raise
        self._moved(f, count)

    def _format(self, f: Frame, drive: Drive) -> None:
        cylinder, head, count = f.ch | (f.cl & 0xC0) << 2, f.dh, f.al
        f.name = ("format: drive %02Xh, cylinder %d, head %d, %d sectors", drive.number, cylinder, head, count)
        g = drive.geometry
        if g is None or cylinder >= g.cylinders or head >= g.heads:
            raise DriveError(INVALID, 0)
        if not isinstance(drive, Diskette):
            first = (cylinder * g.heads + head) * g.sectors
            if first + g.sectors > drive.sectors:
                raise DriveError(INVALID, 0)
            drive.write(first, bytes(g.sectors * SECTOR))
            f.succeed()
            return
        if not 0 < count <= 63:
            raise DriveError(INVALID, 0)
        fields = self._hardware.read(f.es * 16 + f.bx, 4 * count)
        ids = tuple(SectorId(*fields[at : at + 4]) for at in range(0, len(fields), 4))
        pointer = self._hardware.dword(0x1E * 4)
        fill = self._hardware.byte((pointer >> 16) * 16 + (pointer & 0xFFFF) + 8)
        drive.format(cylinder, head, ids, fill)
        f.succeed()

    def _parameters(self, f: Frame, drive: Drive) -> None:
        f.name = ("parameters: drive %02Xh", drive.number)
        g = drive.geometry
        if g is None:
            raise DriveError(INVALID, 0)
        # The last cylinder of a fixed disk is kept for diagnostics.
        last = max(g.cylinders - (2 if drive.number >= FIRST_DISK else 1), 0)
        f.al = 0
        f.ch, f.cl = last & 0xFF, last >> 2 & 0xC0 | g.sectors
        f.dh, f.dl = g.heads - 1, self.count(drive.number)
        if drive.number < FIRST_DISK:
            capacity = (
                drive.drive.format.drive if isinstance(drive, Diskette) else g.cylinders * g.heads * g.sectors // 2
            )
            f.bx = DRIVE_TYPES.get(capacity, 4)
            f.es, f.di = DISKETTE_TABLE
        f.succeed()
        f.result = ("cylinders %d, heads %d, sectors %d, drives %d", g.cylinders, g.heads, g.sectors, f.dl)

    def _absent_diskette(self, f: Frame) -> None:
        number = f.dl
        if f.ah == 0x15:
            f.name = ("kind: drive %02Xh", number)
            f.succeed(0)
            f.result = ("none",)
            return
        f.name = ("parameters: drive %02Xh", number)
        f.ax = f.bx = f.cx = f.es = f.di = 0
        f.dx = self.count(0)
        f.carry = False
        f.result = ("none",)

    def _seek(self, f: Frame, drive: Drive) -> None:
        cylinder, g = f.ch | (f.cl & 0xC0) << 2, drive.geometry
        f.name = ("seek: drive %02Xh, cylinder %d, head %d", drive.number, cylinder, f.dh)
        if g is None or cylinder >= g.cylinders or f.dh >= g.heads:
            raise DriveError(INVALID, 0)
        f.succeed()

    def _kind(self, f: Frame, drive: Drive) -> None:
        f.name = ("kind: drive %02Xh", drive.number)
        if not FIRST_DISK <= drive.number < FIRST_CD:
            f.succeed(2)
            f.result = ("diskette with change line",)
            return
        g = drive.geometry
        sectors = 0 if g is None else (g.cylinders - 1) * g.heads * g.sectors
        f.cx, f.dx = sectors >> 16, sectors
        f.succeed(3)
        f.result = ("disk, %d sectors", sectors)

    def _change(self, f: Frame, drive: Drive) -> None:
        f.name = ("change line: drive %02Xh", drive.number)
        if drive.number >= FIRST_DISK:
            raise DriveError(INVALID, 0)
        if isinstance(drive, Diskette) and drive.drive.state.changed:
            raise DriveError(CHANGED, 0)
        f.succeed()

    def _media_type(self, f: Frame, drive: Drive) -> None:
        """AH=18h: the tracks and sectors that a format is to have."""
        cylinders, sectors = (f.ch | (f.cl & 0xC0) << 2) + 1, f.cl & 0x3F
        f.name = ("set media type: drive %02Xh, %d cylinders, %d sectors", drive.number, cylinders, sectors)
        g = drive.geometry
        if not isinstance(drive, Diskette) or g is None:
            raise DriveError(INVALID, 0)
        if (g.cylinders, g.sectors) != (cylinders, sectors):
            raise DriveError(0x0C, 0)
        f.es, f.di = DISKETTE_TABLE
        f.succeed()
