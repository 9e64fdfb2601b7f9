"""Pictures for people: as PNG, and drawn in a terminal by half blocks."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emu.views import PictureView

if TYPE_CHECKING:
    from PIL import Image

UPPER_HALF = "\u2580"
RESET = "\x1b[0m"
#: Levels of the colour cube of 256-colour terminals (xterm, ctlseqs, "256 colors").
CUBE = (0, 95, 135, 175, 215, 255)
BOX = 4  #: PIL.Image.Resampling.BOX: the mean of the pixels that become one
#: The least a drawn picture is wide, in characters.
NARROWEST = 8


class PlotError(Exception):
    """A picture cannot be written; one sentence."""


def png(picture: PictureView) -> bytes:
    """The picture as a PNG file. Raises PlotError for one without pixels."""
    if not picture.pixels:
        raise PlotError(f"there is no picture: the screen is {picture.mode}")
    out = io.BytesIO()
    _image(picture).save(out, "PNG")
    return out.getvalue()


def write_png(picture: PictureView, path: Path) -> None:
    """Write it to `path`. Raises PlotError when there is none or the file cannot be written."""
    data = png(picture)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise PlotError(f"cannot write the picture to {str(path)!r}: {error.strerror}") from None


def half_blocks(picture: PictureView, columns: int, *, truecolour: bool) -> list[str]:
    """The picture as lines of at most `columns` characters, each of them two pixels one above the other, smaller where
    it does not fit. With `truecolour` in 24-bit colours, else in the nearest of 256."""
    if not picture.pixels:
        return []
    width = max(NARROWEST, min(columns, picture.width))
    height = max(2, picture.height * width // picture.width // 2 * 2)
    image = _image(picture)
    small = image.resize((width, height), BOX).tobytes()
    code: Callable[[int, bytes], str] = _direct if truecolour else _indexed
    lines = []
    for y in range(0, height, 2):
        line, last = [], ("", "")
        for x in range(width):
            upper, lower = (small[3 * (row * width + x) :][:3] for row in (y, y + 1))
            colours = code(38, upper), code(48, lower)
            if colours != last:
                line.append(f"\x1b[{colours[0]};{colours[1]}m")
                last = colours
            line.append(UPPER_HALF)
        lines.append("".join(line) + RESET)
    return lines


def _image(picture: PictureView) -> Image.Image:
    from PIL import Image  # when a picture is made: loading it takes as long as much of a start

    return Image.frombytes("RGB", (picture.width, picture.height), picture.pixels)


def _direct(what: int, colour: bytes) -> str:
    """SGR parameters: `what` is 38 for the foreground, 48 for the background (ECMA-48, ISO 8613-6)."""
    return f"{what};2;{colour[0]};{colour[1]};{colour[2]}"


def _indexed(what: int, colour: bytes) -> str:
    nearest = [min(range(6), key=partial(_distance, level)) for level in colour]
    return f"{what};5;{16 + 36 * nearest[0] + 6 * nearest[1] + nearest[2]}"


def _distance(level: int, step: int) -> int:
    return abs(CUBE[step] - level)
