"""Ports 70h and 71h where the clock is Xen's and the RAM behind its registers the machine's."""

from __future__ import annotations

from emu.clock import Clock
from emu.devices.rtc146818 import Rtc
from xenbridge.ioreq import LAYOUT, READS, State, unpack
from xenbridge.xen.kept import CLOCK_REGISTERS, ClockPorts


class Xen:
    """Its end of the requests: 14 registers, and which of them is selected."""

    def __init__(self) -> None:
        self.registers, self.index = bytearray(range(0xA0, 0xA0 + CLOCK_REGISTERS)), 0
        self.lent = True
        self.requests = 0

    def exchange(self, raw: bytes) -> bytes:
        request, data = unpack(raw), 0
        self.requests += 1
        if request.address == 0x70:
            self.index = request.data & 0x7F
        elif request.reads:
            data = self.registers[self.index]
        else:
            self.registers[self.index] = request.data
        bits = State.ANSWERED | READS * request.reads
        return LAYOUT.pack(request.address, data, 1, 1, 0, 0, bits, request.type)


def made() -> tuple[ClockPorts, Xen, Rtc]:
    xen, rtc = Xen(), Rtc(Clock(lambda: 0), lambda level: None, bytes(range(0x50, 0xC0)))
    return ClockPorts(rtc, xen.exchange, lambda index: xen.registers[index], lambda: xen.lent), xen, rtc


def test_registers_are_xens_and_ram_is_the_machines() -> None:
    ports, xen, rtc = made()
    ports.write(0, 0x0A, 1)
    assert (ports.read(1, 1), ports.peek(1, 1)) == (0xAA, 0xAA)
    ports.write(1, 0x26, 1)
    assert xen.registers[0x0A] == 0x26
    ports.write(0, 0x30, 1)
    before = xen.requests
    ports.write(1, 0x77, 1)
    assert (ports.read(1, 1), ports.peek(1, 1), rtc.save().ram[0x30]) == (0x77, 0x77, 0x77)
    assert (xen.requests, xen.index) == (before, 0x30)


def test_of_the_native_guests_accesses_only_those_come_that_xen_leaves() -> None:
    """Which it does not answer: an index beyond its registers, and the data there. Nothing can be requested then."""
    ports, xen, rtc = made()
    xen.lent = False
    ports.write(0, 0x31, 1)
    ports.write(1, 0x12, 1)
    assert (ports.read(1, 1), rtc.save().ram[0x31], xen.requests) == (0x12, 0x12, 0)


def test_the_emulator_goes_on_with_the_register_that_the_native_guest_has_selected() -> None:
    ports, xen, _ = made()
    ports.write(0, 0x30, 1)
    xen.index = 0x0B  # natively: Xen tells nobody
    ports.select(0x0B)
    assert ports.read(1, 1) == 0xAB
