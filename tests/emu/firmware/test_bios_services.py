"""Services of the built-in BIOS asked one by one, against what the specifications say of each."""

from __future__ import annotations

from bios_calls import BLOCK, Answer, Call, answers, sector
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk

DISK, DISKETTE = 20 * 16 * 63 * 512, 1440 << 10


def asked(*calls: Call, block: bytes = b"", floppy: bytes | None = None) -> tuple[list[Answer], Machine]:
    """The answers to calls made from the boot sector of a disk, and the machine after them."""
    disk = Disk.from_bytes(sector(list(calls), block).ljust(DISK, b"\0"))
    floppies = () if floppy is None else (Disk.from_bytes(floppy),)
    config = MachineConfig(
        machine="pc", memory=16 << 20, firmware=builtin_bios(), bios=True, disks=[disk], floppies=floppies, boot="disk"
    )
    machine = build_machine(config)
    assert machine.run(100_000_000).reason is MachineStop.EXIT
    got = answers(machine.debugcon_text())
    assert len(got) == len(calls)
    return got, machine


def results(got: list[Answer]) -> list[tuple[int, int]]:
    return [(answer.ah, answer.carry) for answer in got]


def test_a_block_move_reads_registers_as_the_cpu_would() -> None:
    """INT 15h AH=87h from the HPET's capabilities (IA-PC HPET 1.0a, 2.3.4: period in fs, vendor 8086h) to 9000h."""

    def descriptor(base: int) -> bytes:
        return b"\xff\xff" + (base & 0xFFFFFF).to_bytes(3, "little") + b"\x93\0" + bytes((base >> 24,))

    table = bytes(16) + descriptor(0xFED00000) + descriptor(0x9000) + bytes(16)
    got, machine = asked(Call(0x15, 0x8700, cx=4), block=table)
    assert BLOCK == 0x600
    assert results(got) == [(0, 0)]
    data = machine.memory.read(0x9000, 8)
    assert (data[2:4], int.from_bytes(data[4:], "little")) == (b"\x86\x80", 10_000_000)


FLOPPY = b"".join(bytes((n & 0xFF, n >> 8)) * 256 for n in range(DISKETTE // 512))
READ, WRITE, FORMAT, KIND, CHANGE, MEDIA = 0x0200, 0x0300, 0x0500, 0x1500, 0x1600, 0x1800


def test_a_changed_diskette_is_told_until_the_head_moves() -> None:
    """IBM, INT 13h AH=16h: 06h when the change line is active; the drive resets it at a step."""
    got, _ = asked(
        Call(0x13, CHANGE), Call(0x13, CHANGE), Call(0x13, READ | 1, 0x9000, 1), Call(0x13, CHANGE), floppy=FLOPPY
    )
    assert results(got) == [(6, 1), (6, 1), (0, 0), (0, 0)]


def test_the_media_type_is_that_of_the_diskette() -> None:
    """AH=18h, CH and CL the last cylinder and sector: 0Ch when the drive does not take them."""
    got, _ = asked(*(Call(0x13, MEDIA, cx=cx) for cx in (0x4F12, 0x4F09, 0x2709, 0x4F0F, 0x2712)), floppy=FLOPPY)
    assert results(got) == [(0, 0), *[(0x0C, 1)] * 4]


def test_a_diskettes_buffer_stays_in_its_64_kib() -> None:
    """The DMA's page register does not count: 09h, and nothing is moved. A disk has no such DMA."""
    got, _ = asked(
        Call(0x13, READ | 1, 0xFE00, 1), Call(0x13, READ | 1, 0xFE01, 1), Call(0x13, READ | 2, 0xFE00, 1),
        Call(0x13, READ | 1, 0xFE01, 1, 0x80), floppy=FLOPPY,
    )  # fmt: skip
    assert results(got) == [(0, 0), (9, 1), (9, 1), (0, 0)]
    assert [a.ax & 0xFF for a in got] == [1, 0, 0, 1]


def test_places_that_are_not_on_the_medium() -> None:
    got, _ = asked(
        Call(0x13, READ | 1, 0x9000, 0x0000), Call(0x13, READ, 0x9000, 1), Call(0x13, READ | 1, 0x9000, 19),
        Call(0x13, READ | 1, 0x9000, 0x5001), Call(0x13, READ | 1, 0x9000, 1, 0x200),
        Call(0x13, READ | 1, 0x9000, 0x8001, 0x80), Call(0x13, READ | 1, 0x9000, 1, 2), floppy=FLOPPY,
    )  # fmt: skip
    assert results(got) == [(1, 1), (1, 1), (4, 1), (4, 1), (4, 1), (1, 1), (1, 1)]


def test_a_read_past_the_end_of_a_track_goes_on() -> None:
    got, machine = asked(Call(0x13, READ | 36, 0x9000, 0x0011), floppy=FLOPPY)
    assert results(got) == [(0, 0)]
    assert machine.memory.read(0x9000, 36 * 512) == FLOPPY[16 * 512 : 52 * 512]


def test_a_call_moves_128_sectors_and_no_more() -> None:
    """64 KiB, what a segment holds (IBM, "Interrupt 13h": AL = 1 to 80h)."""
    got, _ = asked(Call(0x13, READ | 128, 0x9000, 1, 0x80), Call(0x13, READ | 129, 0x9000, 1, 0x80))
    assert results(got) == [(0, 0), (1, 1)]


def test_a_format_fills_by_the_parameter_table() -> None:
    """AH=05h: the address fields of a track, and F6h of the diskette table (INT 1Eh); a wrong cylinder is 01h."""
    fields = b"".join(bytes((2, 1, sector, 2)) for sector in range(1, 19))
    got, machine = asked(
        Call(0x13, FORMAT | 18, BLOCK, 0x0201, 0x100), Call(0x13, READ | 18, 0x9000, 0x0201, 0x100),
        Call(0x13, FORMAT | 18, BLOCK, 0x5001, 0x100), block=fields, floppy=FLOPPY,
    )  # fmt: skip
    assert results(got) == [(0, 0), (0, 0), (1, 1)]
    assert machine.memory.read(0x9000, 18 * 512) == b"\xf6" * 18 * 512


def test_a_write_is_what_is_read_back() -> None:
    got, machine = asked(Call(0x13, WRITE | 1, 0x7C00, 0x0305), Call(0x13, READ | 1, 0x9000, 0x0305), floppy=FLOPPY)
    assert results(got) == [(0, 0), (0, 0)]
    assert machine.memory.read(0x9000, 512) == machine.memory.read(0x7C00, 512)


def test_a_second_alarm_is_refused_until_the_first_is_off() -> None:
    """IBM, INT 1Ah AH=06h: CF when an alarm is set already."""
    got, _ = asked(*(Call(0x1A, ax, cx=0x2359, dx=0x5900) for ax in (0x0600, 0x0600, 0x0700, 0x0600)))
    assert [answer.carry for answer in got] == [0, 1, 0, 0]


def test_a_serial_line_gets_parity_and_stop_bits() -> None:
    """INT 14h AH=00h, AL bits 4-0: parity, stop bits, word length, as in the UART's LCR; 7-5: the rate."""
    _, machine = asked(Call(0x14, 0x00FE))
    fields = {field.name: field for field in machine.board.device_table["com1"].view().fields}
    assert fields["LCR"].value == 0x1E
