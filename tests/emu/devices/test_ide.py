"""The ATA channel against ATA-4 to ATA-6 (T13 1153D, 1321D, 1410D); clause numbers in the tests."""

from __future__ import annotations

import functools

import pytest

from emu.devices.ide import IdeChannel
from emu.devices.ide_drive import BLOCK_NS, COMMAND_NS, RESET_NS
from emu.media import Disk, DiskError
from virtual_time import VirtualTime

DATA, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, COMMAND = range(8)
ERROR, STATUS = FEATURES, COMMAND
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
READY = DRDY | DSC
SECTORS = 16 * 63 * 20


@functools.cache
def content(sectors: int) -> bytes:
    return b"".join(n.to_bytes(4, "little") * 128 for n in range(sectors))


def image(sectors: int = SECTORS) -> Disk:
    """Sector n holds n in each of its dwords."""
    return Disk.from_bytes(content(sectors))


class Bench(VirtualTime):
    def __init__(self, first: Disk | None = None, second: Disk | None = None, *, empty: bool = False) -> None:
        super().__init__()
        self.disk = first or image()
        self.irq = False
        self.edges = 0
        drives = (None, second) if empty else (self.disk, second)
        self.channel = IdeChannel(self.clock, self._irq, drives)

    def _irq(self, level: bool) -> None:
        self.edges += level and not self.irq
        self.irq = level

    def out(self, offset: int, value: int) -> None:
        self.channel.write(offset, value, 1)

    def inb(self, offset: int) -> int:
        return self.channel.read(offset, 1)

    def control(self, value: int) -> None:
        self.channel.control.write(0, value, 1)

    @property
    def alternate(self) -> int:
        return self.channel.control.read(0, 1)

    def address(self, lba: int, count: int, device: int = 0) -> None:
        for offset, value in ((COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
            self.out(offset, value & 0xFF)
        self.out(DEVICE, 0xE0 | device << 4 | lba >> 24)

    def address48(self, lba: int, count: int) -> None:
        self.out(DEVICE, 0x40)
        for offset, value in ((COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
            high = {COUNT: count >> 8, LOW: lba >> 24, MID: lba >> 32, HIGH: lba >> 40}[offset]
            self.out(offset, high & 0xFF)
            self.out(offset, value & 0xFF)

    def run(self, command: int, **registers: int) -> int:
        """Write the command, let BSY pass, and give the alternate status."""
        for name, value in registers.items():
            self.out({"features": FEATURES, "count": COUNT, "device": DEVICE}[name], value)
        self.out(COMMAND, command)
        self.advance(COMMAND_NS)
        return self.alternate

    def words(self, count: int = 256, size: int = 2) -> bytes:
        return b"".join(self.channel.read(DATA, size).to_bytes(size, "little") for _ in range(count))

    def read_data(self, sectors: int) -> list[int]:
        """Sectors as their numbers, polled as a driver would."""
        numbers = []
        for _ in range(sectors):
            while self.inb(STATUS) & BSY:
                assert self.step()
            assert self.inb(STATUS) & (DRQ | ERR) == DRQ
            numbers.append(int.from_bytes(self.words()[:4], "little"))
        return numbers

    def write_data(self, data: bytes, size: int = 2) -> None:
        for at in range(0, len(data), size):
            self.channel.write(DATA, int.from_bytes(data[at : at + size], "little"), size)

    def identify(self) -> list[int]:
        assert self.run(0xEC) & DRQ
        data = self.words()
        return [int.from_bytes(data[i : i + 2], "little") for i in range(0, 512, 2)]


# -- transfers


def test_read_goes_through_bsy_then_drq_and_interrupts():
    # ATA-6, 9.5 PIO data-in command protocol
    bench = Bench()
    bench.address(5, 1)
    bench.out(COMMAND, 0x20)
    assert (bench.alternate & (BSY | DRQ), bench.irq) == (BSY, False)
    bench.advance(COMMAND_NS - 1)
    assert bench.alternate & BSY
    bench.advance(1)
    assert (bench.alternate, bench.irq) == (READY | DRQ, True)
    assert bench.words() == (5).to_bytes(4, "little") * 128
    assert bench.alternate == READY


def test_reading_status_acknowledges_and_alternate_status_does_not():
    # ATA-6, 7.2, 7.14
    bench = Bench()
    bench.run(0xEC)
    assert (bench.alternate, bench.irq) == (READY | DRQ, True)
    bench.inb(STATUS)
    assert not bench.irq


def test_each_block_of_a_read_interrupts_and_the_end_does_not():
    bench = Bench()
    bench.address(7, 3)
    bench.run(0x20)
    assert bench.read_data(3) == [7, 8, 9]
    bench.advance(10 * BLOCK_NS)
    assert (bench.edges, bench.inb(STATUS)) == (3, READY)


def test_bsy_between_blocks():
    bench = Bench()
    bench.address(7, 2)
    bench.run(0x20)
    bench.words()
    assert bench.alternate & (BSY | DRQ) == BSY
    bench.advance(BLOCK_NS)
    assert bench.alternate & (BSY | DRQ) == DRQ


def test_count_zero_means_256_sectors():
    bench = Bench()
    bench.address(0, 0)
    bench.run(0x20)
    assert bench.read_data(256) == list(range(256))
    assert bench.alternate == READY


def test_registers_end_at_the_last_sector_with_count_zero():
    # ATA-1, 9.20: at command completion the registers hold the last sector read
    bench = Bench()
    bench.address(0x1FE, 3)
    bench.run(0x20)
    bench.read_data(3)
    assert [bench.inb(r) for r in (COUNT, LOW, MID, HIGH)] == [0, 0x00, 0x02, 0]


def test_chs_reads_the_sector_it_names():
    bench = Bench()
    for offset, value in ((COUNT, 1), (LOW, 4), (MID, 2), (HIGH, 0), (DEVICE, 0xA0 | 5)):
        bench.out(offset, value)
    bench.run(0x20)
    assert bench.read_data(1) == [(2 * 16 + 5) * 63 + 3]


def test_chs_counts_up_over_head_and_cylinder():
    bench = Bench()
    for offset, value in ((COUNT, 2), (LOW, 63), (MID, 0), (HIGH, 0), (DEVICE, 0xA0 | 15)):
        bench.out(offset, value)
    bench.run(0x20)
    bench.read_data(2)
    assert [bench.inb(r) for r in (LOW, MID, HIGH)] == [1, 1, 0]
    assert bench.inb(DEVICE) & 15 == 0


@pytest.mark.parametrize(("sector", "head"), [(0, 0), (64, 0), (1, 16 - 1)])
def test_chs_outside_the_translation_is_idnf(sector, head):
    bench = Bench()
    if head:  # a translation of 15 heads has no head 15
        bench.run(0x91, count=63, device=0xA0 | 14)
    for offset, value in ((COUNT, 1), (LOW, sector), (MID, 0), (HIGH, 0), (DEVICE, 0xA0 | head)):
        bench.out(offset, value)
    assert bench.run(0x20) & (ERR | DRQ) == ERR
    assert bench.inb(ERROR) == IDNF


def test_initialize_device_parameters_changes_the_translation():
    bench = Bench()
    assert bench.run(0x91, count=17, device=0xA0 | 3) == READY
    for offset, value in ((COUNT, 1), (LOW, 2), (MID, 1), (HIGH, 0), (DEVICE, 0xA0 | 1)):
        bench.out(offset, value)
    bench.run(0x20)
    assert bench.read_data(1) == [(1 * 4 + 1) * 17 + 1]
    assert bench.identify()[54:57] == [SECTORS // (4 * 17), 4, 17]


def test_data_port_takes_32_bit_accesses():
    bench = Bench()
    bench.address(9, 1)
    bench.run(0x20)
    assert bench.words(128, 4) == (9).to_bytes(4, "little") * 128
    assert bench.alternate == READY


def test_8_bit_register_access_of_two_ports_is_split():
    bench = Bench()
    bench.channel.write(COUNT, 0x3412, 2)
    assert (bench.inb(COUNT), bench.inb(LOW)) == (0x12, 0x34)
    assert bench.channel.read(COUNT, 2) == 0x3412


def test_48_bit_read_uses_previous_contents():
    # ATA-6, 6.20: FIFO registers of two bytes
    bench = Bench()
    bench.address48(0x1234, 0x0102)
    bench.run(0x24)
    assert bench.read_data(0x102) == list(range(0x1234, 0x1336))


def test_48_bit_count_zero_means_65536_and_high_address_is_idnf():
    bench = Bench()
    bench.address48(1 << 32, 0)
    assert bench.run(0x24) & ERR
    assert bench.inb(ERROR) == IDNF


def test_hob_shows_previous_contents_until_a_command_block_write():
    # ATA-6, 7.8: HOB is cleared by a write to any command block register
    bench = Bench()
    bench.address48(0xAABBCCDDEEFF, 0x1122)
    bench.control(0x80)
    assert [bench.inb(r) for r in (COUNT, LOW, MID, HIGH)] == [0x11, 0xCC, 0xBB, 0xAA]
    bench.out(FEATURES, 0)
    assert [bench.inb(r) for r in (COUNT, LOW, MID, HIGH)] == [0x22, 0xFF, 0xEE, 0xDD]


def test_write_asks_for_the_first_block_without_interrupt():
    # ATA-6, 9.6 PIO data-out command protocol
    bench = Bench()
    bench.address(3, 2)
    assert (bench.run(0x30) & (BSY | DRQ), bench.irq) == (DRQ, False)
    bench.write_data(b"\xaa" * 512)
    assert bench.alternate & BSY
    bench.advance(BLOCK_NS)
    assert (bench.alternate & DRQ, bench.irq) == (DRQ, True)
    bench.inb(STATUS)
    bench.write_data(b"\xbb" * 512, 4)
    bench.advance(BLOCK_NS)
    assert (bench.inb(STATUS), bench.edges) == (READY, 2)
    assert bench.disk.read(3, 2) == b"\xaa" * 512 + b"\xbb" * 512


def test_read_multiple_moves_blocks_with_one_interrupt_each():
    bench = Bench()
    assert bench.run(0xC6, count=4) == READY
    edges = bench.edges
    bench.address(10, 6)
    bench.run(0xC4)
    assert bench.words(1024)[-4:] == (13).to_bytes(4, "little")
    bench.advance(BLOCK_NS)
    assert len(bench.words(512)) == 1024
    assert (bench.alternate, bench.edges - edges) == (READY, 1)  # INTRQ was never acknowledged in between
    assert bench.identify()[59] == 0x0104


def test_write_multiple_stores_a_partial_last_block():
    bench = Bench()
    bench.run(0xC6, count=2)
    bench.address(20, 3)
    bench.run(0xC5)
    bench.write_data(b"\x11" * 1024)
    bench.advance(BLOCK_NS)
    bench.write_data(b"\x22" * 512)
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) == READY
    assert bench.disk.read(20, 3) == b"\x11" * 1024 + b"\x22" * 512


def test_multiple_commands_abort_before_set_multiple():
    bench = Bench()
    bench.address(0, 1)
    assert bench.run(0xC4) & ERR
    assert bench.inb(ERROR) == ABRT


def test_set_multiple_refuses_a_count_that_is_no_power_of_two():
    bench = Bench()
    assert bench.run(0xC6, count=3) & ERR
    assert bench.inb(ERROR) == ABRT


# -- errors


def test_reading_past_the_end_gives_the_good_sectors_then_idnf_at_the_first_bad_one():
    bench = Bench()
    bench.address(SECTORS - 2, 4)
    bench.run(0x20)
    assert bench.read_data(2) == [SECTORS - 2, SECTORS - 1]
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) & (ERR | DRQ) == ERR
    assert bench.inb(ERROR) == IDNF
    lba = bench.inb(LOW) | bench.inb(MID) << 8 | bench.inb(HIGH) << 16
    assert (lba, bench.inb(COUNT)) == (SECTORS, 2)


def test_writing_past_the_end_stores_what_fits():
    bench = Bench()
    bench.run(0xC6, count=2)
    bench.address(SECTORS - 1, 2)
    bench.run(0xC5)
    bench.write_data(b"\x77" * 1024)
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) & ERR
    assert (bench.inb(ERROR), bench.disk.read(SECTORS - 1, 1)) == (IDNF, b"\x77" * 512)


def test_unknown_commands_and_packet_identify_abort():
    bench = Bench()
    for command in (0xA1, 0xA0, 0xB0, 0xC8, 0x08, 0xF1):
        assert bench.run(command) == READY | ERR
        assert (bench.inb(ERROR), bench.irq) == (ABRT, True)
        bench.inb(STATUS)


def test_nop_always_aborts():
    bench = Bench()
    assert bench.run(0x00) & ERR
    assert bench.inb(ERROR) == ABRT


def test_next_command_clears_the_error():
    bench = Bench()
    bench.run(0x00)
    assert bench.run(0xE5) == READY
    assert bench.inb(ERROR) == 0


def test_host_read_failure_is_unc():
    class Broken(Disk):
        def read(self, lba: int, count: int) -> bytes:
            if lba <= 50 < lba + count:
                raise DiskError("sector 50 cannot be read")
            return super().read(lba, count)

    bench = Bench(Broken("broken", None, bytes(512 * 100), 100, write=False, protected=False))
    bench.address(49, 2)
    bench.run(0x20)
    bench.words()
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) & ERR
    assert (bench.inb(ERROR), bench.inb(LOW)) == (UNC, 50)


def test_host_write_failure_is_abrt_with_device_fault():
    class Full(Disk):
        def write(self, lba: int, data: bytes) -> None:
            raise DiskError("the host's disk is full")

    bench = Bench(Full("full", None, bytes(512 * 100), 100, write=False, protected=False))
    bench.address(1, 1)
    bench.run(0x30)
    bench.write_data(bytes(512))
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) & (ERR | DF) == ERR | DF
    assert bench.inb(ERROR) == ABRT


