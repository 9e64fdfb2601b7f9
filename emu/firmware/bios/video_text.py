"""Characters in text modes: cells of a page, scrolling."""

from __future__ import annotations

from emu.firmware.bios.planes import Planes


class TextScreen:
    """Character and attribute of a cell are in planes 0 and 1, at even offsets. `start` is a page's first offset in
    bytes of the window, `columns` the cells of a row."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes

    def cells(self, start: int, first: int, count: int) -> bytearray:
        """2 * `count` bytes: character, attribute."""
        data = self._planes.get(start + 2 * first, 2 * count)
        out = bytearray(2 * count)
        out[0::2], out[1::2] = data[0::8], data[1::8]
        return out

    def set_cells(self, start: int, first: int, cells: bytes | bytearray) -> None:
        offset = start + 2 * first
        data = self._planes.get(offset, len(cells))
        data[0::8], data[1::8] = cells[0::2], cells[1::2]
        self._planes.put(offset, data)

    def scroll(self, start: int, columns: int, window: tuple[int, int, int, int], lines: int, attribute: int) -> None:
        """Move the window (top, left, bottom, right, inclusive) up by `lines`, down if negative; 0 blanks it."""
        top, left, bottom, right = window
        width, height = right - left + 1, bottom - top + 1
        blank = bytes((0x20, attribute)) * width
        if left == 0 and width == columns:
            # A window as wide as the screen is one range.
            moved = min(abs(lines) or height, height)
            cells = self.cells(start, top * columns, height * columns)
            kept = 2 * columns * (height - moved)
            empty = blank * moved
            new = cells[len(cells) - kept :] + empty if lines >= 0 else empty + cells[:kept]
            self.set_cells(start, top * columns, new)
            return
        rows = [self.cells(start, row * columns + left, width) for row in range(top, bottom + 1)]
        for i in range(height):
            source = i + lines
            inside = lines != 0 and 0 <= source < height
            self.set_cells(start, (top + i) * columns + left, rows[source] if inside else blank)
