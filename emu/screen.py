"""What the display shows as text, from the VGA's registers and memory: rows in Unicode, or the mode's name.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA); `emu.scanout` has the addressing. The
picture is made by `emu.picture`.
"""

from __future__ import annotations

import codecs

from emu.devices import bochs_vbe
from emu.devices.vga_memory import place
from emu.devices.vga_registers import State
from emu.devices.vga_timing import shown_lines
from emu.scanout import (
    CR9_TWICE,
    CR17_ROW_13,
    Addresses,
    characters,
    is_graphics,
    line_compare,
    pitch,
    row_height,
    shows,
    start_address,
)
from emu.typed import Final
from emu.views import ScreenView

#: The glyphs of code page 437 below 20h and at 7Fh, which text encodings take for control characters.
_LOW_GLYPHS: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
CP437: Final = _LOW_GLYPHS + bytes(range(0x20, 0x7F)).decode("ascii") + "⌂" + bytes(range(0x80, 0x100)).decode("cp437")
#: Counters below this are at even offsets of the first 16 KiB of the planes, in word mode: one after another in memory.
NEAR: Final = 0x2000


def screen_view(state: State, memory: memoryview | bytearray | bytes) -> ScreenView:
    """`memory` is display memory. A screen that is off has no rows; neither has one in a graphics mode."""
    mode = mode_name(state)
    if not mode.startswith("text"):
        return ScreenView(mode, ())
    return _text(state, memory, mode)


def mode_name(state: State) -> str:
    """`off`, `text COLUMNSxROWS`, or `graphics WIDTHxHEIGHT`, with VBE the bits of a pixel."""
    if not shows(state):
        return "off"
    if state.vbe.enabled:
        r = state.vbe.registers
        return f"graphics {r[bochs_vbe.XRES]}x{r[bochs_vbe.YRES]}, {r[bochs_vbe.BPP]} bits a pixel"
    if is_graphics(state):
        width, height = _graphics_size(state)
        return f"graphics {width}x{height}"
    return f"text {characters(state)}x{_rows(state)}"


def _lines(state: State) -> int:
    return shown_lines(state.crtc) // (2 if state.crtc[9] & CR9_TWICE else 1)


def _rows(state: State) -> int:
    return max(1, _lines(state) // row_height(state))


def _graphics_size(state: State) -> tuple[int, int]:
    """In pixels, each of which may be several dots and lines."""
    width = characters(state) * 8
    if state.graphics[5] & 0x40 or state.attribute[0x10] & 0x40:  # 256 colours: two dots a pixel
        width //= 2
    height = _lines(state)
    if state.crtc[0x17] & CR17_ROW_13:  # else the row scan counter addresses banks, and each line is one of its own
        height //= row_height(state)
    return width, height


def _text(state: State, memory: memoryview | bytearray | bytes, mode: str) -> ScreenView:
    cr = state.crtc
    columns, height, step = characters(state), row_height(state), pitch(state)
    compare = line_compare(state) // (2 if cr[9] & CR9_TWICE else 1)
    start = start_address(state)
    cursor_at = cr[0x0E] << 8 | cr[0x0F]
    cursor_on = not cr[0x0A] & 0x20 and cr[0x0A] & 31 <= min(cr[0x0B] & 31, height - 1)
    addresses = Addresses(state)
    rows: list[str] = []
    attributes: list[bytes] = []
    cursor: tuple[int, int] | None = None
    count = _rows(state)
    split = (compare + 1) // height if compare < _lines(state) else count  # rows from here on show memory from 0
    whole: tuple[bytes, bytes] | None = None
    if step == columns and split >= count:
        whole = cells(memory, addresses, start, count * columns)
    for row in range(count):
        first = start + row * step if row < split else (row - split) * step
        if whole is not None:
            at = row * columns
            codes, colours = whole[0][at : at + columns], whole[1][at : at + columns]
        else:
            codes, colours = cells(memory, addresses, first, columns)
        rows.append(codecs.charmap_decode(codes, "strict", CP437)[0])
        attributes.append(colours)
        if cursor_on and cursor is None and first <= cursor_at < first + columns:
            cursor = (row, cursor_at - first)
    return ScreenView(mode, tuple(rows), tuple(attributes), cursor)


def cells(memory: memoryview | bytearray | bytes, addresses: Addresses, first: int, count: int) -> tuple[bytes, bytes]:
    """Character codes (plane 0) and attributes (plane 1) of `count` cells from counter `first` on."""
    if addresses.word and addresses.plain and addresses.divisor == 1 and first + count <= NEAR:
        codes, colours = bytearray(count), bytearray(count)
        for skip in (0, 1):  # every second cell is in the same half, four bytes from the last one
            begin = place(2 * (first + skip))
            wanted = (count - skip + 1) // 2
            half = bytes(memory[begin : begin + 4 * wanted])
            codes[skip::2], colours[skip::2] = half[0::4], half[1::4]
        return bytes(codes), bytes(colours)
    at_each = [place(addresses.offset(first + i // addresses.divisor)) for i in range(count)]
    return bytes([memory[at] for at in at_each]), bytes([memory[at + 1] for at in at_each])