def test_write_protected_medium_refuses_with_wp():
    # ATA-4, 8.45: WP is error bit 6 of writes
    bench = Bench(Disk.from_bytes(bytes(512 * 100), protected=True))
    bench.address(1, 1)
    assert bench.run(0x30) & (ERR | DRQ) == ERR
    assert bench.inb(ERROR) == 0x40 | ABRT


def test_write_that_begins_past_the_end_asks_for_no_data():
    bench = Bench()
    bench.address(SECTORS, 1)
    assert bench.run(0x30) & (ERR | DRQ) == ERR
    assert bench.inb(ERROR) == IDNF


def test_verify_reads_without_transferring():
    bench = Bench()
    bench.address(SECTORS - 2, 2)
    assert bench.run(0x40) == READY
    assert bench.inb(LOW) | bench.inb(MID) << 8 | bench.inb(HIGH) << 16 == SECTORS - 1
    bench.address(SECTORS, 1)
    assert bench.run(0x40) & ERR
    bench.address(SECTORS - 1, 2)
    assert bench.run(0x40) & ERR
    assert bench.inb(ERROR) == IDNF


@pytest.mark.parametrize(("lba", "error"), [(5, 0), (SECTORS, IDNF)])
def test_seek_checks_the_address(lba, error):
    bench = Bench()
    bench.address(lba, 1)
    bench.run(0x70)
    assert bench.inb(ERROR) == error


