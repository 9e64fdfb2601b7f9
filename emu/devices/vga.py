"""IBM VGA: every register of the display adapter, with retrace timing from virtual time.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): general registers, sequencer, CRT
controller, graphics controller, attribute controller, video DAC. Display memory itself is plain RAM in the window
A0000h-BFFFFh: text and one-byte-a-pixel modes show what the guest wrote; the planes, write modes and latches of the
16-colour modes are not modelled, only the registers that program them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.clock import Clock
from emu.devices.copied import copied
from emu.views import DeviceView, FieldView

#: the first port of the range the adapter is mapped at; offsets count from it
FIRST_PORT = 0x3B4
FLOATING = 0xFF

# miscellaneous output register
MISC_COLOUR, MISC_RAM, MISC_CLOCK = 0x01, 0x02, 0x0C
# input status register 1
ST1_BLANK, ST1_RETRACE = 0x01, 0x08
# CRT controller
CR3_EVRA, CR11_PROTECT, CR11_CLEAR_INT, CR11_DISABLE_INT = 0x80, 0x80, 0x10, 0x20
ATTR_PAS = 0x20

#: bits that exist, by register (the others read 0)
SEQUENCER_MASKS = (0x03, 0x3D, 0x0F, 0x3F, 0x0E)
GRAPHICS_MASKS = (0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF)
CRTC_MASKS = (
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0x3F, 0x7F, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xEF, 0xFF,
)  # fmt: skip
ATTRIBUTE_MASKS = (*(0x3F,) * 16, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F)

DOT_CLOCKS = (25_175_000, 28_322_000, 25_175_000, 25_175_000)  #: Hz, by misc output bits 3-2; two are external
#: Until the CRT controller is programmed: the 720x400, 70 Hz timing of mode 3, in lines and ns.
IDLE_LINE_NS, IDLE_VISIBLE_NS, IDLE_LINES, IDLE_SHOWN, IDLE_RETRACE = 31_778, 25_422, 449, 400, (412, 414)


@dataclass(slots=True)
class State:
    """Registers by group; `attribute_data` is the flip-flop of 3C0h (False: the next write is an index)."""

    misc: int = 0
    feature: int = 0
    enabled: bool = True
    sequencer: list[int] = field(default_factory=lambda: [0] * 5)
    sequencer_index: int = 0
    graphics: list[int] = field(default_factory=lambda: [0] * 9)
    graphics_index: int = 0
    crtc: list[int] = field(default_factory=lambda: [0] * 25)
    crtc_index: int = 0
    attribute: list[int] = field(default_factory=lambda: [0] * 21)
    attribute_index: int = 0
    attribute_data: bool = False
    dac: list[int] = field(default_factory=lambda: [0] * 768)
    dac_mask: int = 0xFF
    dac_read_index: int = 0
    dac_write_index: int = 0
    dac_component: int = 0
    dac_latch: list[int] = field(default_factory=lambda: [0, 0, 0])
    dac_reading: bool = False
    interrupt_cleared: int = 0  #: virtual time, ns, at which CR11 bit 4 was last 0


@dataclass(frozen=True, slots=True)
class Timing:
    """One frame: ns of a line and of its visible part, lines in all, shown, and in vertical retrace."""

    line_ns: int
    visible_ns: int
    lines: int
    shown: int
    retrace_start: int
    retrace_end: int


class Vga:
    """Mapped from port 3B4h to 3DFh as one range; ports in it that the adapter does not decode read FFh.

    `memory` is the 128 KiB window at A0000h. The vertical retrace interrupt shows in input status 0 only: its line is
    not connected, as on most adapters.
    """

    def __init__(self, clock: Clock, memory: memoryview | bytearray) -> None:
        self._clock, self.memory = clock, memory
        self.state = State()

    def reset(self) -> None:
        """Power-on: registers zero, the screen off. IBM leaves most registers undefined here. Video memory keeps its
        contents."""
        self.state = State()

    def save(self) -> State:
        return copied(self.state)

    def restore(self, state: State) -> None:
        self.state = copied(state)

    # -- decoding

    def _decode(self, offset: int) -> int:
        """The port, with 3Bxh folded onto 3Dxh where the misc output register puts the adapter; 0 if not decoded."""
        port = FIRST_PORT + offset
        s = self.state
        if not s.enabled:
            return port if port == 0x3C3 else 0
        if 0x3C0 <= port <= 0x3CF:
            return port
        colour = bool(s.misc & MISC_COLOUR)
        if port in (0x3B4, 0x3B5, 0x3BA) and not colour:
            return port + 0x20
        return port if port in (0x3D4, 0x3D5, 0x3DA) and colour else 0

    def read(self, offset: int, size: int) -> int:
        port = self._decode(offset)
        value = self._value(port)
        s = self.state
        if port == 0x3DA:
            s.attribute_data = False
        elif port == 0x3C9:
            s.dac_component += 1
            if s.dac_component == 3:
                s.dac_component = 0
                s.dac_read_index = s.dac_read_index + 1 & 0xFF
        return value

    def peek(self, offset: int, size: int) -> int:
        return self._value(self._decode(offset))

    def _value(self, port: int) -> int:
        read = _READS.get(port)
        return FLOATING if read is None else read(self)

    def write(self, offset: int, value: int, size: int) -> None:
        write = _WRITES.get(self._decode(offset))
        if write is not None:
            write(self, value & 0xFF)

    # -- general registers

    def _input_status_0(self) -> int:
        """Bit 4: the monitor's sense line, 1 with a colour monitor; bit 7: a vertical retrace interrupt is pending."""
        s = self.state
        pending = bool(s.crtc[0x11] & CR11_CLEAR_INT) and self._retraces(self._clock.now) > self._retraces(
            s.interrupt_cleared
        )
        return 0x10 | (0x80 if pending else 0)

    def _input_status_1(self) -> int:
        timing = self.timing()
        line, within = divmod(self._clock.now % (timing.line_ns * timing.lines), timing.line_ns)
        value = 0
        if line >= timing.shown or within >= timing.visible_ns:
            value |= ST1_BLANK
        if timing.retrace_start <= line < timing.retrace_end:
            value |= ST1_BLANK | ST1_RETRACE
        return value

    def _retraces(self, at: int) -> int:
        """Vertical retraces that have begun by virtual time `at`, ns."""
        timing = self.timing()
        return (at - timing.retrace_start * timing.line_ns) // (timing.line_ns * timing.lines) + 1

    def timing(self) -> Timing:
        """From the CRT controller, the sequencer's character width and the dot clock; 70 Hz text while unprogrammed."""
        s = self.state
        cr = s.crtc
        overflow = cr[7]
        lines = (cr[6] | (overflow & 1) << 8 | (overflow & 0x20) << 4) + 2
        shown = (cr[0x12] | (overflow & 2) << 7 | (overflow & 0x40) << 3) + 1
        start = cr[0x10] | (overflow & 4) << 6 | (overflow & 0x80) << 2
        end = start + ((cr[0x11] - start & 15) or 16)
        characters = cr[0] + 5
        if not shown <= start < lines or cr[1] + 1 > characters or cr[0] == 0:
            return Timing(IDLE_LINE_NS, IDLE_VISIBLE_NS, IDLE_LINES, IDLE_SHOWN, *IDLE_RETRACE)
        dots = (8 if s.sequencer[1] & 1 else 9) * (2 if s.sequencer[1] & 8 else 1)
        clock = DOT_CLOCKS[s.misc >> 2 & 3]
        character = dots * 1_000_000_000
        return Timing(
            characters * character // clock, (cr[1] + 1) * character // clock, lines, shown, start, min(end, lines)
        )

    def _write_misc(self, value: int) -> None:
        self.state.misc = value & 0xEF

    def _write_feature(self, value: int) -> None:
        self.state.feature = value & 0x0B

    # -- attribute controller

    def _write_attribute(self, value: int) -> None:
        s = self.state
        if not s.attribute_data:
            s.attribute_index = value & 0x3F
        elif (index := s.attribute_index & 0x1F) < len(s.attribute):
            s.attribute[index] = value & ATTRIBUTE_MASKS[index]
        s.attribute_data = not s.attribute_data

    # -- indexed groups

    def _write_sequencer(self, value: int) -> None:
        s = self.state
        if s.sequencer_index < len(s.sequencer):
            s.sequencer[s.sequencer_index] = value & SEQUENCER_MASKS[s.sequencer_index]

    def _write_graphics(self, value: int) -> None:
        s = self.state
        if s.graphics_index < len(s.graphics):
            s.graphics[s.graphics_index] = value & GRAPHICS_MASKS[s.graphics_index]

    def _read_crtc(self) -> int:
        s = self.state
        # with EVRA clear, 10h and 11h are the EGA's light pen registers, which a VGA lacks
        if s.crtc_index in (0x10, 0x11) and not s.crtc[3] & CR3_EVRA:
            return 0
        return _indexed(s.crtc, s.crtc_index)

    def _write_crtc(self, value: int) -> None:
        s = self.state
        index = s.crtc_index
        if index >= len(s.crtc):
            return
        if index < 7 and s.crtc[0x11] & CR11_PROTECT:
            return
        if index == 7 and s.crtc[0x11] & CR11_PROTECT:
            value = s.crtc[7] & ~0x10 | value & 0x10  # line compare bit 8 is not protected
        s.crtc[index] = value & CRTC_MASKS[index]
        if index == 0x11 and not value & CR11_CLEAR_INT:
            s.interrupt_cleared = self._clock.now

    # -- DAC

    def _dac_address(self, value: int, reading: bool) -> None:
        s = self.state
        s.dac_reading, s.dac_component = reading, 0
        if reading:
            s.dac_read_index = value
        else:
            s.dac_write_index = value

    def _write_dac(self, value: int) -> None:
        """Three writes, red, green and blue, set one colour; the address then advances."""
        s = self.state
        s.dac_latch[s.dac_component] = value & 0x3F
        s.dac_component += 1
        if s.dac_component == 3:
            s.dac[3 * s.dac_write_index : 3 * s.dac_write_index + 3] = s.dac_latch
            s.dac_component = 0
            s.dac_write_index = s.dac_write_index + 1 & 0xFF

    def view(self) -> DeviceView:
        s = self.state
        cr, timing = s.crtc, self.timing()
        rate = 1_000_000_000 / (timing.line_ns * timing.lines)
        where = ("A0000h, 128 KiB", "A0000h, 64 KiB", "B0000h, 32 KiB", "B8000h, 32 KiB")[s.graphics[6] >> 2 & 3]
        return DeviceView(
            "vga",
            "IBM VGA",
            "ports 3B4h-3DFh; memory A0000h-BFFFFh",
            (
                FieldView("misc output", s.misc, f"CRTC at {'3D4h' if s.misc & MISC_COLOUR else '3B4h'}"),
                FieldView("sequencer", bytes(s.sequencer).hex(" "), "screen off" if s.sequencer[1] & 0x20 else ""),
                FieldView("graphics", bytes(s.graphics).hex(" "),
                          f"{'graphics' if s.graphics[6] & 1 else 'text'}, memory at {where}"),
                FieldView("CRTC", bytes(cr).hex(" "),
                          f"{timing.shown} of {timing.lines} lines, {rate:.1f} Hz"
                          + (", 0-7 protected" if cr[0x11] & CR11_PROTECT else "")),
                FieldView("start address", cr[0x0C] << 8 | cr[0x0D]),
                FieldView("cursor", cr[0x0E] << 8 | cr[0x0F], "off" if cr[0x0A] & 0x20 else
                          f"scan lines {cr[0x0A] & 31} to {cr[0x0B] & 31}"),
                FieldView("attribute", bytes(s.attribute).hex(" "), "next write of 3C0h is "
                          + ("data" if s.attribute_data else "an index")),
                FieldView("PAS", bool(s.attribute_index & ATTR_PAS), "" if s.attribute_index & ATTR_PAS else "blank"),
                FieldView("DAC", s.dac_read_index if s.dac_reading else s.dac_write_index,
                          f"{'read' if s.dac_reading else 'write'} mode, mask {s.dac_mask:02x}h"),
            ),
        )  # fmt: skip


