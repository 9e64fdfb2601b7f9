"""Which drive an image belongs in, and what is booted first."""

from __future__ import annotations

import pytest

from emu.devices.rtc146818 import BOOT_CODES
from emu.machine import MachineConfig
from emu.media import Disk
from repl.cli import run_parser
from repl.media import kind_of, open_media
from repl.options import UsageError


def iso(size: int = 40 * 2048) -> bytes:
    data = bytearray(size)
    data[16 * 2048 : 16 * 2048 + 6] = b"\1CD001"
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bytes(1440 << 10), "floppy"), (bytes(160 << 10), "floppy"), (bytes((1440 << 10) + 512), "disk"),
        (bytes(512), "disk"), (iso(), "cdrom"), (iso(1440 << 10), "floppy"), (b"\x55\xaa" + iso()[2:], "cdrom"),
    ],
)  # fmt: skip
def test_an_image_is_taken_for_what_its_size_and_content_say(data, kind):
    assert kind_of(Disk.from_bytes(data)) == kind


@pytest.fixture
def files(tmp_path):
    for name, data in (("floppy", bytes(360 << 10)), ("disk", bytes(5000)), ("cdrom", iso())):
        (tmp_path / name).write_bytes(data)
    return tmp_path


def opened(*arguments: object) -> MachineConfig:
    config = MachineConfig()
    open_media(run_parser().parse_args([str(word) for word in arguments]), config)
    return config


def test_the_image_is_booted_first_unless_told_otherwise(files):
    words = (files / "disk", "--floppy", files / "floppy", "--cdrom", files / "cdrom")
    assert opened(*words).boot == ["disk", "floppy", "cdrom"]
    assert opened(*words, "--boot", "cdrom").boot == ["cdrom", "floppy", "disk"]
    assert opened("--disk", files / "disk", "--floppy", files / "floppy").boot == ["floppy", "disk"]
    assert set(opened(*words).boot) <= set(BOOT_CODES)


def test_a_hybrid_image_is_a_disk_when_said_so(files):
    config = opened("--disk", files / "cdrom")
    assert ([len(config.disks), len(config.cdroms)], config.boot) == ([1, 0], ["disk"])


def test_virtio_disks_are_disks_to_boot_from(files):
    config = opened(
        "--virtio", files / "disk", "--virtio", files / "cdrom", "--floppy", files / "floppy", "--boot", "disk"
    )
    assert ([disk.sectors for disk in config.virtio], config.boot) == ([10, 160], ["disk", "floppy"])
    assert not config.disks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--boot", "floppy"), "no floppy image is given; add --floppy FILE"),
        (("--floppy", "floppy", "--floppy", "floppy", "--floppy", "floppy"), "2 can be there"),
        (("--cdrom", "cdrom", "cdrom"), "1 can be there"),
    ],
)
def test_what_cannot_be_is_said(files, monkeypatch, words, said):
    monkeypatch.chdir(files)
    with pytest.raises(UsageError, match=said):
        opened(*words)
