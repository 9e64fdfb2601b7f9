"""The code in which a borrowed vCPU waits, parking.asm, and the registers with which it enters it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emu.x86.state import CpuState, Segment, Table
from xenbridge.xen.memory import PAGE

#: As parking.asm has them: where its pages are, its ports, and in its pages the tables and what is exchanged.
BASE, DOOR, BELL = 0xFEFE0000, 0x5C, 0x5D
GDT, BOX, IDT = 0x1E0, 0x200, 0x800
FRAMES: Final = [BASE // PAGE, BASE // PAGE + 1]


def code() -> bytes:
    """The two pages."""
    return (Path(__file__).parent / "parking.bin").read_bytes()


def parked_state() -> CpuState:
    """The registers with which a vCPU enters parking.asm: flat 32-bit code without paging, interrupts off."""
    state = CpuState(rip=BASE, rflags=2, cr0=0x11)
    # The NMI that wakes it may come before its first instruction.
    state.regs[4] = BASE + IDT
    state.cs = Segment(0x08, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(state, name, Segment(0x10, 0, 0xFFFFFFFF, 0xC093))
    state.gdtr, state.idtr = Table(BASE + GDT, 3 * 8 - 1), Table(BASE + IDT, 256 * 8 - 1)
    return state
