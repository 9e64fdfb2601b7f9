"""INT 10h: modes, cursor, pages, scrolling, characters, pixels, strings.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 10h". Palettes, fonts and what adapters tell of
themselves are in video_palette.py and video_fonts.py, VBE in vbe.py.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.planes import Planes
from emu.firmware.bios.vbe import Vbe
from emu.firmware.bios.video_fonts import VideoFonts
from emu.firmware.bios.video_graphics import GraphicsScreen
from emu.firmware.bios.video_modes import MODES, TEXT, Mode
from emu.firmware.bios.video_palette import VideoPalette
from emu.firmware.bios.video_set import GRAPHICS_FONT, HIGH_FONT, ModeSetter
from emu.firmware.bios.video_text import TextScreen

BELL, BACKSPACE, LINE_FEED, RETURN = 7, 8, 10, 13
PAGES = 8
#: The most columns and lines of a character that any mode has, whatever the guest writes into the BIOS data area.
MOST_COLUMNS, MOST_LINES = 256, 32
#: AH=13h: characters written before the ROM asks again, unless a line was scrolled; those that an event shows.
PIECE, MOST_SHOWN = 64, 256


class Video:
    """INT 10h, and `say` for the BIOS's own messages."""

    def __init__(self, hardware: Hardware) -> None:
        planes = Planes(hardware.display)
        self._hardware = hardware
        self._setter = ModeSetter(hardware, planes)
        self._text = TextScreen(planes)
        self._graphics = GraphicsScreen(hardware.display, planes)
        palette = VideoPalette(hardware, self._setter)
        fonts = VideoFonts(hardware, self._setter)
        self._calls: dict[int, Callable[[Frame], None]] = {
            0x00: self._set_mode,
            0x01: self._cursor_shape,
            0x02: self._set_cursor,
            0x03: self._read_cursor,
            0x04: self._light_pen,
            0x05: self._select_page,
            0x06: self._scroll,
            0x07: self._scroll,
            0x08: self._read_character,
            0x09: self._write_characters,
            0x0A: self._write_characters,
            0x0B: palette.cga,
            0x0C: self._write_pixel,
            0x0D: self._read_pixel,
            0x0E: self._teletype,
            0x0F: self._current_mode,
            0x10: palette.service,
            0x11: fonts.service,
            0x12: fonts.alternate,
            0x13: self._string,
            0x1A: fonts.display_code,
            0x1B: fonts.state,
            0x4F: Vbe(hardware, self._setter).service,
        }

    def service(self, f: Frame) -> None:
        call = self._calls.get(f.ah)
        if call is None:
            f.name = ("function %04Xh, which does not exist", f.ax)
            return
        call(f)

    def say(self, text: str) -> None:
        """Print on the current page."""
        page = self._hardware.byte(bda.PAGE)
        for character in text.encode("cp437", "replace"):
            self._type(character, page, 7, None)

    # -- where things are

    def _mode(self) -> Mode:
        return MODES.get(self._hardware.byte(bda.VIDEO_MODE) & 0x7F, MODES[3])

    def _columns(self) -> int:
        return max(1, min(self._hardware.word(bda.COLUMNS), MOST_COLUMNS))

    def _height(self) -> int:
        """Lines of a character."""
        return min(self._hardware.word(bda.CHARACTER_HEIGHT), MOST_LINES)

    def _rows(self) -> int:
        return self._hardware.byte(bda.ROWS) + 1

    def _start(self, page: int) -> int:
        return 0 if self._mode().single else self._hardware.word(bda.PAGE_BYTES) * page

    def _cursor(self, page: int) -> tuple[int, int]:
        """Column, row."""
        place = self._hardware.word(bda.CURSORS + 2 * (page & 7))
        return place & 0xFF, place >> 8

    def _move(self, page: int, column: int, row: int) -> None:
        h = self._hardware
        h.put(bda.CURSORS + 2 * (page & 7), row << 8 | column, 2)
        if page == h.byte(bda.PAGE):
            at = self._start(page) // 2 + row * self._columns() + column
            self._setter.crtc(0x0E, at >> 8)
            self._setter.crtc(0x0F, at)

    def _glyph(self, mode: Mode, character: int) -> bytes:
        """The font of graphics modes: INT 43h, or INT 1Fh for the upper half in the CGA's."""
        h = self._hardware
        height = self._height()
        vector = GRAPHICS_FONT
        if mode.number in (4, 5, 6) and character >= 0x80:
            vector, character = HIGH_FONT, character - 0x80
        pointer = h.dword(vector)
        return h.read((pointer >> 16) * 16 + (pointer & 0xFFFF) + character * height, height)

    # -- calls

    def _set_mode(self, f: Frame) -> None:
        number, clear = f.al & 0x7F, not f.al & 0x80
        f.name = ("set mode %02Xh%s", number, "" if clear else ", memory kept")
        if not self._setter.set(number, clear):
            f.result = ("there is no such mode",)
            return
        if self._mode().kind == TEXT:
            height = self._hardware.word(bda.CHARACTER_HEIGHT)
            self._hardware.put(bda.CURSOR_SHAPE, 0x0607, 2)
            self._setter.crtc(0x0A, height - 3)
            self._setter.crtc(0x0B, height - 2)
        f.al = 0x30 if number not in (6, *range(7)) or number == 7 else 0x3F if number == 6 else 0x30

    def _cursor_shape(self, f: Frame) -> None:
        h, start, end = self._hardware, f.ch, f.cl
        f.name = ("cursor shape: %02Xh to %02Xh", start, end)
        h.put(bda.CURSOR_SHAPE, f.cx, 2)
        height = h.word(bda.CHARACTER_HEIGHT)
        if not h.byte(bda.VIDEO_CONTROL) & 1 and height > 8 and end < 8 and start < 0x20:
            # Shapes are given for characters of 8 lines ("cursor emulation").
            end = (end + 1) * height // 8 - 1 if end != start + 1 else (end + 1) * height // 8 - 2
            start = (start + 1) * height // 8 - 1 if f.cl != f.ch + 1 else end - 1
        self._setter.crtc(0x0A, start)
        self._setter.crtc(0x0B, end)

    def _set_cursor(self, f: Frame) -> None:
        f.name = ("set cursor: page %d, row %d, column %d", f.bh, f.dh, f.dl)
        if f.bh < PAGES:
            self._move(f.bh, f.dl, f.dh)

    def _read_cursor(self, f: Frame) -> None:
        f.name = ("read cursor: page %d", f.bh)
        f.dl, f.dh = self._cursor(f.bh)
        f.cx = self._hardware.word(bda.CURSOR_SHAPE)
        f.ax = 0
        f.result = ("row %d, column %d", f.dh, f.dl)

    def _light_pen(self, f: Frame) -> None:
        f.name = ("light pen",)
        f.ax = f.bx = f.cx = f.dx = 0

    def _select_page(self, f: Frame) -> None:
        h, page = self._hardware, f.al
        f.name = ("select page %d", page)
        if page >= PAGES:
            return
        start = self._start(page)
        h.put(bda.PAGE_START, start, 2)
        h.put(bda.PAGE, page)
        address = start // 2 if self._mode().kind == TEXT else start
        self._setter.crtc(0x0C, address >> 8)
        self._setter.crtc(0x0D, address)
        self._move(page, *self._cursor(page))

    def _scroll(self, f: Frame) -> None:
        f.name = (
            "scroll %s by %d: rows %d to %d, columns %d to %d, attribute %02Xh",
            "up" if f.ah == 6 else "down", f.al, f.ch, f.dh, f.cl, f.dl, f.bh,
        )  # fmt: skip
        bottom, right = min(f.dh, self._rows() - 1), min(f.dl, self._columns() - 1)
        if f.ch > bottom or f.cl > right:
            return
        lines = f.al if f.al <= bottom - f.ch else 0
        self._scroll_window(
            self._hardware.byte(bda.PAGE), (f.ch, f.cl, bottom, right), lines if f.ah == 6 else -lines, f.bh
        )

    def _scroll_window(self, page: int, window: tuple[int, int, int, int], lines: int, attribute: int) -> None:
        mode = self._mode()
        if mode.kind == TEXT:
            self._text.scroll(self._start(page), self._columns(), window, lines, attribute)
        else:
            self._graphics.scroll(mode, self._start(page), self._height(), window, lines, attribute)

    def _read_character(self, f: Frame) -> None:
        mode, page = self._mode(), f.bh
        column, row = self._cursor(page)
        f.name = ("read character: page %d", page)
        if mode.kind == TEXT:
            f.al, f.ah = self._text.cells(self._start(page), row * self._columns() + column, 1)
        else:
            shape = self._graphics.shape(mode, self._start(page), (column, row), self._height())
            f.al = next((c for c in range(256) if self._glyph(mode, c) == shape), 0)
            f.ah = 0
        f.result = ("%02Xh, attribute %02Xh", f.al, f.ah)

    def _write_characters(self, f: Frame) -> None:
        with_attribute, mode, page = f.ah == 0x09, self._mode(), f.bh
        column, row = self._cursor(page)
        f.name = ("write %02Xh, %d times: page %d", f.al, f.cx, page)
        if with_attribute:
            f.name = ("write %02Xh, %d times, attribute %02Xh: page %d", f.al, f.cx, f.bl, page)
        if mode.kind == TEXT:
            start, first = self._start(page), row * self._columns() + column
            count = min(f.cx, 0x4000)
            if with_attribute:
                self._text.set_cells(start, first, bytes((f.al, f.bl)) * count)
            else:
                cells = self._text.cells(start, first, count)
                cells[0::2] = bytes((f.al,)) * count
                self._text.set_cells(start, first, cells)
            return
        glyph = self._glyph(mode, f.al)
        for i in range(min(f.cx, self._columns() - column)):
            self._graphics.draw(mode, self._start(page), (column + i, row), glyph, f.bl)

    def _write_pixel(self, f: Frame) -> None:
        mode = self._mode()
        f.name = ("write pixel: x %d, y %d, colour %02Xh", f.cx, f.dx, f.al)
        if mode.kind != TEXT and f.cx < self._columns() * 8:
            self._graphics.set_pixel(mode, self._start(f.bh), f.cx, f.dx, f.al)

    def _read_pixel(self, f: Frame) -> None:
        mode = self._mode()
        f.name = ("read pixel: x %d, y %d", f.cx, f.dx)
        if mode.kind != TEXT and f.cx < self._columns() * 8:
            f.al = self._graphics.pixel(mode, self._start(f.bh), f.cx, f.dx)
            f.result = ("colour %02Xh", f.al)

    def _teletype(self, f: Frame) -> None:
        f.name = ("teletype: %02Xh%s", f.al, f" {chr(f.al)!r}" if 0x20 < f.al < 0x7F else "")
        page = self._hardware.byte(bda.PAGE) if self._mode().kind == TEXT else f.bh & 7
        self._type(f.al, page, f.bl, None)

    def _type(self, character: int, page: int, colour: int, attribute: int | None) -> bool:
        """A character as a teletype prints it: has the screen scrolled? In text the cell keeps its attribute, if none
        is given."""
        mode = self._mode()
        column, row = self._cursor(page)
        if character == BELL:
            return False
        if character == BACKSPACE:
            column = max(0, column - 1)
        elif character == RETURN:
            column = 0
        elif character == LINE_FEED:
            row += 1
        else:
            self._put(mode, page, (column, row), character, colour, attribute)
            column += 1
        if column >= self._columns():
            column, row = 0, row + 1
        last = self._rows() - 1
        scrolls = row > last
        if scrolls:
            row = last
            fill = 0
            if mode.kind == TEXT:
                fill = self._text.cells(self._start(page), last * self._columns() + column, 1)[1]
            self._scroll_window(page, (0, 0, last, self._columns() - 1), 1, fill)
        self._move(page, column, row)
        return scrolls

    def _put(
        self, mode: Mode, page: int, place: tuple[int, int], character: int, colour: int, attribute: int | None
    ) -> None:
        column, row = place
        if mode.kind == TEXT:
            start, at = self._start(page), row * self._columns() + column
            if attribute is None:
                attribute = self._text.cells(start, at, 1)[1]
            self._text.set_cells(start, at, bytes((character, attribute)))
        else:
            self._graphics.draw(mode, self._start(page), place, self._glyph(mode, character), colour)

    def _current_mode(self, f: Frame) -> None:
        h = self._hardware
        f.name = ("current mode",)
        f.al = h.byte(bda.VIDEO_MODE) & 0x7F | h.byte(bda.VIDEO_CONTROL) & 0x80
        f.ah, f.bh = h.byte(bda.COLUMNS), h.byte(bda.PAGE)
        f.result = ("mode %02Xh, %d columns, page %d", f.al, f.ah, f.bh)

    def _string(self, f: Frame) -> None:
        """AL bit 0: the cursor moves; bit 1: each character is followed by its attribute. A piece at a time, as the
        caller may ask for 65,535 characters: `scratch` is how many are done, `reply` where the cursor was."""
        attributes, moves, page = bool(f.al & 2), bool(f.al & 1), f.bh & 7
        width = 2 if attributes else 1
        shown = self._hardware.read(f.es * 16 + f.bp, min(f.cx, MOST_SHOWN) * width)[::width].decode("cp437")
        f.name = (
            "write string: page %d, row %d, column %d, %r%s",
            page, f.dh, f.dl, shown, f" and {f.cx - MOST_SHOWN} more" if f.cx > MOST_SHOWN else "",
        )  # fmt: skip
        if f.step == 0:
            column, row = self._cursor(page)
            f.step, f.scratch, f.reply = 1, 0, row << 8 | column
            if f.dh != 0xFF:
                self._move(page, f.dl, f.dh)
        done = f.scratch
        count = max(0, min(f.cx - done, PIECE))
        data = self._hardware.read(f.es * 16 + f.bp + done * width, count * width)
        for i in range(0, count * width, width):
            colour = data[i + 1] if attributes else f.bl
            done += 1
            if self._type(data[i], page, colour, colour):
                break
        f.scratch = done
        if done < f.cx:
            f.soon()
        elif not moves:
            self._move(page, f.reply & 0xFF, f.reply >> 8 & 0xFF)
