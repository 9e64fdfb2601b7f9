"""The bench of boots: what QEMU is given, how its screen is read, and one row that really runs on both sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import boots
from boots.table import BOOTS


def row(name: str) -> object:
    return next(boot for boot in BOOTS if boot.name == name)


def test_qemu_is_given_what_v2e_is():
    options = ["--machine", "pc", "--memory", "256M", "--kernel", "k", "--append", "a b", "--initrd", "i"]
    words = boots.qemu_arguments(row("linux amd64 on pc"), "none", options)
    assert words[words.index("-M") + 1] == "pc"
    assert words[words.index("-m") + 1] == "256M"
    assert words[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a b"]
    words = boots.qemu_arguments(row("isolinux cd"), "seabios", ["--firmware", "seabios", "--cdrom", "c.iso"])
    assert words[-2:] == ["-drive", "if=ide,media=cdrom,file=c.iso,format=raw,snapshot=on"]
    assert "-bios" not in words
    words = boots.qemu_arguments(row("u-boot"), "u-boot", ["--firmware", "u-boot.rom"])
    assert words[words.index("-bios") + 1] == "u-boot.rom"


def test_the_screen_is_rows_without_trailing_blanks(tmp_path: Path):
    cells = b"".join(bytes((byte, 7)) for byte in b"one".ljust(80) + b"  two".ljust(80) + bytes(80 * 23))
    (tmp_path / "screen").write_bytes(cells)
    assert boots._said("text", tmp_path).rstrip("\n") == "one\n  two"


def test_an_unknown_boot_is_named(capsys: pytest.CaptureFixture[str]):
    assert boots.main(["windows"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "bench: no boot is called windows\n")


@pytest.mark.slow
def test_a_row_has_both_times_and_their_ratio(capsys: pytest.CaptureFixture[str]):
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed (Debian: apt-get install qemu-system-x86)")
    assert boots.main(["mbr.bin"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("(")[0].strip() for line in rows] == ["mbr.bin"] * len(row("mbr.bin").firmwares)
    for line in rows:
        ours, theirs, ratio = map(float, line.split()[-3:])
        assert ratio == pytest.approx(ours / theirs, rel=0.1, abs=0.02)
