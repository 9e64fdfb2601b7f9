"""Bus masters: what they reach, and that no address is an error."""

from __future__ import annotations

from emu.bus import Mmio
from emu.busmaster import BusMaster, PciMaster
from emu.memory import Part, PhysicalMemory


class Register:
    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return 0x50 + offset

    peek = read

    def write(self, offset: int, value: int, size: int) -> None:
        self.written.append((offset, value))


def made():
    memory = PhysicalMemory([Part(0, 0x1000, "ram", "ram"), Part(0x1000, 0x1000, "rom", "rom", b"ROM")])
    mmio, register = Mmio(), Register()
    mmio.map(0x4000, 2, register, "register", masters=True)
    mmio.map(0x5000, 2, Register(), "not for masters")
    return memory, register, BusMaster(memory, mmio)


def test_reads_cross_ram_rom_holes_and_registers():
    memory, _, bus = made()
    memory.write(0xFFF, b"r")
    assert bus.read(0xFFF, 4) == b"rROM"
    assert bus.read(0x1FFF, 0x2004) == b"\0" + b"\xff" * 0x2000 + b"\x50\x51" + b"\xff"


def test_writes_change_ram_and_registers_and_nothing_else():
    memory, register, bus = made()
    told = []
    memory.on_write.append(lambda address, length: told.append((address, length)))
    bus.write(0xFFE, b"abcd")
    assert memory.read(0xFFE, 4) == b"abRO"
    assert told == [(0xFFE, 2)]
    bus.write(0x3FFF, b"xyz!")
    assert register.written == [(0, ord("y")), (1, ord("z"))]


def test_registers_that_are_not_for_masters_float():
    _, _, bus = made()
    assert bus.read(0x4FFF, 3) == b"\xff" * 3
    assert not bus.answered(0x5000, 1)


def test_a_pci_master_is_aborted_where_nothing_answers_with_nothing_written():
    memory, register, bus = made()
    pci = PciMaster(bus)
    assert pci.read(0xFFF, 2) == b"\0R" and pci.read(0x1FFF, 2) is None and pci.read(0x4000, 2) == b"\x50\x51"
    assert not pci.write(0x3FFF, b"xy") and register.written == []
    assert pci.write(0xFFF, b"ab") and memory.read(0xFFF, 2) == b"aR"
    assert not pci.reaches(1 << 63, 1 << 32) and pci.reaches(0, 0x2000)
