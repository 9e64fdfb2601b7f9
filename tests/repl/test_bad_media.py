"""Media whose host fails while a guest uses them: the guest sees a device error, the host a sentence, and the image
has what was written before it and nothing of what comes behind.

Run by the command line, as a host's limits are a process's. RLIMIT_FSIZE lets no write end behind an offset, as a full
disk lets none grow; a truncated file has sectors that cannot be read. ST is the ATA status without DSC, ERR its error.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import oracles
from commandline import v2e
from emu.media import Disk
from probes import checks, ours

SECONDS = 120
SECTOR = 512
LIMIT = 16  #: sectors that the host can write or has
OLD, NEW, OTHER = b"o" * SECTOR, b"\x77\x77" * (SECTOR // 2), b"\x55\x55" * (SECTOR // 2)


def no_file_grows() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT * SECTOR, LIMIT * SECTOR))


@pytest.fixture
def firmware(tmp_path: Path) -> Callable[[str], Path]:
    def assemble(image: str) -> Path:
        path = tmp_path / f"{image}.rom"
        path.write_bytes(oracles.assemble_image(image))
        return path

    return assemble


def run(*arguments: object, prepare: Callable[[], None] | None = None) -> tuple[dict[str, str], list[str]]:
    """What the guest printed, and the lines on stderr. It ends by the debug-exit port, code 0."""
    process = v2e(*arguments, "--headless", prepare=prepare)
    out, err = process.communicate("", SECONDS)
    assert process.returncode == 1, (out, err)
    return checks(out), err.splitlines()


def truncated_under(path: Path, *arguments: object) -> tuple[dict[str, str], list[str]]:
    """The same, with the image shortened to LIMIT sectors when it has been opened."""
    process = v2e(*arguments)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("print 2\n")
    process.stdin.flush()
    process.stdout.readline()
    os.truncate(path, LIMIT * SECTOR)
    out, err = process.communicate("continue\n", SECONDS)
    return checks(out), err.splitlines()


def test_a_disk_that_the_host_cannot_write_any_more(tmp_path, firmware):
    image = tmp_path / "disk.img"
    image.write_bytes(OLD * 64)
    guest, said = run("--firmware", firmware("bad_disk"), "--disk", image, "--write", prepare=no_file_grows)
    assert guest["write"] == "61040210"  # DRDY, DF, ERR; ABRT; 2 left from sector 16
    assert guest["write-multiple"] == guest["write"]
    assert (guest["flush"], guest["write-elsewhere"], guest["beyond-end"]) == ("40", "40", "4110")
    assert said == [f"v2e: {image}: sector 16 cannot be written: File too large"]
    assert image.read_bytes() == OLD * 5 + OTHER + OLD * 8 + NEW * 2 + OLD * 48


def test_what_a_guest_writes_reaches_the_file_in_its_order_and_the_medium_with_its_flush(tmp_path, monkeypatch):
    image = tmp_path / "disk.img"
    image.write_bytes(OLD * 64)
    calls: list[int | str] = []
    write, flush = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: (calls.append(at // SECTOR), write(fd, data, at))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("flush"), flush(fd))[1])
    machine = ours("bad_disk", disks=(Disk.open(image, write=True),))
    machine.close()
    # WRITE SECTORS, WRITE MULTIPLE, FLUSH CACHE, WRITE SECTORS; the drive's write cache is on
    assert calls == [14, 15, 16, 17, 14, 15, 16, 17, "flush", 5]


def test_without_write_the_same_host_is_no_matter(tmp_path, firmware):
    image = tmp_path / "disk.img"
    image.write_bytes(OLD * 64)
    guest, said = run("--firmware", firmware("bad_disk"), "--disk", image, prepare=no_file_grows)
    assert (guest["write"], guest["write-multiple"], guest["flush"]) == ("400011", "400011", "40")
    assert (said, image.read_bytes()) == ([], OLD * 64)


def test_a_disk_that_becomes_shorter_is_unreadable_from_there(tmp_path, firmware):
    image = tmp_path / "disk.img"
    image.write_bytes(OLD * 64)
    guest, said = truncated_under(image, "--firmware", firmware("bad_disk"), "--disk", image)
    assert guest["read"] == "6F6F6F6F--41400210"  # two sectors come; UNC
    assert guest["verify"] == "41400410"
    assert guest["write"] == "400011"  # the overlay takes them
    assert said == [f"v2e: {image}: sector 16 is missing; the file has become shorter"]


def test_a_diskette_that_the_host_cannot_write_any_more(tmp_path, firmware):
    image = tmp_path / "floppy.img"
    image.write_bytes(OLD * 2880)
    guest, said = run("--firmware", firmware("bad_floppy"), "--floppy", image, "--write", prepare=no_file_grows)
    assert guest["write"] == "/40202000001102"  # abnormal; DE; DD; sector 17
    assert guest["write-elsewhere"].startswith("/000000")
    assert said == [f"v2e: {image}: sector 16 cannot be written: File too large"]
    after = image.read_bytes()
    assert after[15 * SECTOR : 16 * SECTOR] == after[SECTOR : 2 * SECTOR] == OLD  # as read before, by DMA
    assert after[16 * SECTOR :] == OLD * 2864


def test_a_diskette_that_becomes_shorter_is_unreadable_from_there(tmp_path, firmware):
    image = tmp_path / "floppy.img"
    image.write_bytes(OLD * 2880)
    guest, said = truncated_under(image, "--firmware", firmware("bad_floppy"), "--floppy", image)
    assert guest["read"] == "/40202000001102"  # sector 15 comes; DE, DD
    assert said == [f"v2e: {image}: sector 16 is missing; the file has become shorter"]


def test_a_cd_that_becomes_shorter_has_a_medium_error(tmp_path, firmware):
    image = tmp_path / "cd.iso"
    image.write_bytes(OLD * 64)
    guest, said = truncated_under(image, "--firmware", firmware("bad_cdrom"), "--cdrom", image)
    assert (guest["attention"], guest["ready"]) == ("4164/062900", "40")
    assert guest["read"] == "6F-4134/031100"  # one frame; medium error: unrecovered read error
    assert (guest["beyond-end"], guest["reads-on"]) == ("4154/052100", "6F40")
    assert said == [f"v2e: {image}: sector 16 is missing; the file has become shorter"]


def test_dma_to_where_no_memory_is_goes_nowhere_and_comes_as_ones(tmp_path, firmware):
    image = tmp_path / "floppy.img"
    image.write_bytes(OLD * 2880)
    guest, said = run("--firmware", firmware("bad_floppy"), "--floppy", image, "--memory", "1M")
    first, second, third = guest["unmapped"].split("/")[1:]
    assert (first, second) == ("00000000000402", "00000000000402")
    assert third == "00000000000402FFFF"
    assert said == []
