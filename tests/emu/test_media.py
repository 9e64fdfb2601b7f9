"""Disk images: what is refused and how, overlay, write-through, geometry."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from emu.media import Disk, DiskError, Geometry, MediaError


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([n]) * 512 for n in range(8)))
    return path


def refusal(path, write=False) -> str:
    with pytest.raises(MediaError) as caught:
        Disk.open(path, write=write)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_missing_image_is_refused(tmp_path):
    assert "no such image" in refusal(tmp_path / "none.img")


def test_directory_is_refused(tmp_path):
    assert "is a directory" in refusal(tmp_path)


def test_path_through_a_file_is_refused(image):
    assert "check the path" in refusal(image / "inside")


def test_device_that_is_no_disk_is_refused():
    assert "raw disk image" in refusal("/dev/null")


def test_empty_image_is_refused(tmp_path):
    (tmp_path / "empty.img").touch()
    assert "is empty" in refusal(tmp_path / "empty.img")


def test_a_last_sector_that_is_not_whole_reads_zeros_behind_it(tmp_path):
    image = tmp_path / "odd.img"
    image.write_bytes(b"a" * 1000)
    disk = Disk.open(image)
    assert (disk.sectors, disk.read(0, 2)) == (2, b"a" * 1000 + bytes(24))
    disk.write(1, b"b" * 512)
    assert image.stat().st_size == 1000
    written = Disk.open(image, write=True)
    written.write(1, b"c" * 512)
    assert (written.read(1, 1), image.read_bytes()) == (b"c" * 512, b"a" * 512 + b"c" * 512)


def test_the_host_s_failure_is_said_once_and_reported_each_time(tmp_path):
    image = tmp_path / "short.img"
    image.write_bytes(bytes(2048))
    disk, said = Disk.open(image), []
    disk.on_error = said.append
    os.truncate(image, 512)
    for _ in range(2):
        with pytest.raises(DiskError):
            disk.read(1, 1)
    assert said == [f"{image}: sector 1 is missing; the file has become shorter"]


def test_a_host_disk_that_is_full_leaves_the_sectors_behind_the_failed_one_alone(tmp_path, monkeypatch):
    image = tmp_path / "full.img"
    image.write_bytes(b"o" * 2048)
    disk, real = Disk.open(image, write=True), os.pwrite

    def pwrite(fd, data, offset):
        if offset >= 1024:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(DiskError, match="sector 2 cannot be written: No space left on device"):
        disk.write(0, b"n" * 2048)
    assert image.read_bytes() == b"n" * 1024 + b"o" * 1024


def deny(monkeypatch, denied: int) -> None:
    """Opening with any of the flags `denied` fails, as it does not for root."""
    real = os.open

    def opened(path, flags, *rest, **options):
        if flags & os.O_ACCMODE == denied:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", opened)


def test_unreadable_image_is_refused(image, monkeypatch):
    deny(monkeypatch, os.O_RDONLY)
    assert "Permission denied: it must be read; change its permissions" in refusal(image)


def test_read_only_image_cannot_be_opened_for_writing(image, monkeypatch):
    deny(monkeypatch, os.O_RDWR)
    assert "Permission denied: it must be written; make it writable, or run without --write" in refusal(
        image, write=True
    )


def test_sectors_are_read_by_number(image):
    disk = Disk.open(image)
    assert (disk.sectors, disk.read(3, 2)) == (8, b"\x03" * 512 + b"\x04" * 512)


def test_writes_stay_in_the_overlay(image):
    before = image.read_bytes()
    disk = Disk.open(image)
    disk.write(2, b"\xaa" * 1024)
    disk.flush()
    assert disk.read(1, 4) == b"\x01" * 512 + b"\xaa" * 1024 + b"\x04" * 512
    assert image.read_bytes() == before


def test_write_through_reaches_the_file(image):
    disk = Disk.open(image, write=True)
    disk.write(2, b"\xaa" * 512)
    disk.flush()
    assert image.read_bytes()[1024:1536] == b"\xaa" * 512
    assert disk.save().overlay == {}


def test_overlay_is_saved_and_restored():
    disk = Disk.from_bytes(bytes(4096))
    disk.write(1, b"\x11" * 512)
    saved = disk.save()
    disk.write(1, b"\x22" * 512)
    disk.write(2, b"\x22" * 512)
    disk.restore(saved)
    assert disk.read(1, 2) == b"\x11" * 512 + bytes(512)
    assert disk.save() == saved


def test_file_that_shrinks_is_a_disk_error(image):
    disk = Disk.open(image)
    os.truncate(image, 1024)
    with pytest.raises(DiskError, match="sector 2 is missing"):
        disk.read(1, 3)


def test_protected_medium_refuses_writes():
    disk = Disk.from_bytes(bytes(512), protected=True)
    with pytest.raises(DiskError, match="write-protected"):
        disk.write(0, bytes(512))


def test_failed_host_write_names_the_sector(image, monkeypatch):
    disk = Disk.open(image, write=True)

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset >= 3 * 512:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskError, match="sector 3 cannot be written: No space left on device"):
        disk.write(2, b"\xaa" * 1536)
    assert image.read_bytes()[1024:2048] == b"\xaa" * 512 + b"\x03" * 512


@pytest.mark.parametrize(("lba", "count"), [(8, 1), (7, 2), (-1, 1)])
def test_sectors_outside_are_the_callers_error(image, lba, count):
    with pytest.raises(ValueError, match="has 8"):
        Disk.open(image).read(lba, count)


@pytest.mark.parametrize(
    ("sectors", "expected"),
    [(20160, (20, 16, 63)), (1 << 25, (16383, 16, 63)), (100, (1, 1, 63)), (1, (1, 1, 1)), (126, (1, 2, 63))],
)
def test_drive_geometry_never_exceeds_the_medium(sectors, expected):
    disk = Disk("x", None, b"", sectors, write=False, protected=False)
    assert disk.drive_geometry() == Geometry(*expected)


def partitioned(sectors: int, heads: int, track: int, start: int, length: int, wrong: int = 0) -> Disk:
    def chs(lba: int) -> bytes:
        cylinder, rest = divmod(lba, heads * track)
        cylinder = min(cylinder, 1023)
        return bytes([rest // track, rest % track + 1 | cylinder >> 2 & 0xC0, cylinder & 255])

    entry = b"\x80" + chs(start + wrong) + b"\x06" + chs(start + length - 1) + struct.pack("<II", start, length)
    data = bytearray(sectors * 512)
    data[446:462] = entry
    data[510:512] = b"\x55\xaa"
    return Disk.from_bytes(bytes(data))


def test_geometry_comes_from_a_partition_that_agrees_with_itself():
    # the partition ends at a cylinder's end, as DOS makes it
    disk = partitioned(4 * 17 * 100, 4, 17, 17, 4 * 17 * 50 - 17)
    assert disk.geometry() == Geometry(100, 4, 17)


def test_geometry_may_have_255_heads():
    disk = partitioned(255 * 63 * 2, 255, 63, 63, 255 * 63 - 63)
    assert disk.geometry() == Geometry(2, 255, 63)
    assert disk.drive_geometry().heads == 16


def test_partition_whose_fields_disagree_says_nothing():
    disk = partitioned(4 * 17 * 100, 4, 17, 17, 4 * 17 * 50 - 17, wrong=1)
    assert disk.geometry() == disk.drive_geometry()


def test_geometry_comes_from_a_bios_parameter_block():
    boot = bytearray(2880 * 512)
    boot[0:3] = b"\xeb\x3c\x90"
    boot[11:13] = struct.pack("<H", 512)
    boot[24:28] = struct.pack("<HH", 18, 2)
    assert Disk.from_bytes(bytes(boot)).geometry() == Geometry(80, 2, 18)
    boot[0:3] = b"\xe9\x00\x00"
    assert Disk.from_bytes(bytes(boot)).geometry() == Geometry(80, 2, 18)
    boot[0:3] = b"\xeb\x3c\x00"
    assert Disk.from_bytes(bytes(boot)).geometry() != Geometry(80, 2, 18)
