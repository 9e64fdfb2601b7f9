"""The floppy disk controller against the 82077AA data sheet (Intel 290166)."""

from __future__ import annotations

import pytest

from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077 import Fdc82077
from emu.devices.floppy_drive import FORMATS, HASTE, FloppyDrive
from emu.media import Disk, DiskError
from virtual_time import VirtualTime

DOR, MSR, FIFO, CHANGE = 2, 4, 5, 7
RATE_OF = {500: 0, 300: 1, 250: 2, 1000: 3}
READ, WRITE, DELETED, READ_DELETED = 0x46, 0x45, 0x49, 0x4C


def diskette(kib: int = 1440, protected: bool = False) -> Disk:
    """Sector n holds n in each of its dwords."""
    data = b"".join(n.to_bytes(4, "little") * 128 for n in range(kib * 2))
    return Disk.from_bytes(data, f"{kib}K", protected=protected)


class Bench(VirtualTime):
    """The chip out of reset, drive 0 selected and turning, the poll's interrupts taken, DMA to 10000h."""

    def __init__(self, *disks: Disk, rate: int = 500, non_dma: bool = False) -> None:
        super().__init__()
        self.memory = bytearray(1 << 20)
        self.irq, self.edges = False, 0
        self.dma = DmaPair(lambda at, n: bytes(self.memory[at : at + n]), self._store)
        self.fdc = Fdc82077(self.clock, self._line, self.dma, disks or (diskette(),))
        self.dma.high.write(0xB << 1, 0xC0, 1)
        self.dma.high.write(0xA << 1, 0, 1)
        self.fdc.write(DOR, 0x0C, 1)
        self.advance(1_000_000)
        assert self.irq
        assert [self.command(0x08) for _ in range(4)] == [[0xC0 | unit, 0] for unit in range(4)]
        assert not self.irq
        self.fdc.write(CHANGE, RATE_OF[rate], 1)
        self.command(0x03, 0xAF, 0x02 | non_dma)
        self.fdc.write(DOR, 0x1C, 1)

    def _store(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def _line(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def inb(self, port: int) -> int:
        return self.fdc.read(port, 1)

    def start(self, *command: int) -> None:
        for byte in command:
            assert self.inb(MSR) & 0xC0 == 0x80
            self.fdc.write(FIFO, byte, 1)

    def command(self, *command: int) -> list[int]:
        """To the end of the command; its results."""
        self.start(*command)
        for _ in range(200):
            if self.inb(MSR) & 0x80:
                break
            assert self.step(), "the command waits for ever"
        return self.results()

    def results(self) -> list[int]:
        out = []
        while self.inb(MSR) & 0xD0 == 0xD0:
            out.append(self.inb(FIFO))
        return out

    def seek(self, cylinder: int, unit: int = 0) -> list[int]:
        self.start(0x0F, unit, cylinder)
        self.advance(2_000_000_000)
        assert self.irq
        return self.command(0x08)

    def program(self, count: int, mode: int) -> None:
        low = self.dma.low
        self.dma.pages.write(0, 1, 1)
        for port, value in ((0xC, 0), (4, 0), (4, 0), (5, count - 1 & 0xFF), (5, count - 1 >> 8), (0xB, mode | 2),
                            (0xA, 2)):  # fmt: skip
            low.write(port, value, 1)

    def read(self, count: int, code: int, c: int, h: int, r: int, eot: int = 18, n: int = 2) -> list[int]:
        self.program(count, 0x44)
        return self.command(code, h << 2, c, h, r, n, eot, 0x1B, 0xFF)

    def write(self, data: bytes, code: int, c: int, h: int, r: int, eot: int = 18) -> list[int]:
        self.memory[0x10000 : 0x10000 + len(data)] = data
        self.program(len(data), 0x48)
        return self.command(code, h << 2, c, h, r, 2, eot, 0x1B, 0xFF)

    def sector_numbers(self, count: int) -> list[int]:
        return [int.from_bytes(self.memory[at : at + 4], "little") for at in range(0x10000, 0x10000 + 512 * count, 512)]


@pytest.mark.parametrize("kib", sorted(FORMATS))
def test_every_standard_diskette_is_read_at_its_rate_and_no_other(kib):
    f = FORMATS[kib]
    for rate in RATE_OF:
        bench = Bench(diskette(kib), rate=rate)
        bench.seek(f.cylinders - 1)
        head = f.heads - 1
        got = bench.read(512, READ, f.cylinders - 1, head, f.sectors, f.sectors)
        if rate in f.rates:
            assert got[:3] == [head << 2, 0, 0]
            assert bench.sector_numbers(1) == [kib * 2 - 1]
        else:
            assert got[:3] == [0x40 | head << 2, 0x01, 0]  # missing address mark


def test_multi_track_reads_both_sides_and_points_behind():
    bench = Bench()
    bench.seek(3)
    assert bench.read(36 * 512, 0xC6, 3, 0, 1) == [0, 0, 0, 4, 0, 1, 2]
    assert bench.sector_numbers(36) == list(range(3 * 36, 4 * 36))


def test_a_read_past_the_end_of_track_without_terminal_count():
    bench = Bench()
    assert bench.read(1024, READ, 0, 0, 18) == [0x40, 0x80, 0, 1, 0, 1, 2]


@pytest.mark.parametrize(("c", "r", "n", "st1", "st2"), [(0, 19, 2, 4, 0), (5, 1, 2, 4, 0x10), (0, 1, 3, 4, 0)])
def test_a_sector_that_is_not_there(c, r, n, st1, st2):
    assert Bench().read(512, READ, c, 0, r, 30, n)[:3] == [0x40, st1, st2]


def test_terminal_count_in_a_sector_ends_the_read():
    bench = Bench()
    assert bench.read(100, READ, 0, 0, 1) == [0, 0, 0, 0, 0, 2, 2]
    assert bench.memory[0x10000 + 99 : 0x10000 + 101] == b"\0\0"


def test_writes_reach_the_disk_and_a_short_one_is_filled_with_zeros():
    bench = Bench()
    assert bench.write(b"a" * 512 + b"b" * 100, WRITE, 0, 0, 2)[:3] == [0, 0, 0]
    disk = bench.fdc.drives[0].disk
    assert disk.read(1, 2) == b"a" * 512 + b"b" * 100 + bytes(412)
    assert disk.read(3, 1)[:4] == b"\3\0\0\0"


def test_a_protected_diskette_is_not_written():
    bench = Bench(diskette(protected=True))
    assert bench.write(b"a" * 512, WRITE, 0, 0, 1)[:3] == [0x40, 0x02, 0]
    assert bench.command(0x04, 0) == [0x78]  # WP, T0


def test_deleted_data_marks():
    bench = Bench()
    bench.write(b"d" * 512, DELETED, 0, 0, 2)
    assert bench.read(3 * 512, READ, 0, 0, 1)[:3] == [0, 0, 0x40]  # stops behind it, with CM
    assert bench.memory[0x10200:0x10400] == b"d" * 512
    assert bench.read(2 * 512, READ | 0x20, 0, 0, 1)[:3] == [0, 0, 0x40]
    assert bench.sector_numbers(2) == [0, 2]  # SK passes over it
    assert bench.read(512, READ_DELETED, 0, 0, 2)[:3] == [0, 0, 0]
    bench.write(b"e" * 512, WRITE, 0, 0, 2)
    assert bench.read(512, READ, 0, 0, 2)[:3] == [0, 0, 0]


def test_read_id_gives_the_sectors_in_turn():
    bench = Bench()
    bench.seek(7)
    seen = [tuple(bench.command(0x4A, 4)[3:]) for _ in range(40)]
    assert {(c, h, n) for c, h, _, n in seen} == {(7, 1, 2)}
    assert {r for _, _, r, _ in seen} == set(range(1, 19))


def test_read_track_begins_at_the_index_and_says_when_ids_do_not_match():
    bench = Bench()
    assert bench.read(18 * 512, 0x42, 0, 0, 1)[:3] == [0, 0, 0]
    assert bench.sector_numbers(18) == list(range(18))
    assert bench.read(4 * 512, 0x42, 9, 0, 1, 4)[:2] == [0, 4]
    assert bench.sector_numbers(4) == [0, 1, 2, 3]


def test_verify_moves_no_data():
    bench = Bench()
    assert bench.command(0x56, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[:3] == [0, 0, 0]
    assert bench.command(0x56, 0x80, 0, 0, 1, 2, 18, 0x1B, 4) == [0, 0, 0, 0, 0, 5, 2]
    assert bench.command(0x56, 0, 0, 0, 1, 2, 19, 0x1B, 0xFF)[:2] == [0x40, 4]


@pytest.mark.parametrize(
    ("code", "host", "st2"),
    [(0x51, 5, 8), (0x51, 77, 4), (0x59, 5, 8), (0x59, 6, 0), (0x5D, 3, 0), (0x5D, 99, 4), (0x51, 0xFFFFFFFF, 8)],
)
def test_scans_compare(code, host, st2):
    """Sector 6 holds 5: equal, low or equal (disk <= host), high or equal, wild FFh."""
    bench = Bench()
    bench.memory[0x10000:0x10200] = (host & 0xFFFFFFFF).to_bytes(4, "little") * 128
    bench.program(512, 0x48)
    assert bench.command(code, 0, 0, 0, 6, 2, 6, 0x1B, 1)[:3] == [0, 0, st2]


@pytest.mark.parametrize("code", [0x51, 0x59, 0x5D])
@pytest.mark.parametrize(("disk", "host"), [(0xFF, 0x12), (0x12, 0xFF)])
def test_a_byte_of_ffh_on_either_side_meets_every_scan_s_condition(code, disk, host):
    """NEC uPD765A data sheet, "Scan Commands": FFh "either from memory or from FDD can be used as a mask byte"."""
    bench = Bench(Disk.from_bytes(bytes((5, disk, 5, 5)) * (1440 * 256), "1440K"))
    bench.memory[0x10000:0x10200] = bytes((5, host, 5, 5)) * 128
    bench.program(512, 0x48)
    assert bench.command(code, 0, 0, 0, 6, 2, 6, 0x1B, 1)[:3] == [0, 0, 8]


def test_format_writes_the_fill_byte_and_odd_formats_are_kept():
    bench = Bench()
    bench.seek(2)
    ids = b"".join(bytes((2, 0, r, 2)) for r in range(1, 19))
    bench.memory[0x10000 : 0x10000 + 72] = ids
    bench.program(72, 0x48)
    assert bench.command(0x4D, 0, 2, 18, 0x50, 0xF6)[:3] == [0, 0, 0]
    assert bench.fdc.drives[0].disk.read(72, 18) == b"\xf6" * 512 * 18
    assert not bench.fdc.drives[0].state.tracks
    bench.memory[0x10000:0x10004] = bytes((9, 9, 9, 3))
    bench.program(4, 0x48)
    assert bench.command(0x4D, 0, 3, 1, 0x50, 0x11)[:3] == [0, 0, 0]
    bench.program(1024, 0x44)
    assert bench.command(READ, 0, 9, 9, 9, 3, 9, 0x1B, 0xFF)[:3] == [0, 0, 0]
    assert bench.memory[0x10000:0x10400] == b"\x11" * 1024
    assert bench.read(512, READ, 2, 0, 1)[:2] == [0x40, 4]


def test_programmed_io_gives_a_sector_an_interrupt():
    bench = Bench(non_dma=True)
    before = bench.edges
    bench.start(READ, 0, 0, 0, 17, 2, 18, 0x1B, 0xFF)
    data = []
    for number in (1, 2):
        while not bench.irq:
            assert bench.step()
        assert (bench.inb(MSR), bench.edges) == (0xF0, before + number)
        data.append(bytes(bench.inb(FIFO) for _ in range(512)))
        assert bench.irq == (number == 2)  # the result phase has one of its own
    assert [int.from_bytes(sector[:4], "little") for sector in data] == [16, 17]
    # no terminal count in this mode: the end of the cylinder is an abnormal one
    assert bench.results() == [0x40, 0x80, 0, 1, 0, 1, 2]


def test_programmed_io_that_is_too_slow_overruns():
    bench = Bench(non_dma=True)
    bench.start(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    bench.advance(100_000_000)
    assert bench.results()[:2] == [0x40, 0x10]


def test_programmed_io_writes():
    bench = Bench(non_dma=True)
    bench.start(WRITE, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF)
    while not bench.irq:
        assert bench.step()
    assert bench.inb(MSR) == 0xB0
    for _ in range(512):
        bench.fdc.write(FIFO, 0x77, 1)
    bench.advance(10_000_000)
    assert bench.results()[:2] == [0x40, 0x80]
    assert bench.fdc.drives[0].disk.read(17, 1) == b"\x77" * 512


def test_a_masked_dma_channel_overruns():
    bench = Bench()
    assert bench.command(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[:2] == [0x40, 0x10]


def test_seek_recalibrate_and_relative_seek():
    bench = Bench()
    assert bench.seek(30) == [0x20, 30]
    assert bench.fdc.drives[0].state.cylinder == 30
    bench.start(0x8F, 0, 4)
    bench.advance(10**9)
    assert bench.command(0x08) == [0x20, 26]
    bench.start(0x07, 0)
    assert bench.inb(MSR) == 0x10
    bench.advance(20_000)
    assert bench.inb(MSR) == 0x81  # the drive is busy, the controller is not
    bench.advance(10**9)
    assert bench.command(0x08) == [0x20, 0]
    assert bench.command(0x08) == [0x80]


def test_recalibrating_a_drive_that_is_not_there():
    bench = Bench()
    bench.fdc.write(DOR, 0x2D, 1)
    bench.start(0x07, 1)
    bench.advance(10**9)
    assert bench.command(0x08) == [0x71, 0]


def test_the_step_rate_is_specify_s():
    bench = Bench()
    bench.command(0x03, 0x80, 2)  # 8 ms a step at 500 kbit/s
    bench.start(0x0F, 0, 10)
    bench.advance(80_000_000 // HASTE)
    assert not bench.irq
    bench.advance(10_000)
    assert bench.irq


def test_the_change_line_falls_with_a_step():
    bench = Bench()
    assert bench.inb(CHANGE) & 0x80
    bench.seek(1)
    assert not bench.inb(CHANGE) & 0x80


def test_without_a_turning_diskette_a_command_waits_for_a_reset():
    bench = Bench()
    bench.fdc.write(DOR, 0x0C, 1)
    bench.start(0x4A, 0)
    bench.advance(10**11)
    assert bench.inb(MSR) == 0x10
    bench.fdc.write(DOR, 0x08, 1)
    bench.fdc.write(DOR, 0x0C, 1)
    bench.advance(1_000_000)
    assert bench.command(0x08) == [0xC0, 0]


def test_implied_seek():
    bench = Bench()
    bench.command(0x13, 0, 0x60, 0)
    assert bench.read(512, READ, 40, 1, 5)[:3] == [0x24, 0, 0]
    assert bench.sector_numbers(1) == [40 * 36 + 18 + 4]


def test_lock_keeps_the_fifo_through_a_software_reset():
    bench = Bench()
    bench.command(0x13, 0, 0x17, 5)
    assert bench.command(0x94) == [0x10]
    bench.fdc.write(MSR, 0x80, 1)
    bench.advance(1_000_000)
    for _ in range(4):
        bench.command(0x08)
    assert bench.command(0x0E)[7:] == [0x80, 0x07, 5]
    assert bench.command(0x14) == [0]
    bench.fdc.write(MSR, 0x80, 1)
    bench.advance(1_000_000)
    for _ in range(4):
        bench.command(0x08)
    assert bench.command(0x0E)[7:] == [0, 0x20, 0]


def test_perpendicular_drive_bits_need_ow():
    bench = Bench()
    bench.command(0x12, 0x84)
    bench.command(0x12, 0x0B)
    assert bench.command(0x0E)[7] == 0x07


@pytest.mark.parametrize(("code", "answer"), [(0x10, 0x90), (0x00, 0x80), (0x1F, 0x80), (0xE5, 0x80)])
def test_version_and_invalid_commands(code, answer):
    bench = Bench()
    before = bench.edges
    assert bench.command(code) == [answer]
    assert bench.edges == before


def test_a_host_that_fails_is_a_data_error():
    bench = Bench()
    disk = bench.fdc.drives[0].disk

    def fail(*_: object) -> bytes:
        raise DiskError("gone")

    disk.read = disk.write = fail  # type: ignore[method-assign,assignment]
    assert bench.read(512, READ, 0, 0, 1)[:3] == [0x40, 0x20, 0x20]
    assert bench.write(b"a" * 512, WRITE, 0, 0, 1)[:3] == [0x40, 0x20, 0x20]


def test_the_gate_holds_back_irq_and_dma():
    bench = Bench()
    bench.fdc.write(DOR, 0x14, 1)
    assert bench.read(512, READ, 0, 0, 1)[:2] == [0x40, 0x10]
    assert not bench.irq


def test_a_state_taken_in_the_middle_of_a_read_goes_on_elsewhere():
    bench, other = Bench(), Bench()
    bench.program(4 * 512, 0x44)
    bench.start(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    bench.advance(1_000_000)
    other.memory[:] = bench.memory
    other.fdc.restore(bench.fdc.save())
    other.dma.restore(bench.dma.save())
    other.clock.restore(bench.clock.save())
    assert other.fdc.save() == bench.fdc.save()
    for each in (bench, other):
        each.advance(50_000_000)
    assert other.results() == bench.results() == [0, 0, 0, 0, 0, 5, 2]
    assert other.sector_numbers(4) == [0, 1, 2, 3]
    assert bench.fdc.view().chip == "Intel 82077AA"


@pytest.mark.parametrize(("sectors", "expected"), [(300, 1440), (2881, 2880), (5760, 2880), (320, 360)])
def test_images_of_other_sizes_are_on_the_next_larger_diskette(sectors, expected):
    drive = FloppyDrive(Disk.from_bytes(bytes(512 * sectors)))
    assert drive.format.drive == expected
    assert drive.read(0, 0, 512) == bytes(512)


def test_a_parameter_block_describes_an_unusual_format():
    sector = bytearray(512)
    sector[0:3], sector[11:13], sector[24:28] = b"\xeb\x3c\x90", b"\x00\x02", b"\x15\0\2\0"
    drive = FloppyDrive(Disk.from_bytes(bytes(sector) + bytes(80 * 2 * 21 * 512 - 512)))
    assert drive.format[:4] == (80, 2, 21, (500,))
