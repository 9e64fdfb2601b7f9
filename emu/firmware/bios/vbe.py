"""INT 10h, AH=4Fh: VESA BIOS extensions over the Bochs VBE registers.

Source: VESA BIOS EXTENSION (VBE) Core Functions Standard 3.0; Bochs "VBE Display API".
"""

from __future__ import annotations

import struct

from emu.devices import bochs_vbe
from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.pci_setup import frame_buffer
from emu.firmware.bios.video_modes import MODES
from emu.firmware.bios.video_set import ModeSetter

#: Width, height, bits a pixel by mode number (VBE 3.0, table 3; 140h and up are ours, named like those of Bochs).
MODE_LIST = {
    0x100: (640, 400, 8), 0x101: (640, 480, 8), 0x102: (800, 600, 4), 0x103: (800, 600, 8), 0x104: (1024, 768, 4),
    0x105: (1024, 768, 8), 0x106: (1280, 1024, 4), 0x107: (1280, 1024, 8), 0x10D: (320, 200, 15),
    0x10E: (320, 200, 16), 0x10F: (320, 200, 24), 0x110: (640, 480, 15), 0x111: (640, 480, 16),
    0x112: (640, 480, 24), 0x113: (800, 600, 15), 0x114: (800, 600, 16), 0x115: (800, 600, 24),
    0x116: (1024, 768, 15), 0x117: (1024, 768, 16), 0x118: (1024, 768, 24), 0x119: (1280, 1024, 15),
    0x11A: (1280, 1024, 16), 0x11B: (1280, 1024, 24), 0x140: (320, 200, 32), 0x141: (640, 400, 32),
    0x142: (640, 480, 32), 0x143: (800, 600, 32), 0x144: (1024, 768, 32), 0x145: (1280, 1024, 32),
    0x146: (320, 200, 8),
}  # fmt: skip
#: Red, green, blue, reserved: bits and position of each, by the bits of a pixel.
MASKS = {
    15: (5, 10, 5, 5, 5, 0, 1, 15), 16: (5, 11, 6, 5, 5, 0, 0, 0), 24: (8, 16, 8, 8, 8, 0, 0, 0),
    32: (8, 16, 8, 8, 8, 0, 8, 24),
}  # fmt: skip
SUPPORTED, FAILED, HARDWARE, INVALID_IN_MODE = 0x004F, 0x014F, 0x024F, 0x034F
LINEAR, KEEP = 0x4000, 0x8000
BANK = 0x10000
#: In the ROM: strings, and the list of modes (bios.asm).
OEM_STRING, ROM_SEGMENT = 0xE010, 0xF000
MODES_IN_BLOCK = 34  #: the list follows the 34 bytes that VBE 1.x has, in the caller's block
MODE_SUPPORTED, MODE_COLOUR, MODE_GRAPHICS, MODE_NOT_VGA, MODE_LINEAR = 0x01 | 0x02, 0x08, 0x10, 0x20, 0x80
PLANAR_MODEL, PACKED_MODEL, DIRECT_MODEL = 3, 4, 6


