"""Draws the fonts of the built-in BIOS: code page 437 in cells of 8x8, 8x14 and 8x16 dots.

All of it is this project's own drawing. Letters are five dots wide and seven high with one row below the line: ASCII
is the tour image's font, what else has a shape of its own is drawn below, letters with marks are put together, lines,
blocks and shades are computed for each cell. Higher cells repeat rows, and strokes are two dots wide there.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

TOUR_FONT = Path(__file__).resolve().parent.parent / "emu/firmware/tour_font.inc"
#: How often each row of a glyph is drawn, and how many lines are above the first.
ROWS = {8: ((1,) * 8, 0), 14: ((2, 1, 1, 1, 1, 1, 2, 2), 2), 16: ((2, 1, 2, 1, 2, 1, 2, 2), 2)}

#: Glyphs of 5x8 by their character: rows from the top, '#' is a dot; rows that are left out below are empty.
DRAWN = {
    0x01: ".###. #...# ##.## #...# ##.## #.#.# .###.",
    0x02: ".###. ##### #.#.# ##### #.#.# ##.## .###.",
    0x03: "..... .#.#. ##### ##### .###. ..#.. .....",
    0x04: "..... ..#.. .###. ##### .###. ..#.. .....",
    0x05: "..#.. .###. ..#.. ##### ##### ..#.. .###.",
    0x06: "..#.. .###. ##### ##### .###. ..#.. .###.",
    0x07: "..... ..... ..#.. .###. ..#.. ..... .....",
    0x09: "..... .###. #...# #...# #...# .###. .....",
    0x0B: "..### ...## ..#.# .##.. #..#. #..#. .##..",
    0x0C: ".###. #...# #...# .###. ..#.. #####  ..#..",
    0x0D: "..### ..#.# ..#.. ..#.. .##.. ###.. .#...",
    0x0E: ".#### .#..# .#..# .#..# ##.## ##.## .....",
    0x0F: "..#.. #.#.# .###. ##.## .###. #.#.# ..#..",
    0x10: "#.... ##... ###.. ####. ###.. ##... #....",
    0x11: "....# ...## ..### .#### ..### ...## ....#",
    0x12: "..#.. .###. ..#.. ..#.. ..#.. .###. ..#..",
    0x13: ".#.#. .#.#. .#.#. .#.#. .#.#. ..... .#.#.",
    0x14: ".#### ###.# ###.# .##.# ..#.# ..#.# ..#.#",
    0x15: ".###. #.... .##.. #..#. .##.. ...#. ###..",
    0x16: "..... ..... ..... ..... ##### ##### .....",
    0x17: "..#.. .###. ..#.. ..#.. .###. ..#.. #####",
    0x18: "..#.. .###. #.#.# ..#.. ..#.. ..#.. ..#..",
    0x19: "..#.. ..#.. ..#.. ..#.. #.#.# .###. ..#..",
    0x1A: "..... ..#.. ...#. ##### ...#. ..#.. .....",
    0x1B: "..... ..#.. .#... ##### .#... ..#.. .....",
    0x1C: "..... ..... #.... #.... ##### ..... .....",
    0x1D: "..... .#.#. ##### ##### .#.#. ..... .....",
    0x1E: "..... ..#.. ..#.. .###. .###. ##### .....",
    0x1F: "..... ##### .###. .###. ..#.. ..#.. .....",
    0x7F: "..... ..#.. .#.#. #...# #...# ##### .....",
    0x80: ".###. #...# #.... #.... #...# .###. ..#.. .#...",
    0x87: "..... ..... .###. #.... #...# .###. ..#.. .#...",
    0x91: "..... ..... ##.#. ..#.# .#### #.#.. .#.##",
    0x92: ".#### #.#.. #.#.. ##### #.#.. #.#.. #.###",
    0x9B: "..#.. .###. #.#.. #.#.. #.#.. .###. ..#..",
    0x9C: "..##. .#..# .#... ###.. .#... .#... #####",
    0x9D: "#...# .#.#. ##### ..#.. ##### ..#.. ..#..",
    0x9E: "###.. #..#. ###.. #.#.. ####. #.#.. #..##",
    0x9F: "...## ..#.. ..#.. .###. ..#.. ..#.. ##...",
    0xA6: ".##.. ...#. .#### .#..# .#### ..... #####",
    0xA7: ".##.. #..#. #..#. .##.. ..... ####. .....",
    0xA8: "..#.. ..... ..#.. ..#.. .#... #...# .###.",
    0xA9: "..... ..... ..... ##### #.... #.... .....",
    0xAA: "..... ..... ..... ##### ....# ....# .....",
    0xAB: "#...# #..#. #.#.. .#.## #...# ...#. ..###",
    0xAC: "#...# #..#. #.#.. .#.#. #.##. ..### ...#.",
    0xAD: "..#.. ..... ..#.. ..#.. ..#.. ..#.. ..#..",
    0xAE: "..... ..#.# .#.#. #.#.. .#.#. ..#.# .....",
    0xAF: "..... #.#.. .#.#. ..#.# .#.#. #.#.. .....",
    0xE0: "..... ..... .##.# #..#. #..#. #..#. .##.#",
    0xE1: ".###. #...# ####. #...# #...# ####. #....",
    0xE2: "##### #...# #.... #.... #.... #.... #....",
    0xE3: "..... ..... ##### .#.#. .#.#. .#.#. .#.#.",
    0xE4: "##### #...# .#... ..#.. .#... #...# #####",
    0xE5: "..... ..... .#### #..#. #..#. #..#. .##..",
    0xE6: "..... ..... #..#. #..#. #..#. ###.# #.... #....",
    0xE7: "..... ..... .##.# #.##. ..#.. ..#.. ..#..",
    0xE8: "##### ..#.. .###. #...# .###. ..#.. #####",
    0xE9: ".###. #...# #...# ##### #...# #...# .###.",
    0xEA: ".###. #...# #...# #...# .#.#. .#.#. ##.##",
    0xEB: "..### .#... ..##. .#### #...# #...# .###.",
    0xEC: "..... ..... .#.#. #.#.# #.#.# .#.#. .....",
    0xED: "....# .###. #..## #.#.# ##..# .###. #....",
    0xEE: "..##. .#... #.... ####. #.... .#... ..##.",
    0xEF: "..... .###. #...# #...# #...# #...# #...#",
    0xF0: "..... ##### ..... ##### ..... ##### .....",
    0xF1: "..#.. ..#.. ##### ..#.. ..#.. ..... #####",
    0xF2: ".#... ..#.. ...#. ..#.. .#... ..... #####",
    0xF3: "...#. ..#.. .#... ..#.. ...#. ..... #####",
    0xF6: "..... ..#.. ..... ##### ..... ..#.. .....",
    0xF7: "..... .#..# #.##. ..... .#..# #.##. .....",
    0xF8: ".##.. #..#. #..#. .##.. ..... ..... .....",
    0xF9: "..... ..... ..... .##.. .##.. ..... .....",
    0xFA: "..... ..... ..... ..#.. ..... ..... .....",
    0xFB: "..### ..#.. ..#.. ..#.. #.#.. .##.. ..#..",
    0xFC: "###.. #..#. #..#. #..#. ..... ..... .....",
    0xFD: "###.. ...#. .##.. #.... ####. ..... .....",
    0xFE: "..... ..... ####. ####. ####. ####. .....",
}
#: Marks above letters, two rows.
MARKS = {
    "GRAVE": ".#... ..#..",
    "ACUTE": "...#. ..#..",
    "CIRCUMFLEX": "..#.. .#.#.",
    "DIAERESIS": ".#.#. .....",
    "TILDE": ".##.# #..#.",
    "RING": "..#.. ..#..",
}
DOTLESS_I = "..... ..... .##.. ..#.. ..#.. ..#.. .###."
#: Arms of the line-drawing characters B3h to DAh: left, right, up, down, each 0 to 2 lines.
ARMS = {
    0xB3: "0011", 0xB4: "1011", 0xB5: "2011", 0xB6: "1022", 0xB7: "1002", 0xB8: "2001", 0xB9: "2022", 0xBA: "0022",
    0xBB: "2002", 0xBC: "2020", 0xBD: "1020", 0xBE: "2010", 0xBF: "1001", 0xC0: "0110", 0xC1: "1110", 0xC2: "1101",
    0xC3: "0111", 0xC4: "1100", 0xC5: "1111", 0xC6: "0211", 0xC7: "0122", 0xC8: "0220", 0xC9: "0202", 0xCA: "2220",
    0xCB: "2202", 0xCC: "0222", 0xCD: "2200", 0xCE: "2222", 0xCF: "2210", 0xD0: "1120", 0xD1: "2201", 0xD2: "1102",
    0xD3: "0120", 0xD4: "0210", 0xD5: "0201", 0xD6: "0102", 0xD7: "1122", 0xD8: "2211", 0xD9: "1010", 0xDA: "0101",
}  # fmt: skip


def _rows(text: str) -> list[int]:
    """Eight rows of five dots, bit 6 the leftmost."""
    rows = [int(row.replace(".", "0").replace("#", "1"), 2) << 2 for row in text.split()]
    return (rows + [0] * 8)[:8]


def _ascii() -> dict[int, list[int]]:
    """The tour's glyphs by character."""
    lines = re.findall(r"^\s+db ((?:0x[0-9A-F]{2}(?:, )?){8})", TOUR_FONT.read_text(), re.M)
    return {0x20 + i: [int(byte, 16) for byte in line.split(", ")] for i, line in enumerate(lines)}


