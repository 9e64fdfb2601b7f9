"""The parallel port: the handshake of IEEE 1284's compatibility mode, and -ACK's interrupt."""

from __future__ import annotations

from emu.devices.lpt import ACK_NS, BUSY_NS, ParallelPort
from virtual_time import VirtualTime

READY = 0xDF  #: not busy, -ACK high, selected, no error


class Bench(VirtualTime):
    def __init__(self) -> None:
        super().__init__()
        self.printed, self.levels = bytearray(), []
        self.port = ParallelPort(self.clock, self.levels.append, self.printed.append)

    def strobe(self, byte: int, control: int = 0x0C) -> None:
        self.port.write(0, byte, 1)
        self.port.write(2, control | 1, 1)
        self.port.write(2, control, 1)


def test_a_byte_is_printed_at_the_strobe_s_edge():
    bench = Bench()
    assert bench.port.read(1, 1) == READY
    bench.strobe(ord("x"))
    assert bench.port.read(1, 1) == READY & ~0x80
    bench.advance(BUSY_NS)
    assert bench.port.read(1, 1) == READY & ~0xC0  # -ACK low
    assert bench.printed == b"x"
    bench.advance(ACK_NS)
    assert bench.port.read(1, 1) == READY


def test_a_busy_printer_takes_nothing():
    bench = Bench()
    bench.strobe(1)
    bench.strobe(2)
    bench.advance(1_000_000)
    assert bench.printed == b"\1"


def test_the_acknowledge_interrupts_when_enabled():
    bench = Bench()
    bench.strobe(1)
    bench.advance(1_000_000)
    assert True not in bench.levels
    bench.strobe(2, 0x1C)
    bench.advance(1_000_000)
    assert bench.levels[-2:] == [True, False]


def test_init_stops_the_printer():
    bench = Bench()
    bench.strobe(1)
    bench.port.write(2, 0x08, 1)
    bench.advance(1_000_000)
    assert bench.printed == b""
    bench.strobe(2, 0x08)
    bench.advance(1_000_000)
    assert bench.printed == b""


def test_registers_read_back_and_data_turns_round():
    bench = Bench()
    bench.port.write(0, 0x5A, 1)
    bench.port.write(2, 0x0E, 1)
    assert (bench.port.read(0, 1), bench.port.read(2, 1)) == (0x5A, 0xCE)
    bench.port.write(2, 0x2E, 1)
    assert bench.port.read(0, 1) == 0xFF
    other = Bench()
    other.port.restore(bench.port.save())
    assert other.port.save() == bench.port.save()
    assert "input" in other.port.view().fields[2].text
