"""Symbols from nm listings and nasm maps."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from repl.symbols import SymbolError, Symbols, parse_nasm_map, parse_nm

NM = """\
00007c00 T start
                 U undefined
0000000000007c10 0000000000000004 t loop
00007d00 A limit
not a symbol line
"""
SOURCE = """\
[map symbols {map}]
org 0x7c00
FIVE equ 5
start: mov ax, FIVE
.again: jmp .again
section .data
text: db "hi"
"""


def test_nm_lines_with_and_without_sizes_are_read_and_undefined_ones_are_not():
    assert parse_nm(NM) == {"start": 0x7C00, "loop": 0x7C10, "limit": 0x7D00}


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_the_map_that_nasm_itself_writes_is_read(tmp_path):
    source, listing = tmp_path / "a.asm", tmp_path / "a.map"
    source.write_text(SOURCE.format(map=listing))
    subprocess.run(["nasm", "-f", "bin", str(source), "-o", str(tmp_path / "a.bin")], check=True)
    addresses, constants = parse_nasm_map(listing.read_text())
    assert addresses == {"start": 0x7C00, "start.again": 0x7C03, "text": 0x7C08}
    assert constants == {"FIVE": 5}
    symbols = Symbols()
    assert symbols.load(listing) == 4
    assert symbols.lookup("FIVE") == 5
    assert symbols.describe(5) == ""  # a constant names no place


def test_an_address_behind_a_symbol_is_described_by_its_distance():
    symbols = Symbols()
    symbols.add({"start": 0x7C00, "loop": 0x7C10})
    described = [symbols.describe(a) for a in (0x7BFF, 0x7C00, 0x7C0F, 0x7C10, 0x8C10, 0x8C11)]
    assert described == ["", "start", "start+0xf", "loop", "loop+0x1000", ""]


def test_an_offset_is_added_to_addresses(tmp_path):
    path = tmp_path / "nm"
    path.write_text(NM)
    symbols = Symbols()
    assert symbols.load(path, 0x100000) == 3
    assert symbols.lookup("start") == 0x107C00


@pytest.mark.parametrize("name", ["missing", "", "empty"])
def test_a_file_without_symbols_is_named_in_the_error(tmp_path, name):
    (tmp_path / "empty").write_text("nothing here\n")
    with pytest.raises(SymbolError, match=str(tmp_path)):
        Symbols().load(tmp_path / name)
