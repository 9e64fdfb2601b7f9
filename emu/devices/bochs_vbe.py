"""The Bochs VBE extensions (DISPI): packed-pixel modes beyond the VGA's, chosen by number, at ports 1CEh-1D0h.

Sources: Bochs "VBE Display API" (vbe_display_api.txt, IDs B0C0h-B0C5h); QEMU docs/specs/standard-vga.rst. Sizes are
brought into range as QEMU's adapter does: widths to multiples of 8, heights to what memory holds.
"""

from __future__ import annotations

from emu.record import dataclass, field
from emu.typed import Final

ID, XRES, YRES, BPP, ENABLE, BANK, VIRT_WIDTH, VIRT_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY_64K = range(11)
REGISTERS: Final = (
    "ID", "XRES", "YRES", "BPP", "ENABLE", "BANK", "VIRT_WIDTH", "VIRT_HEIGHT", "X_OFFSET", "Y_OFFSET"
)  # fmt: skip
FIRST_ID, LAST_ID = 0xB0C0, 0xB0C5
ENABLED, GETCAPS, DAC_8BIT, LFB_ENABLED, NOCLEARMEM = 0x01, 0x02, 0x20, 0x40, 0x80
MAX_XRES, MAX_YRES, MAX_BPP = 16000, 12000, 32
#: bits a pixel takes in memory, by BPP; any other BPP becomes 8
PIXEL_BITS: Final = {4: 4, 8: 8, 15: 16, 16: 16, 24: 24, 32: 32}
BANK_SIZE: Final = 0x10000
NO_DATA: Final = 0


@dataclass(slots=True)
class VbeState:
    """`registers` by index; the last index is memory's size and is not kept."""

    index: int = 0
    registers: list[int] = field(default_factory=lambda: [LAST_ID] + [0] * (len(REGISTERS) - 1))

    @property
    def enabled(self) -> bool:
        return bool(self.registers[ENABLE] & ENABLED)

    @property
    def packed(self) -> bool:
        """Whole pixels in memory; else, with 4 bits, the VGA's planes."""
        return self.registers[BPP] != 4

    @property
    def dac_8bit(self) -> bool:
        return bool(self.registers[ENABLE] & DAC_8BIT)

    @property
    def line_bytes(self) -> int:
        """Bytes of memory from one line to the next, of all planes together."""
        return self.registers[VIRT_WIDTH] * PIXEL_BITS.get(self.registers[BPP], 8) // 8


def read(state: VbeState, memory: int) -> int:
    """The data port: the register chosen by the index; with GETCAPS set the greatest XRES, YRES and BPP."""
    index = state.index
    if index == MEMORY_64K:
        return memory // BANK_SIZE
    if index >= len(state.registers):
        return NO_DATA
    if state.registers[ENABLE] & GETCAPS and index in (XRES, YRES, BPP):
        return {XRES: MAX_XRES, YRES: MAX_YRES, BPP: MAX_BPP}[index]
    return state.registers[index]


def write(state: VbeState, value: int, memory: int) -> int:
    """The data port; `memory` is its size in bytes. Returns how many bytes from the first on have to be cleared."""
    r, index = state.registers, state.index
    if index == ID:
        if FIRST_ID <= value <= LAST_ID:
            r[ID] = value
    elif index in (XRES, YRES, BPP, VIRT_WIDTH, X_OFFSET, Y_OFFSET):
        r[index] = value
        if state.enabled:
            _fit(state, memory)
    elif index == BANK:
        r[BANK] = value % max(1, memory // BANK_SIZE)
    elif index == ENABLE:
        begins = value & ENABLED and not state.enabled
        r[ENABLE] = value
        r[BANK] = 0
        if begins:
            r[VIRT_WIDTH] = r[X_OFFSET] = r[Y_OFFSET] = 0
            _fit(state, memory)
            if not value & NOCLEARMEM:
                return r[YRES] * state.line_bytes
    return 0


def _fit(state: VbeState, memory: int) -> None:
    """Bring what was asked for into range."""
    r = state.registers
    if r[BPP] not in PIXEL_BITS:
        r[BPP] = 8
    r[XRES] = max(8, min(r[XRES] & ~7, MAX_XRES))
    r[VIRT_WIDTH] = max(r[XRES], min(r[VIRT_WIDTH] & ~7, MAX_XRES))
    bits, line = PIXEL_BITS[r[BPP]], state.line_bytes
    r[VIRT_HEIGHT] = min(memory // line, 0xFFFF)
    r[YRES] = max(1, min(r[YRES], MAX_YRES, memory // line))
    r[X_OFFSET], r[Y_OFFSET] = min(r[X_OFFSET], MAX_XRES), min(r[Y_OFFSET], MAX_YRES)
    end = (r[Y_OFFSET] + r[YRES]) * line
    if end + r[X_OFFSET] * bits // 8 > memory:
        r[Y_OFFSET], end = 0, r[YRES] * line
    if end + r[X_OFFSET] * bits // 8 > memory:
        r[X_OFFSET] = 0
