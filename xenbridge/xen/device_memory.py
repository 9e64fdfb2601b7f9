"""Instructions of 16- and 32-bit code that reach memory which is none: a device's, whose accesses Xen executes itself.

SDM vol. 2: MOV, STOS, LODS. Which memory an instruction names is `emu.x86.operands`'s to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from emu.x86.modes import code_bits
from emu.x86.operands import Instruction, decode
from emu.x86.state import CpuState

AX, COUNT, SOURCE, DESTINATION = 0, 1, 6, 7
RFLAGS_DF: Final = 1 << 10
_MASK32: Final = 0xFFFFFFFF
#: The physical address of a linear one, for a write or not; None where none is mapped, or it is not allowed.
Translate = Callable[[int, bool], "int | None"]
#: How many of so many bytes from a physical address on are memory.
Readable = Callable[[int, int], int]


def reaches(
    code: bytes, bits: int, stack_bits: int, regs: Sequence[int], bases: Sequence[int], translate: Translate,
    readable: Readable,
) -> tuple[Instruction, int] | None:  # fmt: skip
    """The instruction, and the physical address, where it would reach what is no memory; None: it reaches none such.

    `bases` are those of ES, CS, SS, DS, FS and GS."""
    instruction = decode(code, bits, stack_bits)
    for reference in instruction.references:
        if not (reference.read or reference.write) or (reference.repeated and not regs[COUNT] & reference.mask):
            continue
        linear = bases[reference.segment] + reference.address(regs) & _MASK32
        physical = translate(linear, reference.write)
        if physical is not None and readable(physical, reference.size) < reference.size:
            return instruction, physical
    return None


def reached(state: CpuState, code: bytes, translate: Translate, readable: Readable) -> tuple[Instruction, int] | None:
    """`reaches` for the next instruction of a whole state; None in 64-bit code, which is not looked at."""
    bits = code_bits(state)
    if bits == 64:
        return None
    bases = [state.segment(name).base for name in ("es", "cs", "ss", "ds", "fs", "gs")]
    return reaches(code, bits, 32 if state.ss.big else 16, state.regs, bases, translate, readable)


def make(state: CpuState, found: Instruction, access: Callable[[bool, int, int], int]) -> int | None:
    """Do it in `state`, where it is a MOV, STOS or LODS, one iteration; how many bytes the CPU goes on by. None: it is
    another. `access(reads, size, value)` makes the one access that there is, and gives what was read."""
    opcode, size = found.opcode, found.references[0].size
    if found.length is None or len(found.references) != 1 or size not in (1, 2, 4):
        return None
    if opcode in (0x88, 0x89):
        access(False, size, _register(state, found.reg, size))
    elif opcode in (0x8A, 0x8B):
        _set_register(state, found.reg, size, access(True, size, 0))
    elif opcode in (0xA0, 0xA1, 0xAC, 0xAD):
        _set_register(state, AX, size, access(True, size, 0))
    elif opcode in (0xA2, 0xA3, 0xAA, 0xAB):
        access(False, size, _register(state, AX, size))
    elif opcode in (0xC6, 0xC7):
        access(False, size, found.immediate & (1 << 8 * size) - 1)
    else:
        return None
    if opcode < 0xAA or opcode > 0xAD:
        return found.length
    return found.length if _next_element(state, found, DESTINATION if opcode < 0xAC else SOURCE, size) else 0


def _next_element(state: CpuState, found: Instruction, index: int, size: int) -> bool:
    """True: that was the last one."""
    mask = found.address_mask
    moved = state.regs[index] + (-size if state.rflags & RFLAGS_DF else size)
    state.regs[index] = (state.regs[index] & ~mask if mask == 0xFFFF else 0) | moved & mask
    if not found.repeat:
        return True
    left = (state.regs[COUNT] & mask) - 1
    state.regs[COUNT] = (state.regs[COUNT] & ~mask if mask == 0xFFFF else 0) | left & mask
    return not left


def _register(state: CpuState, number: int, size: int) -> int:
    if size == 1:
        return state.regs[number & 3] >> (8 if number & 4 else 0) & 0xFF
    return state.regs[number] & (1 << 8 * size) - 1


def _set_register(state: CpuState, number: int, size: int, value: int) -> None:
    if size == 1:
        shift = 8 if number & 4 else 0
        state.regs[number & 3] = state.regs[number & 3] & ~(0xFF << shift) | (value & 0xFF) << shift
    elif size == 2:
        state.regs[number] = state.regs[number] & ~0xFFFF | value & 0xFFFF
    else:
        state.regs[number] = value & _MASK32
