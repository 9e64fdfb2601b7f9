"""Curves as a PNG: values against a number of instructions, on logarithmic axes, with level lines to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from repl.plots import PlotError

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 80, 130, 34, 44
COLUMNS = 2  #: of panels
INK, GRID, CURVE = (30, 30, 30), (225, 225, 225), (31, 95, 170)
LEVELS = ((200, 60, 30), (40, 140, 60), (130, 80, 160))
DASH = 6  #: pixels


class Curve(NamedTuple):
    """`points` of (x, y), x from 0 on and y positive, and `levels` to compare with, by name."""

    title: str
    across: str
    up: str
    points: tuple[tuple[int, float], ...]
    levels: tuple[tuple[str, float], ...]


def write_curves(curves: Sequence[Curve], path: Path) -> None:
    """A panel for each curve. Raises PlotError when there is nothing to draw or the file cannot be written."""
    from PIL import Image, ImageDraw

    if not curves or any(not curve.points for curve in curves):
        raise PlotError("there is nothing to draw")
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    image = Image.new("RGB", (columns * WIDTH, rows * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, curve in enumerate(curves):
        _panel(draw, curve, number % columns * WIDTH, number // columns * HEIGHT)
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise PlotError(f"cannot write the curves to {str(path)!r}: {error.strerror}") from None


def decades(low: float, high: float) -> list[float]:
    """Powers of ten that enclose what is from `low` to `high`, at least two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _across(x: float) -> float:
    """A logarithm that has a place for 0."""
    return math.log10(x + 1)


def _panel(draw: ImageDraw.ImageDraw, curve: Curve, left: int, top: int) -> None:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    x0, y0 = left + LEFT, top + TOP
    values = [y for _, y in curve.points] + [y for _, y in curve.levels]
    marks = decades(min(values), max(values))
    longest = max(_across(x) for x, _ in curve.points) or 1.0
    low, span = math.log10(marks[0]), math.log10(marks[-1]) - math.log10(marks[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return x0 + width * _across(x) / longest, y0 + height * (1 - (math.log10(y) - low) / span)

    draw.text((x0, top + 10), curve.title, fill=INK)
    for mark in marks:
        _, y = place(0, mark)
        draw.line((x0, y, x0 + width, y), fill=GRID)
        draw.text((left + 8, y - 6), f"{mark:>9.4g}", fill=INK)
    for x in (0, *(10**power for power in range(math.floor(longest) + 1))):
        across, _ = place(x, marks[0])
        draw.line((across, y0, across, y0 + height), fill=GRID)
        draw.text((across - 6, y0 + height + 4), f"{x}" if x < 10000 else f"1e{int(math.log10(x))}", fill=INK)
    draw.text((x0, y0 + height + 22), f"{curve.across}  |  {curve.up}", fill=INK)
    draw.rectangle((x0, y0, x0 + width, y0 + height), outline=INK)
    draw.line([place(x, y) for x, y in curve.points], fill=CURVE, width=2)
    for number, (name, value) in enumerate(curve.levels):
        colour = LEVELS[number % len(LEVELS)]
        _, y = place(0, value)
        for x in range(x0, x0 + width, 2 * DASH):
            draw.line((x, y, min(x + DASH, x0 + width), y), fill=colour, width=2)
        draw.text((x0 + width + 6, y - 6 + 12 * number), f"{name} {value:.4g}", fill=colour)
