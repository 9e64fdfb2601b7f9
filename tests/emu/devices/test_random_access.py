"""No guest breaks a device: any accesses at any times keep values in range, peeks pure, and states restorable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077 import Fdc82077
from emu.devices.i8042 import I8042
from emu.devices.ide import IdeChannel
from emu.devices.keyboard import Keyboard
from emu.devices.lpt import ParallelPort
from emu.devices.uart16550 import Uart16550
from emu.devices.vga import Vga
from emu.devices.vga_memory import PLANES, DisplayMemory
from emu.media import Disk
from virtual_time import VirtualTime

pytestmark = pytest.mark.slow

#: opcodes that start something: 8042, keyboard, ATA
COMMANDS = (0x20, 0x24, 0x30, 0x39, 0x60, 0x90, 0x91, 0xA5, 0xA6, 0xAC, 0xAE, 0xC4, 0xC5, 0xC6, 0xD1, 0xD4, 0xEC, 0xF0)
#: (which port, size exponent, value or None for a read, ns that pass)
ACCESS = st.tuples(
    st.integers(0, 62),
    st.integers(0, 2),
    st.none() | st.sampled_from(COMMANDS) | st.integers(0, 0xFF) | st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 1_000, 30_000, 700_000, 30_000_000]),
)
ACCESSES = st.lists(ACCESS, max_size=60)


class Dma:
    """All ports of the DMA pair in a row."""

    def __init__(self, dma: DmaPair) -> None:
        self.dma = dma
        self.save, self.restore, self.view = dma.save, dma.restore, dma.view

    def _face(self, offset: int):
        face, first = next(f for f in ((self.dma.low, 16), (self.dma.high, 48), (self.dma.pages, 63)) if offset < f[1])
        return face, offset - {16: 0, 48: 16, 63: 48}[first]

    def read(self, offset: int, size: int) -> int:
        face, at = self._face(offset)
        return face.read(at, size)

    def peek(self, offset: int, size: int) -> int:
        face, at = self._face(offset)
        return face.peek(at, size)

    def write(self, offset: int, value: int, size: int) -> None:
        face, at = self._face(offset)
        face.write(at, value, size)


class Fdc(Fdc82077):
    """Out of reset, with a diskette turning and DMA that has room, and its DMA controller's state beside its own."""

    def __init__(self, device: Device) -> None:
        super().__init__(device.clock, device.line, device.dma, [Disk.from_bytes(bytes(1440 << 10))])
        dma = device.dma
        for face, port, value in ((dma.high, 0x16, 0xC0), (dma.high, 0x14, 0), (dma.low, 5, 0xFF), (dma.low, 5, 0xFF),
                                  (dma.low, 0xB, 0x56), (dma.low, 0xA, 2)):  # fmt: skip
            face.write(port, value, 1)
        self.write(2, 0x1C, 1)
        device.advance(1_000_000)


class Device(VirtualTime):
    """One device with its ports, and sizes they take."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.sizes = (1,)
        self.ports = list(range(8))
        if kind == "8042":
            self.keyboard = Keyboard(self.clock)
            self.device = I8042(self.clock, self.line, self.line, self.line, lambda: None, self.keyboard)
            self.ports = [0, 4]
        elif kind == "uart":
            self.device = Uart16550(self.clock, self.line, self.sent)
            self.device.receive(bytes(range(40)))
        elif kind == "ide":
            disk = Disk.from_bytes(bytes(512 * 300))
            self.device = IdeChannel(self.clock, self.line, (disk, None))
            self.sizes = (1, 2, 4)
        elif kind == "cdrom":
            disk = Disk.from_bytes(bytes(512 * 300))
            self.device = IdeChannel(self.clock, self.line, (disk, None), "ide1", (True, False))
            self.sizes = (1, 2, 4)
        elif kind == "lpt":
            self.device = ParallelPort(self.clock, self.line, self.sent)
            self.ports = [0, 1, 2]
        elif kind in ("dma", "fdc"):
            self.dma = DmaPair(lambda at, n: bytes(n), lambda at, data: None)
            self.device = Dma(self.dma) if kind == "dma" else Fdc(self)
            self.ports = list(range(63)) if kind == "dma" else [2, 3, 4, 5, 5, 5, 5, 7]
        else:
            self.device = Vga(self.clock, DisplayMemory(bytearray(PLANES)))
            self.ports = list(range(44))

    def line(self, level: bool) -> None:
        assert isinstance(level, bool)

    def sent(self, value: int) -> None:
        assert 0 <= value <= 0xFF

    def access(self, port: int, exponent: int, value: int | None, ns: int) -> int | None:
        self.advance(ns)
        offset = self.ports[port % len(self.ports)]
        size = self.sizes[exponent % len(self.sizes)]
        if offset + size > 8 and size > 1:
            size = 1
        if value is not None:
            self.device.write(offset, value & (1 << 8 * size) - 1, size)
            return None
        before = self.device.save()
        peeked = self.device.peek(offset, size)
        assert self.device.save() == before
        read = self.device.read(offset, size)
        assert 0 <= read < 1 << 8 * size
        assert read == peeked
        self.device.view()
        return read


def check(kind: str, first: list, second: list) -> None:
    """After `first` a copy of the state on another device continues with `second` as the original does."""
    original, copy = Device(kind), Device(kind)
    for access in first:
        original.access(*access)
    copy.device.restore(original.device.save())
    if kind == "fdc":
        copy.dma.restore(original.dma.save())
    if kind == "8042":
        copy.keyboard.restore(original.keyboard.save())
    copy.clock.restore(original.clock.save())
    for access in second:
        assert copy.access(*access) == original.access(*access)
    assert copy.device.save() == original.device.save()


@given(ACCESSES, ACCESSES)
def test_8042_and_keyboard(first, second):
    check("8042", first, second)


@pytest.mark.parametrize("kind", ["cdrom", "lpt", "dma"])
@given(first=ACCESSES, second=ACCESSES)
def test_cdrom_printer_and_dma(kind, first, second):
    check(kind, first, second)


@given(ACCESSES, ACCESSES)
def test_fdc(first, second):
    check("fdc", first, second)


@given(st.lists(st.sampled_from([0x46, 0x45, 0x4D, 0x42, 0x51, 0x56, 0x0F, 0x07, 0x13, 0x00, 0x02, 0x12]), max_size=80))
def test_fdc_commands(values):
    """Commands as wild as their bytes: the controller is always ready again or waits for what the host must do."""
    device = Device("fdc")
    for value in values:
        for _ in range(3):
            device.access(2, 0, None, 30_000_000)
            if device.device.peek(4, 1) & 0xC0 == 0xC0:
                device.access(3, 0, None, 0)
        device.access(3, 0, value, 1_000)


@given(ACCESSES, ACCESSES)
def test_uart(first, second):
    check("uart", first, second)


@given(ACCESSES, ACCESSES)
def test_vga(first, second):
    check("vga", first, second)


@given(ACCESSES)
def test_ide(accesses):
    device = Device("ide")
    for access in accesses:
        device.access(*access)
