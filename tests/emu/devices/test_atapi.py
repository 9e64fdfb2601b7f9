"""The CD-ROM drive against ATA-6 (T13 1410D), MMC-3 (T10 1363D) and SPC-2 (T10 1236D)."""

from __future__ import annotations

import pytest

from emu.devices.ide import IdeChannel
from emu.media import Disk, DiskError
from virtual_time import VirtualTime

DATA, FEATURES, REASON, LOW, MID, HIGH, DEVICE, COMMAND = range(8)
ERROR, STATUS = FEATURES, COMMAND
BSY, DRDY, DRQ, ERR = 0x80, 0x40, 0x08, 0x01
COD, IO = 1, 2
FRAMES = 400


def disc() -> Disk:
    """Frame n holds n in each of its dwords."""
    return Disk.from_bytes(b"".join(n.to_bytes(4, "little") * 512 for n in range(FRAMES)))


class Bench(VirtualTime):
    def __init__(self, *, attention: bool = False) -> None:
        super().__init__()
        self.irq, self.edges = False, 0
        self.disk = disc()
        self.channel = IdeChannel(self.clock, self._line, (self.disk, None), "ide1", (True, False))
        if not attention:
            assert self.packet(0x00) == b""
            assert self.sense() == (6, 0x29, 0)

    def _line(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def out(self, offset: int, value: int) -> None:
        self.channel.write(offset, value, 1)

    def inb(self, offset: int) -> int:
        return self.channel.read(offset, 1)

    def wait(self) -> int:
        while self.channel.peek(STATUS, 1) & BSY:
            assert self.step()
        return self.channel.peek(STATUS, 1)

    def ata(self, command: int) -> int:
        self.out(COMMAND, command)
        return self.wait()

    def packet(self, *words: int, limit: int = 0xFFFE) -> bytes:
        """Send a packet and take its data; the sizes of the DRQ blocks are left in `blocks`."""
        self.out(FEATURES, 0)
        self.out(MID, limit & 0xFF)
        self.out(HIGH, limit >> 8)
        assert self.ata(0xA0) & (DRQ | ERR) == DRQ
        assert self.inb(REASON) & 3 == COD
        assert not self.irq
        for at in range(0, 12, 2):
            low, high = (words[i] if i < len(words) else 0 for i in (at, at + 1))
            self.channel.write(DATA, low | high << 8, 2)
        data, self.blocks = b"", []
        while self.wait() & DRQ:
            assert self.irq
            self.inb(STATUS)
            assert self.inb(REASON) & 3 == IO
            size = self.inb(MID) | self.inb(HIGH) << 8
            self.blocks.append(size)
            piece = b"".join(self.channel.read(DATA, 2).to_bytes(2, "little") for _ in range((size + 1) // 2))
            data += piece[:size]
        assert self.irq
        assert self.inb(REASON) & 3 == COD | IO
        self.status = self.inb(STATUS)
        return data

    def sense(self) -> tuple[int, int, int]:
        data = self.packet(0x03, 0, 0, 0, 18)
        return data[2], data[12], data[13]

    def refused(self, *words: int) -> tuple[int, int, int]:
        assert self.packet(*words) == b""
        assert self.status & ERR
        key = self.inb(ERROR) >> 4
        sense = self.sense()
        assert sense[0] == key
        return sense


def big(value: int, size: int) -> tuple[int, ...]:
    return tuple(value.to_bytes(size, "big"))


def numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 2048)]


def test_the_signature_after_power_on_and_device_reset():
    bench = Bench(attention=True)
    for _ in range(2):
        assert [bench.inb(i) for i in (REASON, LOW, MID, HIGH)] == [1, 1, 0x14, 0xEB]
        assert bench.inb(STATUS) == 0
        bench.out(MID, 0)
        assert bench.ata(0x08) == 0
        assert not bench.irq


def test_identify_device_and_read_sectors_are_aborted_with_the_signature():
    bench = Bench()
    for command in (0xEC, 0x20):
        bench.out(MID, 0)
        assert bench.ata(command) & ERR
        assert (bench.inb(ERROR), bench.inb(MID), bench.inb(HIGH)) == (4, 0x14, 0xEB)


def test_identify_packet_device():
    bench = Bench()
    assert bench.ata(0xA1) & DRQ
    words = [bench.channel.read(DATA, 2) for _ in range(256)]
    assert words[0] == 0x85C0  # ATAPI, CD-ROM, removable, 12-byte packets
    assert words[49] & 0x0300 == 0x0200  # LBA, no DMA
    assert not bench.inb(STATUS) & DRQ


def test_a_reset_is_a_unit_attention_once():
    bench = Bench(attention=True)
    assert bench.packet(0x12, 0, 0, 0, 36)[:2] == b"\x05\x80"  # INQUIRY is answered all the same
    assert bench.refused(0x00) == (6, 0x29, 0)
    assert bench.packet(0x00) == b""
    assert not bench.status & ERR


def test_capacity_and_reads():
    bench = Bench()
    assert bench.packet(0x25) == bytes((*big(FRAMES - 1, 4), *big(2048, 4)))
    assert numbers(bench.packet(0x28, 0, *big(7, 4), 0, *big(20, 2))) == list(range(7, 27))
    assert numbers(bench.packet(0xA8, 0, *big(100, 4), *big(70, 4))) == list(range(100, 170))
    assert bench.packet(0x28, 0, *big(7, 4), 0, 0, 0) == b""
    assert not bench.status & ERR


@pytest.mark.parametrize(
    ("limit", "blocks"), [(2048, [2048, 2048]), (3000, [3000, 1096]), (0, [4096]), (4095, [4094, 2]), (0xFFFF, [4096])]
)
def test_the_byte_count_limit(limit, blocks):
    bench = Bench()
    edges = bench.edges
    data = bench.packet(0x28, 0, *big(3, 4), 0, *big(2, 2), limit=limit)
    assert (numbers(data), bench.blocks) == ([3, 4], blocks)
    assert bench.edges - edges == len(blocks) + 1


@pytest.mark.parametrize("lba", [FRAMES, FRAMES - 1, 0xFFFFFFFF])
def test_reads_behind_the_end(lba):
    assert Bench().refused(0x28, 0, *big(lba, 4), 0, *big(2, 2)) == (5, 0x21, 0)


def test_what_the_host_cannot_read_is_a_medium_error():
    bench = Bench()

    def fail(*_: object) -> bytes:
        raise DiskError("gone")

    bench.disk.read = fail  # type: ignore[method-assign,assignment]
    assert bench.refused(0x28, 0, *big(2, 4), 0, *big(2, 2)) == (3, 0x11, 0)


def test_unknown_packets_and_bad_fields():
    bench = Bench()
    assert bench.refused(0xFF) == (5, 0x20, 0)
    assert bench.refused(0x12, 1, 0, 0, 36) == (5, 0x24, 0)
    assert bench.refused(0x43, 0, 5, 0, 0, 0, 0, 0, 100) == (5, 0x24, 0)


def test_the_table_of_contents():
    bench = Bench()
    lead_out = big(FRAMES, 4)
    toc = bench.packet(0x43, 0, 0, 0, 0, 0, 0, 0, 100)
    assert toc == bytes((0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0, *lead_out))
    # 400 frames and the 150 of the pregap: 0 min 7 s 25 frames
    assert bench.packet(0x43, 2, 0, 0, 0, 0, 0xAA, 0, 100)[8:] == bytes((0, 0, 7, 25))
    assert bench.packet(0x43, 0, 0, 0, 0, 0, 0, 0, 4) == toc[:4]
    assert bench.packet(0x43, 0, 1, 0, 0, 0, 0, 0, 100)[:4] == bytes((0, 10, 1, 1))
    assert bench.packet(0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0x40)[:4] == bytes((0, 10, 1, 1))  # as SFF-8020i has it
    full = bench.packet(0x43, 2, 2, 0, 0, 0, 0, 0, 100)
    assert [full[at + 3] for at in range(4, len(full), 11)] == [0xA0, 0xA1, 0xA2, 1]


def test_read_cd_gives_the_fields_asked_for():
    bench = Bench()
    read = (0xBE, 0, *big(16, 4), *big(1, 3))
    assert bench.packet(*read, 0x10) == (16).to_bytes(4, "little") * 512
    raw = bench.packet(*read, 0xF8)
    assert len(raw) == 2352
    # frame 16 is at 00:02:16
    assert raw[:16] == b"\0" + b"\xff" * 10 + b"\0" + bytes((0x00, 0x02, 0x16, 1))
    assert bench.packet(*read, 0) == b""
    assert bench.refused(0xBE, 0x04, *read[2:], 0x10) == (5, 0x64, 0)  # not CD-DA
    by_msf = bench.packet(0xB9, 0, 0, 0, 2, 16, 0, 2, 18, 0x10)
    assert numbers(by_msf) == [16, 17]


def test_eject_load_and_lock():
    bench = Bench()
    bench.packet(0x1E, 0, 0, 0, 1)
    assert bench.refused(0x1B, 0, 0, 0, 2) == (5, 0x53, 2)
    bench.packet(0x1E, 0, 0, 0, 0)
    bench.packet(0x1B, 0, 0, 0, 2)
    assert bench.refused(0x00) == (2, 0x3A, 2)
    assert bench.refused(0x28, 0, *big(0, 4), 0, *big(1, 2)) == (2, 0x3A, 2)
    assert bench.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4:6] == bytes((3, 1))
    bench.packet(0x1B, 0, 0, 0, 3)
    assert bench.refused(0x00) == (6, 0x28, 0)
    assert bench.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4:6] == bytes((2, 2))
    assert bench.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4:6] == bytes((0, 2))


