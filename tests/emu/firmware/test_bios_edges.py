"""Services of the built-in BIOS at the edges of their arguments: rows off the screen, long strings, disks by virtio."""

from __future__ import annotations

import struct

import pytest

from bios_frames import Services
from emu.firmware.roms import builtin_bios
from emu.media import Disk

PACKET, BUFFER = 0x5000, 0x6000
VIRTIO = 5


@pytest.fixture
def services() -> Services:
    return Services()


# -- INT 10h


@pytest.mark.slow
@pytest.mark.parametrize("row", [200, 0x7FFF, 0xFFFF])
def test_pixels_below_mode_13h_are_where_a_16_bit_offset_leads(services: Services, row: int) -> None:
    services.call(0x10, ax=0x0013)
    services.call(0x10, ax=0x0C5A, cx=7, dx=row)
    window = services.machine.read_physical(0xA0000, 0x10000)
    assert [at for at, byte in enumerate(window) if byte] == [(row * 320 + 7) & 0xFFFF]
    assert services.call(0x10, ax=0x0D00, cx=7, dx=row).al == 0x5A


def test_pixels_below_a_vbe_mode_are_written_and_read(services: Services) -> None:
    assert services.call(0x10, ax=0x4F02, bx=0x0101).ax == 0x004F
    services.call(0x10, ax=0x0C5A, cx=7, dx=0xFFFF)
    assert services.call(0x10, ax=0x0D00, cx=7, dx=0xFFFF).al == 0x5A


def test_a_pixel_that_the_end_of_the_window_cuts_off_wraps(services: Services) -> None:
    services.call(0x10, ax=0x0013)
    # Rows of 320 bytes leave 256 bytes of the window behind row 203.
    services.call(0x10, ax=0x0C33, cx=256, dx=204)
    assert services.machine.read_physical(0xA0000, 1) == b"\x33"


@pytest.mark.timeout(60)
def test_what_the_data_area_says_of_the_screen_cannot_make_a_scroll_endless(services: Services) -> None:
    services.call(0x10, ax=0x0003)
    services.memory.write(0x44A, b"\xff\xff")  # columns
    services.memory.write(0x484, b"\xff\xff\xff")  # last row, lines of a character
    frame = services.call(0x10, ax=0x0601, bx=0x0700, cx=0, dx=0xFFFF)
    assert frame.ax == 0x0601
    services.call(0x10, ax=0x0200, dx=0xFFFF)
    services.call(0x10, ax=0x0E0A)
    assert services.memory.read(0x450, 2) == b"\xff\xff"


@pytest.mark.slow
def test_a_long_string_is_written_in_pieces(services: Services) -> None:
    services.call(0x10, ax=0x0003)
    text = b"".join(b"line %04d\r\n" % i for i in range(400))
    services.memory.write(BUFFER, text)
    frame = services.call(0x10, ax=0x1301, bx=0x0007, cx=len(text), dx=0, es=BUFFER >> 4, bp=0)
    assert frame.ax == 0x1301
    # Each scroll ends a piece.
    assert services.asked > 375
    assert services.machine.screen().rows[23].rstrip() == "line 0399"
    assert services.memory.read(0x450, 2) == b"\x00\x18"
    said = [event.text for event in services.machine.journal if event.kind == "bios"][-1]
    assert said.endswith(f"and {len(text) - 256} more")


def test_a_string_in_pieces_can_leave_the_cursor_where_it_was(services: Services) -> None:
    services.call(0x10, ax=0x0003)
    services.call(0x10, ax=0x0200, bx=0, dx=0x0511)
    cells = b"".join(bytes((0x41 + i % 26, i & 0x7F)) for i in range(200))
    services.memory.write(BUFFER, cells)
    services.call(0x10, ax=0x1302, bx=0, cx=200, dx=0x0A00, es=BUFFER >> 4, bp=0)
    assert services.asked == 4
    assert services.memory.read(0x450, 2) == b"\x11\x05"
    assert services.machine.read_physical(0xB8000 + 0xA * 160, 400) == cells


