"""PCI at power-on: BARs, interrupt lines, and the chipset's functions switched on, as an operating system expects them.

Sources: PCI Local Bus Specification 2.1, 6.2.5 (base addresses), 3.7.4.1 (configuration mechanism #1); Intel 82371SB
(PIIX3) data sheet, 2.2 (PIRQRC), 2.3 (IDETIM); Intel 82371AB (PIIX4) data sheet, 7.1 (PMBA), for the function at 1.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from emu import layout
from emu.firmware.bios.hardware import Hardware

IO_BASE = 0xC000
MEMORY_BASE, MEMORY_END = layout.VGA_FRAME_BUFFER, layout.IOAPIC
DISPLAY_CLASS = 0x03
ISA_BRIDGE, PIRQRC = 1 << 3, 0x60
#: Lines A to D: one level triggered IRQ for two each.
PIRQ_IRQS = (10, 10, 11, 11)
PIIX3_IDE, PIIX4_PM = 0x70108086, 0x71138086
IDETIM, DECODE_BOTH = 0x40, 0x80008000
PMBA, PMREGMISC = 0x40, 0x80
IO, MEMORY, MASTER = 1, 2, 4


class PciConfig:
    """Configuration mechanism #1; `devfn` is device * 8 + function, on bus 0."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def _select(self, devfn: int, register: int, bus: int = 0) -> int:
        self._hardware.port_out(layout.PCI_CONFIG, 4, 1 << 31 | bus << 16 | devfn << 8 | register & 0xFC)
        return layout.PCI_CONFIG + 4 + (register & 3)

    def read(self, devfn: int, register: int, size: int, bus: int = 0) -> int:
        return self._hardware.port_in(self._select(devfn, register, bus), size)

    def write(self, devfn: int, register: int, value: int, size: int, bus: int = 0) -> None:
        self._hardware.port_out(self._select(devfn, register, bus), size, value)

    def functions(self) -> Iterator[int]:
        """All on bus 0."""
        for device in range(32):
            if self.read(device << 3, 0, 2) == 0xFFFF:
                continue
            many = self.read(device << 3, 0x0E, 1) & 0x80
            for function in range(8 if many else 1):
                if self.read(device << 3 | function, 0, 2) != 0xFFFF:
                    yield device << 3 | function


def frame_buffer(hardware: Hardware) -> int:
    """Physical address of the linear frame buffer: BAR 0 of a PCI display, else where an ISA one has it."""
    if not hardware.pci:
        return layout.VGA_FRAME_BUFFER
    config = PciConfig(hardware)
    kept = hardware.port_in(layout.PCI_CONFIG, 4)
    displays = (devfn for devfn in config.functions() if config.read(devfn, 0x0B, 1) == DISPLAY_CLASS)
    base = next((config.read(devfn, 0x10, 4) & ~15 for devfn in displays), layout.VGA_FRAME_BUFFER)
    hardware.port_out(layout.PCI_CONFIG, 4, kept)
    return base


def set_up_pci(hardware: Hardware) -> None:
    """Addresses grow from IO_BASE and MEMORY_BASE, each BAR at a multiple of its size."""
    config = PciConfig(hardware)
    places = [MEMORY_BASE, IO_BASE]
    for line, irq in enumerate(PIRQ_IRQS):
        config.write(ISA_BRIDGE, PIRQRC + line, irq, 1)
        at = layout.ELCR + (irq >> 3)
        hardware.outb(at, hardware.inb(at) | 1 << (irq & 7))
    for devfn in list(config.functions()):
        _set_up(config, devfn, places)


def _set_up(config: PciConfig, devfn: int, places: list[int]) -> None:
    command = 0
    for register in range(0x10, 0x28, 4):
        config.write(devfn, register, 0xFFFFFFFF, 4)
        mask = config.read(devfn, register, 4)
        if not mask:
            continue
        io = mask & 1
        size = -(mask & (0xFFFFFFFC if io else 0xFFFFFFF0)) & (0xFFFF if io else 0xFFFFFFFF)
        base = -(-places[io] // size) * size
        if base + size > (0x10000 if io else MEMORY_END):
            continue
        config.write(devfn, register, base, 4)
        places[io] = base + size
        command |= IO if io else MEMORY
    if pin := config.read(devfn, 0x3D, 1):
        # PIRQ lines are swizzled by the slot, as on the boards with this chipset (PIIX3 in slot 1).
        config.write(devfn, 0x3C, PIRQ_IRQS[((devfn >> 3) - 1 + pin - 1) & 3], 1)
    if config.read(devfn, 0x0B, 1) == DISPLAY_CLASS:
        command |= IO | MEMORY  # the VGA's own ports and window are no BARs
    ids = config.read(devfn, 0, 4)
    if ids == PIIX3_IDE:
        config.write(devfn, IDETIM, DECODE_BOTH, 4)
        command |= IO | MASTER
    elif ids == PIIX4_PM:
        config.write(devfn, PMBA, layout.ACPI_PM | 1, 4)
        config.write(devfn, PMREGMISC, 1, 1)
        command |= IO
        config.write(devfn, 0x3C, layout.IRQ_SCI, 1)
    config.write(devfn, 0x04, config.read(devfn, 0x04, 2) | command, 2)
