"""Pixels and characters in graphics modes: planes, chained 256 colours, and the CGA's two interleaved halves."""

from __future__ import annotations

from emu.devices.vga_memory import DisplayMemory
from emu.firmware.bios.planes import Planes
from emu.firmware.bios.video_modes import CGA, CHAIN_4, Mode

CGA_HALF = 0x2000
WINDOW = 0x10000  #: bytes of A000h, which addresses of 16 bits wrap around in
XOR = 0x80


class GraphicsScreen:
    """Rows of eight pixels, a character's width, are what everything is made of. `start` is a page's first offset."""

    def __init__(self, display: DisplayMemory, planes: Planes) -> None:
        self._display, self._planes = display, planes

    # -- a line of the screen as bytes that hold whole groups of pixels

    def _line(self, mode: Mode, start: int, y: int, column: int, count: int) -> bytearray:
        """What holds `count` characters' widths of line `y` from `column` on."""
        if mode.kind == CHAIN_4:
            data = bytearray()
            for at, n in _pieces(start + (y * mode.columns + column) * 8, 8 * count):
                data += self._display.memory[at : at + n]
            return data
        if mode.kind == CGA:
            at = y // 2 * 80 + y % 2 * CGA_HALF
            if mode.bits == 1:
                return self._planes.get(at + column, count)[0::4]
            data = self._planes.get(at + 2 * column, 2 * count)
            out = bytearray(2 * count)
            out[0::2], out[1::2] = data[0::8], data[1::8]
            return out
        return self._planes.get(start + y * mode.columns + column, count)

    def _set_line(self, mode: Mode, start: int, y: int, column: int, data: bytes | bytearray) -> None:
        if mode.kind == CHAIN_4:
            done = 0
            for at, n in _pieces(start + (y * mode.columns + column) * 8, len(data)):
                self._display.memory[at : at + n] = bytes(data[done : done + n])
                self._display.written(at, n)
                done += n
        elif mode.kind == CGA:
            at = y // 2 * 80 + y % 2 * CGA_HALF
            if mode.bits == 1:
                old = self._planes.get(at + column, len(data))
                old[0::4] = data
                self._planes.put(at + column, old)
            else:
                old = self._planes.get(at + 2 * column, len(data))
                old[0::8], old[1::8] = data[0::2], data[1::2]
                self._planes.put(at + 2 * column, old)
        else:
            self._planes.put(start + y * mode.columns + column, data)

    # -- characters

    def draw(self, mode: Mode, start: int, place: tuple[int, int], glyph: bytes, colour: int) -> None:
        """A character at (column, row), its pixels set to `colour`, the others to 0; with bit 7 of the colour set,
        but in 256 colours, they are exclusive-ored instead."""
        column, row = place
        for i, bits in enumerate(glyph):
            y = row * len(glyph) + i
            new = _pixels(mode, bits, colour)
            if colour & XOR and mode.bits != 8:
                old = self._line(mode, start, y, column, 1)
                new = bytes(a ^ b for a, b in zip(old, new, strict=True))
            self._set_line(mode, start, y, column, new)

    def shape(self, mode: Mode, start: int, place: tuple[int, int], height: int) -> bytes:
        """The dots that are not 0 of the character at (column, row)."""
        column, row = place
        out = bytearray()
        for y in range(row * height, (row + 1) * height):
            data = self._line(mode, start, y, column, 1)
            if mode.kind == CHAIN_4:
                bits = sum(0x80 >> i for i, value in enumerate(data) if value)
            elif mode.kind == CGA and mode.bits == 2:
                word = data[0] << 8 | data[1]
                bits = sum(0x80 >> i for i in range(8) if word >> (14 - 2 * i) & 3)
            else:
                bits = 0
                for plane in data:
                    bits |= plane
            out.append(bits)
        return bytes(out)

    def scroll(
        self, mode: Mode, start: int, height: int, window: tuple[int, int, int, int], lines: int, colour: int
    ) -> None:
        """As that of text; what comes in is `colour`."""
        top, left, bottom, right = window
        count = right - left + 1
        first, end, step = top * height, (bottom + 1) * height, lines * height
        blank = _pixels(mode, 0xFF, colour) * count
        old = [self._line(mode, start, y, left, count) for y in range(first, end)]
        for i in range(end - first):
            source = i + step
            inside = step != 0 and 0 <= source < end - first
            self._set_line(mode, start, first + i, left, old[source] if inside else blank)

    # -- pixels

    def set_pixel(self, mode: Mode, start: int, x: int, y: int, colour: int) -> None:
        """With bit 7 of the colour set, but in 256 colours, exclusive or."""
        column, i = x // 8, x % 8
        data = self._line(mode, start, y, column, 1)
        dot = _pixels(mode, 0x80 >> i, 0xFF & ~XOR)
        new = _pixels(mode, 0x80 >> i, colour)
        if mode.bits == 8:
            data[i] = colour
        elif colour & XOR:
            data = bytearray(a ^ b for a, b in zip(data, new, strict=True))
        else:
            data = bytearray(a & ~m | b for a, b, m in zip(data, new, dot, strict=True))
        self._set_line(mode, start, y, column, data)

    def pixel(self, mode: Mode, start: int, x: int, y: int) -> int:
        data, i = self._line(mode, start, y, x // 8, 1), x % 8
        if mode.kind == CHAIN_4:
            return data[i]
        if mode.kind == CGA:
            if mode.bits == 1:
                return data[0] >> 7 - i & 1
            return (data[0] << 8 | data[1]) >> 14 - 2 * i & 3
        return sum((data[plane] >> 7 - i & 1) << plane for plane in range(4))


def _pieces(first: int, count: int) -> list[tuple[int, int]]:
    """(offset, how many) of a range of the window, cut where it wraps around: rows below the screen, which nothing
    keeps a caller from naming, are where 16-bit code would find them."""
    pieces = []
    while count:
        at = first % WINDOW
        n = min(count, WINDOW - at)
        pieces.append((at, n))
        first, count = first + n, count - n
    return pieces


def _pixels(mode: Mode, bits: int, colour: int) -> bytes:
    """Eight pixels, of `colour` where `bits` has ones from the left on, else 0, as memory holds them."""
    if mode.kind == CHAIN_4:
        return bytes(colour if bits & 0x80 >> i else 0 for i in range(8))
    if mode.kind == CGA:
        if mode.bits == 1:
            return bytes((bits if colour & 1 else 0,))
        word = sum((colour & 3) << 14 - 2 * i for i in range(8) if bits & 0x80 >> i)
        return word.to_bytes(2, "big")
    return bytes(bits if colour >> plane & 1 else 0 for plane in range(4))
