"""CPUID as the emulator answers it, as KVM's table: a guest sees one CPU, whoever executes it."""

from __future__ import annotations

import functools
from typing import Final

from emu.memory import Part, PhysicalMemory
from emu.unicorn_engine import UnicornEngine
from emu.x86.cpuid import CpuModel
from emu.x86.state import CR0_PE, CpuState, Segment
from xenbridge.kvm import abi

CODE: Final = 0x100
PROGRAM: Final = b"\x0f\xa2\xf4"  # cpuid; hlt
EXTENDED: Final = 0x80000000
#: Leaves whose answer depends on ECX (SDM vol. 2A, CPUID), and how many of their sub-leaves are asked.
INDEXED: Final = {0x4: 8, 0x7: 1, 0xB: 4, 0xD: 8}
_MASK32: Final = (1 << 32) - 1


class _NoPorts:
    """CPUID reaches none."""

    def port_in(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        pass


def _state(leaf: int, index: int) -> CpuState:
    state = CpuState(rip=CODE, cr0=0x60000010 | CR0_PE)
    state.cs = Segment(8, 0, _MASK32, 0xC09B)
    state.regs[0], state.regs[1] = leaf, index
    return state


@functools.cache
def cpuid_entries(model: CpuModel) -> tuple[abi.CpuidEntry, ...]:
    """The leaves that the emulator's CPU of this model has, asked one by one of one that nobody else uses."""
    memory = PhysicalMemory([Part(0, 0x1000, "ram", "ram", PROGRAM.rjust(CODE + len(PROGRAM), b"\0"))])
    engine = UnicornEngine(memory.regions, _NoPorts(), None, timestamp=lambda: 0, model=model)

    def ask(leaf: int, index: int = 0) -> tuple[int, int, int, int]:
        engine.load(_state(leaf, index))
        engine.run(2)
        eax, ecx, edx, ebx = (value & _MASK32 for value in engine.state().regs[:4])
        return eax, ebx, ecx, edx

    try:
        entries = []
        for first in (0, EXTENDED):
            last = ask(first)[0]
            for leaf in range(first, last + 1) if first <= last < first + 0x100 else (first,):
                for index in range(INDEXED.get(leaf, 1)):
                    flags = abi.CPUID_INDEXED if leaf in INDEXED else 0
                    entries.append(abi.CpuidEntry(leaf, index, flags, *ask(leaf, index)))
        return tuple(entries)
    finally:
        engine.close()
