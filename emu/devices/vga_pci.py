"""The VGA as a PCI function: frame buffer, registers and VGA BIOS behind base address registers.

Source: QEMU docs/specs/standard-vga.rst (PCI variant, MMIO area); PCI 2.1, 6.2.5.2 (expansion ROM). The legacy ports
and the window at A0000h answer whatever the command register says, as QEMU's do. There is no monitor that could be
asked for its EDID: the area reads zeros, as with `edid=off`.
"""

from __future__ import annotations

from emu.devices.pci import Bar, PciFunction, PciState
from emu.devices.vga import FIRST_PORT, Vga
from emu.views import DeviceView

FRAME_BUFFER, REGISTERS = 0, 2  #: BARs
REGISTERS_SIZE = 0x1000
# Areas of the second.
PORTS, PORTS_SIZE, PORTS_FIRST = 0x400, 0x20, 0x3C0
DISPI, DISPI_SIZE = 0x500, 0x16
EXTENDED = 0x600
#: The extended registers: their size, and the byte order of the frame buffer.
EXTENDED_VALUES = (8).to_bytes(4, "little") + (0x1E1E1E1E).to_bytes(4, "little")


class VgaFunction(PciFunction):
    """1234:1111. `memory` and `rom` name the parts of memory that the BARs show; `rom_size` is 0 without a ROM."""

    def __init__(self, vga: Vga, memory: str, size: int, rom: str, rom_size: int) -> None:
        super().__init__(
            "vga-pci", "QEMU standard VGA", (0x1234, 0x1111), 0x030000, revision=2, command=0x0107
        )  # fmt: skip
        self.add_bar(FRAME_BUFFER, Bar(size, False, None, prefetchable=True, memory=memory))
        self.add_bar(REGISTERS, Bar(REGISTERS_SIZE, False, Registers(vga)))
        if rom_size:
            self.add_rom(Bar(rom_size, False, None, memory=rom, rom=True))

    def save(self) -> PciState:
        return self.save_pci()

    def restore(self, state: PciState) -> None:
        self.restore_pci(state)

    def view(self) -> DeviceView:
        return DeviceView(self.name, self.chip, "PCI 00:02.0", self.pci_fields())


class Registers:
    """The MMIO area: VGA ports 3C0h-3DFh in order, the Bochs VBE registers flat, and QEMU's extended ones."""

    def __init__(self, vga: Vga) -> None:
        self._vga = vga

    def _dispi(self, offset: int, size: int) -> bool:
        """A register's word; as in QEMU an access leaves the index port where it was put."""
        if not (DISPI <= offset < DISPI + DISPI_SIZE and size == 2 and not offset & 1):
            return False
        self._vga.vbe.write(0, offset - DISPI >> 1, 2)
        return True

    def read(self, offset: int, size: int) -> int:
        if PORTS <= offset < PORTS + PORTS_SIZE:
            return self._bytes(offset, size, effects=True)
        if self._dispi(offset, size):
            return self._vga.vbe.read(2, 2)
        return self._extended(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """Without side effects: of the VBE registers nothing, as their index would move."""
        if PORTS <= offset < PORTS + PORTS_SIZE:
            return self._bytes(offset, size, effects=False)
        return self._extended(offset, size)

    def _bytes(self, offset: int, size: int, *, effects: bool) -> int:
        first = offset - PORTS + PORTS_FIRST - FIRST_PORT
        access = self._vga.read if effects else self._vga.peek
        return sum(access(first + i, 1) << 8 * i for i in range(min(size, PORTS + PORTS_SIZE - offset)))

    def _extended(self, offset: int, size: int) -> int:
        at = offset - EXTENDED
        return int.from_bytes(EXTENDED_VALUES[at : at + size], "little") if at >= 0 else 0

    def write(self, offset: int, value: int, size: int) -> None:
        """Words to the ports are bytes in order, so that an index and its data go at once."""
        if PORTS <= offset < PORTS + PORTS_SIZE:
            first = offset - PORTS + PORTS_FIRST - FIRST_PORT
            for i in range(min(size, PORTS + PORTS_SIZE - offset)):
                self._vga.write(first + i, value >> 8 * i & 0xFF, 1)
        elif self._dispi(offset, size):
            self._vga.vbe.write(2, value, 2)
