"""A vCPU of KVM with memory and recording devices, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from asm import assemble
from bare_cpu import CODE, RAM, ROM
from emu.engine import CheckLevel
from emu.memory import Part, PhysicalMemory
from emu.record import replace
from emu.vcpu import Place
from emu.x86.cpuid import MODELS
from emu.x86.state import CpuState
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.cpu import KvmVcpu


@dataclass
class Native:
    """A KvmVcpu over 4 MiB of RAM and a ROM, and what it did to ports and MMIO: (address, size, value or None)."""

    backend: Backend
    memory: PhysicalMemory
    cpu: KvmVcpu = field(init=False)
    ports: list[tuple[int, int, int | None]] = field(default_factory=list)
    mmio: list[tuple[int, int, int | None]] = field(default_factory=list)
    on_in: Callable[[int, int], int] = lambda port, size: 0
    on_read: Callable[[int, int], int] = lambda address, size: (1 << 8 * size) - 1
    time: int = 0

    def port_in(self, port: int, size: int) -> int:
        self.ports.append((port, size, None))
        return self.on_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self.ports.append((port, size, value))

    def mmio_read(self, address: int, size: int) -> int:
        self.mmio.append((address, size, None))
        return self.on_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self.mmio.append((address, size, value))

    def program(self, source: str, state: CpuState, bits: int) -> None:
        """Have the CPU continue from `state` with `source` at CODE. Skips where this KVM does not run such a state."""
        self.memory.write(CODE, assemble(f"bits {bits}\n{source}", CODE))
        if broken := [b for b in self.backend.check(state) if "turn on paging" not in b.text]:
            pytest.skip(str(broken[0]))
        self.cpu.load(state)

    def without_rules(self) -> None:
        """Enter states from which a guest could turn on a paging that this KVM does not do: programs here do not."""
        self.cpu.rules = replace(self.backend, runs=frozenset(Kind)).rules()


def native_cpu(backend: Backend) -> Native:
    """One that enters whatever state it is given. To be closed."""
    memory = PhysicalMemory(
        [Part(0, RAM, "ram", "ram"), Part(ROM, 0x10000, "rom", "rom", b"ROM!" * 16)],
    )
    machine = Native(backend, memory)
    place = Place(memory.regions, machine, machine, lambda: machine.time, 10, CheckLevel.AUTO, MODELS["max"])
    machine.cpu = KvmVcpu(place, backend)
    machine.without_rules()
    start = memory.regions[0].host_address
    machine.cpu.trace_pages(start, memory.size // 4096)
    memory.on_write.append(machine.cpu.memory_changed)
    return machine