@pytest.mark.parametrize("command", [0x10, 0x1F])
def test_recalibrate_goes_to_cylinder_0(command):
    bench = Bench()
    for offset, value in ((LOW, 9), (MID, 9), (HIGH, 0), (DEVICE, 0xA3)):
        bench.out(offset, value)
    assert bench.run(command) == READY
    assert [bench.inb(r) for r in (LOW, MID, HIGH)] == [1, 0, 0]


# -- other commands


def test_identify_describes_the_drive():
    # ATA-6, 8.15
    words = Bench().identify()
    assert words[0] & 0x8000 == 0
    assert (words[1], words[3], words[6]) == (20, 16, 63)
    assert words[60] | words[61] << 16 == SECTORS
    assert words[100] | words[101] << 16 == SECTORS
    assert words[49] & 0x0200  # LBA
    assert words[57] | words[58] << 16 == SECTORS
    assert b"".join(w.to_bytes(2, "big") for w in words[27:47]).decode().rstrip() == "V2E ATA DISK"
    data = b"".join(w.to_bytes(2, "little") for w in words)
    assert (data[510], sum(data) & 0xFF) == (0xA5, 0)


def test_features_switch_what_identify_reports():
    bench = Bench()
    assert bench.identify()[85] & 0x60 == 0x60
    assert bench.run(0xEF, features=0x82) == READY
    assert bench.run(0xEF, features=0x55) == READY
    assert bench.identify()[85] & 0x60 == 0
    assert bench.run(0xEF, features=0x03, count=0x0C) == READY
    assert bench.run(0xEF, features=0x03, count=0x20) & ERR  # multiword DMA
    assert bench.run(0xEF, features=0x99) & ERR