class Vbe:
    """`service` takes frames with AH=4Fh."""

    def __init__(self, hardware: Hardware, setter: ModeSetter) -> None:
        self._hardware, self._setter = hardware, setter

    def service(self, f: Frame) -> None:
        calls = {
            0x00: self._information, 0x01: self._mode_information, 0x02: self._set, 0x03: self._current,
            0x05: self._bank, 0x06: self._line_length, 0x07: self._start, 0x08: self._dac_width, 0x09: self._palette,
        }  # fmt: skip
        call = calls.get(f.al)
        f.name = ("VBE function %02Xh: BX=%04Xh, CX=%04Xh, DX=%04Xh", f.al, f.bx, f.cx, f.dx)
        if call is None or not self._there():
            f.ax = 0x0100 if call is None else FAILED
            return
        f.ax = call(f)
        if f.ax == SUPPORTED:
            f.result = f.result or ("ok",)
        else:
            f.result = ("failed (%04Xh)", f.ax)

    def _there(self) -> bool:
        return bochs_vbe.FIRST_ID <= self._setter.read_vbe(bochs_vbe.ID) <= bochs_vbe.LAST_ID

    def _memory(self) -> int:
        """Bytes."""
        return self._setter.read_vbe(bochs_vbe.MEMORY_64K) * BANK

    def _fits(self, number: int) -> bool:
        width, height, bits = MODE_LIST[number]
        return width * height * (bochs_vbe.PIXEL_BITS[bits]) // 8 <= self._memory()

    def _information(self, f: Frame) -> int:
        f.name = ("VBE controller information: buffer %04X:%04X", f.es, f.di)
        h, at = self._hardware, f.es * 16 + f.di
        extended = h.read(at, 4) == b"VBE2"
        modes = struct.pack("<H", 0xFFFF)
        for number in sorted((n for n in MODE_LIST if self._fits(n)), reverse=True):
            modes = struct.pack("<H", number) + modes
        oem = ROM_SEGMENT << 16 | OEM_STRING
        # The DAC can be switched to 8 bits.
        block = struct.pack(
            "<4sHIIIHHIII", b"VESA", 0x0300 if extended else 0x0102, oem, 1, f.es << 16 | f.di + MODES_IN_BLOCK,
            self._memory() // BANK, 0x0100, oem, oem, oem,
        )  # fmt: skip
        if not extended:
            block = block[:20]
        # In the VBE 2.0 block the reserved area, which begins at 34, holds the list of modes.
        h.write(at, block.ljust(MODES_IN_BLOCK, b"\0") + modes)
        f.result = ("%d modes", len(modes) // 2 - 1)
        return SUPPORTED

    def _mode_information(self, f: Frame) -> int:
        number = f.cx & 0x3FFF
        f.name = ("VBE mode information: mode %03Xh, buffer %04X:%04X", number, f.es, f.di)
        if number not in MODE_LIST or not self._fits(number):
            return FAILED
        width, height, bits = MODE_LIST[number]
        line = _line_bytes(width, bits)
        planar = bits == 4
        model = PLANAR_MODEL if planar else PACKED_MODEL if bits == 8 else DIRECT_MODEL
        attributes = MODE_SUPPORTED | MODE_COLOUR | MODE_GRAPHICS | (0 if planar else MODE_NOT_VGA | MODE_LINEAR)
        pages = self._memory() // max(1, line * height * (4 if planar else 1)) - 1
        masks = MASKS.get(bits, (0,) * 8)
        block = struct.pack(
            "<HBBHHHHIHHHBBBBBBBBB", attributes, 7, 0, 64, 64, 0xA000, 0, 0, line, width, height, 8, 16,
            4 if planar else 1, bochs_vbe.PIXEL_BITS[bits] if bits != 15 else 15, 1, model, 0, min(pages, 255), 1,
        )  # fmt: skip
        block += struct.pack("<8BB", *masks, 0)
        block += struct.pack("<IIH", 0 if planar else frame_buffer(self._hardware), 0, 0)
        block += struct.pack("<HBB8BI", line, min(pages, 255), min(pages, 255), *masks, 0)
        self._hardware.write(f.es * 16 + f.di, block.ljust(256, b"\0"))
        f.result = ("%dx%d, %d bits", width, height, bits)
        return SUPPORTED

    def _set(self, f: Frame) -> int:
        number, keep = f.bx & 0x1FF, bool(f.bx & KEEP)
        f.name = (
            "VBE set mode %03Xh%s%s",
            number,
            ", linear" if f.bx & LINEAR else "",
            ", memory kept" if keep else "",
        )
        h, setter = self._hardware, self._setter
        if number < 0x100:
            return SUPPORTED if number in MODES and setter.set(number, not keep) else FAILED
        if number not in MODE_LIST or not self._fits(number):
            return FAILED
        width, height, bits = MODE_LIST[number]
        if bits == 4 and f.bx & LINEAR:
            return FAILED
        setter.set(0x12 if bits == 4 else 0x13, clear=False)
        setter.vbe(bochs_vbe.ENABLE, 0)
        for index, value in ((bochs_vbe.XRES, width), (bochs_vbe.YRES, height), (bochs_vbe.BPP, bits)):
            setter.vbe(index, value)
        linear = bochs_vbe.LFB_ENABLED if f.bx & LINEAR else 0
        setter.vbe(bochs_vbe.ENABLE, bochs_vbe.ENABLED | linear | (bochs_vbe.NOCLEARMEM if keep else 0))
        setter.vbe(bochs_vbe.BANK, 0)
        h.put(bda.VIDEO_MODE, 0x12 if bits == 4 else 0x13)
        h.put(bda.COLUMNS, width // 8, 2)
        h.put(bda.ROWS, height // 16 - 1)
        h.put(bda.CHARACTER_HEIGHT, 16, 2)
        # The mode's number is where it can be found again: reserved bytes at the end of the data area.
        h.put(bda.VBE_MODE, f.bx & 0x41FF | (KEEP if keep else 0), 2)
        return SUPPORTED

    def _enabled(self) -> bool:
        return bool(self._setter.read_vbe(bochs_vbe.ENABLE) & bochs_vbe.ENABLED)

    def _current(self, f: Frame) -> int:
        f.name = ("VBE current mode",)
        h = self._hardware
        f.bx = h.word(bda.VBE_MODE) if self._enabled() else h.byte(bda.VIDEO_MODE)
        f.result = ("mode %04Xh", f.bx)
        return SUPPORTED

    def _bank(self, f: Frame) -> int:
        f.name = ("VBE window %s", "position" if f.bh else f"to {f.dx}")
        if f.bl or f.bh > 1:
            return FAILED
        enable = self._setter.read_vbe(bochs_vbe.ENABLE)
        if not enable & bochs_vbe.ENABLED or enable & bochs_vbe.LFB_ENABLED:
            return INVALID_IN_MODE
        if f.bh:
            f.dx = self._setter.read_vbe(bochs_vbe.BANK)
        elif f.dx * BANK >= self._memory():
            return FAILED
        else:
            self._setter.vbe(bochs_vbe.BANK, f.dx)
        return SUPPORTED

    def _line_length(self, f: Frame) -> int:
        f.name = ("VBE line length: %02Xh, %d", f.bl, f.cx)
        setter = self._setter
        if f.bl > 3:
            return FAILED
        if not self._enabled():
            return INVALID_IN_MODE
        bits = setter.read_vbe(bochs_vbe.BPP)
        pixel_bits = bochs_vbe.PIXEL_BITS[bits]
        most = self._memory() * 8 // (pixel_bits * setter.read_vbe(bochs_vbe.YRES)) & ~7
        if f.bl in (0, 2):
            pixels = f.cx if f.bl == 0 else f.cx * 8 // (1 if bits == 4 else pixel_bits)
            if pixels > most:
                return HARDWARE
            setter.vbe(bochs_vbe.VIRT_WIDTH, pixels + 7 & ~7)
        width = min(most, 0xFFF8) if f.bl == 3 else setter.read_vbe(bochs_vbe.VIRT_WIDTH)
        f.bx, f.cx = _line_bytes(width, bits), width
        f.dx = min(self._memory() * 8 // (pixel_bits * width), 0xFFFF)
        return SUPPORTED

    def _start(self, f: Frame) -> int:
        f.name = ("VBE display start: %02Xh, x %d, y %d", f.bl, f.cx, f.dx)
        setter = self._setter
        if f.bl & 0x7F > 1:
            return FAILED
        if not self._enabled():
            return INVALID_IN_MODE
        if f.bl & 0x7F == 1:
            f.bh, f.cx, f.dx = 0, setter.read_vbe(bochs_vbe.X_OFFSET), setter.read_vbe(bochs_vbe.Y_OFFSET)
            return SUPPORTED
        if f.dx + setter.read_vbe(bochs_vbe.YRES) > setter.read_vbe(bochs_vbe.VIRT_HEIGHT):
            return FAILED
        setter.vbe(bochs_vbe.X_OFFSET, f.cx)
        setter.vbe(bochs_vbe.Y_OFFSET, f.dx)
        return SUPPORTED

    def _dac_width(self, f: Frame) -> int:
        f.name = ("VBE DAC width: %02Xh, %d", f.bl, f.bh)
        setter = self._setter
        if f.bl > 1:
            return FAILED
        enable = setter.read_vbe(bochs_vbe.ENABLE)
        if not enable & bochs_vbe.ENABLED or setter.read_vbe(bochs_vbe.BPP) > 8:
            return INVALID_IN_MODE
        if f.bl == 0:
            enable = enable | bochs_vbe.DAC_8BIT if f.bh >= 8 else enable & ~bochs_vbe.DAC_8BIT
            setter.vbe(bochs_vbe.ENABLE, enable)
        f.bh = 8 if enable & bochs_vbe.DAC_8BIT else 6
        return SUPPORTED

    def _palette(self, f: Frame) -> int:
        """Entries are blue, green, red and a byte of nothing."""
        f.name = ("VBE palette: %02Xh, %d from %d", f.bl, f.cx, f.dx)
        h, at = self._hardware, f.es * 16 + f.di
        if f.dx + f.cx > 256 or f.bl & 0x7F > 1:
            return FAILED
        if f.bl & 0x7F == 0:
            data = h.read(at, 4 * f.cx)
            entries = [(data[i + 2], data[i + 1], data[i]) for i in range(0, len(data), 4)]
            self._setter.dac(f.dx, entries)
        else:
            colours = self._setter.read_dac(f.dx, f.cx)
            h.write(at, b"".join(bytes((blue, green, red, 0)) for red, green, blue in colours))
        return SUPPORTED


def _line_bytes(width: int, bits: int) -> int:
    """Of the window: for planes, of one of them."""
    return width // 8 if bits == 4 else width * bochs_vbe.PIXEL_BITS[bits] // 8
