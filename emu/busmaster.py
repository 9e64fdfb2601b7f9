"""Memory as a device on the bus reaches it: RAM, ROM that takes no writes, registers, and nothing at all."""

from __future__ import annotations

from emu.bus import Mmio
from emu.memory import PhysicalMemory

FLOATING = 0xFF


class BusMaster:
    """Physical reads and writes of any length that never fail, as no bus cycle of a PC does. The A20 gate is in the
    CPU's way only (IBM PC/AT Technical Reference, "A20 gate")."""

    def __init__(self, memory: PhysicalMemory, mmio: Mmio) -> None:
        self._memory, self._mmio = memory, mmio

    def read(self, address: int, length: int) -> bytes:
        """Where nothing answers, the bus floats high."""
        out = bytearray()
        while len(out) < length:
            at, left = address + len(out), length - len(out)
            if have := self._memory.available(at, left):
                out += self._memory.read(at, have)
            elif self._mmio.find(at) is not None:
                out.append(self._mmio.mmio_read(at, 1))
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
            elif self._mmio.find(at) is not None:
                self._mmio.mmio_write(at, 1, data[done])
                done += 1
            else:
                done += self._empty(at, left)

    def _empty(self, address: int, most: int) -> int:
        """How many addresses from `address` on have nothing."""
        firsts = [r.base for r in self._memory.regions] + [r.first for r in self._mmio.ranges]
        return min([most, *(first - address for first in firsts if first > address)])