@pytest.mark.parametrize("command", [0xE7, 0xEA])
def test_flush_cache_flushes_the_medium(command):
    class Counting(Disk):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    disk = Counting("counting", None, bytes(512 * 100), 100, write=False, protected=False)
    assert Bench(disk).run(command) == READY
    assert disk.flushes == 1


@pytest.mark.parametrize(
    ("command", "mode"), [(0xE0, 0x00), (0x94, 0x00), (0xE1, 0x80), (0x95, 0x80), (0xE2, 0x00), (0x97, 0x80)]
)
def test_power_modes_are_reported(command, mode):
    # ATA-6, 8.8: 00h standby, 80h idle, FFh active or idle
    bench = Bench()
    bench.run(0xE5)
    assert bench.inb(COUNT) == 0xFF
    bench.run(command, count=0)
    bench.run(0xE5)
    assert bench.inb(COUNT) == mode


def test_standby_timer_expires_in_units_of_five_seconds():
    # ATA-6, table 9
    bench = Bench()
    bench.run(0xE3, count=2)
    bench.advance(9_000_000_000)
    bench.run(0xE5)
    assert bench.inb(COUNT) == 0x80
    bench.advance(10_000_000_000)
    bench.run(0xE5)
    assert bench.inb(COUNT) == 0x00


