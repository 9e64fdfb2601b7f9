"""What count.asm says on COM1, worked out here."""

from __future__ import annotations

LINES, PER, DIVISOR = 48, 4, 29830
#: Where the guest has how many lines it may say, and what lets it say all.
LIMIT, ALL = 0x606, LINES.to_bytes(2, "little")


def said() -> str:
    """All of it, as count.asm's head has it."""
    value, lines = 1, []
    for number in range(LINES):
        value = (value * 25173 + 13849) & 0xFFFF
        lines.append(f"{number:02X} {value:04X}\n")
    return "".join(lines) + "end\n"
