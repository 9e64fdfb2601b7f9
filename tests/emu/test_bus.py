"""The port and MMIO maps."""

from __future__ import annotations

import pytest

from emu.bus import BusConflict, Mmio, Ports


class Recorder:
    def __init__(self, values: dict[int, int] | None = None) -> None:
        self.values = values or {}
        self.log: list[tuple[object, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.log.append(("read", offset, size))
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int, size: int) -> None:
        self.log.append(("write", offset, value, size))

    def peek(self, offset: int, size: int) -> int:
        return self.values.get(offset, 0)


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFFFFFF)])
def test_an_unclaimed_port_reads_all_ones(size: int, ones: int) -> None:
    assert Ports().port_in(0x300, size) == ones


def test_a_wide_access_to_an_8_bit_device_is_split_into_bytes_low_first() -> None:
    ports, device = Ports(), Recorder({0: 0x34, 1: 0x12})
    ports.map(0x300, 2, device, "d")
    assert ports.port_in(0x300, 2) == 0x1234
    ports.port_out(0x300, 2, 0xABCD)
    assert device.log == [("read", 0, 1), ("read", 1, 1), ("write", 0, 0xCD, 1), ("write", 1, 0xAB, 1)]


def test_a_wide_access_that_leaves_the_range_is_split_and_the_rest_floats() -> None:
    ports, device = Ports(), Recorder({0: 0x11})
    ports.map(0x300, 1, device, "d", width=4)
    assert ports.port_in(0x300, 2) == 0xFF11


def test_a_device_wide_enough_sees_the_access_whole() -> None:
    ports, device = Ports(), Recorder({0: 0xDEADBEEF})
    ports.map(0x1F0, 8, device, "d", width=4)
    assert ports.port_in(0x1F0, 4) == 0xDEADBEEF
    assert device.log == [("read", 0, 4)]


def test_peeking_does_not_read() -> None:
    ports, device = Ports(), Recorder({0: 5})
    ports.map(0x60, 1, device, "d")
    assert ports.peek(0x60) == 5
    assert ports.peek(0x61) is None
    assert device.log == []


def test_two_devices_cannot_claim_one_port() -> None:
    ports = Ports()
    ports.map(0x60, 1, Recorder(), "first")
    with pytest.raises(BusConflict, match="0x60 of second belongs to first"):
        ports.map(0x5F, 2, Recorder(), "second")


def test_the_trace_sees_both_directions() -> None:
    ports, seen = Ports(), []
    ports.map(0x60, 1, Recorder({0: 7}), "d")
    ports.trace = lambda *what: seen.append(what)
    ports.port_in(0x60, 1)
    ports.port_out(0x60, 1, 9)
    assert seen == [(0x60, 1, 7, False), (0x60, 1, 9, True)]


def test_unclaimed_mmio_reads_all_ones_and_swallows_writes() -> None:
    mmio = Mmio()
    mmio.mmio_write(0xFEC00000, 4, 1)
    assert mmio.mmio_read(0xFEC00000, 8) == 0xFFFFFFFFFFFFFFFF


def test_an_access_wider_than_an_mmio_device_is_split() -> None:
    mmio, device = Mmio(), Recorder({0: 0x11223344, 4: 0x55667788})
    mmio.map(0xFEE00000, 0x1000, device, "d", width=4)
    assert mmio.mmio_read(0xFEE00000, 8) == 0x5566778811223344
    mmio.mmio_write(0xFEE00000, 8, 0x0000000200000001)
    assert device.log[2:] == [("write", 0, 1, 4), ("write", 4, 2, 4)]


def test_overlapping_mmio_is_refused() -> None:
    mmio = Mmio()
    mmio.map(0x1000, 0x1000, Recorder(), "first")
    with pytest.raises(BusConflict, match="overlaps first"):
        mmio.map(0x1800, 0x1000, Recorder(), "second")
