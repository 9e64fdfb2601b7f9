"""Instructions that push RFLAGS, made in a CPU's state: stepped by TF, they would show TF to the guest.

SDM vol. 2B, PUSHF; vol. 3A, 21.1.4, interrupts in real mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emu.x86.state import CR0_PE, RFLAGS_IF, RFLAGS_TF, RFLAGS_VM, CpuState

#: Writes bytes at a linear address, within a page; False where that cannot be done.
Write = Callable[[int, bytes], bool]
RFLAGS_OF, RFLAGS_RF, RFLAGS_AC = 1 << 11, 1 << 16, 1 << 18
SP: Final = 4
#: Of the opcodes without an operand: INT3, INTO, INT1.
_VECTORS: Final = {0xCC: 3, 0xCE: 4, 0xF1: 1}


def _push(state: CpuState, data: bytes, write: Write) -> bool:
    """False, with nothing changed, where the stack does not take it."""
    if state.long64:
        mask, base = (1 << 64) - 1, 0
    else:
        mask, base = (0xFFFFFFFF if state.ss.big else 0xFFFF), state.ss.base
    offset = state.regs[SP] - len(data) & mask
    expands_down = bool(state.cr0 & CR0_PE and state.ss.access & 0xC == 0x4)
    outside = not state.long64 and (expands_down or offset + len(data) - 1 > state.ss.limit)
    if outside or not write(base + offset & ((1 << 64) - 1 if state.long64 else 0xFFFFFFFF), data):
        return False
    state.regs[SP] = state.regs[SP] & ~mask | offset
    return True


def push_flags(state: CpuState, size: int, write: Write) -> bool:
    """PUSHF of `size` bytes; False where it is not done: in virtual 8086 mode, or where the stack does not take it."""
    if state.rflags & RFLAGS_VM:
        return False
    flags = state.rflags & ~(RFLAGS_RF | RFLAGS_VM) & (1 << 8 * size) - 1
    return _push(state, flags.to_bytes(size, "little"), write)


def interrupt(state: CpuState, rest: bytes, prefixes: int, write: Write) -> int | None:
    """INT n, INT3, INTO or INT1 of real mode, `rest` from its opcode on and behind so many `prefixes`, up to the load
    of CS:IP from the vector, whose linear address is the result. None, with nothing changed in the state, where it is
    not done."""
    if rest[0] == 0xCE and not state.rflags & RFLAGS_OF:
        return None
    number, length = (rest[1], 2) if rest[0] == 0xCD else (_VECTORS[rest[0]], 1)
    if 4 * number + 3 > state.idtr.limit:
        return None
    back = state.rip + prefixes + length & 0xFFFF
    frame = b"".join(value.to_bytes(2, "little") for value in (back, state.cs.selector, state.rflags & 0xFFFF))
    if not _push(state, frame, write):
        return None
    state.rflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_RF | RFLAGS_AC)
    return state.idtr.base + 4 * number
