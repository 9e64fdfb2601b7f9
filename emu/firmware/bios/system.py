"""INT 11h, 12h and 15h: equipment, memory, A20, block moves, waits, the configuration table.

Sources: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 15h"; ACPI 1.0b, 14 (E820h); Phoenix, "BIOS
Extended Memory" (E801h); IBM PS/2 Hardware Interface Technical Reference (24xxh, port 92h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from emu import layout
from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.mouse import Mouse

UNSUPPORTED = 0x86
CONFIGURATION = (0xF000, 0xE6F5)  #: in the ROM
USABLE, RESERVED = 1, 2
SMAP = 0x534D4150
FAST_A20 = 0x02
REG_B, PERIODIC = 0x0B, 0x40
WAIT_OVER = 0x80
#: Shorter waits are looked at again and again; longer ones count the clock's interrupts, 976 us each.
SHORT_US = 2000
BLOCK_WORDS = 0x8000


def memory_map(memory: int) -> list[tuple[int, int, int]]:
    """(base, bytes, type) of INT 15h, AX=E820h, for so many bytes of RAM: conventional memory but for the EBDA, the
    ROM below 1 MiB, extended memory, the ROM at 4 GiB."""
    extended = memory - layout.EXTENDED_BASE
    return [
        (0, bda.EBDA, USABLE),
        (bda.EBDA, layout.CONVENTIONAL_END - bda.EBDA, RESERVED),
        (0xF0000, 0x10000, RESERVED),
        *([(layout.EXTENDED_BASE, extended, USABLE)] if extended else []),
        (layout.RESET_TOP - 0x10000, 0x10000, RESERVED),
    ]


class System:
    """The services of the board."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self.mouse = Mouse(hardware)
        self._calls: dict[int, Callable[[Frame], None]] = {
            0x24: self._a20,
            0x4F: self._intercept,
            0x80: self._nothing,
            0x81: self._nothing,
            0x82: self._nothing,
            0x83: self._event_wait,
            0x85: self._nothing,
            0x86: self._wait,
            0x87: self._move,
            0x88: self._extended,
            0x8A: self._extended_dword,
            0x90: self._nothing,
            0x91: self._nothing,
            0xC0: self._configuration,
            0xC1: self._ebda,
            0xC2: self.mouse.service,
            0xE8: self._e8,
        }

    def equipment(self, f: Frame) -> None:
        f.ax = self._hardware.word(bda.EQUIPMENT)
        f.name, f.result = ("equipment",), ("%04Xh", f.ax)

    def memory_size(self, f: Frame) -> None:
        f.ax = self._hardware.word(bda.MEMORY_KIB)
        f.name, f.result = ("conventional memory",), ("%d KiB", f.ax)

    def service(self, f: Frame) -> None:
        call = self._calls.get(f.ah)
        if call is None:
            f.name = ("function %04Xh, which does not exist", f.ax)
            f.fail(UNSUPPORTED)
        else:
            call(f)

    def _nothing(self, f: Frame) -> None:
        f.name = ("function %04Xh", f.ax)
        f.succeed()

    def _intercept(self, f: Frame) -> None:
        """AH=4Fh: the scan code goes on as it is. No event, as each is one of the keyboard."""
        f.carry = True

    def _a20(self, f: Frame) -> None:
        h, al = self._hardware, f.al
        value = h.inb(layout.SYSTEM_CONTROL_A)
        if al in (0x00, 0x01):
            f.name = ("A20 on",) if al else ("A20 off",)
            # Bit 0 would reset the CPU.
            h.outb(layout.SYSTEM_CONTROL_A, value & ~(FAST_A20 | 1) | FAST_A20 * al)
            f.succeed()
        elif al == 0x02:
            f.name = ("is A20 on",)
            f.al = int(h.a20())
            f.succeed()
            f.result = ("on",) if f.al else ("off",)
        elif al == 0x03:
            f.name = ("how A20 is switched",)
            f.bx = 3  # by the 8042 and by port 92h
            f.succeed()
        else:
            f.name = ("A20 function %02Xh, which does not exist", al)
            f.fail(UNSUPPORTED)

    # -- waiting

    def _begin(self, microseconds: int, flag: int) -> None:
        """Count down by the clock's periodic interrupt; `flag` is the far pointer to the byte that is set then."""
        h = self._hardware
        h.put(bda.WAIT_FLAG_POINTER, flag, 4)
        h.put(bda.WAIT_MICROSECONDS, microseconds, 4)
        h.put(bda.WAIT_ACTIVE, 1)
        h.outb(layout.RTC, REG_B)
        value = h.inb(layout.RTC + 1)
        h.outb(layout.RTC, REG_B)
        h.outb(layout.RTC + 1, value | PERIODIC)
        h.outb(layout.PIC_SLAVE + 1, h.inb(layout.PIC_SLAVE + 1) & ~1)

    def _event_wait(self, f: Frame) -> None:
        h, microseconds = self._hardware, f.cx << 16 | f.dx
        if f.al == 1:
            f.name = ("cancel the event wait",)
            h.put(bda.WAIT_ACTIVE, 0)
            h.outb(layout.RTC, REG_B)
            value = h.inb(layout.RTC + 1)
            h.outb(layout.RTC, REG_B)
            h.outb(layout.RTC + 1, value & ~PERIODIC)
            f.succeed()
            return
        f.name = ("event wait: %d us, flag at %04X:%04X", microseconds, f.es, f.bx)
        if h.byte(bda.WAIT_ACTIVE) & 1:
            f.fail(0x83)
            return
        self._begin(microseconds, f.es << 16 | f.bx)
        f.succeed()

    def _wait(self, f: Frame) -> None:
        h, microseconds = self._hardware, f.cx << 16 | f.dx
        f.name = ("wait: %d us", microseconds)
        now = h.now() // 1000
        if f.step == 0:
            if h.byte(bda.WAIT_ACTIVE) & 1:
                f.fail(0x83)
                return
            f.step = 1 if microseconds < SHORT_US else 2
            if f.step == 1:
                f.scratch = now + microseconds
                f.soon()
            else:
                self._begin(microseconds, 0x0040 << 16 | bda.WAIT_ACTIVE - 0x400)
                f.sleep()
        elif f.step == 1 and (f.scratch - now) & 0xFFFFFFFF <= SHORT_US:
            f.soon()
        elif f.step == 2 and not h.byte(bda.WAIT_ACTIVE) & WAIT_OVER:
            f.sleep()
        else:
            if f.step == 2:
                h.put(bda.WAIT_ACTIVE, 0)
            f.succeed()
            f.result = ("ok",)

    # -- memory

    def _move(self, f: Frame) -> None:
        """AH=87h, by the descriptors at ES:SI: the third is the source, the fourth the destination."""
        h, words = self._hardware, f.cx
        table = h.read(f.es * 16 + f.si, 0x30)
        source, destination = (
            int.from_bytes(table[at + 2 : at + 5], "little") | table[at + 7] << 24 for at in (0x10, 0x18)
        )
        f.name = ("move %d words: %X to %X", words, source, destination)
        if words > BLOCK_WORDS:
            f.fail(0x80)
            return
        # The move has all address lines, whatever A20 is.
        h.block_write(destination, h.block_read(source, 2 * words))
        f.succeed()
        f.result = ("ok",)

    def _extended_kib(self) -> int:
        return self._hardware.memory - layout.EXTENDED_BASE >> 10

    def _extended(self, f: Frame) -> None:
        f.name = ("extended memory",)
        f.ax = min(self._extended_kib(), 63 << 10)
        f.carry = False
        f.result = ("%d KiB", f.ax)

    def _extended_dword(self, f: Frame) -> None:
        f.name = ("extended memory, 32 bits",)
        f.dx, f.ax = self._extended_kib() >> 16, self._extended_kib()
        f.carry = False
        f.result = ("%d KiB", self._extended_kib())

    def _e8(self, f: Frame) -> None:
        if f.al in (0x01, 0x81):
            f.name = ("memory sizes (E8%02Xh)", f.al)
            low = min(self._extended_kib(), 15 << 10)
            high = max(self._extended_kib() - (15 << 10), 0) >> 6
            if f.al == 0x01:
                f.cx, f.dx, f.ax, f.bx = low, high, low, high
            else:
                f.ecx, f.edx, f.eax, f.ebx = low, high, low, high
            f.carry = False
            f.result = ("%d KiB to 16 MiB, %d blocks of 64 KiB above", low, high)
        elif f.al == 0x20:
            self._e820(f)
        else:
            f.name = ("function %04Xh, which does not exist", f.ax)
            f.fail(UNSUPPORTED)

    def _e820(self, f: Frame) -> None:
        index, ranges = f.ebx, memory_map(self._hardware.memory)
        f.name = ("memory map: range %d", index)
        if f.edx != SMAP or f.ecx < 20 or index >= len(ranges):
            f.fail(UNSUPPORTED)
            return
        base, size, kind = ranges[index]
        self._hardware.write(f.es * 16 + f.di, struct.pack("<QQI", base, size, kind))
        f.eax, f.ecx = SMAP, 20
        f.ebx = index + 1 if index + 1 < len(ranges) else 0
        f.carry = False
        f.result = ("%X to %X, %s", base, base + size - 1, {USABLE: "usable", RESERVED: "reserved"}[kind])

    def _configuration(self, f: Frame) -> None:
        f.name = ("system configuration",)
        f.es, f.bx = CONFIGURATION
        f.succeed()
        f.result = ("%04X:%04X", *CONFIGURATION)

    def _ebda(self, f: Frame) -> None:
        f.name = ("extended BIOS data area",)
        f.es = self._hardware.word(bda.EBDA_SEGMENT)
        f.succeed()
        f.result = ("segment %04Xh", f.es)