def test_medium_access_ends_standby():
    bench = Bench()
    bench.run(0xE0)
    bench.address(1, 1)
    bench.run(0x20)
    bench.words()
    bench.run(0xE5)
    assert bench.inb(COUNT) == 0xFF


def test_sleep_ends_only_by_reset():
    bench = Bench()
    bench.run(0xE6)
    bench.out(COMMAND, 0xEC)
    bench.advance(COMMAND_NS)
    assert not bench.alternate & DRQ
    bench.control(0x04)
    bench.control(0x00)
    bench.advance(RESET_NS)
    assert bench.run(0xEC) & DRQ


def test_native_max_address_needs_the_lba_bit():
    bench = Bench()
    bench.run(0xF8, device=0x40)
    assert bench.inb(LOW) | bench.inb(MID) << 8 | bench.inb(HIGH) << 16 == SECTORS - 1
    assert bench.run(0xF8, device=0x00) & ERR


def test_buffer_commands_return_what_was_written():
    bench = Bench()
    assert bench.run(0xE8) & DRQ
    bench.write_data(bytes(range(256)) * 2)
    bench.advance(BLOCK_NS)
    assert bench.inb(STATUS) == READY
    bench.run(0xE4)
    assert bench.words() == bytes(range(256)) * 2


# -- reset, diagnostics, selection


