"""What one instruction does to where the CPU is, if it neither calls nor returns nor changes a segment or a mode: by
that is told, without a look at anything else, that a step has left the frame it was made in. Knows no gdb.

Opcodes are of SDM vol. 2D, appendix A.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from .cpu import SP
from .decode import Instruction, decode

#: CALL, RET, INT, IRET and far jumps; loads of segment registers; ENTER and LEAVE, which move the stack by a register.
_OTHERS = frozenset(
    (0x07, 0x17, 0x1F, 0x8E, 0x9A, 0xC2, 0xC3, 0xC4, 0xC5, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xE8, 0xEA,
     0xF1)
)  # fmt: skip
#: Of the two-byte opcodes those that are plain: CMOVcc, Jcc, SETcc, PUSH FS and GS, CPUID, RDTSC, shifts, bit tests,
#: IMUL, CMPXCHG, MOVZX, MOVSX, BSF, BSR, XADD, BSWAP.
_PLAIN_0F = frozenset(
    (*range(0x40, 0x50), *range(0x80, 0xA1), 0xA2, 0xA3, 0xA4, 0xA5, 0xA8, 0xAB, 0xAC, 0xAD, 0xAF, 0xB0, 0xB1, 0xB3,
     0xB6, 0xB7, *range(0xBA, 0xC2), *range(0xC8, 0xD0), 0x31)
)  # fmt: skip


class Step(NamedTuple):
    """Where it may lead, as distances from its own address, by how many bytes it moves the stack pointer, and of how
    many it is."""

    ways: tuple[int, ...]
    moved: int
    length: int

    def fits(self, led: int, moved: int, mask: int) -> bool:
        """The CPU was led so far, and its stack pointer, of which `mask` counts, has moved by so many bytes."""
        return led in self.ways and not (self.moved - moved) & mask


def _moved(i: Instruction) -> int:
    """Bytes, of an instruction that is plain."""
    op, size = i.opcode, i.operand
    if 0x50 <= op <= 0x57 or op in (0x06, 0x0E, 0x16, 0x1E, 0x68, 0x6A, 0x9C, 0x0FA0, 0x0FA8):
        return -size
    if 0x58 <= op <= 0x5F or op in (0x9D, 0x8F):
        return size
    if op in (0x60, 0x61):
        return -8 * size if op == 0x60 else 8 * size
    if op == 0xFF and i.reg == 6:
        return -size
    if op in (0x81, 0x83) and i.mod == 3 and i.rm == SP and i.reg in (0, 5):
        return i.immediate if i.reg == 0 else -i.immediate
    return 0


@functools.lru_cache(maxsize=4096)
def step_of(code: bytes, wide: bool) -> Step | None:
    """Of the instruction that `code` begins with, in a 32-bit segment if `wide`; None if it is none, or one that may
    lead out of the frame. Whether it has done as told is for the caller to see: a fault does not, nor does an
    instruction that writes the stack pointer otherwise."""
    i = decode(code, wide)
    if i is None or i.opcode in _OTHERS or (i.opcode == 0xFF and i.reg in (2, 3, 4, 5)):
        return None
    op = i.opcode
    if op >= 0x0F00 and op & 0xFF not in _PLAIN_0F:
        return None
    ways = {i.length}
    if op in (0xE9, 0xEB):
        ways = {i.length + i.immediate}
    elif 0x70 <= op <= 0x7F or 0x0F80 <= op <= 0x0F8F or 0xE0 <= op <= 0xE3:
        ways.add(i.length + i.immediate)
    if i.repeat:
        ways.add(0)
    return Step(tuple(ways), _moved(i), i.length)
