"""INT 10h, AH=0Bh and 10h: the palette, the DAC.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 10h".
"""

from __future__ import annotations

from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.video_set import ModeSetter

MODE_CONTROL, OVERSCAN, COLOUR_SELECT = 0x10, 0x11, 0x14
BLINK, PALETTE_SELECT = 0x08, 0x80
DAC_COLOURS = 256
BORDER = 17  #: palette registers and the border, as AL=02h has them


class VideoPalette:
    """`cga` is AH=0Bh, `service` AH=10h."""

    def __init__(self, hardware: Hardware, setter: ModeSetter) -> None:
        self._hardware, self._setter = hardware, setter

    def cga(self, f: Frame) -> None:
        h, setter = self._hardware, self._setter
        f.name = ("CGA palette: %02Xh, %02Xh", f.bh, f.bl)
        kept = h.byte(bda.CGA_PALETTE)
        if f.bh == 0:
            kept = kept & 0xE0 | f.bl & 0x1F
            border = f.bl & 0x0F
            border += border & 0x08
            setter.attribute(OVERSCAN, border)
            if h.byte(bda.VIDEO_MODE) > 3:
                setter.attribute(0, border)
        else:
            kept = kept & 0xDF | (f.bl & 1) << 5
        h.put(bda.CGA_PALETTE, kept)
        if h.byte(bda.VIDEO_MODE) in (4, 5):
            first = kept & 0x10 | 2 | kept >> 5 & 1
            for i in range(3):
                setter.attribute(1 + i, first + 2 * i)

    def service(self, f: Frame) -> None:
        h, setter, al = self._hardware, self._setter, f.al
        f.name = ("palette function %02Xh: BX=%04Xh, CX=%04Xh, DX=%04Xh", al, f.bx, f.cx, f.dx)
        table = f.es * 16 + f.dx
        count = min(f.cx, DAC_COLOURS)
        if al == 0x00 and f.bl < 0x15:
            setter.attribute(f.bl, f.bh)
        elif al == 0x01:
            setter.attribute(OVERSCAN, f.bh)
        elif al == 0x02:
            values = h.read(table, BORDER)
            for i, value in enumerate(values[:16]):
                setter.attribute(i, value)
            setter.attribute(OVERSCAN, values[16])
        elif al == 0x03:
            control = setter.read_attribute(MODE_CONTROL) & ~BLINK
            setter.attribute(MODE_CONTROL, control | BLINK * (f.bl & 1))
        elif al == 0x07 and f.bl < 0x15:
            f.bh = setter.read_attribute(f.bl)
        elif al == 0x08:
            f.bh = setter.read_attribute(OVERSCAN)
        elif al == 0x09:
            registers = [*range(16), OVERSCAN]
            h.write(table, bytes(setter.read_attribute(i) for i in registers))
        elif al == 0x10:
            setter.dac(f.bx & 0xFF, [(f.dh, f.ch, f.cl)])
        elif al == 0x12:
            data = h.read(table, 3 * count)
            setter.dac(f.bx & 0xFF, [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)])
        elif al == 0x13:
            self._select(f)
        elif al == 0x15:
            f.dh, f.ch, f.cl = setter.read_dac(f.bx & 0xFF, 1)[0]
        elif al == 0x17:
            colours = setter.read_dac(f.bx & 0xFF, count)
            h.write(table, bytes(part for colour in colours for part in colour))
        elif al == 0x18:
            h.outb(0x3C6, f.bl)
        elif al == 0x19:
            f.bl = h.inb(0x3C6)
        elif al == 0x1A:
            paging = setter.read_attribute(MODE_CONTROL) >> 7
            page = setter.read_attribute(COLOUR_SELECT)
            f.bl, f.bh = paging, page & 15 if paging else page >> 2 & 3
        elif al == 0x1B:
            colours = setter.read_dac(f.bx & 0xFF, count)
            # 30 %, 59 % and 11 % (IBM, "Sum color values to gray shades").
            greys = [(77 * red + 151 * green + 28 * blue + 128) >> 8 for red, green, blue in colours]
            setter.dac(f.bx & 0xFF, [(g, g, g) for g in greys])

    def _select(self, f: Frame) -> None:
        """AL=13h: 4 pages of 64 colours or 16 of 16, or the page."""
        setter = self._setter
        control = setter.read_attribute(MODE_CONTROL)
        if f.bl == 0:
            setter.attribute(MODE_CONTROL, control & ~PALETTE_SELECT | (f.bh & 1) << 7)
        else:
            setter.attribute(COLOUR_SELECT, f.bh if control & PALETTE_SELECT else f.bh << 2)
