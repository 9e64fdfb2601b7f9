"""What the power-on self test leaves: BIOS data area, extended one, disk tables, PCI functions, 40:xx of the drives."""

from __future__ import annotations

import struct

from emu import layout
from emu.firmware.bios import bda
from emu.firmware.bios.disk import Disks
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.pci_setup import set_up_pci

COM_CANDIDATES = (0x3F8, 0x2F8, 0x3E8, 0x2E8)
LPT_CANDIDATES = (0x378, 0x278, 0x3BC)
CMOS_EQUIPMENT, CMOS_FLOPPIES = 0x14, 0x10
BASE_KIB = 640
EQUIPMENT_DISKETTE, EQUIPMENT_FPU, EQUIPMENT_MOUSE, EQUIPMENT_COLOUR_80 = 0x0001, 0x0002, 0x0004, 0x0020


class Post:
    """Runs once, when vectors, interrupt controllers and the keyboard are set up."""

    def __init__(self, hardware: Hardware, disks: Disks) -> None:
        self._hardware, self._disks = hardware, disks

    def run(self, f: Frame) -> None:
        h = self._hardware
        f.name = ("power-on self test",)
        h.write(bda.EBDA, bytes((bda.EBDA_KIB,)).ljust(bda.EBDA_KIB << 10, b"\0"))
        h.put(bda.EBDA_SEGMENT, bda.EBDA >> 4, 2)
        h.put(bda.MEMORY_KIB, BASE_KIB - bda.EBDA_KIB, 2)
        for offset, where in ((bda.KEY_BUFFER_START, bda.KEY_BUFFER), (bda.KEY_BUFFER_LIMIT, bda.KEY_BUFFER_END)):
            h.put(offset, where - 0x400, 2)
        h.put(bda.KEY_HEAD, bda.KEY_BUFFER - 0x400, 2)
        h.put(bda.KEY_TAIL, bda.KEY_BUFFER - 0x400, 2)
        h.put(bda.KEYBOARD_MODE, 0x10)  # 101 or 102 keys
        coms = [port for port in COM_CANDIDATES if self._is_uart(port)]
        lpts = [port for port in LPT_CANDIDATES if self._is_printer(port)]
        for table, ports in ((bda.COM_PORTS, coms), (bda.LPT_PORTS, lpts[:3])):
            for i, port in enumerate(ports):
                h.put(table + 2 * i, port, 2)
        for i in range(4):
            h.put(bda.COM_TIMEOUTS + i, 0x01)
            h.put(bda.LPT_TIMEOUTS + i, 0x14)
        floppies = len(self._disks.floppies)
        equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE | EQUIPMENT_COLOUR_80 | len(coms) << 9 | len(lpts[:3]) << 14
        if floppies:
            equipment |= EQUIPMENT_DISKETTE | (floppies - 1) << 6
        h.put(bda.EQUIPMENT, equipment, 2)
        h.put(bda.DISK_COUNT, len(self._disks.disks))
        h.put(bda.FLOPPY_FEATURES, 0x07 * (floppies > 0) | 0x70 * (floppies > 1))
        for i in range(floppies):
            h.put(bda.FLOPPY_MEDIA + i, 0x17)  # 500 kbit/s, established, 1440 KiB in its drive
        self._disk_tables()
        self._set_ticks()
        if h.pci:
            set_up_pci(h)

    def _is_uart(self, port: int) -> bool:
        """The interrupt enable register keeps what is written, the identification's unused bits are 0."""
        h = self._hardware
        h.outb(port + 1, 0x02)
        found = h.inb(port + 1) == 0x02 and h.inb(port + 2) & 0x30 == 0
        h.outb(port + 1, 0)
        return found

    def _is_printer(self, port: int) -> bool:
        h = self._hardware
        h.outb(port + 2, 0x0C)  # no strobe, the data pins are outputs
        h.outb(port, 0xAA)
        return h.inb(port) == 0xAA

    def _disk_tables(self) -> None:
        """INT 41h and 46h: the first two disks' parameters, as CHS calls have them (Phoenix, EDD 1.1, table 3)."""
        h = self._hardware
        for i, vector in enumerate((0x41, 0x46)):
            at = bda.DISK_TABLES + 16 * i
            h.put(vector * 4, (bda.EBDA >> 4) << 16 | at - bda.EBDA, 4)
            if i >= len(self._disks.disks):
                continue
            disk = self._disks.disks[i]
            disk.forget()
            g = disk.geometry
            control = 0xC0 | (g.heads > 8) << 3
            table = struct.pack("<HBHHBB3xHBB", g.cylinders, g.heads, 0, 0xFFFF, 0, control, 0, g.sectors, 0)
            h.write(at, table)

    def _set_ticks(self) -> None:
        """The counter at 40:6C from the clock: 18.2065 ticks a second since midnight."""

        def cmos(index: int) -> int:
            self._hardware.outb(layout.RTC, index)
            value = self._hardware.inb(layout.RTC + 1)
            return (value >> 4) * 10 + (value & 15)

        seconds = (cmos(4) * 60 + cmos(2)) * 60 + cmos(0)
        self._hardware.put(bda.TICKS, seconds * 1193182 // 65536, 4)
