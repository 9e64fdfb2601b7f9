"""Images that execute random bytes as 64-bit code and in compatibility mode (tests/images/random_bytes64.inc)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cpu.random_bytes import CODE_BYTES, PREFIXES, REX, Decoded, RandomBytes, decode

REX_SHARE = 0.5


@dataclass
class RandomBytes64(RandomBytes):
    """A generator of such an image. As 64-bit code many samples have a REX prefix before their opcode."""

    modes: ClassVar[tuple[str, ...]] = ("long", "compatible")
    include: ClassVar[str] = "random_bytes64.inc"
    macro: ClassVar[str] = "RANDOM_BYTES64"

    @property
    def long(self) -> bool:
        return self.mode == "long"

    def decoded(self, code: bytes) -> Decoded:
        return decode(code, self.long)

    def left_out(self, at: Decoded) -> bool:
        if self.long and 0x66 in at.prefixes and at.opcode in (0xC8, 0xC9):
            return True  # Bochs ignores it of ENTER and LEAVE; vol. 2A has forms of 16 bits
        return super().left_out(at)

    def settings(self) -> dict[str, int]:
        return {"COMPATIBLE": int(not self.long)}

    def code(self) -> bytes:
        code = super().code()
        if not self.long or self.source.random() >= REX_SHARE:
            return code
        start = code.lstrip(PREFIXES)
        prefixes = code[: len(code) - len(start)]
        return (prefixes + bytes((self.source.choice(REX),)) + start)[:CODE_BYTES]
