"""INT 10h, AH=11h, 12h, 1Ah and 1Bh: fonts, alternate selections, what the adapter tells of itself.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 10h".
"""

from __future__ import annotations

from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.video_modes import MODES, TEXT
from emu.firmware.bios.video_set import FONTS, GRAPHICS_FONT, HIGH_FONT, ROM_SEGMENT, ModeSetter

#: AH=11h: heights of the ROM's fonts by AL's low bits.
HEIGHTS = {1: 14, 2: 8, 4: 16}
#: AH=11h, AL=23h and so on: rows by BL.
ROWS = {1: 14, 2: 25, 3: 43}
FONT_CHARACTERS = 256  #: of a block
STATIC_TABLE_OFFSET = 0xE000  #: in the ROM: what AH=1Bh points to


class VideoFonts:
    """`service` is AH=11h, `alternate` AH=12h, `display_code` AH=1Ah, `state` AH=1Bh."""

    def __init__(self, hardware: Hardware, setter: ModeSetter) -> None:
        self._hardware, self._setter = hardware, setter

    def service(self, f: Frame) -> None:
        h, al = self._hardware, f.al
        f.name = ("font function %02Xh: BX=%04Xh, CX=%04Xh, DX=%04Xh", al, f.bx, f.cx, f.dx)
        if al & 0xF0 in (0x00, 0x10):
            low, block = al & 0x0F, f.bl & 7
            if low == 0:
                if not 1 <= f.bh <= 32 or not f.cx:
                    return
                data = h.read(f.es * 16 + f.bp, min(f.cx, FONT_CHARACTERS) * f.bh)
                self._setter.load_font(f.bh, block, data, f.dx & 0xFF)
                height = f.bh
            elif low in HEIGHTS:
                height = HEIGHTS[low]
                self._setter.load_font(height, block)
            else:
                if low == 3:
                    self._setter.sequencer(3, f.bl)
                return
            if al & 0x10:
                self._setter.set_height(height)
        elif al == 0x20:
            h.put(HIGH_FONT, f.es << 16 | f.bp, 4)
        elif al == 0x21:
            h.put(GRAPHICS_FONT, f.es << 16 | f.bp, 4)
            self._graphics_rows(f.cx, f.bl, f.dl)
        elif al in (0x22, 0x23, 0x24):
            height = {0x22: 14, 0x23: 8, 0x24: 16}[al]
            h.put(GRAPHICS_FONT, ROM_SEGMENT << 16 | FONTS[height], 4)
            self._graphics_rows(height, f.bl, f.dl)
        elif al == 0x30:
            self._information(f)

    def _graphics_rows(self, height: int, rows: int, own: int) -> None:
        h = self._hardware
        h.put(bda.CHARACTER_HEIGHT, height, 2)
        h.put(bda.ROWS, (own if rows == 0 else ROWS.get(rows, 25)) - 1)

    def _information(self, f: Frame) -> None:
        h = self._hardware
        rom = {2: FONTS[14], 3: FONTS[8], 4: FONTS[8] + 128 * 8, 5: FONTS[14], 6: FONTS[16], 7: FONTS[16]}
        if f.bh in (0, 1):
            pointer = h.dword(HIGH_FONT if f.bh == 0 else GRAPHICS_FONT)
        elif f.bh in rom:
            pointer = ROM_SEGMENT << 16 | rom[f.bh]
        else:
            return
        f.es, f.bp = pointer >> 16, pointer
        f.cx, f.dl = h.word(bda.CHARACTER_HEIGHT), h.byte(bda.ROWS)
        f.result = ("font at %04X:%04X, %d lines, last row %d", f.es, f.bp, f.cx, f.dl)

    def alternate(self, f: Frame) -> None:
        h, bl = self._hardware, f.bl
        f.name = ("alternate select %02Xh: %02Xh", bl, f.al)
        flags, control = h.byte(bda.VIDEO_FLAGS), h.byte(bda.VIDEO_CONTROL)
        if bl == 0x10:
            switches = h.byte(bda.VIDEO_SWITCHES)
            f.bh = int(h.word(bda.CRTC_PORT) == 0x3B4)
            f.bl, f.ch, f.cl = control >> 5 & 3, 0, switches & 15  # nothing is at the feature connector
            return
        if bl == 0x30 and f.al < 3:
            flags = flags & ~0x90 | {0: 0x80, 1: 0x00, 2: 0x10}[f.al]
        elif bl == 0x31 and f.al < 2:
            flags = flags & ~0x08 | f.al << 3
        elif bl == 0x32 and f.al < 2:
            misc = h.inb(0x3CC)
            h.outb(0x3C2, misc & ~2 | 2 * (1 - f.al))
        elif bl == 0x33 and f.al < 2:
            flags = flags & ~0x02 | 2 * (1 - f.al)
        elif bl == 0x34 and f.al < 2:
            control = control & ~0x01 | f.al
        elif bl == 0x36 and f.al < 2:
            self._screen(f.al == 0)
        elif bl != 0x20:
            return
        h.put(bda.VIDEO_FLAGS, flags)
        h.put(bda.VIDEO_CONTROL, control)
        f.al = 0x12

    def _screen(self, on: bool) -> None:
        h = self._hardware
        h.outb(0x3C4, 1)
        value = h.inb(0x3C5)
        h.outb(0x3C4, 1)
        h.outb(0x3C5, value & ~0x20 if on else value | 0x20)

    def display_code(self, f: Frame) -> None:
        h = self._hardware
        if f.al == 0x00:
            f.name = ("display combination",)
            f.bx = h.byte(bda.DISPLAY_CODE)
            f.result = ("%04Xh", f.bx)
        elif f.al == 0x01:
            f.name = ("set display combination: %04Xh", f.bx)
            h.put(bda.DISPLAY_CODE, f.bl)
        else:
            f.name = ("display combination function %02Xh", f.al)
            return
        f.al = 0x1A

    def state(self, f: Frame) -> None:
        """AH=1Bh: 64 bytes at ES:DI, whose first dword points to what the adapter can."""
        h = self._hardware
        f.name = ("video state: %04Xh, buffer %04X:%04X", f.bx, f.es, f.di)
        if f.bx:
            return
        number = h.byte(bda.VIDEO_MODE) & 0x7F
        mode = MODES.get(number, MODES[3])
        out = bytearray(64)
        out[0:4] = (ROM_SEGMENT << 16 | STATIC_TABLE_OFFSET).to_bytes(4, "little")
        out[4:34] = h.read_bytes(bda.VIDEO_MODE, 30)
        out[34] = h.byte(bda.ROWS) + 1
        out[35:37] = h.read_bytes(bda.CHARACTER_HEIGHT, 2)
        out[37] = h.byte(bda.DISPLAY_CODE)
        colours = 16 if mode.kind == TEXT and number != 7 else 1 << mode.bits if mode.bits < 8 else 0
        out[39:41] = (256 if mode.bits == 8 else colours).to_bytes(2, "little")
        out[41] = 1 if mode.single else 8
        lines = 400 if mode.kind == TEXT else mode.rows * mode.height
        out[42] = {200: 0, 350: 1, 400: 2, 480: 3}.get(lines, 0)
        out[45] = 0x11
        out[49] = 3  # 256 KiB
        h.write(f.es * 16 + f.di, bytes(out))
        f.al = 0x1B
