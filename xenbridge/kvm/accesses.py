"""Port and memory accesses of a vCPU, answered by the machine's devices as a hypervisor's user space does it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from emu.engine import MemoryRegion, MmioBus, PortIo
from xenbridge.kvm import abi
from xenbridge.kvm.vcpu import Vcpu
from xenbridge.kvm.vm import PAGE

#: Widths that the bus takes. KVM cuts an access at a page's end, and tells the parts of any length.
WIDTHS = (8, 4, 2, 1)


class Accesses:
    """Answers what `cpu` exits with. `regions` is where memory stands, ROM included."""

    def __init__(self, cpu: Vcpu, io: PortIo, mmio: MmioBus, regions: Sequence[MemoryRegion]) -> None:
        self._cpu, self._io, self._mmio = cpu, io, mmio
        self.regions = regions
        self.redirected: set[int] = set()  #: numbers of this process's pages that took what was written to ROM

    def serve(self, reason: int) -> tuple[int, bool]:
        """Do what EXIT_IO or EXIT_MMIO asks for: its port or physical address, and whether it writes."""
        if reason == abi.EXIT_IO:
            access = self._cpu.pio()
            write, size, port, times, _ = access
            self._port(port, size, times, write, self._cpu.pio_data(access))
            return port, write
        memory = self._cpu.mmio()
        if memory.write:
            self._write(memory.address, memory.size, memory.value)
        else:
            self._cpu.answer_mmio(memory.size, self._read(memory.address, memory.size))
        return memory.address, memory.write

    def _port(self, port: int, size: int, count: int, write: bool, data: memoryview) -> None:
        if count == 1 and write:
            self._io.port_out(port, size, int.from_bytes(data, "little"))
            return
        for at in range(0, size * count, size):
            if write:
                self._io.port_out(port, size, int.from_bytes(data[at : at + size], "little"))
            else:
                data[at : at + size] = self._io.port_in(port, size).to_bytes(size, "little")

    def _read(self, address: int, size: int) -> int:
        value = done = 0
        while done < size:
            part = next(p for p in WIDTHS if done + p <= size)
            value |= self._mmio.mmio_read(address + done, part) << 8 * done
            done += part
        return value

    def _write(self, address: int, size: int, value: int) -> None:
        for region in self.regions:
            if region.base <= address < region.base + region.size:
                self._write_rom(region, address, size, value)
                return
        done = 0
        while done < size:
            part = next(p for p in WIDTHS if done + p <= size)
            self._mmio.mmio_write(address + done, part, value >> 8 * done & (1 << 8 * part) - 1)
            done += part

    def _write_rom(self, region: MemoryRegion, address: int, size: int, value: int) -> None:
        """What is written to ROM is dropped, or goes to the RAM that takes it."""
        if region.written is not None:
            host = region.host_address - region.offset + region.written + address - region.base
            ctypes.memmove(host, value.to_bytes(size, "little"), size)
            self.redirected.update((host // PAGE, (host + size - 1) // PAGE))