def _marked(base: list[int], mark: str, height: int) -> list[int]:
    """A letter with a mark above. Capitals take all rows: their marks are one row, in the first line of a high cell
    (a ninth row here), and in a low one the letter is made a row lower."""
    if not any(base[:2]):
        return [m | b for m, b in zip(_rows(mark), base, strict=True)]
    above = _rows(mark)[0]
    return [above, *base[:2], *base[3:7], 0] if height == 8 else [*base, above]


def _glyphs(height: int) -> dict[int, list[int]]:
    glyphs = _ascii()
    letters = {chr(code): rows for code, rows in glyphs.items()}
    letters["i"] = _rows(DOTLESS_I)
    for code in range(0x80, 0xA6):
        name = unicodedata.name(bytes((code,)).decode("cp437"))
        if (found := re.match(r"LATIN (SMALL|CAPITAL) LETTER (\w) WITH (\w+)", name)) and found[3] in MARKS:
            letter = found[2].lower() if found[1] == "SMALL" else found[2]
            glyphs[code] = _marked(letters[letter], MARKS[found[3]], height)
    glyphs.update({code: _rows(text) for code, text in DRAWN.items()})
    return glyphs


def _tall(rows: list[int], height: int) -> bytes:
    repeats, above = ROWS[height]
    out = bytearray(above)
    for row, count in zip(rows[:8], repeats, strict=True):
        # The strokes of higher cells are two dots wide.
        out += bytes((row | row >> 1 if height > 8 else row,)) * count
    if len(rows) > 8:
        out[0] = rows[8]
    return bytes(out.ljust(height, b"\0"))[:height]


