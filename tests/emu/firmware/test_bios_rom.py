"""The built-in BIOS's ROM: its source gives its bytes, entries are where software expects them, fonts are whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emu.firmware.bios.rom import rom
from emu.firmware.bios.video_set import FONTS

ROOT = Path(__file__).resolve().parents[3]


def test_assembling_the_source_gives_the_shipped_bytes(tmp_path: Path) -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    subprocess.run([sys.executable, ROOT / "tools/bios.py", tmp_path / "rom"], check=True)
    assert (tmp_path / "rom").read_bytes() == rom()


def test_it_starts_with_a_far_jump_into_its_low_copy() -> None:
    image = rom()
    assert len(image) == 0x10000
    assert image[0xFFF0] == 0xEA
    assert image[0xFFF3:0xFFF5] == b"\x00\xf0"
    assert image[0xFFFE] == 0xFC  # an AT


def test_tables_that_software_reads_by_address_are_there() -> None:
    image = rom()
    assert image[0xEFC7 + 3 : 0xEFC7 + 5] == b"\x02\x12"  # 512 bytes, 18 sectors
    assert image[0xE6F5 : 0xE6F5 + 3] == b"\x08\x00\xfc"
    assert image[0xFF53] == 0xCF  # IRET
    assert image[0xFA6E : 0xFA6E + 1024] == image[FONTS[8] : FONTS[8] + 1024]


@pytest.mark.parametrize("height", [8, 14, 16])
def test_each_font_has_a_shape_of_its_own_for_every_character(height: int) -> None:
    image = rom()
    glyphs = [image[FONTS[height] + height * c : FONTS[height] + height * (c + 1)] for c in range(256)]
    blank = {0x00, 0x20, 0xFF}
    assert {c for c in range(256) if not any(glyphs[c])} == blank
    assert len(set(glyphs)) == 254  # three are blank
    assert glyphs[0xDB] == b"\xff" * height
