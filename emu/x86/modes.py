"""Which operating mode a CPU state is in, and the widths that follow from it (SDM vol. 3A, 2.2 and 3.4.5)."""

from __future__ import annotations

from emu.named import Enum
from emu.x86.state import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    CR4_PSE,
    EFER_LMA,
    RFLAGS_VM,
    CpuState,
)

CR4_LA57 = 1 << 12

#: The segment limit that RESET loads and that real mode assumes, in bytes (SDM vol. 3A, table 10-1 and 21.1.1).
REAL_LIMIT = 0xFFFF


class Mode(Enum):
    """An operating mode of the CPU. The value is the word shown for it; paging is separate: `paging_label`."""

    REAL = "real"
    BIG_REAL = "big real"  #: real mode with a cached limit or default size that a real-mode reset does not give
    PROTECTED16 = "16-bit protected"
    PROTECTED32 = "32-bit protected"
    V86 = "virtual 8086"
    LONG64 = "64-bit"
    COMPAT32 = "32-bit compatibility"
    COMPAT16 = "16-bit compatibility"

    __hash__ = object.__hash__  # an enumeration's own is a function of Python

    @property
    def label(self) -> str:
        """The mode in words, for people."""
        return self.value

    @property
    def bits(self) -> int:
        """The usual code width of the mode: 16, 32 or 64. `code_bits` knows of a real mode with CS.D set."""
        return _BITS[self]

    @property
    def gdb_arch(self) -> str:
        """The architecture gdb must decode the mode's code with."""
        return _GDB_ARCHS[self.bits]

    @property
    def real_addressing(self) -> bool:
        """True where loading a selector sets base = selector * 16 (real, big real, V86; SDM vol. 3A, 21.1.1)."""
        return self in (Mode.REAL, Mode.BIG_REAL, Mode.V86)


_BITS = {
    Mode.REAL: 16,
    Mode.BIG_REAL: 16,
    Mode.PROTECTED16: 16,
    Mode.PROTECTED32: 32,
    Mode.V86: 16,
    Mode.LONG64: 64,
    Mode.COMPAT32: 32,
    Mode.COMPAT16: 16,
}
_GDB_ARCHS = {16: "i8086", 32: "i386", 64: "i386:x86-64"}


def mode_of(state: CpuState) -> Mode:
    """The mode that executes the next instruction of `state`.

    IA-32e mode is EFER.LMA, its sub-mode CS.L (SDM vol. 3A, 2.2). Real mode is "big" when the cache of any of the six
    segment registers has another limit than 64 KiB, or when CS or SS kept D/B from protected mode.
    """
    if not state.cr0 & CR0_PE:
        return Mode.BIG_REAL if _is_big(state) else Mode.REAL
    if state.efer & EFER_LMA:
        if state.cs.long:
            return Mode.LONG64
        return Mode.COMPAT32 if state.cs.big else Mode.COMPAT16
    if state.rflags & RFLAGS_VM:
        return Mode.V86
    return Mode.PROTECTED32 if state.cs.big else Mode.PROTECTED16


def _is_big(state: CpuState) -> bool:
    cs, ss = state.cs, state.ss
    limits = cs.limit == ss.limit == state.ds.limit == state.es.limit == state.fs.limit == state.gs.limit == REAL_LIMIT
    return cs.big or ss.big or not limits


def code_bits(state: CpuState) -> int:
    """Default operand and address size of the next instruction: 16, 32 or 64 (CS.L, CS.D; SDM vol. 3A, 3.4.5).

    Outside V86, CS.D counts in real mode too: a return from 32-bit protected mode that does not reload CS keeps it.
    """
    if state.efer & EFER_LMA and state.cs.long:
        return 64
    return 32 if state.cs.big else 16


def stack_bits(state: CpuState) -> int:
    """Width of the stack pointer in implicit stack accesses: 16, 32 or 64 (SS.B; SDM vol. 1, 6.2.3 and 6.2.5)."""
    if state.efer & EFER_LMA and state.cs.long:
        return 64
    return 32 if state.ss.big else 16


def gdb_arch(state: CpuState) -> str:
    """The architecture gdb must decode the next instruction with, by the actual code width."""
    return _GDB_ARCHS[code_bits(state)]


def paging_label(state: CpuState) -> str:
    """The paging mode: "off", "32-bit", "32-bit PSE", "PAE", "4-level" or "5-level" (SDM vol. 3A, 4.1.1)."""
    if not state.cr0 & CR0_PG:
        return "off"
    if state.efer & EFER_LMA:
        return "5-level" if state.cr4 & CR4_LA57 else "4-level"
    if state.cr4 & CR4_PAE:
        return "PAE"
    return "32-bit PSE" if state.cr4 & CR4_PSE else "32-bit"
