"""The VGA's modes as INT 10h sets them: what each register is given, and how memory and screen are divided.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem", "Video Modes" and the default register
values of each mode; IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 10h", AH=00h.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.record import dataclass

TEXT, CGA, PLANAR, CHAIN_4 = "text", "cga", "planar", "chain-4"


@dataclass(frozen=True, slots=True)
class Mode:
    """`rows` less one is what 40:84 has; `height` is the character's. `registers` are sequencer 1 to 4, all of the
    CRT controller, of the graphics and the attribute controller. `palette` is the number of the DAC's table."""

    number: int
    kind: str
    columns: int
    rows: int
    height: int
    page_bytes: int
    bits: int  #: of a pixel; 0 for text
    segment: int
    misc: int
    sequencer: bytes
    crtc: bytes
    graphics: bytes
    attributes: bytes
    palette: int

    @property
    def single(self) -> bool:
        """It has one page."""
        return self.number in (4, 5, 6, 0x11, 0x12, 0x13)


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


_TEXT_ATTRIBUTES = "000102030405140738393a3b3c3d3e3f 0c000f0800"
_MONO_ATTRIBUTES = "00080808080808081018181818181818 0e000f0800"
_CGA_320_ATTRIBUTES = "00131517020406071011121314151617 0100030000"
_CGA_640_ATTRIBUTES = "00171717171717171717171717171717 0100010000"
_CGA_16 = "00010203040506071011121314151617 01000f0000"
_EGA_MONO_ATTRIBUTES = "00080000181800000008000000180000 0b00050000"
_EGA_16 = "000102030405140738393a3b3c3d3e3f 01000f0000"
_VGA_2_ATTRIBUTES = "003f3f3f3f3f3f3f3f3f3f3f3f3f3f3f 01000f0000"
_VGA_256_ATTRIBUTES = "000102030405060708090a0b0c0d0e0f 41000f0000"
# CRT controller: horizontal, vertical and cursor, addresses and retrace
_TEXT_40 = "2d2728902ba0 bf1f004f0d0e00000000 9c8e8f141f96b9a3ff"
_TEXT_80 = "5f4f50825581 bf1f004f0d0e00000000 9c8e8f281f96b9a3ff"
_MONO_80 = "5f4f50825581 bf1f004f0d0e00000000 9c8e8f280f96b9a3ff"
_CGA_320 = "2d2728902b80 bf1f00c1000000000000 9c8e8f140096b9a2ff"
_CGA_640 = "5f4f50825480 bf1f00c1000000000000 9c8e8f280096b9c2ff"
_EGA_320 = "2d2728902b80 bf1f00c0000000000000 9c8e8f140096b9e3ff"
_EGA_640 = "5f4f50825480 bf1f00c0000000000000 9c8e8f280096b9e3ff"
_EGA_350 = "5f4f50825480 bf1f0040000000000000 83855d280f63bae3ff"
_VGA_480 = "5f4f50825480 0b3e0040000000000000 ea8cdf2800e704e3ff"
_VGA_2 = "5f4f50825480 0b3e0040000000000000 ea8cdf2800e704c3ff"
_VGA_256 = "5f4f50825480 bf1f0041000000000000 9c8e8f284096b9a3ff"
_TEXT_GRAPHICS, _MONO_GRAPHICS = "0000000000100e00ff", "0000000000100a00ff"
_CGA_320_GRAPHICS, _CGA_640_GRAPHICS = "0000000000300f0fff", "0000000000000d0fff"
_PLANAR_GRAPHICS, _CHAINED_GRAPHICS = "000000000000050fff", "000000000040050fff"


def _mode(
    number: int, kind: str, size: tuple[int, int, int], page: int, bits: int, segment: int, misc: int, sequencer: str,
    crtc: str, graphics: str, attributes: str, palette: int,
) -> Mode:  # fmt: skip
    return Mode(
        number, kind, *size, page, bits, segment, misc, _hex(sequencer), _hex(crtc), _hex(graphics), _hex(attributes),
        palette,
    )  # fmt: skip