def test_software_reset_is_busy_then_shows_the_signature():
    # ATA-6, 9.2 and 9.12
    bench = Bench()
    bench.address(0x123456, 9)
    bench.control(0x04)
    assert bench.alternate & BSY
    bench.control(0x00)
    assert bench.alternate & BSY
    bench.advance(RESET_NS)
    assert bench.alternate == READY
    assert [bench.inb(r) for r in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)] == [1, 1, 1, 0, 0, 0]
    assert not bench.irq


def test_software_reset_ends_a_transfer():
    bench = Bench()
    bench.address(0, 5)
    bench.run(0x20)
    bench.control(0x04)
    assert not bench.irq
    bench.control(0x00)
    bench.advance(RESET_NS)
    assert bench.alternate == READY
    assert bench.channel.read(DATA, 2) == 0


def test_software_reset_keeps_multiple_unless_reverting_is_enabled():
    # SET FEATURES CCh and 66h
    for subcommand, kept in ((0x66, 0x0108), (0xCC, 0)):
        bench = Bench()
        bench.run(0xC6, count=8)
        bench.run(0xEF, features=subcommand)
        bench.control(0x04)
        bench.control(0x00)
        bench.advance(RESET_NS)
        assert bench.identify()[59] == kept


def test_diagnostic_runs_on_both_devices_and_device_0_interrupts():
    # ATA-6, 8.9
    bench = Bench(second=image(100))
    bench.out(DEVICE, 0x10)
    bench.out(COMMAND, 0x90)
    bench.advance(RESET_NS)
    assert (bench.irq, bench.inb(DEVICE)) == (True, 0)
    assert [bench.inb(r) for r in (ERROR, COUNT, LOW)] == [1, 1, 1]
    bench.out(DEVICE, 0x10)
    assert (bench.inb(ERROR), bench.irq) == (1, False)


def test_absent_device_1_has_status_00_and_device_0s_registers():
    # ATA-4, 9.16.1
    bench = Bench()
    bench.out(DEVICE, 0x10)
    bench.out(COUNT, 0x5A)
    assert (bench.inb(STATUS), bench.alternate) == (0, 0)
    assert bench.inb(COUNT) == 0x5A
    bench.out(DEVICE, 0x00)
    assert bench.inb(COUNT) == 0x5A


def test_command_to_absent_device_1_is_ignored_but_for_diagnostics():
    bench = Bench()
    bench.out(DEVICE, 0x10)
    assert bench.run(0xEC) == 0
    assert not bench.irq
    bench.out(COMMAND, 0x90)
    bench.advance(RESET_NS)
    assert (bench.irq, bench.alternate) == (True, READY)


def test_empty_channel_floats():
    bench = Bench(empty=True)
    assert [bench.inb(r) for r in range(1, 8)] == [0xFF] * 7
    assert (bench.channel.read(DATA, 2), bench.alternate) == (0xFFFF, 0xFF)


def test_device_0_absent_floats_while_device_1_answers():
    # ATA-4, 9.16.2: device 1 does not answer for device 0
    bench = Bench(second=image(100), empty=True)
    assert bench.inb(STATUS) == 0xFF
    bench.out(DEVICE, 0x10)
    assert bench.inb(STATUS) == READY


def test_each_device_has_its_own_medium_and_interrupt():
    bench = Bench(second=Disk.from_bytes(b"\x42" * 512 * 100))
    bench.address(1, 1, device=1)
    bench.run(0x20)
    assert bench.irq
    bench.out(DEVICE, 0xE0)
    assert not bench.irq  # INTRQ is of the selected device
    bench.out(DEVICE, 0xF0)
    assert bench.irq
    assert bench.words() == b"\x42" * 512


def test_nien_holds_the_interrupt_back():
    # ATA-6, 7.8
    bench = Bench()
    bench.control(0x02)
    bench.run(0xE5)
    assert not bench.irq
    bench.control(0x00)
    assert bench.irq