def test_mode_pages_and_configuration():
    bench = Bench()
    page = bench.packet(0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 255)
    assert (page[8], page[9], len(page)) == (0x2A, 18, 8 + 20)
    every = bench.packet(0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255)
    assert int.from_bytes(every[:2], "big") == len(every) - 2 == 58
    assert bench.refused(0x5A, 0, 0x1A, 0, 0, 0, 0, 0, 255) == (5, 0x24, 0)
    features = bench.packet(0x46, 0, 0, 0, 0, 0, 0, 1, 0)
    assert int.from_bytes(features[:4], "big") == len(features) - 4
    assert int.from_bytes(features[6:8], "big") == 8  # the profile CD-ROM
    only = bench.packet(0x46, 2, 0, 0x1E, 0, 0, 0, 1, 0)
    assert only[8:] == bytes((0, 0x1E, 1, 4, 0, 0, 0, 0))


def test_seeks():
    bench = Bench()
    assert bench.packet(0x2B, 0, *big(FRAMES - 1, 4)) == b""
    assert not bench.status & ERR
    assert bench.refused(0x2B, 0, *big(FRAMES, 4)) == (5, 0x21, 0)


def test_dma_and_overlap_are_refused():
    bench = Bench()
    bench.out(FEATURES, 1)
    assert bench.ata(0xA0) & ERR
    assert bench.inb(ERROR) == 4


def test_a_state_taken_in_the_middle_of_a_read_goes_on_elsewhere():
    bench, other = Bench(), Bench()
    bench.out(MID, 0)
    bench.out(HIGH, 8)
    bench.ata(0xA0)
    for word in (0x28, 0, 5 << 8, 0, 3, 0):
        bench.channel.write(DATA, word, 2)
    bench.wait()
    bench.channel.read(DATA, 2)
    other.channel.restore(bench.channel.save())
    other.clock.restore(bench.clock.save())
    rest = []
    for each in (bench, other):
        data = []
        while each.wait() & DRQ:
            data.append(each.channel.read(DATA, 2))
        rest.append(data)
    assert rest[0] == rest[1]
    assert len(rest[0]) == 3 * 1024 - 1
    assert other.channel.save() == bench.channel.save()
    assert any(field.value == "CD-ROM" for field in other.channel.view().fields)
