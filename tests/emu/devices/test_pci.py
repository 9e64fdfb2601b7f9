"""PCI configuration mechanism 1, BARs, the i440FX's and PIIX3's registers, against their data sheets."""

from __future__ import annotations

import pytest

from emu.devices.i440fx import HostBridge
from emu.devices.pci import Bar, PciFunction, PciHost
from emu.devices.piix3 import IsaBridge
from emu.devices.syscontrol import ResetControl


def address(device: int, function: int, register: int) -> int:
    return 1 << 31 | device << 11 | function << 8 | register & 0xFC


class Host:
    """CF8h-CFFh with one function at 00:03.0."""

    def __init__(self) -> None:
        self.resets: list[str] = []
        self.host = PciHost(ResetControl(self.resets.append))
        self.chip = PciFunction("chip", "a chip", (0x1234, 0x5678), 0x020000, pin=1, command=0x0407)
        self.chip.add_bar(0, Bar(0x20, True, None))
        self.chip.add_bar(1, Bar(0x1000, False, None))
        self.lines: list[bool] = []
        self.chip.on_intx = self.lines.append
        self.host.add(3, 0, self.chip)

    def read(self, register: int, size: int, device: int = 3, function: int = 0) -> int:
        self.host.write(0, address(device, function, register), 4)
        return self.host.read(4 + (register & 3), size)

    def write(self, register: int, value: int, size: int) -> None:
        self.host.write(0, address(3, 0, register), 4)
        self.host.write(4 + (register & 3), value, size)


@pytest.fixture
def bus():
    return Host()


def test_confadd_takes_only_dwords_and_keeps_its_reserved_bits_clear(bus):
    bus.host.write(0, 0xFFFFFFFF, 4)
    assert bus.host.read(0, 4) == 0x80FFFFFC
    bus.host.write(0, 0, 1)
    bus.host.write(0, 0, 2)
    assert bus.host.read(0, 4) == 0x80FFFFFC


def test_registers_are_read_in_bytes_words_and_dwords(bus):
    assert bus.read(0, 4) == 0x56781234
    assert bus.read(2, 2) == 0x5678
    assert [bus.read(i, 1) for i in range(4)] == [0x34, 0x12, 0x78, 0x56]


def test_absent_functions_other_buses_and_disabled_cycles_read_all_ones(bus):
    assert bus.read(0, 4, device=4) == 0xFFFFFFFF
    assert bus.read(0, 2, function=1) == 0xFFFF
    bus.host.write(0, address(3, 0, 0) | 1 << 16, 4)
    assert bus.host.read(4, 4) == 0xFFFFFFFF
    bus.host.write(0, address(3, 0, 0) & 0x7FFFFFFF, 4)
    assert bus.host.read(4, 4) == 0xFFFFFFFF


def test_a_bar_tells_its_size_and_kind_when_ones_are_written(bus):
    bus.write(0x10, 0xFFFFFFFF, 4)
    bus.write(0x14, 0xFFFFFFFF, 4)
    assert bus.read(0x10, 4) == 0xFFFFFFE1
    assert bus.read(0x14, 4) == 0xFFFFF000
    assert bus.read(0x18, 4) == 0


def test_a_bar_is_decoded_only_with_its_bit_of_the_command_register(bus):
    bus.write(0x10, 0xC001, 4)
    bus.write(0x14, 0xE0000000, 4)
    assert bus.chip.windows() == []
    bus.write(4, 1, 2)
    assert [w.base for w in bus.chip.windows()] == [0xC000]
    bus.write(4, 2, 2)
    assert [w.base for w in bus.chip.windows()] == [0xE0000000]


def test_ids_and_class_cannot_be_written(bus):
    before = [bus.read(r, 4) for r in (0, 8, 0x2C)]
    for register in (0, 8, 0x2C):
        bus.write(register, 0, 4)
    assert [bus.read(r, 4) for r in (0, 8, 0x2C)] == before


def test_intx_follows_its_disable_bit(bus):
    bus.chip.set_intx(True)
    bus.write(4, 0x0400, 2)
    bus.write(4, 0, 2)
    assert bus.lines == [True, False, True]


def test_cf9_between_the_registers_resets(bus):
    bus.host.write(1, 0x06, 1)
    assert bus.resets == ["system"]
    assert bus.host.read(1, 1) == 0x06


def test_pam_nibbles_choose_dram_for_reads_and_writes():
    """Intel 82441FX data sheet, table 3-3: the segments of PAM0 to PAM6."""
    bridge = HostBridge(lambda: None)
    assert not any(s.read or s.write for s in bridge.segments())
    bridge.config_write(0x5A, 0x21, 1)  # PAM1: C0000h read, C4000h write
    bridge.config_write(0x59, 0x30, 1)  # PAM0: F0000h both
    found = {s.base: (s.read, s.write) for s in bridge.segments() if s.read or s.write}
    assert found == {0xC0000: (True, False), 0xC4000: (False, True), 0xF0000: (True, True)}


def test_pam_reserved_bits_stay_clear():
    bridge = HostBridge(lambda: None)
    bridge.config_write(0x59, 0xFFFFFFFF, 4)
    assert bridge.config_read(0x59, 1) == 0x30
    assert bridge.config_read(0x5A, 1) == 0x33


def test_a_locked_smram_cannot_be_opened():
    """3.2.19: D_LCK clears D_OPEN and makes the register read-only until reset."""
    bridge = HostBridge(lambda: None)
    bridge.config_write(0x72, 0x48, 1)
    assert bridge.smram
    bridge.config_write(0x72, 0x58, 1)
    assert not bridge.smram
    bridge.config_write(0x72, 0x48, 1)
    assert not bridge.smram and bridge.config_read(0x72, 1) == 0x1A
    bridge.reset()
    bridge.config_write(0x72, 0x48, 1)
    assert bridge.smram


def test_pirqs_are_routed_shared_and_moved():
    events: list[tuple[int, bool]] = []
    bridge = IsaBridge(lambda n, level: events.append((n, level)))
    one, two = bridge.pci_line(3, 1), bridge.pci_line(7, 1)  # (3-1)&3 and (7-1)&3: both PIRQC
    one(True)
    assert events == []  # 80h: not routed
    bridge.config_write(0x62, 0x0B, 1)
    assert events == [(11, True)]
    two(True)
    one(False)
    assert events == [(11, True)]
    bridge.config_write(0x62, 0x0A, 1)
    assert events[1:] == [(10, True), (11, False)]
    two(False)
    assert events[3:] == [(10, False)]


def test_a_pirq_and_an_isa_device_share_a_line():
    events: list[tuple[int, bool]] = []
    bridge = IsaBridge(lambda n, level: events.append((n, level)))
    bridge.config_write(0x60, 0x0B, 1)
    pci, isa = bridge.pci_line(1, 1), bridge.isa_line(11)
    pci(True)
    isa(True)
    isa(False)
    assert events[-1] == (11, True)
    pci(False)
    assert events[-1] == (11, False)


@pytest.mark.parametrize("irq", [0, 1, 2, 8, 13])
def test_reserved_irqs_are_no_routes(irq):
    bridge = IsaBridge(lambda n, level: None)
    bridge.config_write(0x60, irq, 1)
    assert bridge.routed(0) is None
