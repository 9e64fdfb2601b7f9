"""INT 1Ah: the tick counter, the clock, and PCI.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 1Ah".
"""

from __future__ import annotations

from emu import layout
from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.pci_bios import PciBios

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY, MONTH, YEAR, REG_A, REG_B, REG_C = 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C
UPDATING, SET, ALARM_ENABLE, DAYLIGHT = 0x80, 0x80, 0x20, 0x01


class Time:
    """INT 1Ah. AH=00h is answered by the ROM, and is no event."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._pci = PciBios(hardware)

    def _cmos(self, index: int) -> int:
        self._hardware.outb(layout.RTC, index)
        return self._hardware.inb(layout.RTC + 1)

    def _set_cmos(self, index: int, value: int) -> None:
        self._hardware.outb(layout.RTC, index)
        self._hardware.outb(layout.RTC + 1, value)

    def service(self, f: Frame) -> None:
        h, ah = self._hardware, f.ah
        if ah == 0xB1:
            self._pci.service(f)
            return
        if 2 <= ah <= 6 and self._cmos(REG_A) & UPDATING:
            f.soon()
            return
        f.carry = False
        if ah == 0x01:
            f.name = ("set ticks: %d", f.cx << 16 | f.dx)
            h.put(bda.TICKS, f.cx << 16 | f.dx, 4)
            h.put(bda.MIDNIGHT, 0)
            f.ah = 0
        elif ah == 0x02:
            f.name = ("time",)
            f.ch, f.cl, f.dh = self._cmos(HOURS), self._cmos(MINUTES), self._cmos(SECONDS)
            f.dl = self._cmos(REG_B) & DAYLIGHT
            f.al, f.ah = f.ch, 0
            f.result = ("%02X:%02X:%02X", f.ch, f.cl, f.dh)
        elif ah == 0x03:
            f.name = ("set time: %02X:%02X:%02X", f.ch, f.cl, f.dh)
            self._set(((SECONDS, f.dh), (MINUTES, f.cl), (HOURS, f.ch)), f.dl & DAYLIGHT)
            f.ah = 0
        elif ah == 0x04:
            f.name = ("date",)
            f.ch, f.cl = self._cmos(layout.RTC_CENTURY), self._cmos(YEAR)
            f.dh, f.dl = self._cmos(MONTH), self._cmos(DAY)
            f.al, f.ah = f.ch, 0
            f.result = ("%02X%02X-%02X-%02X", f.ch, f.cl, f.dh, f.dl)
        elif ah == 0x05:
            f.name = ("set date: %02X%02X-%02X-%02X", f.ch, f.cl, f.dh, f.dl)
            self._set(((YEAR, f.cl), (MONTH, f.dh), (DAY, f.dl), (layout.RTC_CENTURY, f.ch)), None)
            f.ah = 0
        elif ah == 0x06:
            f.name = ("set alarm: %02X:%02X:%02X", f.ch, f.cl, f.dh)
            b = self._cmos(REG_B)
            if b & ALARM_ENABLE:
                f.carry = True
                return
            for index, value in ((SECONDS_ALARM, f.dh), (MINUTES_ALARM, f.cl), (HOURS_ALARM, f.ch)):
                self._set_cmos(index, value)
            self._set_cmos(REG_B, b & ~SET | ALARM_ENABLE)
            h.outb(layout.PIC_SLAVE + 1, h.inb(layout.PIC_SLAVE + 1) & ~1)
        elif ah == 0x07:
            f.name = ("alarm off",)
            self._set_cmos(REG_B, self._cmos(REG_B) & ~ALARM_ENABLE)
        else:
            f.name = ("function %02Xh, which does not exist", ah)
            f.carry = True

    def _set(self, values: tuple[tuple[int, int], ...], daylight: int | None) -> None:
        """With updates stopped meanwhile."""
        b = self._cmos(REG_B)
        self._set_cmos(REG_B, b | SET)
        for index, value in values:
            self._set_cmos(index, value)
        if daylight is not None:
            b = b & ~DAYLIGHT | daylight
        self._set_cmos(REG_B, b & ~SET)
