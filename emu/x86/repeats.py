"""Repeated string instructions at the boundary behind an iteration (SDM vol. 2B, REP)."""

from __future__ import annotations

from emu.typed import Final

PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
REPEATS: Final = frozenset((0xF2, 0xF3))
ADDRESS_SIZE: Final = 0x67
REX: Final = range(0x40, 0x50)
#: INS OUTS MOVS CMPS STOS LODS SCAS.
STRINGS: Final = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))


#: MOVS, STOS, LODS.
PLAIN: Final = frozenset((0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD))


def _repeated(code: bytes, bits: int) -> tuple[int, int] | None:
    """Where the opcode of the repeated string instruction is that `code` begins with, and the bits of its counter."""
    repeated = narrow = False
    for at, byte in enumerate(code):
        if byte in PREFIXES or (bits == 64 and byte in REX):
            repeated = repeated or byte in REPEATS
            narrow = narrow or byte == ADDRESS_SIZE
            continue
        width = {16: (16, 32), 32: (32, 16), 64: (64, 32)}[bits][narrow]
        return (at, width) if repeated and byte in STRINGS else None
    return None


def behind_iteration(code: bytes, bits: int, count: int) -> int | None:
    """None when `code` does not begin with a repeated string instruction; else its length when its counter, CX, ECX or
    RCX of `count`, is 0, and 0 when it goes on. `bits` is the code's size: 16, 32 or 64."""
    found = _repeated(code, bits)
    if found is None:
        return None
    at, width = found
    return 0 if count & (1 << width) - 1 else at + 1


def plain_counter(code: bytes, bits: int) -> int:
    """The bits of its counter where the instruction is REP MOVS, STOS or LODS, which nothing but that and a fault ends
    and which reaches no port; 0 for any other. `bits` is the code's size."""
    found = _repeated(code, bits)
    return found[1] if found is not None and code[found[0]] in PLAIN else 0
