"""Setting a mode: registers, DAC, fonts, memory, and what the BIOS data area says of it."""

from __future__ import annotations

from collections.abc import Sequence

from emu.devices import bochs_vbe
from emu.firmware.bios import bda
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.planes import Planes
from emu.firmware.bios.video_modes import CGA, MODES, PALETTES, TEXT, Colour, Mode

ROM = 0xF0000
#: Where the ROM's fonts are, by the height of their characters: what bios.asm begins with.
FONTS = {16: 0x0000, 14: 0x1000, 8: 0x1E00}
ROM_SEGMENT = 0xF000
PORT_VBE_INDEX, PORT_VBE_DATA = 0x1CE, 0x1D0
COLOUR_CRTC, MONO_CRTC = 0x3D4, 0x3B4
GRAPHICS_FONT, HIGH_FONT = 0x43 * 4, 0x1F * 4
NO_CLEAR = 0x80


class ModeSetter:
    """What AH=00h does."""

    def __init__(self, hardware: Hardware, planes: Planes) -> None:
        self._hardware, self._planes = hardware, planes

    # -- registers

    def crtc_port(self) -> int:
        return self._hardware.word(bda.CRTC_PORT)

    def crtc(self, index: int, value: int) -> None:
        port = self.crtc_port()
        self._hardware.outb(port, index)
        self._hardware.outb(port + 1, value)

    def read_crtc(self, index: int) -> int:
        port = self.crtc_port()
        self._hardware.outb(port, index)
        return self._hardware.inb(port + 1)

    def attribute(self, index: int, value: int) -> None:
        """Index and data share a port; the screen stays on."""
        h = self._hardware
        h.inb(self.crtc_port() + 6)
        h.outb(0x3C0, index)
        h.outb(0x3C0, value)
        h.outb(0x3C0, 0x20)

    def read_attribute(self, index: int) -> int:
        h = self._hardware
        h.inb(self.crtc_port() + 6)
        h.outb(0x3C0, index)
        value = h.inb(0x3C1)
        h.inb(self.crtc_port() + 6)
        h.outb(0x3C0, 0x20)
        return value

    def sequencer(self, index: int, value: int) -> None:
        self._hardware.outb(0x3C4, index)
        self._hardware.outb(0x3C5, value)

    def dac(self, first: int, colours: Sequence[Colour]) -> None:
        h = self._hardware
        h.outb(0x3C8, first)
        for colour in colours:
            for part in colour:
                h.outb(0x3C9, part)

    def read_dac(self, first: int, count: int) -> list[Colour]:
        h = self._hardware
        h.outb(0x3C7, first)
        return [(h.inb(0x3C9), h.inb(0x3C9), h.inb(0x3C9)) for _ in range(count)]

    def vbe(self, index: int, value: int) -> None:
        self._hardware.port_out(PORT_VBE_INDEX, 2, index)
        self._hardware.port_out(PORT_VBE_DATA, 2, value)

    def read_vbe(self, index: int) -> int:
        self._hardware.port_out(PORT_VBE_INDEX, 2, index)
        return self._hardware.port_in(PORT_VBE_DATA, 2)

    # -- modes

    def set(self, number: int, clear: bool = True) -> bool:
        """False when there is no such mode."""
        mode = MODES.get(number)
        if mode is None:
            return False
        h = self._hardware
        if self.read_vbe(bochs_vbe.ENABLE) & bochs_vbe.ENABLED:
            self.vbe(bochs_vbe.ENABLE, 0)
        flags = h.byte(bda.VIDEO_FLAGS)
        h.put(bda.CRTC_PORT, COLOUR_CRTC if mode.misc & 1 else MONO_CRTC, 2)
        self._program(mode)
        if not flags & 0x08:
            self.dac(0, PALETTES[mode.palette])
            if mode.palette != 3:
                self.dac(len(PALETTES[mode.palette]), [(0, 0, 0)] * (256 - len(PALETTES[mode.palette])))
        if clear:
            self._clear(mode)
        if mode.kind == TEXT:
            self.load_font(mode.height, 0)
        self._data_area(mode, flags, clear)
        h.inb(self.crtc_port() + 6)
        h.outb(0x3C0, 0x20)
        return True

    def _program(self, mode: Mode) -> None:
        h = self._hardware
        h.outb(0x3C3, 1)
        h.outb(0x3C2, mode.misc)
        h.inb(self.crtc_port() + 6)
        for index, value in enumerate(mode.attributes):
            h.outb(0x3C0, index)
            h.outb(0x3C0, value)
        self.sequencer(0, 1)
        for index, value in enumerate(mode.sequencer, 1):
            self.sequencer(index, value)
        self.sequencer(0, 3)
        for index, value in enumerate(mode.graphics):
            h.outb(0x3CE, index)
            h.outb(0x3CF, value)
        self.crtc(0x11, 0)
        for index, value in enumerate(mode.crtc):
            self.crtc(index, value)
        h.outb(0x3C6, 0xFF)

    def _clear(self, mode: Mode) -> None:
        if mode.kind == TEXT:
            self._planes.put(0, b"\x20\x07\0\0\0\0\0\0" * 0x4000)
        elif mode.kind == CGA:
            self._planes.put(0, bytes(4 * 0x4000))
        else:
            self._planes.put(0, bytes(4 * 0x10000))

    def _data_area(self, mode: Mode, flags: int, clear: bool) -> None:
        h = self._hardware
        h.put(bda.VIDEO_MODE, mode.number)
        h.put(bda.COLUMNS, mode.columns, 2)
        h.put(bda.PAGE_BYTES, mode.page_bytes, 2)
        h.put(bda.PAGE_START, 0, 2)
        h.write_bytes(bda.CURSORS, bytes(16))
        h.put(bda.CURSOR_SHAPE, 0x0607 if mode.kind == TEXT else 0, 2)
        h.put(bda.PAGE, 0)
        h.put(bda.MODE_CONTROL, {0: 0x2C, 1: 0x28, 2: 0x2D, 3: 0x29, 4: 0x2A, 5: 0x2E, 6: 0x1E}.get(mode.number, 0x29))
        h.put(bda.CGA_PALETTE, 0x3F if mode.number == 6 else 0x30)
        h.put(bda.ROWS, mode.rows - 1)
        h.put(bda.CHARACTER_HEIGHT, mode.height, 2)
        h.put(bda.VIDEO_CONTROL, 0x60 | (0 if clear else NO_CLEAR))
        h.put(bda.VIDEO_SWITCHES, 0xF9)
        h.put(bda.VIDEO_FLAGS, flags & 0x7F or 0x51)
        h.put(bda.DISPLAY_CODE, 0x08)
        h.put(GRAPHICS_FONT, ROM_SEGMENT << 16 | FONTS[mode.height], 4)
        h.put(HIGH_FONT, ROM_SEGMENT << 16 | FONTS[8] + 128 * 8, 4)

    # -- fonts

    def rom_font(self, height: int) -> bytes:
        """All 256 characters."""
        return self._hardware.read_bytes(ROM + FONTS[height], 256 * height)

    def load_font(self, height: int, block: int, data: bytes = b"", first: int = 0) -> None:
        """Put characters of `height` lines, from `first` on, into a block of plane 2; without data, the ROM's."""
        data = data or self.rom_font(height)
        start = ((block & 3) << 14 | (block & 4) << 11) + 32 * first
        count = len(data) // height
        cells = self._planes.get(start, 32 * count)
        for i in range(count):
            at = 4 * 32 * i + 2
            cells[at : at + 4 * height : 4] = data[i * height : (i + 1) * height]
        self._planes.put(start, cells)

    def set_height(self, height: int) -> None:
        """Have characters of `height` lines on the screen that is set: the CRT controller, rows, cursor."""
        h = self._hardware
        self.crtc(0x09, self.read_crtc(0x09) & 0xE0 | height - 1)
        shown = self.read_crtc(0x12) | (self.read_crtc(0x07) & 2) << 7 | (self.read_crtc(0x07) & 0x40) << 3
        lines = shown + 1
        if self.read_crtc(0x09) & 0x80:
            lines //= 2
        rows = lines // height
        last = rows * height * (2 if self.read_crtc(0x09) & 0x80 else 1) - 1
        self.crtc(0x12, last & 0xFF)
        overflow = self.read_crtc(0x07) & ~0x42 | (last >> 8 & 1) << 1 | (last >> 9 & 1) << 6
        self.crtc(0x07, overflow)
        self.crtc(0x0A, height - 2)
        self.crtc(0x0B, height - 1)
        h.put(bda.CURSOR_SHAPE, (height - 2) << 8 | height - 1, 2)
        h.put(bda.ROWS, rows - 1)
        h.put(bda.CHARACTER_HEIGHT, height, 2)
        columns = h.word(bda.COLUMNS)
        h.put(bda.PAGE_BYTES, rows * columns * 2 + 0xFF & ~0xFF, 2)
