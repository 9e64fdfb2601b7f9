"""The VGA's registers: which bits of them exist, and the state they make up.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA).
"""

from __future__ import annotations

from emu.devices.bochs_vbe import VbeState
from emu.record import dataclass, field

# miscellaneous output register
MISC_COLOUR, MISC_RAM, MISC_CLOCK = 0x01, 0x02, 0x0C
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
    latch: int = 0  #: of the four planes, plane 0 in the low byte
    vbe: VbeState = field(default_factory=VbeState)