def test_registers_do_not_change_while_busy():
    bench = Bench()
    bench.address(5, 1)
    bench.out(COMMAND, 0x20)
    bench.out(LOW, 9)
    bench.advance(COMMAND_NS)
    assert bench.read_data(1) == [5]


def test_peek_moves_nothing():
    bench = Bench()
    bench.address(5, 1)
    bench.run(0x20)
    before = bench.channel.save()
    assert bench.channel.peek(DATA, 2) == 5
    assert bench.channel.peek(STATUS, 1) & DRQ
    assert (bench.channel.save(), bench.irq) == (before, True)


def test_saved_state_continues_in_mid_sector():
    bench = Bench()
    bench.address(5, 2)
    bench.run(0x20)
    bench.words(100)
    saved, clock = bench.channel.save(), bench.clock.save()
    other = Bench()
    other.channel.restore(saved)
    other.clock.restore(clock)
    assert other.irq
    for each in (bench, other):
        each.words(156)
        each.advance(BLOCK_NS)
    assert other.words() == bench.words() == (6).to_bytes(4, "little") * 128
    assert other.channel.save() == bench.channel.save()
    with pytest.raises(ValueError, match="other devices"):
        Bench(second=image(100)).channel.restore(saved)


def test_view_says_what_the_registers_mean():
    bench = Bench()
    bench.run(0xEC)
    fields = {field.name: field for field in bench.channel.view().fields}
    assert fields["0.status"].text == "DRQ DSC DRDY"
    assert fields["device 1"].value == "absent"
    # the image's path, of any length, widens no column
    assert fields["device 0"].value == "disk"
    assert fields["device 0"].text.endswith(f", {bench.disk.name}")


# -- the data port in blocks


def test_a_block_read_ahead_is_what_single_reads_give_and_leaves_the_last_word():
    bench = Bench()
    assert bench.channel.readable() == b""
    bench.address(5, 2)
    bench.run(0x20)
    single = Bench()
    single.address(5, 2)
    single.run(0x20)
    expected = single.words()
    first = bench.words(1)
    rest = bench.channel.readable()
    assert first + rest == expected[:-2]
    bench.channel.taken(100)
    assert bench.channel.readable() == rest[100:]
    assert bench.words(2, 4) == expected[102:110]
    bench.channel.taken(len(bench.channel.readable()))
    assert (bench.channel.readable(), bench.alternate) == (b"", READY | DRQ)
    assert bench.words(1) == expected[-2:]
    assert bench.alternate & (BSY | DRQ) == BSY
    assert bench.channel.readable() == b""


def test_a_block_written_in_pieces_is_the_block_of_single_writes():
    data = bytes(range(256)) * 2
    bench = Bench()
    assert bench.channel.room() == 0
    bench.address(7, 1)
    bench.run(0x30)
    assert (bench.channel.room(), bench.channel.readable()) == (510, b"")
    bench.write_data(data[:4], 4)
    assert bench.channel.room() == 506
    bench.channel.written(data[4:110])
    bench.write_data(data[110:112])
    bench.channel.written(data[112:510])
    assert (bench.channel.room(), bench.alternate) == (0, READY | DRQ)
    bench.write_data(data[510:])
    assert bench.alternate & BSY
    bench.advance(BLOCK_NS)
    assert bench.disk.read(7, 1) == data


def test_the_channel_tells_whether_a_read_of_the_status_acknowledged():
    bench = Bench()
    bench.address(5, 1)
    bench.run(0x20)
    bench.inb(STATUS)
    assert bench.channel.acknowledged
    bench.inb(STATUS)
    assert not bench.channel.acknowledged


def test_an_absent_device_1_offers_the_data_of_device_0_and_takes_none():
    # ATA-4, 9.16.1
    bench = Bench()
    bench.address(5, 1)
    bench.run(0x20)
    bench.out(DEVICE, 0xF0)
    assert len(bench.channel.readable()) == 510
    assert bench.channel.room() == 0
