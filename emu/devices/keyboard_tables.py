"""The keys of an IBM 101/102/104-key keyboard: names, scan codes of sets 1, 2 and 3, and the US layout.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)", tables of scan code sets 1,
2 and 3 by key number; Microsoft "Windows Keyboard Scan Code Specification" 1.3a for the three Windows keys. Set 1 is
not a table of its own: each of its codes is what a keyboard controller makes of the code in set 2.
"""

from __future__ import annotations

from emu.record import dataclass
from emu.typed import Final

#: What an 8042 with translation on makes of a set 2 byte 00h-7Fh (IBM PC/AT Technical Reference, 8042 "scan code
#: translation"; values without a key as measured on the chip). Higher bytes pass unchanged, but for 83h and 84h.
_LOW: Final = bytes.fromhex(
    "ff43413f3d3b3c58644442403e0f2959"
    "65382a701d10025a66712c1f1e11035b"
    "672e2d201205045c68392f211413065d"
    "693130232215075e6a7232241608095f"
    "6b332517180b0a606c34352627190c61"
    "6d7328741a0d626e3a361c1b752b6376"
    "55567778797a0e7b7c4f7d4b477e7f6f"
    "5253504c4d480145574e514a37494654"
)
TRANSLATION: Final = _LOW + bytes([0x80, 0x81, 0x82, 0x41, 0x54]) + bytes(range(0x85, 0x100))


@dataclass(frozen=True, slots=True)
class Key:
    """`set2` is the make code without its prefix, `extended` says whether E0h precedes it (sets 1 and 2); `set3` is
    the single make code of set 3. `kind` is the power-on key type of set 3: "t" typematic (repeats, no break
    code), "b" make and break, "m" make only. `nav`: an editing or cursor key, which sets 1 and 2 wrap in shifts."""

    name: str
    set2: int
    set3: int
    extended: bool = False
    kind: str = "t"
    nav: bool = False

    @property
    def set1(self) -> int:
        return TRANSLATION[self.set2]


def _plain() -> list[Key]:
    codes = (
        "` 0e 0e|1 16 16|2 1e 1e|3 26 26|4 25 25|5 2e 2e|6 36 36|7 3d 3d|8 3e 3e|9 46 46|0 45 45|- 4e 4e|= 55 55"
        "|backspace 66 66|tab 0d 0d|q 15 15|w 1d 1d|e 24 24|r 2d 2d|t 2c 2c|y 35 35|u 3c 3c|i 43 43|o 44 44|p 4d 4d"
        "|[ 54 54|] 5b 5b|\\ 5d 5c|a 1c 1c|s 1b 1b|d 23 23|f 2b 2b|g 34 34|h 33 33|j 3b 3b|k 42 42|l 4b 4b|; 4c 4c"
        "|' 52 52|enter 5a 5a|z 1a 1a|x 22 22|c 21 21|v 2a 2a|b 32 32|n 31 31|m 3a 3a|, 41 41|. 49 49|/ 4a 4a"
        "|space 29 29|less 61 13|kp+ 79 7c"
    )
    return [Key(n, int(a, 16), int(b, 16)) for n, a, b in (entry.split() for entry in codes.split("|"))]


def _function() -> list[Key]:
    set2 = (0x05, 0x06, 0x04, 0x0C, 0x03, 0x0B, 0x83, 0x0A, 0x01, 0x09, 0x78, 0x07)
    set3 = (0x07, 0x0F, 0x17, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x47, 0x4F, 0x56, 0x5E)
    return [Key(f"f{i + 1}", a, b, kind="m") for i, (a, b) in enumerate(zip(set2, set3, strict=True))]


