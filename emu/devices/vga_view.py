"""What `dev vga` shows: the VGA's registers, decoded in the words of IBM's reference.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA).
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.devices import bochs_vbe
from emu.devices.bochs_vbe import VbeState
from emu.devices.vga_registers import ATTR_PAS, CR11_PROTECT, MISC_COLOUR, MISC_RAM, State
from emu.devices.vga_timing import SR1_8_DOTS, SR1_HALF_CLOCK, Timing
from emu.views import DeviceView, FieldView

_WINDOWS = ("A0000h, 128 KiB", "A0000h, 64 KiB", "B0000h, 32 KiB", "B8000h, 32 KiB")
_FUNCTIONS = ("as it is", "AND latch", "OR latch", "XOR latch")
_SHIFTS = ("one bit a plane", "two bits a plane (CGA)", "256 colours", "256 colours")


def view(state: State, timing: Timing, memory: int) -> DeviceView:
    """`memory` is the size of display memory in bytes; `state.latch` has to be the latches of now."""
    return DeviceView(
        "vga",
        "IBM VGA with Bochs VBE",
        "ports 3B4h-3DFh, 1CEh-1D1h; memory A0000h-BFFFFh",
        (
            *_general(state),
            *_sequencer(state),
            *_crtc(state, timing),
            *_graphics(state),
            *_attribute(state),
            *_vbe(state.vbe, memory),
        ),
    )


def _general(s: State) -> Iterator[FieldView]:
    clock = ("25.175 MHz", "28.322 MHz", "external", "external")[s.misc >> 2 & 3]
    sync = {0xC0: "480", 0x40: "400", 0x80: "350"}.get(s.misc & 0xC0, "no standard number of")
    yield FieldView(
        "misc output",
        s.misc,
        f"CRTC at {'3D4h' if s.misc & MISC_COLOUR else '3B4h'}, memory {'on' if s.misc & MISC_RAM else 'off'}, "
        f"{clock}, sync for {sync} lines",
    )
    yield FieldView("feature control", s.feature)
    yield FieldView("subsystem enable", s.enabled, "" if s.enabled else "nothing but port 3C3h answers")


def _sequencer(s: State) -> Iterator[FieldView]:
    reset, clocking, mask, fonts, mode = s.sequencer
    dots = f"{8 if clocking & SR1_8_DOTS else 9} dots a character"
    if clocking & SR1_HALF_CLOCK:
        dots += ", half the dot clock"
    yield FieldView("sequencer", bytes(s.sequencer).hex(" "), f"index {s.sequencer_index}")
    yield FieldView("  reset", reset, "runs" if reset & 3 == 3 else "held in reset")
    yield FieldView("  clocking mode", clocking, dots + (", screen off" if clocking & 0x20 else ""))
    yield FieldView("  map mask", mask, f"planes {_planes(mask)} written")
    yield FieldView("  character map", fonts, f"attribute bit 3 set: font {font_a(s)}, clear: font {font_b(s)}")
    chained = "chain-4" if mode & 8 else "planes in sequence" if mode & 4 else "odd/even"
    yield FieldView("  memory mode", mode, chained + ("" if mode & 2 else ", 64 KiB"))


def font_a(s: State) -> int:
    """Which 8 KiB of plane 2 holds the font of characters with attribute bit 3 set."""
    value = s.sequencer[3]
    return value >> 2 & 3 | value >> 3 & 4


def font_b(s: State) -> int:
    """The same for attribute bit 3 clear."""
    value = s.sequencer[3]
    return value & 3 | value >> 2 & 4


def _crtc(s: State, timing: Timing) -> Iterator[FieldView]:
    cr = s.crtc
    rate = 1_000_000_000 / (timing.line_ns * timing.lines)
    yield FieldView(
        "CRTC",
        bytes(cr).hex(" "),
        f"{timing.shown} of {timing.lines} lines, {rate:.1f} Hz"
        + (", 0-7 protected" if cr[0x11] & CR11_PROTECT else ""),
    )
    yield FieldView("  start address", cr[0x0C] << 8 | cr[0x0D])
    yield FieldView("  offset", cr[0x13], f"{cr[0x13] * 2} address counts from row to row")
    unit = "doubleword" if cr[0x14] & 0x40 else "byte" if cr[0x17] & 0x40 else "word"
    banks = {3: "", 2: ", row scan bit 0 at address bit 13", 1: ", row scan bit 1 at address bit 14"}
    yield FieldView("  mode control", cr[0x17], f"{unit} addresses" + banks.get(cr[0x17] & 3, ", row scan at 14-13"))
    rows = f"{(cr[9] & 31) + 1} scan lines a row" + (", each twice" if cr[9] & 0x80 else "")
    yield FieldView("  maximum scan line", cr[9], rows)
    compare = cr[0x18] | (cr[7] & 0x10) << 4 | (cr[9] & 0x40) << 3
    yield FieldView("  line compare", compare, "splits the screen" if compare < timing.shown else "past the last line")
    yield FieldView(
        "  cursor",
        cr[0x0E] << 8 | cr[0x0F],
        "off" if cr[0x0A] & 0x20 else f"scan lines {cr[0x0A] & 31} to {cr[0x0B] & 31}",
    )
    yield FieldView("  underline location", cr[0x14] & 31)


def _graphics(s: State) -> Iterator[FieldView]:
    g = s.graphics
    yield FieldView("graphics", bytes(g).hex(" "), f"index {s.graphics_index}")
    yield FieldView("  set/reset", g[0], f"enabled for planes {_planes(g[1])}")
    yield FieldView("  colour compare", g[2], f"planes {_planes(g[7])} compared")
    yield FieldView("  data rotate", g[3], f"right by {g[3] & 7}, then {_FUNCTIONS[g[3] >> 3 & 3]}")
    yield FieldView("  read map", g[4])
    read = "colour compare" if g[5] & 8 else "a plane"
    yield FieldView(
        "  mode",
        g[5],
        f"write mode {g[5] & 3}, reads give {read}, {'odd/even' if g[5] & 0x10 else 'no odd/even'}, "
        + _SHIFTS[g[5] >> 5 & 3],
    )
    kind = "graphics" if g[6] & 1 else "text"
    chained = ", chains odd and even" if g[6] & 2 else ""
    yield FieldView("  miscellaneous", g[6], f"{kind}, memory at {_WINDOWS[g[6] >> 2 & 3]}{chained}")
    yield FieldView("  bit mask", g[8])
    yield FieldView("  latches", s.latch.to_bytes(4, "little").hex(" "), "planes 0 to 3")


def _attribute(s: State) -> Iterator[FieldView]:
    a = s.attribute
    index = "data" if s.attribute_data else "an index"
    yield FieldView("attribute", bytes(a).hex(" "), f"next write of 3C0h is {index}")
    on = bool(s.attribute_index & ATTR_PAS)
    yield FieldView("  PAS", on, "" if on else "blank: the palette is the CPU's")
    mode = a[0x10]
    words = ["graphics" if mode & 1 else "text", "blinking" if mode & 8 else "16 backgrounds"]
    words += [word for bit, word in _ATTRIBUTE_BITS if mode & bit]
    yield FieldView("  mode control", mode, ", ".join(words))
    yield FieldView("  overscan", a[0x11])
    yield FieldView("  colour plane enable", a[0x12], f"planes {_planes(a[0x12])} shown")
    yield FieldView("  PEL panning", a[0x13])
    yield FieldView("  colour select", a[0x14])
    yield FieldView(
        "DAC",
        s.dac_read_index if s.dac_reading else s.dac_write_index,
        f"{'read' if s.dac_reading else 'write'} mode, component {s.dac_component}, mask {s.dac_mask:02x}h, "
        f"{8 if s.vbe.dac_8bit else 6} bits",
    )


_ATTRIBUTE_BITS = (
    (2, "monochrome"), (4, "line graphics"), (0x20, "panning ends at line compare"), (0x40, "256 colours"),
    (0x80, "colour select gives bits 5-4"),
)  # fmt: skip


def _vbe(vbe: VbeState, memory: int) -> Iterator[FieldView]:
    r = vbe.registers
    mode = f"{r[bochs_vbe.XRES]}x{r[bochs_vbe.YRES]}, {r[bochs_vbe.BPP]} bits a pixel" if vbe.enabled else "off"
    yield FieldView("VBE", vbe.index, f"index; {mode}; {memory >> 20} MiB")
    for number, name in enumerate(bochs_vbe.REGISTERS):
        yield FieldView(f"  {name}", r[number], _enable_words(r[number]) if number == bochs_vbe.ENABLE else "")


def _enable_words(value: int) -> str:
    bits = (
        (bochs_vbe.ENABLED, "enabled"), (bochs_vbe.GETCAPS, "capabilities"), (bochs_vbe.DAC_8BIT, "8-bit DAC"),
        (bochs_vbe.LFB_ENABLED, "linear frame buffer"), (bochs_vbe.NOCLEARMEM, "memory kept"),
    )  # fmt: skip
    return ", ".join(word for bit, word in bits if value & bit)


def _planes(mask: int) -> str:
    return " ".join(str(plane) for plane in range(4) if mask >> plane & 1) or "none"
