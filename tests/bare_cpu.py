"""A bare CPU for engine tests: RAM, a little ROM, a recording port bus, nothing else."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from asm import assemble
from emu.engine import CheckLevel, Exit, ExitReason, Fault
from emu.memory import Part, PhysicalMemory
from emu.unicorn_engine import UnicornEngine
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from emu.x86.state import CR0_PE, EFER_LMA, EFER_LME, CpuState, Segment, Table

RAM = 4 << 20
ROM = 0xF0_0000  #: 64 KiB of ROM above a hole
CODE = 0x1000
STACK = 0x7000


@dataclass
class BareCpu:
    """The engine, its memory, and what it did to ports and MMIO: (retired, port or address, size, value or None)."""

    memory: PhysicalMemory
    engine: UnicornEngine = field(init=False)
    outs: list[tuple[int, int, int, int]] = field(default_factory=list)
    ins: list[tuple[int, int, int]] = field(default_factory=list)
    mmio: list[tuple[int, int, int, int | None]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on_in: Callable[[int, int], int] = lambda port, size: 0
    on_out: Callable[[int, int, int], None] = lambda port, size, value: None
    on_mmio_read: Callable[[int, int], int] = lambda address, size: (1 << 8 * size) - 1
    devices: bool = False  #: something answers where no memory is
    time: int = 0

    def port_in(self, port: int, size: int) -> int:
        self.ins.append((self.engine.retired, port, size))
        return self.on_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self.outs.append((self.engine.retired, port, size, value))
        self.on_out(port, size, value)

    def mmio_read(self, address: int, size: int) -> int:
        self.mmio.append((self.engine.retired, address, size, None))
        return self.on_mmio_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self.mmio.append((self.engine.retired, address, size, value))

    def answers(self, address: int) -> bool:
        return self.devices

    def write(self, address: int, data: bytes) -> None:
        self.memory.write(address, data)

    def read(self, address: int, length: int) -> bytes:
        return self.memory.read(address, length)

    def read32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def run(self, budget: int = 1_000_000, slice: int = 1_000_000) -> Exit:
        """Run in slices until something other than the budget or a delivered interrupt ends it."""
        left = budget
        while True:
            exit = self.engine.run(min(left, slice))
            left -= exit.executed
            if exit.reason not in (ExitReason.BUDGET, ExitReason.REQUEST) or not left:
                return exit


def bare_cpu(
    source: str = "",
    bits: int = 16,
    *,
    state: CpuState | None = None,
    model: str = DEFAULT_MODEL,
    checks: CheckLevel = CheckLevel.AUTO,
) -> BareCpu:
    """A CPU in the mode `bits` (16: real, 32: flat protected, 64: flat long with paging off in tables below) with
    `source` assembled at CODE. The IVT and IDT are zeros unless the source sets them up."""
    memory = PhysicalMemory(
        [Part(0, RAM, "ram", "ram"), Part(ROM, 0x10000, "rom", "rom", b"ROM!" * 16)],
    )
    cpu = BareCpu(memory)
    cpu.engine = UnicornEngine(memory.regions, cpu, cpu, timestamp=lambda: cpu.time, model=MODELS[model], checks=checks)
    memory.on_write.append(cpu.engine.memory_changed)
    cpu.engine.on_fault(cpu.faults.append)
    if source:
        memory.write(CODE, assemble(f"bits {bits}\n{source}", CODE))
    cpu.engine.load(state or _state(bits, memory))
    return cpu


#: What `used_cpu` empties: code, stack and operands.
USED = 0x10000


def used_cpu(source: str = "", bits: int = 16, *, model: str = DEFAULT_MODEL) -> BareCpu:
    """As `bare_cpu`, without the time that it takes to make an engine: one CPU for all of this mode and model, whose
    low memory is emptied and whose state is loaded anew. Who has got it before is done with it."""
    cpu = _kept(bits, model, os.environ.get("V2E_ENGINE", ""))
    for record in (cpu.outs, cpu.ins, cpu.mmio, cpu.faults):
        record.clear()
    code = assemble(f"bits {bits}\n{source}", CODE)
    cpu.memory.write(0, (bytes(CODE) + code).ljust(USED, b"\0"))
    cpu.engine.set_retired(0)
    cpu.engine.load(_state(bits, cpu.memory))
    return cpu


@functools.cache
def _kept(bits: int, model: str, loop: str) -> BareCpu:
    """`loop`: what the environment asks for, which the engine is made with."""
    return bare_cpu(bits=bits, model=model)


def _state(bits: int, memory: PhysicalMemory) -> CpuState:
    return {16: real_state, 32: flat_state, 64: long_state}[bits](memory)


def real_state(_memory: PhysicalMemory | None = None) -> CpuState:
    """Real mode at 0000:1000, SP 7000h."""
    state = CpuState(rip=CODE)
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    state.regs[4] = STACK
    return state


def flat_state(_memory: PhysicalMemory | None = None) -> CpuState:
    """32-bit protected mode, flat segments, ring 0, IDT at 0."""
    state = CpuState(rip=CODE, cr0=0x60000010 | CR0_PE)
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("es", "ss", "ds", "fs", "gs"):
        setattr(state, name, Segment(16, 0, 0xFFFFFFFF, 0xC093))
    state.gdtr = Table(GDT, 0x3F)
    state.regs[4] = STACK
    if _memory is not None:
        _memory.write(GDT, gdt())
    return state


GDT = 0x800
#: Page tables of long_state: the first 4 MiB identity-mapped in 4 KiB pages, and the 2 MiB around ROM.
TABLES = 0x100000


def gdt() -> bytes:
    """null, code32 08, data 10, code64 18, code16 20, data16 28."""
    words = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF)
    return b"".join(word.to_bytes(8, "little") for word in words)


def long_state(memory: PhysicalMemory | None = None) -> CpuState:
    """64-bit mode with 4-level paging: the first 4 MiB identity-mapped."""
    state = flat_state(memory)
    state.cs = Segment(0x18, 0, 0xFFFFFFFF, 0xA09B)
    state.cr0 |= 1 << 31
    state.cr4 = 0x20
    state.cr3 = TABLES
    state.efer = EFER_LME | EFER_LMA
    if memory is not None:
        entries = {TABLES: TABLES + 0x1003, TABLES + 0x1000: TABLES + 0x2003}
        for i in range(2):
            entries[TABLES + 0x2000 + 8 * i] = TABLES + 0x3000 + 0x1000 * i | 3
        entries[TABLES + 0x2000 + 8 * (ROM >> 21)] = ROM >> 21 << 21 | 0x83
        for i in range(1024):
            entries[TABLES + 0x3000 + 8 * i] = i << 12 | 3
        for address, entry in entries.items():
            memory.write(address, entry.to_bytes(8, "little"))
    return state
