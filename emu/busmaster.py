"""Memory as a device on the bus reaches it: RAM, ROM that takes no writes, the display's window, and nothing at all."""

from __future__ import annotations

from emu.bus import Mmio, Range
from emu.memory import PhysicalMemory

FLOATING = 0xFF


class BusMaster:
    """Physical reads and writes of any length that never fail, as no ISA bus cycle of a PC does. The A20 gate is in the
    CPU's way only (IBM PC/AT Technical Reference, "A20 gate").

    Of what is neither RAM nor ROM only ranges mapped with `masters` are reached: a device that writes to registers,
    its own among them, would re-enter a model that is in the middle of something. With `registers` all ranges are, by
    words where they are aligned: what stands for the CPU's REP MOVSW, and is no part of a device."""

    def __init__(self, memory: PhysicalMemory, mmio: Mmio, *, registers: bool = False) -> None:
        self._memory, self._mmio, self._registers = memory, mmio, registers

    def read(self, address: int, length: int) -> bytes:
        """Where nothing answers, the bus floats high."""
        if self._memory.available(address, length) == length:
            return self._memory.read(address, length)
        out = bytearray()
        while len(out) < length:
            at, left = address + len(out), length - len(out)
            if have := self._memory.available(at, left):
                out += self._memory.read(at, have)
            elif self._window(at) is not None:
                size = self._access(at, left)
                out += self._mmio.mmio_read(at, size).to_bytes(size, "little")
            else:
                out += bytes((FLOATING,)) * self._empty(at, left)
        return bytes(out)

    def write(self, address: int, data: bytes) -> None:
        """ROM and empty addresses swallow it. Engines are told what changed."""
        done = 0
        while done < len(data):
            at, left = address + done, len(data) - done
            if have := self._memory.available(at, left):
                self._memory.write_ram(at, data[done : done + have])
                done += have
            elif self._window(at) is not None:
                size = self._access(at, left)
                self._mmio.mmio_write(at, size, int.from_bytes(data[done : done + size], "little"))
                done += size
            else:
                done += self._empty(at, left)

    def answered(self, address: int, length: int) -> bool:
        """Something answers every byte of the range."""
        done = 0
        while done < length:
            at = address + done
            if have := self._memory.available(at, length - done):
                done += have
            elif (window := self._window(at)) is not None:
                done += window.first + window.count - at
            else:
                return False
        return True

    def _window(self, address: int) -> Range | None:
        found = self._mmio.find(address)
        return found if found is not None and (found.masters or self._registers) else None

    def _access(self, address: int, left: int) -> int:
        return 2 if self._registers and left > 1 and not address & 1 else 1

    def _empty(self, address: int, most: int) -> int:
        """How many addresses from `address` on have nothing."""
        firsts = [r.base for r in self._memory.regions] + [
            r.first for r in self._mmio.ranges if r.masters or self._registers
        ]
        return min([most, *(first - address for first in firsts if first > address)])


class PciMaster:
    """The same for a PCI function: where nothing answers, the transfer is aborted (PCI 2.1, 3.3.3.1)."""

    def __init__(self, bus: BusMaster) -> None:
        self._bus = bus

    def read(self, address: int, length: int) -> bytes | None:
        """See emu.devices.pci.Dma."""
        return self._bus.read(address, length) if self._bus.answered(address, length) else None

    def write(self, address: int, data: bytes) -> bool:
        """See emu.devices.pci.Dma."""
        if not self._bus.answered(address, len(data)):
            return False
        self._bus.write(address, data)
        return True

    def reaches(self, address: int, length: int) -> bool:
        """See emu.devices.pci.Dma."""
        return self._bus.answered(address, length)
