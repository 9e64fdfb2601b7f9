"""RETF under memory hooks without the C helper: the EIP that Unicorn takes back before it calls one.

Before a hook Unicorn sets EIP to the running instruction's. Its RETF of real and virtual-8086 mode stores the new EIP
between its two reads (gen_op_jmp_v in target/i386/translate.c), so that a hook of the second made it run again. The
helper leaves EIP alone (cpu_restore_state in emu/native/count.c).
"""

from __future__ import annotations

from collections.abc import Callable

from emu.typed import Final
from emu.x86.state import CR0_PE, RFLAGS_VM, CpuState

_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_OPERAND_SIZE: Final = 0x66
_RETF: Final = (0xCA, 0xCB)
_LONGEST: Final = 15  #: bytes of an instruction


def far_return(state: CpuState, read: Callable[[int, int], bytes]) -> int | None:
    """Where the RETF at `state` returns to, an offset; None if it is another instruction, or has no EIP to lose.
    `read` gives as many bytes from a linear address as are memory."""
    if state.cr0 & CR0_PE and not state.rflags & RFLAGS_VM:
        return None
    code = read(state.linear_pc, _LONGEST)
    at = 0
    while at < len(code) and code[at] in _PREFIXES:
        at += 1
    if at == len(code) or code[at] not in _RETF:
        return None
    wide = state.cs.big != (_OPERAND_SIZE in code[:at])
    pointer = state.regs[4] & (0xFFFFFFFF if state.ss.big else 0xFFFF)
    return int.from_bytes(read(state.ss.base + pointer & 0xFFFFFFFF, 4 if wide else 2), "little")
