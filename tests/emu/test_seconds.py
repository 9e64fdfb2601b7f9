"""Which instructions of a stepped CPU lockstep has the emulator run: those that a step by TF does otherwise."""

from __future__ import annotations

from typing import cast

import pytest

from asm import assemble
from emu.memory import Part, PhysicalMemory
from emu.seconds import _emulated
from emu.transitions import Transitions
from emu.x86.state import CpuState, Segment

CODE = 0x1000
#: SDM vol. 3B, 18.3.1.4 and vol. 3A, 6.8.3: what loads TF, clears it, or holds the trap back; REP, of which a step is
#: an iteration; and HLT, behind which none comes.
NOT_STEPPED = (
    "hlt", "popf", "iret", "pop ss", "mov ss, ax", "mov ss, [bx]", "int3", "int 0x10", "into", "int1", "rep movsb",
    "repne scasb", "rep outsb", "o32 iret", "o32 popf",
)  # fmt: skip
STEPPED = (
    "nop",
    "pop ds",
    "mov ds, ax",
    "mov ax, ss",
    "movsb",
    "cli",
    "sti",
    "retf",
    "pop bx",
    "lss sp, [bx]",
    "call 0",
)


class Recorded:
    """Of Transitions what is asked for, before the instruction at CODE."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def live(self) -> CpuState:
        return CpuState(rip=CODE, cs=Segment(0, 0, 0xFFFF, 0x9B))

    def emulate(self, count: int) -> None:
        self.asked.append(("emulate", count))

    def run(self, budget: int) -> None:
        self.asked.append(("run", budget))


@pytest.mark.parametrize(("source", "stepped"), [(s, False) for s in NOT_STEPPED] + [(s, True) for s in STEPPED])
def test_what_a_step_would_not_do_as_the_instruction_does_is_emulated(source: str, stepped: bool) -> None:
    memory = PhysicalMemory([Part(0, 1 << 16, "ram", "ram")])
    memory.write(CODE, assemble(f"bits 16\n{source}"))
    transitions = Recorded()
    assert _emulated(cast(Transitions, transitions), memory) is not stepped
    assert transitions.asked == ([] if stepped else [("emulate", 1), ("run", 1)])
