"""Lengths and operands of 16-bit and 32-bit instructions: what the walk to a return needs. Knows no gdb.

The tables are of SDM vol. 2D, appendix A (opcode maps) and vol. 2A, 2.1 (prefixes, ModR/M, SIB, displacement).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

#: `read(offset, length)`: code bytes at an offset in the code segment, None where they cannot be read.
Fetch = Callable[[int, int], "bytes | None"]
#: SDM vol. 2A, 2.3.11: longer ones raise #GP.
LONGEST = 15
ES, CS, SS, DS, FS, GS = range(6)
_SEGMENTS = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
#: One-byte opcodes with a ModR/M byte, behind those of the arithmetic block 00-3F.
_MODRM = frozenset(
    (0x62, 0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC4, 0xC5, 0xC6, 0xC7, *range(0xD0, 0xD4),
     *range(0xD8, 0xE0), 0xF6, 0xF7, 0xFE, 0xFF)
)  # fmt: skip
#: Kinds of immediate: b, w: 1, 2 bytes; z: operand size; p: far pointer; o: address size; e: ENTER's word and byte.
_IMMEDIATE = {
    **dict.fromkeys((0x6A, 0x6B, *range(0x70, 0x81), 0x82, 0x83, 0xA8, *range(0xB0, 0xB8), 0xC0, 0xC1), "b"),
    **dict.fromkeys((0xC6, 0xCD, 0xD4, 0xD5, *range(0xE0, 0xE8), 0xEB), "b"),
    **dict.fromkeys((0x68, 0x69, 0x81, 0xA9, *range(0xB8, 0xC0), 0xC7, 0xE8, 0xE9), "z"),
    **dict.fromkeys((0xC2, 0xCA), "w"),
    **dict.fromkeys((0x9A, 0xEA), "p"),
    **dict.fromkeys(range(0xA0, 0xA4), "o"),
    0xC8: "e",
}
#: Two-byte opcodes (0F xx) without ModR/M, and those with an immediate byte behind it.
_PLAIN_0F = frozenset((5, 6, 7, 8, 9, 0xB, 0xE, *range(0x30, 0x38), 0x77, *range(0x80, 0x90), *range(0xC8, 0xD0),
                       0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA))  # fmt: skip
_BYTE_0F = frozenset((0x0F, *range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))
_INVALID_0F = frozenset((4, 0xA, 0xC, *range(0x24, 0x28), 0x39, *range(0x3B, 0x40), 0xA6, 0xA7))


@dataclass(slots=True)
class Instruction:
    """One instruction. Sizes are in bytes; `opcode` is 0F00h + xx for 0F xx; `immediate` and `displacement` are signed;
    `selector` is a far pointer's, and ENTER's level. `mod` is -1 where there is no ModR/M byte."""

    length: int = 0
    opcode: int = 0
    operand: int = 2
    address: int = 2
    segment: int | None = None
    repeat: bool = False
    mod: int = -1
    reg: int = 0
    rm: int = 0
    base: int | None = None  #: number of the base register of a memory operand
    index: int | None = None
    scale: int = 1
    displacement: int = 0
    immediate: int = 0
    selector: int = 0

    @property
    def is_memory(self) -> bool:
        """Whether the ModR/M operand is memory."""
        return 0 <= self.mod < 3


class _Short(Exception):
    """The bytes end, or are no instruction."""


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise _Short
        self.at += 1
        return self.data[self.at - 1]

    def signed(self, size: int) -> int:
        end = self.at + size
        if end > len(self.data):
            raise _Short
        self.at = end
        return int.from_bytes(self.data[end - size : end], "little", signed=True)


#: Base and index of 16-bit addressing (SDM vol. 2A, table 2-1): BX 3, BP 5, SI 6, DI 7.
_PAIRS: tuple[tuple[int, int | None], ...] = (
    (3, 6), (3, 7), (5, 6), (5, 7), (6, None), (7, None), (5, None), (3, None)
)  # fmt: skip


def _memory_16(i: Instruction, data: _Bytes) -> None:
    if i.mod == 0 and i.rm == 6:
        i.displacement = data.signed(2)
        return
    i.base, i.index = _PAIRS[i.rm]
    if i.mod:
        i.displacement = data.signed(i.mod)


def _memory_32(i: Instruction, data: _Bytes) -> None:
    """SDM vol. 2A, tables 2-2 and 2-3."""
    i.base = i.rm
    if i.rm == 4:
        sib = data.byte()
        i.base, i.scale = sib & 7, 1 << (sib >> 6)
        i.index = None if sib >> 3 & 7 == 4 else sib >> 3 & 7
    if i.mod == 0 and i.base == 5:
        i.base = None
        i.displacement = data.signed(4)
    elif i.mod:
        i.displacement = data.signed(1 if i.mod == 1 else 4)


def _shape(i: Instruction, data: _Bytes) -> tuple[bool, str]:
    """Whether a ModR/M byte follows the opcode, and the kind of immediate."""
    code = i.opcode
    if code < 0x40:
        return code & 7 < 4, {4: "b", 5: "z"}.get(code & 7, "")
    if code < 0x100:
        return code in _MODRM, _IMMEDIATE.get(code, "")
    low = code & 0xFF
    if low in _INVALID_0F:
        raise _Short
    if low in (0x38, 0x3A):  # three-byte maps
        data.byte()
        return True, "b" if low == 0x3A else ""
    return low not in _PLAIN_0F, "z" if low >> 4 == 8 else "b" if low in _BYTE_0F else ""


def _immediate(i: Instruction, kind: str, data: _Bytes) -> None:
    match kind:
        case "b":
            i.immediate = data.signed(1)
        case "w":
            i.immediate = data.signed(2)
        case "z":
            i.immediate = data.signed(i.operand)
        case "o":
            i.displacement = data.signed(i.address)
        case "p":
            i.immediate = data.signed(i.operand)
            i.selector = data.signed(2) & 0xFFFF
        case "e":
            i.immediate = data.signed(2)
            i.selector = data.byte()


def _decode(data: _Bytes, wide: bool) -> Instruction:
    i = Instruction(operand=4 if wide else 2, address=4 if wide else 2)
    while True:
        byte = data.byte()
        if byte in _SEGMENTS:
            i.segment = _SEGMENTS[byte]
        elif byte == 0x66:
            i.operand = 2 if wide else 4
        elif byte == 0x67:
            i.address = 2 if wide else 4
        elif byte in (0xF2, 0xF3):
            i.repeat = True
        elif byte != 0xF0:
            break
    i.opcode = 0x0F00 | data.byte() if byte == 0x0F else byte
    modrm, kind = _shape(i, data)
    if modrm:
        byte = data.byte()
        i.mod, i.reg, i.rm = byte >> 6, byte >> 3 & 7, byte & 7
        if 0x0F20 <= i.opcode <= 0x0F23:
            i.mod = 3  # MOV to and from control and debug registers has no memory form
        if i.mod == 3 and i.opcode in (0x62, 0xC4, 0xC5):
            raise _Short  # EVEX and VEX, which boot code has no use for
        if i.is_memory:
            (_memory_16 if i.address == 2 else _memory_32)(i, data)
        if i.opcode in (0xF6, 0xF7) and i.reg < 2:
            kind = "b" if i.opcode == 0xF6 else "z"
    _immediate(i, kind, data)
    i.length = data.at
    return i


@functools.lru_cache(maxsize=4096)  # each step follows nearly the way that the step before has followed
def decode(code: bytes, wide: bool) -> Instruction | None:
    """The instruction that `code` begins with, in a 32-bit segment if `wide`, else a 16-bit one; None if there is
    none, or it does not end in `code`. It is shared: not to be changed."""
    try:
        return _decode(_Bytes(code[:LONGEST]), wide)
    except _Short:
        return None
