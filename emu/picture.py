"""The picture on the display, pixel by pixel, in any mode: text with its fonts, planes, CGA and 256 colours, VBE.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): sequencer registers 1 and 3, graphics
register 5, attribute controller, video DAC; `emu.scanout` has the addressing. Each scan line and each dot of the mode's
timing is one pixel, as in QEMU's `screendump`. Blinking is ignored: characters and the cursor are shown lit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from emu.devices import bochs_vbe
from emu.devices.vga_memory import place
from emu.devices.vga_registers import State
from emu.devices.vga_timing import SR1_8_DOTS, SR1_HALF_CLOCK
from emu.devices.vga_view import font_a, font_b
from emu.scanout import Addresses, ScanLine, characters, is_graphics, row_height, scan_lines, shows
from emu.screen import cells, mode_name
from emu.views import PictureView

GR5_CGA_SHIFT, GR5_256_SHIFT = 0x20, 0x40
AR10_LINE_GRAPHICS, AR10_BLINK, AR10_PAN_ENDS, AR10_SELECT = 0x04, 0x08, 0x20, 0x80
FONT_PLANE, FONT_SIZE, GLYPH_SIZE = 2, 0x2000, 32
#: Where in plane 2 the eight fonts begin (sequencer register 3).
FONTS: Final = (0x0000, 0x4000, 0x8000, 0xC000, 0x2000, 0x6000, 0xA000, 0xE000)
#: Characters whose eighth dot is continued into the ninth.
LINE_GRAPHICS: Final = range(0xC0, 0xE0)
#: The bits of a byte, the first dot first, a byte each.
BITS: Final = tuple(bytes(byte >> 7 - i & 1 for i in range(8)) for byte in range(256))
#: The same as a number whose lowest byte is the first dot.
LANES: Final = tuple(int.from_bytes(bits, "little") for bits in BITS)
#: Two-bit pixels of a byte, four to a byte.
PAIRS: Final = tuple(int.from_bytes(bytes(byte >> 6 - 2 * i & 3 for i in range(4)), "little") for byte in range(256))

Memory = memoryview | bytearray | bytes
#: A row of colours before the palette, longer than the screen is wide by what panning may take off its beginning.
Row = Callable[[ScanLine], bytes]


def picture(state: State, memory: Memory) -> PictureView:
    """`memory` is display memory."""
    mode = mode_name(state)
    if not shows(state):
        return PictureView(mode, 0, 0, b"")
    if state.vbe.enabled:
        return _vbe(state, memory, mode)
    if not is_graphics(state):
        return _scan(state, mode, partial(_text_row, _Text(state, memory)), *_text_dots(state))
    dots = characters(state) * 8
    repeat = 2 if state.sequencer[1] & SR1_HALF_CLOCK else 1
    if state.graphics[5] & GR5_256_SHIFT:
        return _scan(state, mode, partial(_row_256, state, Addresses(state), memory), dots // 2, 2 * repeat)
    shift = _row_cga if state.graphics[5] & GR5_CGA_SHIFT else _row_planes
    return _scan(state, mode, partial(shift, state, Addresses(state), memory), dots, repeat)


def _scan(state: State, mode: str, make: Row, across: int, repeat: int) -> PictureView:
    """Walk through the scan lines; each of the `across` pixels is `repeat` dots wide."""
    made: dict[tuple[int, int], bytes] = {}
    rows = []
    for line in scan_lines(state):
        key = line.counter, line.row_scan
        row = made.get(key)
        if row is None:
            row = made[key] = make(line)
        skip = _panning(state, line)
        rows.append(row[skip : skip + across])
    pixels = b"".join(rows).translate(_palette(state))
    return PictureView(mode, across * repeat, len(rows), _coloured(_widened(pixels, repeat), state))


def _widened(row: bytes, repeat: int) -> bytes:
    wide = bytearray(len(row) * repeat)
    for i in range(repeat):
        wide[i::repeat] = row
    return bytes(wide)


def _panning(state: State, line: ScanLine) -> int:
    """By how many pixels the line is moved to the left."""
    if line.below and state.attribute[0x10] & AR10_PAN_ENDS:
        return 0
    value = state.attribute[0x13]
    if state.graphics[5] & GR5_256_SHIFT:
        return value >> 1 & 3
    if not is_graphics(state) and not state.sequencer[1] & SR1_8_DOTS:
        return value + 1 if value < 8 else 0
    return value & 7


# -- colours


def _palette(state: State) -> bytes:
    """From what the shift registers give to the DAC's index."""
    attribute, mode = state.attribute, state.attribute[0x10]
    if state.graphics[5] & GR5_256_SHIFT and is_graphics(state):
        return bytes(index & state.dac_mask for index in range(256))
    select, table = attribute[0x14], bytearray(256)
    for index in range(256):
        colour = attribute[index & attribute[0x12] & 15]
        if mode & AR10_SELECT:
            colour = colour & 0x0F | (select & 3) << 4
        table[index] = (colour | (select & 0x0C) << 4) & state.dac_mask
    return bytes(table)


