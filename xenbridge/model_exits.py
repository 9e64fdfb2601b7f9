"""Which instructions are exits of the reference hypervisor's vCPU, and what for (SDM vol. 3C, 25.1.2 and 25.1.3)."""

from __future__ import annotations

from typing import Final

from emu.vcpu import ExitCause
from emu.x86.classes import InstructionClass, classify, split

MOV_TO_CR: Final = 0x22  #: behind 0Fh
#: Those whose loads are exits: to CR2 is none, and of CRs that do not exist #UD comes first (SDM vol. 3C, 25.1.1).
LOADED: Final = frozenset((0, 3, 4, 8))
#: What each class of instructions is an exit for.
CAUSES: Final = {
    InstructionClass.HLT: ExitCause.HLT,
    InstructionClass.CPUID: ExitCause.CPUID,
    InstructionClass.RDMSR: ExitCause.MSR,
    InstructionClass.WRMSR: ExitCause.MSR,
    InstructionClass.CONTROL: ExitCause.CR,
    InstructionClass.READ_CR3: ExitCause.CR,
    InstructionClass.READ_CR: ExitCause.CR,
    InstructionClass.DEBUG: ExitCause.DR,
    InstructionClass.CACHE: ExitCause.CACHE,
    InstructionClass.INVLPG: ExitCause.CACHE,
    InstructionClass.RDPMC: ExitCause.RDPMC,
    InstructionClass.LGDT: ExitCause.DESCRIPTOR,
    InstructionClass.LIDT: ExitCause.DESCRIPTOR,
}
CLASSES: Final = sum(map(int, CAUSES))
#: Those that are exits in real mode alone, as virtual 8086 mode does not execute them.
REAL_ONLY: Final = InstructionClass.LGDT | InstructionClass.LIDT | InstructionClass.READ_CR
#: Those that any ring may execute; of the others a fault comes before the exit (SDM vol. 3C, 25.1.1).
ANY_RING: Final = InstructionClass.CPUID | InstructionClass.RDPMC


def exits_for(code: bytes, bits: int, real: bool) -> tuple[ExitCause, bool, bool] | None:
    """Of the instruction that begins `code`, in real mode that runs as virtual 8086 or not: what it exits for, whether
    it writes, and whether it does from any ring. None: it is no exit."""
    found = classify(code, bits)
    if not found & CLASSES or (found & REAL_ONLY and not real):
        return None
    cause = next(cause for one, cause in CAUSES.items() if found & one)
    if cause is ExitCause.CR and not real:
        _, op, rex = split(code, bits)
        if op[1] == MOV_TO_CR and (op[2] >> 3 & 7 | (rex & 4) << 1) not in LOADED:
            return None
    write = bool(found & (InstructionClass.WRMSR | InstructionClass.CONTROL))
    return cause, write, bool(found & ANY_RING)
