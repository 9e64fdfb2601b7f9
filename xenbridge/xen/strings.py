"""INS and OUTS, one iteration of them, made in a CPU's state (SDM vol. 2A and 2B)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emu.x86.modes import code_bits
from emu.x86.state import CpuState

COUNT, PORT, SOURCE, DESTINATION = 1, 2, 6, 7  #: RCX, RDX, RSI, RDI in CpuState.regs
RFLAGS_DF: Final = 1 << 10
_OVERRIDES: Final = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
_ADDRESS_SIZE, _REPEATS = 0x67, frozenset((0xF2, 0xF3))
_MASKS: Final = {16: 0xFFFF, 32: 0xFFFFFFFF, 64: (1 << 64) - 1}


def iterate(
    state: CpuState, prefixes: bytes, opcode: int, size: int, move: Callable[[bool, int, int], bool]
) -> bool | None:
    """One iteration of an element of `size` bytes; True when the instruction is done, False when it goes on.

    `move(reads, port, linear)` moves the element from or to memory at a linear address. None, with nothing changed,
    where that gives False or the element leaves its segment: such an iteration is not made."""
    reads = opcode < 0x6E
    bits = code_bits(state)
    if _ADDRESS_SIZE in prefixes:
        bits = {16: 32, 32: 16, 64: 32}[bits]
    mask, repeats = _MASKS[bits], any(prefix in _REPEATS for prefix in prefixes)
    if repeats and not state.regs[COUNT] & mask:
        return True
    index = DESTINATION if reads else SOURCE
    name = "es" if reads else next((_OVERRIDES[p] for p in reversed(prefixes) if p in _OVERRIDES), "ds")
    segment, offset = state.segment(name), state.regs[index] & mask
    if state.long64:
        linear = offset + (segment.base if name in ("fs", "gs") else 0) & _MASKS[64]
    elif offset + size - 1 > segment.limit or (segment.access & 0xC == 0x4 and state.cr0 & 1):
        return None
    else:
        linear = segment.base + offset & _MASKS[32]
    if not move(reads, state.regs[PORT] & 0xFFFF, linear):
        return None
    _set(state, index, offset + (-size if state.rflags & RFLAGS_DF else size), bits)
    if not repeats:
        return True
    _set(state, COUNT, (state.regs[COUNT] & mask) - 1, bits)
    return not state.regs[COUNT] & mask


def _set(state: CpuState, index: int, value: int, bits: int) -> None:
    """Write `bits` of a register: 32 clear the upper half, 16 leave the rest."""
    kept = state.regs[index] & ~0xFFFF if bits == 16 else 0
    state.regs[index] = kept | value & _MASKS[bits]
