"""Pictures as PNG and as half blocks."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from emu.views import PictureView
from repl.plots import PlotError, half_blocks, png, write_png

RED, GREEN, BLUE, WHITE = b"\xff\0\0", b"\0\xff\0", b"\0\0\xff", b"\xff\xff\xff"


def columns(*rows: tuple[bytes, ...]) -> PictureView:
    """Each colour 8 pixels wide and 8 high."""
    pixels = b"".join(b"".join(colour * 8 for colour in row) * 8 for row in rows)
    return PictureView("graphics", 8 * len(rows[0]), 8 * len(rows), pixels)


def test_a_png_has_the_pixels():
    image = Image.open(io.BytesIO(png(columns((RED, GREEN), (BLUE, WHITE)))))
    assert (image.size, image.mode) == ((16, 16), "RGB")
    assert [image.getpixel(at) for at in ((0, 0), (15, 0), (0, 15), (15, 15))] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255),
    ]  # fmt: skip


def test_there_is_no_picture_of_a_screen_that_is_off(tmp_path):
    with pytest.raises(PlotError, match="the screen is off"):
        write_png(PictureView("off", 0, 0, b""), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_said_in_one_sentence(tmp_path):
    with pytest.raises(PlotError, match="No such file"):
        write_png(columns((RED,)), tmp_path / "none" / "a.png")


def test_half_blocks_show_two_pixels_each_one_above_the_other():
    lines = half_blocks(columns((RED, GREEN), (BLUE, WHITE)), 80, truecolour=True)
    assert len(lines) == 8
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m" + "\u2580" * 8 + "\x1b[38;2;0;255;0;48;2;0;255;0m")
    assert lines[7].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m")
    assert all(line.endswith("\x1b[0m") for line in lines)
    border = half_blocks(PictureView("graphics", 1, 2, RED + BLUE), 80, truecolour=True)
    assert "38;2;255;0;0;48;2;255;0;0m" in border[0]


def test_a_picture_is_made_to_fit_and_keeps_its_shape():
    lines = half_blocks(PictureView("graphics", 640, 480, WHITE * 640 * 480), 40, truecolour=True)
    assert {line.count("\u2580") for line in lines} == {40}
    assert len(lines) == 15  # 30 pixels high


def test_without_24_bits_the_nearest_colour_of_the_cube_is_taken():
    (line, *_) = half_blocks(columns((b"\xff\x58\x00",)), 80, truecolour=False)
    assert line.startswith("\x1b[38;5;202;48;5;202m")  # 16 + 36 * 5 + 6 * 1
