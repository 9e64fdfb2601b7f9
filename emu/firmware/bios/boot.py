"""INT 19h and 18h: the boot order, boot sectors, CDs by El Torito, and how a loader finds the registers.

Sources: BIOS Boot Specification 1.01, 6 (IPL table, INT 18h goes on with the next device); "El Torito" Bootable CD-ROM
Format Specification 1.0, 2 (boot record, boot catalog); codes of CMOS bytes 3Dh and 38h as in emu.devices.rtc146818.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from emu import layout
from emu.firmware.bios.disk import Disks
from emu.firmware.bios.drives import FIRST_CD, FIRST_DISK, DriveError
from emu.firmware.bios.frame import INTERRUPTS, Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.state import FLOPPY_TYPES, HARD_DISK, NO_EMULATION, Emulation, Keeper

BOOT_SECTOR = 0x7C00
SIGNATURE = b"\x55\xaa"
FLOPPY, DISK, CDROM = 1, 2, 3
BOOT_ORDER, BOOT_ORDER_3 = 0x3D, 0x38  #: in CMOS RAM: first choice in the low half, second in the high; third high
NO_SIGNATURE_CHECK = 0x01  #: of 38h: diskettes boot without one
VOLUME_BOOT_RECORD, CATALOG_POINTER = 17, 0x47
EL_TORITO = b"\0CD001\1EL TORITO SPECIFICATION"
MOST_LOADED = 0x9000 // 32 * 4  #: sectors of 512 bytes below the EBDA


SLEEPS, TRIES = 1, 2  #: steps of INT 18h and 19h


class NotBootable(Exception):
    """Why; a few words for the screen."""


class Boot:
    """`say` prints on the screen."""

    def __init__(self, hardware: Hardware, keeper: Keeper, disks: Disks, say: Callable[[str], None]) -> None:
        self._hardware, self._keeper, self._disks, self._say = hardware, keeper, disks, say

    def _cmos(self, index: int) -> int:
        self._hardware.outb(layout.RTC, index)
        return self._hardware.inb(layout.RTC + 1)

    def _order(self) -> list[tuple[int, int]]:
        """(kind, number) of all that can be booted: what CMOS RAM names first, then the rest."""
        low, high = self._cmos(BOOT_ORDER), self._cmos(BOOT_ORDER_3)
        kinds = [low & 15, low >> 4, high >> 4, FLOPPY, DISK, CDROM]
        there = {
            FLOPPY: [0] if self._disks.floppies else [],
            DISK: [FIRST_DISK] if self._disks.disks else [],
            CDROM: [cd.number for cd in self._disks.cds],
        }
        return [(kind, number) for kind in dict.fromkeys(kinds) for number in there.get(kind, ())]

    def first(self, f: Frame) -> None:
        """INT 19h."""
        if not f.step:
            self._keeper.state.attempt = 0
            self._keeper.state.emulation = None
        self._try(f, "bootstrap loader")

    def next(self, f: Frame) -> None:
        """INT 18h: what was booted gives up."""
        if not f.step:
            self._keeper.state.attempt += 1
            self._keeper.state.emulation = None
        self._try(f, "next boot device")

    def _try(self, f: Frame, name: str) -> None:
        state = self._keeper.state
        if f.step == SLEEPS:
            f.sleep()
            return
        order = self._order()
        if state.attempt < len(order):
            kind, number = order[state.attempt]
            what = {FLOPPY: "floppy", DISK: "disk", CDROM: "CD"}[kind]
            self._say(f"Booting from {what} (drive {number:02X}h)...\r\n")
            try:
                drive, address = self._load_cd(number) if kind == CDROM else self._load(kind, number)
            except (NotBootable, DriveError) as error:
                reason = f"it cannot be read ({error.args[0]:02X}h)" if isinstance(error, DriveError) else str(error)
                self._say(f"Not booted: {reason}.\r\n\n")
                self._hardware.note(partial("INT 19h {}: {}".format, what, reason))
                state.attempt += 1
                state.emulation = None
                # One device an answer: messages are many pixels in graphics modes.
                f.step = TRIES
                f.soon()
                return
            f.name = (f"{name}: %s", what)
            f.result = ("drive %02Xh at %04X:%04X", drive, *address)
            f.eax = f.ebx = f.ecx = f.edx = f.esi = f.edi = f.ebp = f.ds = f.es = 0
            f.ax, f.dl = 0xAA55, drive
            f.cs, f.ip = address
            f.flags = INTERRUPTS
            return
        self._say("No bootable device.\r\n")
        self._hardware.note(lambda: "INT 19h no bootable device")
        # The loader's stack would be overwritten by what comes: it sleeps in this service for ever.
        f.step = SLEEPS
        f.sleep()

    def _load(self, kind: int, number: int) -> tuple[int, tuple[int, int]]:
        drive = self._disks.find(number)
        if drive is None:
            raise NotBootable("there is no such drive")
        sector = drive.read(0, 1)
        checked = kind == DISK or not self._cmos(BOOT_ORDER_3) & NO_SIGNATURE_CHECK
        if checked and sector[510:512] != SIGNATURE:
            raise NotBootable("its first sector is no boot sector (55AAh is missing)")
        self._hardware.write(BOOT_SECTOR, sector)
        return number, (0, BOOT_SECTOR)

    def _load_cd(self, number: int) -> tuple[int, tuple[int, int]]:
        cd = self._disks.cds[number - FIRST_CD]
        record = cd.read(VOLUME_BOOT_RECORD, 1) if cd.sectors > VOLUME_BOOT_RECORD else b""
        if not record.startswith(EL_TORITO):
            raise NotBootable("it has no El Torito boot record")
        (at,) = struct.unpack_from("<I", record, CATALOG_POINTER)
        if at >= cd.sectors:
            raise NotBootable("its boot catalog is behind its end")
        catalog = cd.read(at, 1)
        if catalog[0] != 1 or catalog[30:32] != SIGNATURE or sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF:
            raise NotBootable("its boot catalog is damaged")
        indicator, media, segment, _, _, count, lba = struct.unpack_from("<BBHBBHI", catalog, 32)
        media &= 15
        if indicator != 0x88:
            raise NotBootable("its boot catalog says that it is not bootable")
        segment = segment or 0x07C0
        count = count or 1
        frames = min(-(-count // 4), MOST_LOADED)
        if media > HARD_DISK or lba + frames > cd.sectors:
            raise NotBootable("its boot catalog's entry is wrong")
        image = cd.read(lba, frames)
        # The load is `count` sectors of 512 bytes; whole frames are on the disc.
        self._hardware.write(segment * 16, image[: count * 512])
        index = number - FIRST_CD
        if media == NO_EMULATION:
            emulation = Emulation(media, number, index, cd.place, lba, segment=segment, count=count)
        elif media == HARD_DISK:
            heads, sectors, cylinders = image[446 + 5] + 1, image[446 + 6] & 63, image[446 + 7]
            cylinders = (cylinders | (image[446 + 6] & 0xC0) << 2) + 1
            if not sectors:
                raise NotBootable("its disk image has no partition")
            emulation = Emulation(media, FIRST_DISK, index, cd.place, lba, cylinders, heads, sectors, segment, count)
        else:
            emulation = Emulation(media, 0, index, cd.place, lba, *FLOPPY_TYPES[media], segment, count)
        self._keeper.state.emulation = emulation
        # Loaders that look at CS expect the segment to be as small as it can be, 0 for 7C0h.
        return emulation.drive, (segment & 0xF000, (segment & 0x0FFF) << 4)
