"""INT 14h and INT 17h: serial lines and printers.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 14h", "Interrupt 17h".
"""

from __future__ import annotations

from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware

IER, LCR, MCR, LSR, MSR = 1, 3, 4, 5, 6
DATA_READY, HOLDING_EMPTY, DLAB = 0x01, 0x20, 0x80
TIMED_OUT = 0x80
#: Divisors of AH=00h, bits 7-5: 110, 150, 300, 600, 1200, 2400, 4800, 9600 bit/s.
DIVISORS = (1047, 768, 384, 192, 96, 48, 24, 12)
BUSY_UNIT_NS = 1_000_000_000  #: what a timeout of 1 stands for, about a second
STROBE, SELECT_IN, INITIALIZE = 0x01, 0x08, 0x04


class Lines:
    """Waiting is the ROM's: the service is asked again until the chip is ready or the time is over. `scratch` of the
    frame is when that is, in units of 1024 ns."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def serial(self, f: Frame) -> None:
        h, line = self._hardware, f.dx
        base = h.word(bda.COM_PORTS + 2 * line) if line < 4 else 0
        if f.step == 0:
            f.name = ("serial function %02Xh: COM%d", f.ah, line + 1)
        if not base:
            f.ah = TIMED_OUT
            return
        ah = f.ah
        if ah == 0x00:
            f.name = ("initialize COM%d: %02Xh", line + 1, f.al)
            divisor = DIVISORS[f.al >> 5]
            h.outb(base + LCR, DLAB)
            h.outb(base, divisor)
            h.outb(base + 1, divisor >> 8)
            h.outb(base + LCR, f.al & 0x1F)
            h.outb(base + IER, 0)
        elif ah in (0x01, 0x02):
            send = ah == 0x01
            f.name = ("send on COM%d: %02Xh", line + 1, f.al) if send else ("receive on COM%d", line + 1)
            status = h.inb(base + LSR)
            if not status & (HOLDING_EMPTY if send else DATA_READY):
                if self._wait(f, h.byte(bda.COM_TIMEOUTS + line)):
                    return
                f.ah = status | TIMED_OUT
                f.result = ("timed out",)
                return
            if send:
                h.outb(base, f.al)
            else:
                f.al = h.inb(base)
                f.result = ("%02Xh", f.al)
            f.ah = status & ~TIMED_OUT
            return
        elif ah != 0x03:
            return
        f.ah, f.al = h.inb(base + LSR), h.inb(base + MSR)
        f.result = ("line %02Xh, modem %02Xh", f.ah, f.al)

    def printer(self, f: Frame) -> None:
        h, line = self._hardware, f.dx
        base = h.word(bda.LPT_PORTS + 2 * line) if line < 3 else 0
        f.name = ("printer function %02Xh: LPT%d", f.ah, line + 1)
        if not base or f.ah > 2:
            f.ah = 0x01
            return
        if f.ah == 0x00:
            f.name = ("print on LPT%d: %02Xh", line + 1, f.al)
            if not h.inb(base + 1) & 0x80:
                if self._wait(f, h.byte(bda.LPT_TIMEOUTS + line)):
                    return
                f.ah = self._printer_status(base) | 0x01
                f.result = ("timed out",)
                return
            h.outb(base, f.al)
            control = SELECT_IN | INITIALIZE
            h.outb(base + 2, control | STROBE)
            h.outb(base + 2, control)
        elif f.ah == 0x01:
            f.name = ("initialize LPT%d", line + 1)
            h.outb(base + 2, SELECT_IN)
            h.outb(base + 2, SELECT_IN | INITIALIZE)
        f.ah = self._printer_status(base)
        f.result = ("status %02Xh", f.ah)

    def _printer_status(self, base: int) -> int:
        """Not busy, acknowledge, out of paper, selected, I/O error: two of them inverted."""
        return (self._hardware.inb(base + 1) ^ 0x48) & 0xF8

    def _wait(self, f: Frame, units: int) -> bool:
        """Ask again, if the time is not over."""
        now = self._hardware.now()
        if not f.step:
            f.step = 1
            f.scratch = (now + max(units, 1) * BUSY_UNIT_NS) >> 10
        if (f.scratch - (now >> 10)) & 0xFFFFFFFF > 0x7FFFFFFF:
            return False
        f.soon()
        return True