def _intensities(state: State) -> tuple[bytes, bytes, bytes]:
    """Red, green and blue of each DAC index, 8 bits. Six bits become eight as in QEMU: the lowest is repeated."""
    levels = state.dac if state.vbe.dac_8bit else [v << 2 & 0xFC | (v & 1) * 3 for v in state.dac]
    return bytes(levels[0::3]), bytes(levels[1::3]), bytes(levels[2::3])


def _coloured(indices: bytes, state: State) -> bytes:
    pixels = bytearray(3 * len(indices))
    for component, table in enumerate(_intensities(state)):
        pixels[component::3] = indices.translate(table)
    return bytes(pixels)


# -- graphics


def _row_planes(state: State, addresses: Addresses, memory: Memory, line: ScanLine) -> bytes:
    """One bit of each plane makes a colour."""
    out = []
    for at in addresses.places(line, characters(state) + 1):
        p0, p1, p2, p3 = memory[at : at + 4]
        out.append((LANES[p0] | LANES[p1] << 1 | LANES[p2] << 2 | LANES[p3] << 3).to_bytes(8, "little"))
    return b"".join(out)


def _row_cga(state: State, addresses: Addresses, memory: Memory, line: ScanLine) -> bytes:
    """Two bits of plane 0 make four colours of two bits, then plane 1 four; planes 2 and 3 give two bits more."""
    out = []
    for at in addresses.places(line, characters(state) + 1):
        p0, p1, p2, p3 = memory[at : at + 4]
        even, odd = PAIRS[p0] | PAIRS[p2] << 2, PAIRS[p1] | PAIRS[p3] << 2
        out.append((even | odd << 32).to_bytes(8, "little"))
    return b"".join(out)


def _row_256(state: State, addresses: Addresses, memory: Memory, line: ScanLine) -> bytes:
    """A byte of each plane in turn is a colour."""
    return b"".join([bytes(memory[at : at + 4]) for at in addresses.places(line, characters(state) + 1)])


# -- text


def _text_dots(state: State) -> tuple[int, int]:
    """Pixels across, and dots to each."""
    width = 8 if state.sequencer[1] & SR1_8_DOTS else 9
    return characters(state) * width, 2 if state.sequencer[1] & SR1_HALF_CLOCK else 1


class _Text:
    """What a text screen is drawn with, gathered once."""

    def __init__(self, state: State, memory: Memory) -> None:
        cr = state.crtc
        self.state, self.memory = state, memory
        self.addresses, self.columns = Addresses(state), characters(state)
        self.nine = not state.sequencer[1] & SR1_8_DOTS
        self.fonts = tuple(_font(memory, FONTS[number]) for number in (font_b(state), font_a(state)))
        self.cursor_at = cr[0x0E] << 8 | cr[0x0F]
        last = min(cr[0x0B] & 31, row_height(state) - 1)
        self.cursor_lines = range(0) if cr[0x0A] & 0x20 else range(cr[0x0A] & 31, last + 1)
        self.cursor_skew = cr[0x0B] >> 5 & 3
        self.underline = cr[0x14] & 31
        self.mode = state.attribute[0x10]
        #: by row of characters, as each of its scan lines needs them
        self.cells: dict[int, tuple[bytes, bytes]] = {}

    def row(self, counter: int) -> tuple[bytes, bytes]:
        found = self.cells.get(counter)
        if found is None:
            found = self.cells[counter] = cells(self.memory, self.addresses, counter, self.columns + 1)
        return found


def _font(memory: Memory, first: int) -> bytes:
    """256 glyphs of 32 lines, from plane 2."""
    from_memory = bytearray(FONT_SIZE)
    block = first & 0xC000
    for low in range(4):
        begin = (low ^ block >> 14) << 16 | first
        from_memory[low::4] = bytes(memory[begin : begin + FONT_SIZE])[FONT_PLANE::4]
    return bytes(from_memory)


