"""The portable loop: ES, SS and DS have no base in 64-bit code, whatever prefixes say (SDM vol. 1, 3.4.2.1).

Unicorn's translator adds the base to an operand with such a prefix. With the C helper emu/native/prefixes.c leaves it
out; here the register is shown to Unicorn without it, from the first instruction of 64-bit code that finds it with one
to the next that is no 64-bit code, or to the run's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from emu.unicorn_layout import EnvSegment
from emu.x86.operands import DS, ES, SS

#: In the low byte of the flags of a register whose base is hidden. Unicorn leaves bits 16 to 23 of the base there when
#: it loads a register, so that it never loads this with a base of 0.
HIDDEN: Final = 0xFF


class Bases:
    """The bases that are hidden of `segments`, Unicorn's caches in the order ES CS SS DS FS GS."""

    __slots__ = ("_hidden", "_segments")

    def __init__(self, segments: Sequence[EnvSegment]) -> None:
        self._segments = segments
        self._hidden: dict[int, tuple[int, int]] = {}

    def hide(self) -> None:
        """Set the bases of ES, SS and DS to 0 and keep them."""
        for number in (ES, SS, DS):
            segment = self._segments[number]
            if segment.base:
                self._hidden[number] = segment.base, segment.flags
                segment.base, segment.flags = 0, segment.flags | HIDDEN

    def show(self) -> bool:
        """Put back the bases of those registers that have not been loaded since; True when there are any."""
        shown = False
        for number, (base, flags) in self._hidden.items():
            segment = self._segments[number]
            if not segment.base and segment.flags & HIDDEN == HIDDEN:
                segment.base, segment.flags = base, flags
                shown = True
        self._hidden.clear()
        return shown