def test_the_longest_string_is_no_one_write_of_work(services: Services) -> None:
    services.call(0x10, ax=0x0003)
    services.begin(0x10, ax=0x1301, bx=7, cx=0xFFFF, dx=0, es=0x1000)
    frame = services.ask()
    assert frame.action != 0
    assert 0 < frame.scratch <= 64


def test_the_static_table_offers_only_what_is_there(services: Services) -> None:
    table = builtin_bios()[0xE000:0xE010]
    saves = services.call(0x10, ax=0x1C00, cx=7)
    assert (saves.al == 0x1C) == bool(table[0x0B] & 2)
    assert services.call(0x10, ax=0x1A00).al == 0x1A
    assert table[0x0B] == 0x0C  # blinking, display combination codes
    assert table[0x0E] == 0  # nothing is done by the tables at the save pointer


# -- INT 13h


def parameters(services: Services, drive: int, size: int = 74) -> bytes:
    services.memory.write(PACKET, struct.pack("<H", size).ljust(80, b"\xee"))
    frame = services.call(0x13, ax=0x4800, dx=drive, si=PACKET)
    assert not frame.carry
    return services.memory.read(PACKET, 80)


def test_disks_of_virtio_are_not_described_as_ata_disks() -> None:
    services = Services(machine="pc", virtio=[Disk.from_bytes(bytes(1 << 20 + i)) for i in range(VIRTIO)])
    table = parameters(services, 0x80)
    assert table[:2] == struct.pack("<H", 66)
    assert table[26:30] != b"\xff" * 4
    assert table[36:48] == b"PCI ATA     "
    for i in range(VIRTIO):
        table = parameters(services, 0x81 + i)
        assert struct.unpack_from("<H", table)[0] == 30
        assert struct.unpack_from("<QH", table, 16) == (2048 << i, 512)
        assert table[26:30] == b"\xff" * 4
        assert table[30:] == b"\xee" * 50


def flat(services: Services, function: int, address: int, count: int = 1) -> int:
    packet = struct.pack("<BBHHHQQ", 24, 0, count, 0xFFFF, 0xFFFF, 1, address)
    services.memory.write(PACKET, packet)
    frame = services.call(0x13, ax=function << 8, dx=0x80, si=PACKET)
    assert struct.unpack("<H", services.memory.read(PACKET + 2, 2)) == (0 if frame.carry else count,)
    return frame.ah if frame.carry else 0


@pytest.mark.parametrize("function", [0x42, 0x43])
def test_flat_buffers_end_at_4_gib(services: Services, function: int) -> None:
    services.memory.write(BUFFER, b"\x5a" * 512)
    assert flat(services, 0x43, BUFFER) == 0
    for address in (1 << 32, (1 << 32) - 511, (1 << 64) - 512):
        assert flat(services, function, address) == 0x01
    services.memory.write(BUFFER, bytes(512))
    assert flat(services, 0x42, BUFFER) == 0
    assert services.memory.read(BUFFER, 512) == b"\x5a" * 512


# -- the frame


def test_a_frame_whose_step_the_guest_has_changed_is_an_interface_error(services: Services) -> None:
    services.memory.write(0x9FC26, b"\0\0")
    services.begin(0x15, ax=0xC201, step=0x55)
    frame = services.ask()
    assert frame.action == 0
    assert frame.carry
    assert frame.ah == 0x03  # (IBM, "Interrupt 15h", AH=C2h: interface error)


def test_ports_counted_from_the_data_area_wrap(services: Services) -> None:
    services.memory.write(0x406, b"\xff\xff")  # COM4's first port
    assert services.call(0x14, ax=0x00E3, dx=3).action == 0
    services.memory.write(0x40C, b"\xff\xff")  # LPT3's
    assert services.call(0x17, ax=0x0200, dx=2).action == 0
