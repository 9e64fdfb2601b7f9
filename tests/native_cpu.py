"""A vCPU of KVM with memory and recording devices, nothing else."""

from __future__ import annotations

import random
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
from emu.x86.state import CpuState, Segment
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.cpu import KvmVcpu

ARITHMETIC = 0xCD5  #: flags that any state may have
KERNEL_GS_BASE, LSTAR, SYSENTER_EIP = 0xC0000102, 0xC0000082, 0x176


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

    def answers(self, address: int) -> bool:
        return False

    def program(self, source: str, state: CpuState, bits: int) -> None:
        """Have the CPU continue from `state` with `source` at CODE. Skips where this KVM does not run such a state."""
        self.memory.write(CODE, assemble(f"bits {bits}\n{source}", CODE))
        backend = replace(self.backend, misdelivers=())
        if broken := [b for b in backend.check(state) if "turn on paging" not in b.text]:
            pytest.skip(str(broken[0]))
        self.cpu.load(state)

    def without_rules(self) -> None:
        """Enter states from which a guest could turn on a paging that this KVM does not do, or be interrupted in a
        way that it does wrong: programs here do and are not."""
        self.cpu.rules = replace(self.backend, runs=frozenset(Kind), misdelivers=()).rules()


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


def scrambled(kind: Kind, rng: random.Random) -> CpuState:
    """A state of that kind with anything in whatever the kind leaves free."""
    state = programs.state_of(kind, programs.memory())
    wide = 64 if kind in (Kind.LONG, Kind.LONG_RING3) else 32
    state.regs = [rng.getrandbits(wide) for _ in range(16 if wide == 64 else 8)] + [0] * (0 if wide == 64 else 8)
    state.rip = rng.getrandbits(16)
    state.rflags |= rng.getrandbits(12) & ARITHMETIC
    state.cr2, state.cr8 = rng.getrandbits(32), rng.getrandbits(4)
    fpu = state.fpu
    fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop = 0x37F, rng.getrandbits(3) << 11, rng.getrandbits(8), rng.getrandbits(11)
    fpu.fip, fpu.fdp, fpu.mxcsr = rng.getrandbits(32), rng.getrandbits(32), 0x1F80 | rng.getrandbits(6)
    # Normal numbers: what an empty register holds is kept as well.
    fpu.st = [rng.getrandbits(63) | 1 << 63 | rng.randrange(1, 0x7FFF) << 64 for _ in range(8)]
    fpu.xmm = [rng.getrandbits(128) for _ in range(16)]
    state.dr = [*(rng.getrandbits(32) for _ in range(4)), 0, 0, 0xFFFF0FF0 | rng.getrandbits(4), 0x400]
    state.shadow, state.nmi_blocked = rng.random() < 0.5, rng.random() < 0.5
    state.msrs = {
        KERNEL_GS_BASE: rng.getrandbits(47), LSTAR: rng.getrandbits(47), SYSENTER_EIP: rng.getrandbits(47),
    }  # fmt: skip
    state.gdtr.base, state.idtr.limit = rng.getrandbits(32), rng.getrandbits(16)
    if kind in (Kind.REAL, Kind.BIG_REAL):
        for name in ("ds", "es", "fs", "gs"):
            selector = rng.getrandbits(16)
            big = kind is Kind.BIG_REAL
            setattr(
                state, name, Segment(selector, selector << 4, 0xFFFFFFFF if big else 0xFFFF, 0x8093 if big else 0x93)
            )
    else:
        state.fs.base, state.gs.base = rng.getrandbits(31), rng.getrandbits(31)
    return state