def _keypad() -> list[Key]:
    codes = (
        "kp0 70 70|kp1 69 69|kp2 72 72|kp3 7a 7a|kp4 6b 6b|kp5 73 73|kp6 74 74|kp7 6c 6c|kp8 75 75|kp9 7d 7d"
        "|kp. 71 71|kp* 7c 7e|kp- 7b 84|numlock 77 76|scrolllock 7e 5f|esc 76 08"
    )
    return [Key(n, int(a, 16), int(b, 16), kind="m") for n, a, b in (entry.split() for entry in codes.split("|"))]


_MODIFIERS: Final = [
    Key("shift", 0x12, 0x12, kind="b"),
    Key("rshift", 0x59, 0x59, kind="b"),
    Key("ctrl", 0x14, 0x11, kind="b"),
    Key("rctrl", 0x14, 0x58, extended=True, kind="m"),
    Key("alt", 0x11, 0x19, kind="b"),
    Key("ralt", 0x11, 0x39, extended=True, kind="m"),
    Key("capslock", 0x58, 0x14, kind="b"),
    Key("win", 0x1F, 0x8B, extended=True, kind="m"),
    Key("rwin", 0x27, 0x8C, extended=True, kind="m"),
    Key("menu", 0x2F, 0x8D, extended=True, kind="m"),
]
_NAVIGATION: Final = [
    Key("insert", 0x70, 0x67, extended=True, kind="m", nav=True),
    Key("delete", 0x71, 0x64, extended=True, nav=True),
    Key("left", 0x6B, 0x61, extended=True, nav=True),
    Key("home", 0x6C, 0x6E, extended=True, kind="m", nav=True),
    Key("end", 0x69, 0x65, extended=True, kind="m", nav=True),
    Key("up", 0x75, 0x63, extended=True, nav=True),
    Key("down", 0x72, 0x60, extended=True, nav=True),
    Key("pageup", 0x7D, 0x6F, extended=True, kind="m", nav=True),
    Key("pagedown", 0x7A, 0x6D, extended=True, kind="m", nav=True),
    Key("right", 0x74, 0x6A, extended=True, nav=True),
]
_SPECIAL: Final = [
    Key("kp/", 0x4A, 0x77, extended=True, kind="m"),
    Key("kpenter", 0x5A, 0x79, extended=True, kind="m"),
    Key("printscreen", 0x7C, 0x57, extended=True, kind="m"),
    Key("pause", 0x77, 0x62, extended=True, kind="m"),
]

#: Every key by its name.
KEYS: Final[dict[str, Key]] = {
    key.name: key for key in (*_plain(), *_function(), *_keypad(), *_MODIFIERS, *_NAVIGATION, *_SPECIAL)
}
#: Other names people use.
ALIASES: Final[dict[str, str]] = {
    "return": "enter", "ret": "enter", "escape": "esc", "spc": "space", "bs": "backspace", "del": "delete",
    "ins": "insert", "pgup": "pageup", "pgdn": "pagedown", "lshift": "shift", "lctrl": "ctrl", "control": "ctrl",
    "lalt": "alt", "altgr": "ralt", "caps": "capslock", "num": "numlock", "scroll": "scrolllock",
    "prtsc": "printscreen", "sysrq": "printscreen", "break": "pause", "lwin": "win", "minus": "-", "equal": "=",
    "comma": ",", "dot": ".", "slash": "/", "backslash": "\\", "semicolon": ";", "quote": "'", "grave": "`",
    "plus": "kp+",
}  # fmt: skip

_SHIFTED: Final = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./", strict=True))
_CONTROL: Final = {"\n": "enter", "\r": "enter", "\t": "tab", "\b": "backspace", "\x1b": "esc", " ": "space"}


def key_of_char(char: str) -> tuple[str, bool] | None:
    """The US layout: the key that types `char` and whether shift is held; None when no key does."""
    if char in _CONTROL:
        return _CONTROL[char], False
    if "A" <= char <= "Z":
        return char.lower(), True
    if char in _SHIFTED:
        return _SHIFTED[char], True
    return (char, False) if len(char) == 1 and char in KEYS else None
