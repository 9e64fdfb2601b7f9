"""When the VGA's beam is where: lines, retraces and blanking of the programmed mode, in virtual time.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): CRT controller 00h-17h, sequencer
register 1, miscellaneous output register.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.record import dataclass

#: Hz, by misc output bits 3-2. Two are for external clocks, which the adapter does not have: they run at the first's.
DOT_CLOCKS = (25_175_000, 28_322_000, 25_175_000, 25_175_000)
SR1_8_DOTS, SR1_HALF_CLOCK = 0x01, 0x08
CR17_HALF_LINES = 0x04

# input status register 1
ST1_BLANK, ST1_RETRACE = 0x01, 0x08


@dataclass(frozen=True, slots=True)
class Timing:
    """One frame: ns of a line and of its visible part, lines in all, shown, and in vertical retrace."""

    line_ns: int
    visible_ns: int
    lines: int
    shown: int
    retrace_start: int
    retrace_end: int

    def status(self, now: int) -> int:
        """Input status 1's display and retrace bits at virtual `now`, ns."""
        line, within = divmod(now % (self.line_ns * self.lines), self.line_ns)
        value = 0
        if line >= self.shown or within >= self.visible_ns:
            value |= ST1_BLANK
        if self.retrace_start <= line < self.retrace_end:
            value |= ST1_BLANK | ST1_RETRACE
        return value

    def steady(self, now: int) -> int:
        """For how many ns from `now` on `status` stays as it is, at least: to the next edge of one of the signals."""
        line, within = divmod(now % (self.line_ns * self.lines), self.line_ns)
        if line < self.shown:
            return (self.visible_ns if within < self.visible_ns else self.line_ns) - within
        edge = next((e for e in (self.retrace_start, self.retrace_end) if line < e < self.lines), self.lines)
        return (edge - line) * self.line_ns - within

    def retraces(self, at: int) -> int:
        """Vertical retraces that have begun by virtual time `at`, ns."""
        return (at - self.retrace_start * self.line_ns) // (self.line_ns * self.lines) + 1


#: Until the CRT controller is programmed: the 720x400, 70 Hz timing of mode 3.
IDLE = Timing(31_778, 25_422, 449, 400, 412, 414)


def shown_lines(crtc: Sequence[int]) -> int:
    """Scan lines on display: the vertical display end register and its overflow bits."""
    lines = (crtc[0x12] | (crtc[7] & 2) << 7 | (crtc[7] & 0x40) << 3) + 1
    return lines * 2 if crtc[0x17] & CR17_HALF_LINES else lines


def timing(crtc: Sequence[int], clocking: int, misc: int) -> Timing:
    """From the CRT controller, sequencer register 1 and the dot clock."""
    overflow = crtc[7]
    twice = 2 if crtc[0x17] & CR17_HALF_LINES else 1
    lines = ((crtc[6] | (overflow & 1) << 8 | (overflow & 0x20) << 4) + 2) * twice
    shown = shown_lines(crtc)
    start = crtc[0x10] | (overflow & 4) << 6 | (overflow & 0x80) << 2
    end = (start + ((crtc[0x11] - start & 15) or 16)) * twice
    start *= twice
    characters = crtc[0] + 5
    if not shown <= start < lines or crtc[1] + 1 > characters or crtc[0] == 0:
        return IDLE
    dots = (8 if clocking & SR1_8_DOTS else 9) * (2 if clocking & SR1_HALF_CLOCK else 1)
    character = dots * 1_000_000_000
    clock = DOT_CLOCKS[misc >> 2 & 3]
    return Timing(
        characters * character // clock, (crtc[1] + 1) * character // clock, lines, shown, start, min(end, lines)
    )
