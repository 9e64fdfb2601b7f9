"""How the CRT controller walks through display memory: which bytes of the planes each scan line is made of.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): CRT controller registers 01h, 07h-09h,
0Ch-0Fh, 12h-14h, 17h, 18h, with the table of the address counter's bits in byte, word and doubleword mode.
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.devices.vga_memory import place
from emu.devices.vga_registers import ATTR_PAS, State
from emu.devices.vga_timing import shown_lines
from emu.record import dataclass

COUNTER = 0xFFFF  #: the address counter has 16 bits
CR9_TWICE, CR14_DOUBLEWORD, CR14_COUNT_BY_4 = 0x80, 0x40, 0x20
CR17_ROW_13, CR17_ROW_14, CR17_COUNT_BY_2, CR17_WRAP, CR17_BYTE, CR17_RUN = 0x01, 0x02, 0x08, 0x20, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class ScanLine:
    """One scan line: the address counter at its first character, the row scan counter, and whether it is one of those
    below the line at which line compare splits the screen."""

    counter: int
    row_scan: int
    below: bool


def shows(state: State) -> bool:
    """The sequencer runs and its screen is on, retraces are enabled, the palette is given to the display."""
    running = state.sequencer[0] & 3 == 3 and not state.sequencer[1] & 0x20
    return running and bool(state.crtc[0x17] & CR17_RUN) and bool(state.attribute_index & ATTR_PAS)


def is_graphics(state: State) -> bool:
    """Pixels, not characters: the graphics or the attribute controller says so."""
    return bool(state.graphics[6] & 1 or state.attribute[0x10] & 1)


def characters(state: State) -> int:
    """Character clocks on display in each line."""
    return state.crtc[1] + 1


def row_height(state: State) -> int:
    """Scan lines of a row, not counting that each may be shown twice."""
    return (state.crtc[9] & 31) + 1


def line_compare(state: State) -> int:
    """The last scan line above the split."""
    return state.crtc[0x18] | (state.crtc[7] & 0x10) << 4 | (state.crtc[9] & 0x40) << 3


def pitch(state: State) -> int:
    """How far the address counter is from one row to the next."""
    return state.crtc[0x13] * 2


def start_address(state: State) -> int:
    """The address counter at the first character of the screen."""
    return state.crtc[0x0C] << 8 | state.crtc[0x0D]


def scan_lines(state: State) -> Iterator[ScanLine]:
    """All lines on display, from the top."""
    height, step, twice = row_height(state), pitch(state), 1 if state.crtc[9] & CR9_TWICE else 0
    compare = line_compare(state)
    counter = start_address(state) + (state.crtc[8] >> 5 & 3)
    row_scan, repeated = state.crtc[8] & 31, 0
    below = False
    for line in range(shown_lines(state.crtc)):
        yield ScanLine(counter & COUNTER, row_scan, below)
        if line == compare:
            counter, row_scan, repeated, below = 0, 0, 0, True
        elif repeated < twice:
            repeated += 1
        else:
            repeated = 0
            row_scan += 1
            if row_scan >= height:
                row_scan, counter = 0, counter + step


class Addresses:
    """The way from the address counter to the offset in the planes, in the mode that is programmed."""

    def __init__(self, state: State) -> None:
        mode, cr14 = state.crtc[0x17], state.crtc[0x14]
        self._doubleword = bool(cr14 & CR14_DOUBLEWORD)
        self.word = not self._doubleword and not mode & CR17_BYTE
        self._top = 15 if mode & CR17_WRAP else 13
        self._row_13, self._row_14 = not mode & CR17_ROW_13, not mode & CR17_ROW_14
        #: characters to each count
        self.divisor = 4 if cr14 & CR14_COUNT_BY_4 else 2 if mode & CR17_COUNT_BY_2 else 1

    @property
    def plain(self) -> bool:
        """No bits of the row scan counter in it."""
        return not (self._row_13 or self._row_14)

    def offset(self, counter: int, row_scan: int = 0) -> int:
        """In each plane, at a value of the address counter."""
        counter &= COUNTER
        if self._doubleword:
            offset = counter << 2 | counter >> 12 & 3
        elif self.word:
            offset = counter << 1 | counter >> self._top & 1
        else:
            offset = counter
        if self._row_13:
            offset = offset & ~0x2000 | (row_scan & 1) << 13
        if self._row_14:
            offset = offset & ~0x4000 | (row_scan >> 1 & 1) << 14
        return offset & 0xFFFF

    def places(self, line: ScanLine, count: int) -> list[int]:
        """Where in memory the four bytes of each of the `count` character clocks of a line are."""
        first, row_scan, divisor = line.counter, line.row_scan, self.divisor
        return [place(self.offset(first + i // divisor, row_scan)) for i in range(count)]
