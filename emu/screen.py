"""What the display shows, from the VGA's registers and its memory window: text rows in Unicode, or the mode's name.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): CRT controller registers 01h, 07h,
09h-0Fh, 12h, 13h, 17h, 18h; sequencer register 1; graphics register 6; attribute register 10h.
"""

from __future__ import annotations

from typing import Final

from emu.devices.vga import ATTR_PAS, State
from emu.views import ScreenView

#: The glyphs of code page 437 below 20h and at 7Fh, which text encodings take for control characters.
_LOW_GLYPHS: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
CP437: Final = _LOW_GLYPHS + bytes(range(0x20, 0x7F)).decode("ascii") + "⌂" + bytes(range(0x80, 0x100)).decode("cp437")

#: Window of display memory by graphics register 6 bits 3-2: offset in A0000h-BFFFFh, and size.
_WINDOWS: Final = ((0, 0x20000), (0, 0x10000), (0x10000, 0x8000), (0x18000, 0x8000))


def screen_view(state: State, memory: memoryview | bytearray | bytes) -> ScreenView:
    """`memory` is the 128 KiB from A0000h. A screen that is off has no rows; neither has one in a graphics mode."""
    if not _shows(state):
        return ScreenView("off", ())
    if state.graphics[6] & 1 or state.attribute[0x10] & 1:
        width, height = _graphics_size(state)
        return ScreenView(f"graphics {width}x{height}", ())
    return _text(state, memory)


def _shows(state: State) -> bool:
    """The sequencer runs and its screen is on, retraces are enabled, the palette is given to the display."""
    running = state.sequencer[0] & 3 == 3 and not state.sequencer[1] & 0x20
    return running and bool(state.crtc[0x17] & 0x80) and bool(state.attribute_index & ATTR_PAS)


def _lines(state: State) -> int:
    overflow = state.crtc[7]
    return (state.crtc[0x12] | (overflow & 2) << 7 | (overflow & 0x40) << 3) + 1


def _graphics_size(state: State) -> tuple[int, int]:
    cr = state.crtc
    width = (cr[1] + 1) * 8
    if state.graphics[5] & 0x40 or state.attribute[0x10] & 0x40:  # 256 colours: two dots a pixel
        width //= 2
    height = _lines(state)
    if cr[9] & 0x80:
        height //= 2
    if cr[0x17] & 1:  # else the row scan counter addresses banks (CGA modes), and each line is one of its own
        height //= (cr[9] & 31) + 1
    return width, height


def _text(state: State, memory: memoryview | bytearray | bytes) -> ScreenView:
    cr = state.crtc
    columns = cr[1] + 1
    height = (cr[9] & 31) + 1
    lines = _lines(state) // (2 if cr[9] & 0x80 else 1)
    count = max(1, lines // height)
    overflow = cr[7]
    compare = cr[0x18] | (overflow & 0x10) << 4 | (cr[9] & 0x40) << 3
    pitch = cr[0x13] * 2  # characters from one row to the next; the register counts words of two
    base, size = _WINDOWS[state.graphics[6] >> 2 & 3]
    cells = size // 2
    start = cr[0x0C] << 8 | cr[0x0D]
    cursor_at = cr[0x0E] << 8 | cr[0x0F]
    cursor_on = not cr[0x0A] & 0x20 and cr[0x0A] & 31 <= min(cr[0x0B] & 31, height - 1)
    rows: list[str] = []
    attributes: list[bytes] = []
    cursor: tuple[int, int] | None = None
    split = (compare + 1) // height  # rows from here on show memory from address 0
    window = bytes(memory[base : base + size])
    for row in range(count):
        first = start + row * pitch if row < split or compare >= lines else (row - split) * pitch
        at = first % cells
        line = window[2 * at : 2 * (at + columns)]
        line += window[: 2 * columns - len(line)]
        rows.append("".join([CP437[c] for c in line[::2]]))
        attributes.append(line[1::2])
        if cursor_on and cursor is None and first <= cursor_at < first + columns:
            cursor = (row, cursor_at - first)
    return ScreenView(f"text {columns}x{count}", tuple(rows), tuple(attributes), cursor)