def _box(arms: str, height: int) -> bytes:
    """Lines that meet in the middle of the cell and reach its edges. A double line is two with a gap."""
    left, right, up, down = (int(arm) for arm in arms)
    middle = height // 2 - 1
    horizontal = {0: (), 1: (middle,), 2: (middle - 1, middle + 1)}
    vertical = {0: (), 1: (3,), 2: (2, 4)}
    grid = [[False] * 8 for _ in range(height)]

    def across(lines: int, first: int, end: int) -> None:
        for y in horizontal[lines]:
            for x in range(first, end):
                grid[y][x] = True

    def along(lines: int, first: int, end: int) -> None:
        for x in vertical[lines]:
            for y in range(first, end):
                grid[y][x] = True

    columns = vertical[max(up, down)] or (3,)
    lines = horizontal[max(left, right)] or (middle,)
    across(left, 0, columns[-1] + 1)
    across(right, columns[0], 8)
    along(up, 0, lines[-1] + 1)
    along(down, lines[0], height)
    if max(left, right) == 2 and max(up, down) == 2:
        # The inside of a crossing of double lines is open towards each arm that is there.
        inside = [(lines[0], columns[0]), (lines[0], columns[1]), (lines[1], columns[0]), (lines[1], columns[1])]
        for y in range(lines[0], lines[1] + 1):
            for x in range(columns[0], columns[1] + 1):
                if (y, x) not in inside:
                    grid[y][x] = False
        grid[lines[0]][columns[0] + 1] = not up
        grid[lines[1]][columns[0] + 1] = not down
        for y in range(lines[0] + 1, lines[1]):
            grid[y][columns[0]] = not left
            grid[y][columns[1]] = not right
    elif max(left, right) == 2:
        for y in range(lines[0] + 1, lines[1]):
            grid[y][columns[0]] = bool(up or down) and (not (left and right) or (up > 0 and down > 0))
    return bytes(sum(0x80 >> x for x in range(8) if row[x]) for row in grid)


def _block(code: int, height: int) -> bytes | None:
    """Shades and blocks."""
    half = height // 2
    shades = {0xB0: (0x22, 0x88), 0xB1: (0x55, 0xAA), 0xB2: (0xDD, 0x77)}
    if code in shades:
        return bytes(shades[code][y & 1] for y in range(height))
    solid = {0xDB: b"\xff" * height, 0xDC: bytes(half) + b"\xff" * (height - half), 0xDD: b"\xf0" * height,
             0xDE: b"\x0f" * height, 0xDF: b"\xff" * half + bytes(height - half)}  # fmt: skip
    return solid.get(code)


def _integral(code: int, height: int) -> bytes:
    """F4h and F5h, the halves of an integral sign, which meet across cells."""
    curve = height // 8 + 1
    if code == 0xF4:
        return bytes(curve) + b"\x0e\x1b" + b"\x18" * (height - curve - 2)
    return b"\x18" * (height - curve - 2) + b"\xd8\x70" + bytes(curve)


def font(height: int) -> bytes:
    """256 characters of 8, 14 or 16 bytes, a line each, bit 7 leftmost."""
    glyphs = _glyphs(height)
    out = bytearray()
    for code in range(256):
        if code in ARMS:
            out += _box(ARMS[code], height)
        elif (block := _block(code, height)) is not None:
            out += block
        elif code in (0xF4, 0xF5):
            out += _integral(code, height)
        elif code in (0x08, 0x0A):
            # The bullet and the ring of 07h and 09h, the other way round.
            out += bytes(byte ^ 0xFF for byte in _tall(glyphs[code - 1], height))
        else:
            out += _tall(glyphs.get(code, [0] * 8), height)
    return bytes(out)
