"""Bus-master transfers of an ATA drive: every sector before one that fails, and the registers at that one."""

from __future__ import annotations

import pytest

from emu.devices.busmaster_ide import IdeFunction
from emu.devices.ide import IdeChannel
from emu.devices.pci import COMMAND
from emu.media import Disk, DiskError
from virtual_time import VirtualTime

TABLE, DATA, BAD = 0x1000, 0x10000, 50


class Ram:
    def __init__(self) -> None:
        self.bytes = bytearray(1 << 20)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.bytes[address : address + length])

    def write(self, address: int, data: bytes) -> bool:
        self.bytes[address : address + len(data)] = data
        return True

    def reaches(self, address: int, length: int) -> bool:
        return True


class Failing(Disk):
    """Sector BAD fails, and is named, as a disk's that its host fails."""

    def read(self, lba: int, count: int) -> bytes:
        if lba <= BAD < lba + count:
            raise DiskError("cannot be read", BAD)
        return super().read(lba, count)

    def write(self, lba: int, data: bytes) -> None:
        if lba <= BAD < lba + len(data) // 512:
            super().write(lba, data[: (BAD - lba) * 512])
            raise DiskError("cannot be written", BAD)
        super().write(lba, data)


class Host:
    def __init__(self) -> None:
        self.time, self.ram = VirtualTime(), Ram()
        content = b"".join(bytes((n,)) * 512 for n in range(256))
        self.disk = Failing("disk", None, content, 256, write=False, protected=False)
        self.channel = IdeChannel(self.time.clock, lambda level: None, (self.disk, None))
        self.function = IdeFunction(self.ram, (self.channel, None))
        self.function.config_write(COMMAND, 5, 2)

    def transfer(self, command: int, lba: int, count: int, *pieces: int) -> tuple[int, int, int]:
        """Status, error, and the LBA that the drive shows. `pieces`: bytes of each descriptor."""
        at = DATA
        for n, size in enumerate(pieces):
            entry = at.to_bytes(4, "little") + (size & 0xFFFF).to_bytes(4, "little")
            self.ram.write(TABLE + 8 * n, entry[:7] + bytes((0x80 if n == len(pieces) - 1 else 0,)))
            at += size
        to_memory = command == 0xC8
        engine = self.function.bars[4].face
        engine.write(4, TABLE, 4)
        engine.write(0, 8 if to_memory else 0, 1)
        for offset, value in ((6, 0xE0), (2, count), (3, lba), (4, 0), (5, 0), (7, command)):
            self.channel.write(offset, value, 1)
        engine.write(0, 9 if to_memory else 1, 1)
        self.time.advance(10_000_000)
        return self.channel.read(7, 1), self.channel.read(1, 1), self.channel.read(3, 1)


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_whole_command_moves_along_descriptors_of_any_size(host):
    status, _, _ = host.transfer(0xC8, 1, 40, 2, 510, 1000, 40 * 512 - 1512)
    assert not status & 0x89
    assert host.ram.read(DATA, 40 * 512) == b"".join(bytes((n,)) * 512 for n in range(1, 41))


def test_sectors_before_one_that_cannot_be_read_arrive(host):
    status, error, lba = host.transfer(0xC8, 40, 20, 20 * 512)
    assert status & 1 and error & 0x40 and lba == BAD
    assert host.ram.read(DATA, 11 * 512) == b"".join(bytes((n,)) * 512 for n in range(40, 50)) + bytes(512)


def test_sectors_before_one_that_cannot_be_written_are_on_the_disk_and_none_behind(host):
    host.ram.write(DATA, b"\xee" * 512 * 20)
    status, _, lba = host.transfer(0xCA, 40, 20, 20 * 512)
    assert status & 1 and lba == BAD
    for sector in range(39, 62):
        if sector != BAD:
            expected = 0xEE if 40 <= sector < BAD else sector
            assert Disk.read(host.disk, sector, 1) == bytes((expected,)) * 512, sector
