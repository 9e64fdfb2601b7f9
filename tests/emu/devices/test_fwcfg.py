"""QEMU's firmware configuration device (docs/specs/fw_cfg.rst)."""

from __future__ import annotations

import struct

import pytest

from emu.devices.fwcfg import BOOT_MENU, FILE_DIR, ID, MAX_CPUS, NB_CPUS, SIGNATURE, FwCfg


def select(device: FwCfg, key: int) -> None:
    device.write(0, key, 2)


def item(device: FwCfg, key: int, length: int) -> bytes:
    select(device, key)
    return bytes(device.read(1, 1) for _ in range(length))


@pytest.fixture
def device() -> FwCfg:
    return FwCfg({"vgaroms/b.bin": b"BBB", "etc/a": b"A"}, cpus=2)


def test_the_signature_tells_a_firmware_where_it_runs(device: FwCfg) -> None:
    assert item(device, SIGNATURE, 4) == b"QEMU"


def test_the_id_offers_the_port_interface_and_no_dma(device: FwCfg) -> None:
    assert item(device, ID, 4) == b"\x01\0\0\0"


@pytest.mark.parametrize(("key", "value"), [(NB_CPUS, 2), (MAX_CPUS, 2), (BOOT_MENU, 0)])
def test_numbers_are_little_endian_words(device: FwCfg, key: int, value: int) -> None:
    assert item(device, key, 2) == struct.pack("<H", value)


def test_the_directory_is_big_endian_and_in_order_of_name(device: FwCfg) -> None:
    raw = item(device, FILE_DIR, 4 + 2 * 64)
    assert struct.unpack_from(">I", raw) == (2,)
    first, second = struct.unpack_from(">IHH56s", raw, 4), struct.unpack_from(">IHH56s", raw, 68)
    assert (first[0], first[3].rstrip(b"\0")) == (1, b"etc/a")
    assert (second[0], second[3].rstrip(b"\0")) == (3, b"vgaroms/b.bin")
    assert item(device, second[1], 3) == b"BBB"


def test_reading_past_an_item_gives_zeros(device: FwCfg) -> None:
    assert item(device, SIGNATURE, 6) == b"QEMU\0\0"


def test_an_item_that_does_not_exist_is_empty(device: FwCfg) -> None:
    assert item(device, 0x3000, 2) == b"\0\0"


def test_selecting_rewinds(device: FwCfg) -> None:
    item(device, SIGNATURE, 3)
    assert item(device, SIGNATURE, 1) == b"Q"


def test_peeking_does_not_advance(device: FwCfg) -> None:
    select(device, SIGNATURE)
    assert [device.peek(1, 1), device.peek(1, 1), device.read(1, 1)] == [ord("Q")] * 3


def test_writing_data_and_bytes_of_the_selector_do_nothing(device: FwCfg) -> None:
    select(device, SIGNATURE)
    device.write(1, 0x55, 1)
    device.write(0, ID, 1)
    assert device.read(1, 1) == ord("Q")


def test_state_round_trips_in_the_middle_of_an_item(device: FwCfg) -> None:
    item(device, SIGNATURE, 2)
    state = device.save()
    device.reset()
    device.restore(state)
    assert device.read(1, 1) == ord("M")


def test_a_name_that_does_not_fit_the_directory_is_refused() -> None:
    with pytest.raises(ValueError, match="has 60 bytes, 55 is the most"):
        FwCfg({"x" * 60: b""})