def _text_row(text: _Text, line: ScanLine) -> bytes:
    codes, colours = text.row(line.counter)
    blink, extended = text.mode & AR10_BLINK, text.mode & AR10_LINE_GRAPHICS
    cursor = (text.cursor_at + text.cursor_skew - line.counter) if line.row_scan in text.cursor_lines else -1
    out = []
    for column, (code, attribute) in enumerate(zip(codes, colours, strict=True)):
        glyph = text.fonts[attribute >> 3 & 1][GLYPH_SIZE * code + line.row_scan]
        ninth = glyph & 1 if extended and code in LINE_GRAPHICS else 0
        if column == cursor or (attribute & 7 == 1 and line.row_scan == text.underline):
            glyph, ninth = 0xFF, 1
        foreground, background = attribute & 15, attribute >> 4 & (7 if blink else 15)
        dots = BITS[glyph].translate(_two(background, foreground))
        out.append(dots + bytes((foreground if ninth else background,)) if text.nine else dots)
    return b"".join(out)


_TWO: Final = tuple(bytes((b, f)) + bytes(254) for b in range(16) for f in range(16))


def _two(background: int, foreground: int) -> bytes:
    """A translation of 0 and 1."""
    return _TWO[background * 16 + foreground]


# -- VBE


def _vbe(state: State, memory: Memory, mode: str) -> PictureView:
    r = state.vbe.registers
    width, height, bits = r[bochs_vbe.XRES], r[bochs_vbe.YRES], r[bochs_vbe.BPP]
    line, x, y = state.vbe.line_bytes, r[bochs_vbe.X_OFFSET], r[bochs_vbe.Y_OFFSET]
    if bits == 4:
        return PictureView(mode, width, height, _vbe_planes(state, memory, line // 4))
    take = bochs_vbe.PIXEL_BITS[bits] // 8
    first = y * line + x * take
    data = b"".join(bytes(memory[first + n * line : first + n * line + width * take]) for n in range(height))
    data = data.ljust(width * height * take, b"\0")
    if bits == 8:
        return PictureView(mode, width, height, _coloured(data.translate(_masked(state)), state))
    pixels = bytearray(3 * width * height)
    if take == 2:
        for component, (high, low) in enumerate(_HIGH_COLOUR[bits]):
            part = int.from_bytes(data[1::2].translate(high), "little")
            part |= int.from_bytes(data[0::2].translate(low), "little")
            pixels[component::3] = part.to_bytes(width * height, "little")
    else:
        for component in range(3):  # blue comes first in memory
            pixels[component::3] = data[2 - component :: take]
    return PictureView(mode, width, height, bytes(pixels))


def _masked(state: State) -> bytes:
    return bytes(index & state.dac_mask for index in range(256))


def _vbe_planes(state: State, memory: Memory, line: int) -> bytes:
    """Four bits: the VGA's planes, `line` bytes of each to a line."""
    r = state.vbe.registers
    width, x = r[bochs_vbe.XRES], r[bochs_vbe.X_OFFSET]
    rows = []
    for n in range(r[bochs_vbe.YRES]):
        out = []
        first = (r[bochs_vbe.Y_OFFSET] + n) * line + x // 8
        for offset in range(first, first + width // 8 + 1):
            at = place(offset)
            p0, p1, p2, p3 = bytes(memory[at : at + 4]).ljust(4, b"\0")
            out.append((LANES[p0] | LANES[p1] << 1 | LANES[p2] << 2 | LANES[p3] << 3).to_bytes(8, "little"))
        rows.append(b"".join(out)[x % 8 : x % 8 + width])
    return _coloured(b"".join(rows).translate(_palette(state)), state)


def _wide(value: int, bits: int) -> int:
    """8 bits of 5 or 6: the highest ones are repeated."""
    return value << 8 - bits | value >> 2 * bits - 8


def _tables(red: int, green: int, blue: int) -> tuple[tuple[bytes, bytes], ...]:
    """For each colour of a 16-bit pixel what its high and its low byte contribute, `red` and the others bits wide."""
    shifts = ((green + blue, red), (blue, green), (0, blue))
    return tuple(
        (
            bytes(_wide(byte << 8 >> shift & (1 << bits) - 1, bits) for byte in range(256)),
            bytes(_wide(byte >> shift & (1 << bits) - 1, bits) for byte in range(256)),
        )
        for shift, bits in shifts
    )


_HIGH_COLOUR: Final = {15: _tables(5, 5, 5), 16: _tables(5, 6, 5)}
