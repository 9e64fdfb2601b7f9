"""INT 13h, AH=41h to 4Eh: the extensions for large disks and CDs.

Sources: Phoenix, "BIOS Enhanced Disk Drive Specification" 3.0; "El Torito" Bootable CD-ROM Format Specification 1.0,
"INT 13 function 4B".
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from emu import layout
from emu.firmware.bios import bda
from emu.firmware.bios.drives import (
    CHANGED,
    FIRST_CD,
    FIRST_DISK,
    INVALID,
    LOCKED,
    MOST_LOCKS,
    NOT_LOCKED,
    NOT_REMOVABLE,
    TOO_MANY_LOCKS,
    CdDrive,
    Drive,
    DriveError,
)
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.state import Keeper

VERSION = 0x30
#: Support bits: fixed disk access, locking and ejecting, enhanced disk drive.
SUPPORT = 0x0007
#: Where a drive's parameter table extension stands for AH=48h.
DPTE = bda.EBDA + 0x60
ADDRESS_SPACE = 1 << 32
INFO_DMA_BOUNDARY, INFO_CHS_VALID, INFO_REMOVABLE, INFO_LOCKABLE, INFO_MAXIMUM = 0x01, 0x02, 0x04, 0x20, 0x40


class Extensions:
    """`calls` by AH."""

    def __init__(self, hardware: Hardware, keeper: Keeper) -> None:
        self._hardware, self._keeper = hardware, keeper
        self.calls: dict[int, Callable[[Frame, Drive], None]] = {
            0x41: self._present,
            0x42: self._read,
            0x43: self._write,
            0x44: self._verify,
            0x45: self._lock,
            0x46: self._eject,
            0x47: self._seek,
            0x48: self._parameters,
            0x49: self._changed,
            0x4A: self._begin_emulation,
            0x4B: self._emulation_status,
            0x4C: self._begin_emulation,
            0x4E: self._configure,
        }

    def _present(self, f: Frame, drive: Drive) -> None:
        f.name = ("extensions present: drive %02Xh", drive.number)
        if f.bx != 0x55AA:
            raise DriveError(INVALID, 0)
        f.bx, f.cx = 0xAA55, SUPPORT
        f.succeed(VERSION)
        f.result = ("3.0",)

    def _packet(self, f: Frame, drive: Drive, name: str) -> tuple[int, int, int, int]:
        """(address of the packet, LBA, sectors, address of the buffer). Raises DriveError."""
        at = f.ds * 16 + f.si
        size, _, count, offset, segment, lba = struct.unpack("<BBHHHQ", self._hardware.read(at, 16))
        buffer = segment * 16 + offset
        where = f"{segment:04X}:{offset:04X}"
        if size >= 24 and offset == segment == 0xFFFF:
            buffer = int.from_bytes(self._hardware.read(at + 16, 8), "little")
            where = f"{buffer:X}"
        f.name = (
            f"{name}: drive %02Xh, LBA %d, %d sector%s, buffer %s",
            drive.number, lba, count, "" if count == 1 else "s", where,
        )  # fmt: skip
        if size < 16:
            raise DriveError(INVALID, 0)
        if lba + count > drive.sectors:
            self._hardware.write(at + 2, b"\0\0")
            raise DriveError(INVALID, 0)
        return at, lba, count, buffer

    def _done(self, f: Frame) -> None:
        f.succeed()
        f.result = ("ok",)

    def _failed(self, at: int, error: DriveError) -> DriveError:
        """The packet says how many sectors were moved."""
        self._hardware.write(at + 2, error.args[1].to_bytes(2, "little"))
        return error

    def _reachable(self, buffer: int, drive: Drive, count: int) -> None:
        """Raises DriveError where no bus of a 32-bit CPU has the buffer: a flat address has 64 bits."""
        if buffer + count * drive.size > ADDRESS_SPACE:
            raise DriveError(INVALID, 0)

    def _read(self, f: Frame, drive: Drive) -> None:
        at, lba, count, buffer = self._packet(f, drive, "extended read")
        try:
            self._reachable(buffer, drive, count)
            data = drive.read(lba, count)
        except DriveError as error:
            raise self._failed(at, error) from None
        self._hardware.write(buffer, data)
        self._done(f)

    def _write(self, f: Frame, drive: Drive) -> None:
        at, lba, count, buffer = self._packet(f, drive, "extended write")
        try:
            self._reachable(buffer, drive, count)
            drive.write(lba, self._hardware.read(buffer, count * drive.size))
        except DriveError as error:
            raise self._failed(at, error) from None
        self._done(f)

    def _verify(self, f: Frame, drive: Drive) -> None:
        at, lba, count, _ = self._packet(f, drive, "extended verify")
        try:
            drive.read(lba, count)
        except DriveError as error:
            raise self._failed(at, error) from None
        self._done(f)

    def _seek(self, f: Frame, drive: Drive) -> None:
        self._packet(f, drive, "extended seek")
        self._done(f)

    def _lock(self, f: Frame, drive: Drive) -> None:
        what = {0: "lock", 1: "unlock", 2: "lock status"}.get(f.al, "lock function")
        f.name = (f"{what}: drive %02Xh", drive.number)
        if f.al > 2:
            raise DriveError(INVALID, 0)
        if not isinstance(drive, CdDrive):
            # A fixed disk needs no lock.
            f.al = 0
            f.succeed()
            return
        locks = list(self._keeper.state.locks)
        held = locks[drive.place]
        if f.al == 0 and held == MOST_LOCKS:
            raise DriveError(TOO_MANY_LOCKS, 0)
        if f.al == 1 and not held:
            raise DriveError(NOT_LOCKED, 0)
        if f.al < 2:
            held += 1 if f.al == 0 else -1
            locks[drive.place] = held
            self._keeper.state.locks = tuple(locks)
            drive.drive.state.prevented = held > 0
        f.al = int(drive.drive.state.prevented)
        f.succeed()
        f.result = ("%d lock%s", held, "" if held == 1 else "s")

    def _eject(self, f: Frame, drive: Drive) -> None:
        f.name = ("eject: drive %02Xh", drive.number)
        if not isinstance(drive, CdDrive):
            raise DriveError(NOT_REMOVABLE, 0)
        state = drive.drive.state
        if state.prevented:
            raise DriveError(LOCKED, 0)
        drive.drive.eject()
        f.succeed()

    def _changed(self, f: Frame, drive: Drive) -> None:
        """AH=49h. What was reported is forgotten, as by the drive's own unit attention, which this is; an open tray is
        a change for as long as it is open."""
        f.name = ("extended change line: drive %02Xh", drive.number)
        if isinstance(drive, CdDrive):
            changed = drive.drive.take_change()
            if changed or drive.drive.state.open:
                raise DriveError(CHANGED, 0)
        f.succeed()

    def _configure(self, f: Frame, drive: Drive) -> None:
        """DMA, PIO and prefetch: all that is asked for is so already."""
        f.name = ("set hardware configuration: drive %02Xh, %d", drive.number, f.al)
        if f.al not in (0x01, 0x03, 0x04, 0x06):
            raise DriveError(INVALID, 0)
        f.al = 0
        f.succeed()

    def _parameters(self, f: Frame, drive: Drive) -> None:
        f.name = ("extended parameters: drive %02Xh", drive.number)
        at = f.ds * 16 + f.si
        size = int.from_bytes(self._hardware.read(at, 2), "little")
        if size < 26:
            raise DriveError(INVALID, 0)
        g = drive.geometry
        index = drive.number - FIRST_DISK
        # A disk of virtio-blk has no task file for a parameter table extension to tell (pointer FFFF:FFFF), and EDD 3.0
        # has no interface type for it: the path is left out, as the table's length says.
        ata = 0 <= index < self._hardware.ata
        if g is None or drive.number >= FIRST_CD:
            info, chs = INFO_REMOVABLE | INFO_LOCKABLE | INFO_MAXIMUM, (0xFFFFFFFF,) * 3
        else:
            most = drive.sectors // (g.heads * g.sectors)
            info, chs = (INFO_CHS_VALID if drive.sectors <= 16383 * 16 * 63 else 0), (most, g.heads, g.sectors)
        table = struct.pack("<HIIIQH", info, *chs, drive.sectors, drive.size)
        if size >= 30:
            pointer = 0xFFFFFFFF
            if ata:
                self._hardware.write(DPTE, self._extension(index))
                pointer = (DPTE >> 4) << 16 | DPTE & 15
            table += struct.pack("<I", pointer)
        if size >= 66 and ata:
            table += self._path(index)
        length = 2 + len(table)
        self._hardware.write(at, length.to_bytes(2, "little") + table)
        f.succeed()
        f.result = ("%d sectors of %d bytes", drive.sectors, drive.size)

    def _extension(self, index: int) -> bytes:
        """EDD 3.0, "Device parameter table extension" of an ATA disk."""
        base, control = (
            (layout.IDE_PRIMARY, layout.IDE_PRIMARY_CONTROL),
            (layout.IDE_SECONDARY, layout.IDE_SECONDARY_CONTROL),
        )[index >> 1]
        irq = (layout.IRQ_IDE_PRIMARY, layout.IRQ_IDE_SECONDARY)[index >> 1]
        select, options = 0xE0 | (index & 1) << 4, 0x0010  # LBA translation
        table = struct.pack(
            "<HHBBBBBBHHB", base, control, select, 0xCB, irq, 1, 0, 0, options, 0, 0x11
        )  # fmt: skip
        return table + bytes((-sum(table) & 0xFF,))

    def _path(self, index: int) -> bytes:
        """EDD 3.0, "Device path": which bus, which function, which drive."""
        if self._hardware.pci:
            host, interface = b"PCI ", bytes((0, 1, 1, index >> 1, 0, 0, 0, 0))
        else:
            base = (layout.IDE_PRIMARY, layout.IDE_SECONDARY)[index >> 1]
            host, interface = b"ISA ", base.to_bytes(8, "little")
        path = struct.pack("<HB3s4s8s8s8sB", 0xBEDD, 36, b"", host, b"ATA     ", interface, bytes((index & 1,)), 0)
        return path + bytes((-sum(path) & 0xFF,))

    def _begin_emulation(self, f: Frame, drive: Drive) -> None:
        """El Torito's calls to start an emulation later: no BIOS has to offer them, and this one does not."""
        f.name = ("initiate disk emulation: drive %02Xh", drive.number)
        raise DriveError(INVALID, 0)

    def _emulation_status(self, f: Frame, drive: Drive) -> None:
        end = f.al == 0
        f.name = ("%s disk emulation: drive %02Xh", "end" if end else "status of", drive.number)
        e = self._keeper.state.emulation
        if e is None or f.al > 1:
            raise DriveError(INVALID, 0)
        packet = struct.pack(
            "<BBBBIHHHHBBB", 19, e.media, e.drive, e.place >> 1, e.lba, e.place & 1, 0, e.segment, e.count,
            (e.cylinders - 1 & 0xFF) if e.cylinders else 0,
            ((e.cylinders - 1) >> 2 & 0xC0 | e.sectors) if e.cylinders else 0, e.heads - 1 if e.heads else 0,
        )  # fmt: skip
        self._hardware.write(f.ds * 16 + f.si, packet)
        if end:
            self._keeper.state.emulation = None
        f.succeed()
        f.result = ("%s", e.text)
