"""What INT 16h gives for each key: scan code and character, alone and with Shift, Ctrl and Alt.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 16h", tables of keystrokes and codes (US layout).
"""

from __future__ import annotations

from emu.named import NamedTuple

NOTHING = -1


class Codes(NamedTuple):
    """Scan code in the high byte, character in the low; NOTHING: the combination is ignored."""

    plain: int
    shift: int
    ctrl: int
    alt: int


def _rows() -> dict[int, Codes]:
    table: dict[int, Codes] = {}
    for first, letters in ((0x10, "qwertyuiop"), (0x1E, "asdfghjkl"), (0x2C, "zxcvbnm")):
        for scan, letter in enumerate(letters, first):
            code, high = ord(letter), scan << 8
            table[scan] = Codes(high | code, high | code - 32, high | code - 96, high)
    control = {0x03: 0x0300, 0x07: 0x071E, 0x0C: 0x0C1F}
    for i, (plain, shift) in enumerate(zip("1234567890-=", "!@#$%^&*()_+", strict=True)):
        scan = 2 + i
        table[scan] = Codes(scan << 8 | ord(plain), scan << 8 | ord(shift), control.get(scan, NOTHING), (0x78 + i) << 8)
    control = {0x1A: 0x1A1B, 0x1B: 0x1B1D, 0x2B: 0x2B1C}
    for scan, plain, shift in (
        (0x1A, "[", "{"), (0x1B, "]", "}"), (0x27, ";", ":"), (0x28, "'", '"'), (0x29, "`", "~"), (0x2B, "\\", "|"),
        (0x33, ",", "<"), (0x34, ".", ">"), (0x35, "/", "?"),
    ):  # fmt: skip
        table[scan] = Codes(scan << 8 | ord(plain), scan << 8 | ord(shift), control.get(scan, NOTHING), scan << 8)
    for i in range(10):
        table[0x3B + i] = Codes((0x3B + i) << 8, (0x54 + i) << 8, (0x5E + i) << 8, (0x68 + i) << 8)
    for i in range(2):
        table[0x57 + i] = Codes((0x85 + i) << 8, (0x87 + i) << 8, (0x89 + i) << 8, (0x8B + i) << 8)
    table[0x01] = Codes(0x011B, 0x011B, 0x011B, 0x0100)
    table[0x0E] = Codes(0x0E08, 0x0E08, 0x0E7F, 0x0E00)
    table[0x0F] = Codes(0x0F09, 0x0F00, 0x9400, 0xA500)
    table[0x1C] = Codes(0x1C0D, 0x1C0D, 0x1C0A, 0x1C00)
    table[0x39] = Codes(0x3920, 0x3920, 0x3920, 0x3920)
    table[0x56] = Codes(0x565C, 0x567C, NOTHING, NOTHING)
    table[0x37] = Codes(0x372A, 0x372A, 0x9600, 0x3700)
    table[0x4A] = Codes(0x4A2D, 0x4A2D, 0x8E00, 0x4A00)
    table[0x4E] = Codes(0x4E2B, 0x4E2B, 0x9000, 0x4E00)
    for scan, digit, ctrl in (
        (0x47, "7", 0x77), (0x48, "8", 0x8D), (0x49, "9", 0x84), (0x4B, "4", 0x73), (0x4C, "5", 0x8F),
        (0x4D, "6", 0x74), (0x4F, "1", 0x75), (0x50, "2", 0x91), (0x51, "3", 0x76), (0x52, "0", 0x92),
        (0x53, ".", 0x93),
    ):  # fmt: skip
        plain_5 = 0x4CF0 if scan == 0x4C else scan << 8
        table[scan] = Codes(plain_5, scan << 8 | ord(digit), ctrl << 8, NOTHING)
    return table


def _extended() -> dict[int, Codes]:
    table = {
        scan: Codes(scan << 8 | 0xE0, scan << 8 | 0xE0, ctrl << 8 | 0xE0, (scan + 0x50) << 8)
        for scan, ctrl in (
            (0x47, 0x77), (0x48, 0x8D), (0x49, 0x84), (0x4B, 0x73), (0x4D, 0x74), (0x4F, 0x75), (0x50, 0x91),
            (0x51, 0x76), (0x52, 0x92), (0x53, 0x93),
        )
    }  # fmt: skip
    table[0x1C] = Codes(0xE00D, 0xE00D, 0xE00A, 0xA600)
    table[0x35] = Codes(0xE02F, 0xE02F, 0x9500, 0xA400)
    return table


#: By the make code of scan code set 1, and those behind E0h.
CODES, EXTENDED = _rows(), _extended()
LETTERS = frozenset((*range(0x10, 0x1A), *range(0x1E, 0x27), *range(0x2C, 0x33)))
KEYPAD = frozenset((*range(0x47, 0x4A), *range(0x4B, 0x4E), *range(0x4F, 0x54)))
KEYPAD_DIGITS = {0x52: 0, 0x4F: 1, 0x50: 2, 0x51: 3, 0x4B: 4, 0x4C: 5, 0x4D: 6, 0x47: 7, 0x48: 8, 0x49: 9}