def _indexed(registers: list[int], index: int) -> int:
    return registers[index] if index < len(registers) else 0


def _set(name: str, mask: int = 0xFF) -> Callable[[Vga, int], None]:
    def write(vga: Vga, value: int) -> None:
        setattr(vga.state, name, value & mask)

    return write


def _enable(vga: Vga, value: int) -> None:
    """Video subsystem enable (3C3h): with bit 0 clear no other port answers."""
    vga.state.enabled = bool(value & 1)


_READS: dict[int, Callable[[Vga], int]] = {
    0x3C0: lambda v: v.state.attribute_index,
    0x3C1: lambda v: _indexed(v.state.attribute, v.state.attribute_index & 0x1F),
    0x3C2: Vga._input_status_0,
    0x3C3: lambda v: int(v.state.enabled),
    0x3C4: lambda v: v.state.sequencer_index,
    0x3C5: lambda v: _indexed(v.state.sequencer, v.state.sequencer_index),
    0x3C6: lambda v: v.state.dac_mask,
    0x3C7: lambda v: 3 if v.state.dac_reading else 0,
    0x3C8: lambda v: v.state.dac_write_index,
    0x3C9: lambda v: v.state.dac[3 * v.state.dac_read_index + v.state.dac_component],
    0x3CA: lambda v: v.state.feature,
    0x3CC: lambda v: v.state.misc,
    0x3CE: lambda v: v.state.graphics_index,
    0x3CF: lambda v: _indexed(v.state.graphics, v.state.graphics_index),
    0x3D4: lambda v: v.state.crtc_index,
    0x3D5: Vga._read_crtc,
    0x3DA: Vga._input_status_1,
}
_WRITES: dict[int, Callable[[Vga, int], None]] = {
    0x3C0: Vga._write_attribute,
    0x3C2: Vga._write_misc,
    0x3C3: _enable,
    0x3C4: _set("sequencer_index", 0x07),
    0x3C5: Vga._write_sequencer,
    0x3C6: _set("dac_mask"),
    0x3C7: lambda v, value: v._dac_address(value, True),
    0x3C8: lambda v, value: v._dac_address(value, False),
    0x3C9: Vga._write_dac,
    0x3CE: _set("graphics_index", 0x0F),
    0x3CF: Vga._write_graphics,
    0x3D4: _set("crtc_index", 0x1F),
    0x3D5: Vga._write_crtc,
    0x3DA: Vga._write_feature,
}
