"""Text for a terminal: colours, columns, digits, and no control characters of the guest's."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

#: SGR codes (ECMA-48, 8.3.117) by what they stand for.
_COLOURS = {"head": "1", "differs": "1;31", "note": "2", "here": "1;32", "name": "36", "error": "31", "good": "32"}
_SGR = re.compile(r"\x1b\[[0-9;]*m")


def wants_colour(stream: TextIO) -> bool:
    """True for a terminal that shows colour, unless NO_COLOR says no (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")


def printable(text: str) -> str:
    """`text` without control characters, which a guest could use against the terminal."""
    return "".join(c if c.isprintable() else "." for c in text)


class Style:
    """Colours, or none. `columns` is how wide pictures may be drawn, 0: not at all; `truecolour`: in 24-bit colours."""

    def __init__(self, colour: bool = False, columns: int = 0, *, truecolour: bool = False) -> None:
        self.colour, self.columns, self.truecolour = colour, columns, truecolour

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self.colour and text else text


def terminal_style(stream: TextIO) -> Style:
    """What `stream` can show: colours and pictures on a terminal that has them."""
    if not wants_colour(stream):
        return Style()
    truecolour = os.environ.get("COLORTERM") in ("truecolor", "24bit")
    return Style(True, shutil.get_terminal_size().columns, truecolour=truecolour)


def width(text: str) -> int:
    """Characters shown, colours not counted."""
    return len(_SGR.sub("", text))


def aligned(rows: Iterable[Sequence[str]], gap: str = "  ") -> list[str]:
    """Rows of cells as lines, columns aligned left; columns without text and blanks at line ends are dropped."""
    rows = [list(row) for row in rows]
    used = sorted({i for row in rows for i, cell in enumerate(row) if cell})
    rows = [[row[i] for i in used if i < len(row)] for row in rows]
    columns = len(used)
    widths = [max((width(row[i]) for row in rows if i < len(row) - 1), default=0) for i in range(columns)]
    return [gap.join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row)).rstrip() for row in rows]


def hexadecimal(value: int, bits: int | None = 32) -> str:
    """Hex digits for `bits`; more where the value needs them."""
    return f"{value:0{(bits or 32) // 4}x}"


def wide(*values: int | None) -> int:
    """The bits to show addresses with: 32, or 64 where one of them needs more."""
    return 64 if any(v is not None and v > 0xFFFFFFFF for v in values) else 32


def digits(value: int | None, bits: int) -> str:
    """Question marks for what is unknown."""
    return "?" * (bits // 4) if value is None else hexadecimal(value, bits)


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


#: Makes the lines of some views of one kind. They come at once, so that their columns align.
Renderer = Callable[[Sequence[Any], Style], list[str]]