_ALL: Sequence[Mode] = (
    *(
        _mode(n, TEXT, (40, 25, 16), 0x800, 0, 0xB800, 0x67, "08030002", _TEXT_40, _TEXT_GRAPHICS, _TEXT_ATTRIBUTES, 2)
        for n in (0, 1)
    ),
    *(
        _mode(n, TEXT, (80, 25, 16), 0x1000, 0, 0xB800, 0x67, "00030002", _TEXT_80, _TEXT_GRAPHICS, _TEXT_ATTRIBUTES, 2)
        for n in (2, 3)
    ),
    *(
        _mode(
            n, CGA, (40, 25, 8), 0x4000, 2, 0xB800, 0x63, "09030002", _CGA_320, _CGA_320_GRAPHICS, _CGA_320_ATTRIBUTES,
            1,
        )
        for n in (4, 5)
    ),
    _mode(
        6, CGA, (80, 25, 8), 0x4000, 1, 0xB800, 0x63, "01010006", _CGA_640, _CGA_640_GRAPHICS, _CGA_640_ATTRIBUTES, 1
    ),
    _mode(7, TEXT, (80, 25, 16), 0x1000, 0, 0xB000, 0x66, "00030002", _MONO_80, _MONO_GRAPHICS, _MONO_ATTRIBUTES, 0),
    _mode(0x0D, PLANAR, (40, 25, 8), 0x2000, 4, 0xA000, 0x63, "090f0006", _EGA_320, _PLANAR_GRAPHICS, _CGA_16, 1),
    _mode(0x0E, PLANAR, (80, 25, 8), 0x4000, 4, 0xA000, 0x63, "010f0006", _EGA_640, _PLANAR_GRAPHICS, _CGA_16, 1),
    _mode(
        0x0F, PLANAR, (80, 25, 14), 0x8000, 1, 0xA000, 0xA2, "010f0006", _EGA_350, _PLANAR_GRAPHICS,
        _EGA_MONO_ATTRIBUTES, 0,
    ),
    _mode(0x10, PLANAR, (80, 25, 14), 0x8000, 4, 0xA000, 0xA3, "010f0006", _EGA_350, _PLANAR_GRAPHICS, _EGA_16, 2),
    _mode(
        0x11, PLANAR, (80, 30, 16), 0xA000, 1, 0xA000, 0xE3, "010f0006", _VGA_2, _PLANAR_GRAPHICS, _VGA_2_ATTRIBUTES,
        2,
    ),
    _mode(0x12, PLANAR, (80, 30, 16), 0xA000, 4, 0xA000, 0xE3, "010f0006", _VGA_480, _PLANAR_GRAPHICS, _EGA_16, 2),
    _mode(
        0x13, CHAIN_4, (40, 25, 8), 0x2000, 8, 0xA000, 0x63, "010f000e", _VGA_256, _CHAINED_GRAPHICS,
        _VGA_256_ATTRIBUTES, 3,
    ),
)  # fmt: skip
MODES = {mode.number: mode for mode in _ALL}

Colour = tuple[int, int, int]


def _ega_64() -> list[Colour]:
    """Bits 5-3 the weak r, g, b, bits 2-0 the strong ones."""
    return [
        tuple(0x2A * (i >> bit & 1) + 0x15 * (i >> bit + 3 & 1) for bit in (2, 1, 0))  # type: ignore[misc]
        for i in range(64)
    ]


def _cga_16() -> list[Colour]:
    colours = _ega_64()
    return [colours[c] for c in (*range(6), 0x14, 7, *range(0x38, 0x40))]


def _monochrome() -> list[Colour]:
    return [(v, v, v) for v in [0] * 8 + [0x2A] * 8 + [0] * 8 + [0x3F] * 8] * 2


def _256() -> list[Colour]:
    """16 colours of the CGA, 16 greys, then three intensities of three saturations of 24 hues from blue by red and
    green; 8 blacks."""
    greys = (0, 5, 8, 0x0B, 0x0E, 0x11, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2D, 0x32, 0x38, 0x3F)
    colours = _cga_16() + [(g, g, g) for g in greys]
    for low, a, b, c, high in (
        (0x00, 0x10, 0x1F, 0x2F, 0x3F), (0x1F, 0x27, 0x2F, 0x37, 0x3F), (0x2D, 0x31, 0x36, 0x3A, 0x3F),
        (0x00, 0x07, 0x0E, 0x15, 0x1C), (0x0E, 0x11, 0x15, 0x18, 0x1C), (0x14, 0x16, 0x18, 0x1A, 0x1C),
        (0x00, 0x04, 0x08, 0x0C, 0x10), (0x08, 0x0A, 0x0C, 0x0E, 0x10), (0x0B, 0x0C, 0x0D, 0x0F, 0x10),
    ):  # fmt: skip
        wave = [high] * 5 + [c, b, a] + [low] * 9 + [a, b, c] + [high] * 4
        colours += [(wave[i - 8], wave[i - 16], wave[i]) for i in range(24)]
    return colours + [(0, 0, 0)] * 8


#: The DAC's first colours, by number: monochrome, CGA, EGA's 64, 256.
PALETTES: Sequence[Sequence[Colour]] = (_monochrome(), (_cga_16()[:8] * 2 + _cga_16()[8:] * 2) * 2, _ega_64(), _256())
