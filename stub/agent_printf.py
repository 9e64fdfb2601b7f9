"""The formats of C's printf, as far as agent expressions have them: integers, characters, pointers, strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

#: Widths and precisions above this are refused: a format comes from outside.
WIDEST = 1000
#: ISO C11, 7.21.6.1: flags, width, precision, length, conversion.
_DIRECTIVE = re.compile(
    r"""%(?P<flags>[-+\ \#0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?
        (?P<length>hh|h|ll|l|j|z|t|q|)(?P<kind>.?)""",
    re.S | re.X,
)
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "j": 64, "z": 64, "t": 64, "q": 64}


#: gdb sends a format as it was typed, with its escapes (ISO C11, 6.4.4.4, and \\e).
_ESCAPE = re.compile(r"\\([0-7]{1,3}|.?)", re.S)
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "e": "\x1b",
    "\\": "\\",
    '"': '"',
}


class FormatError(Exception):
    """The format cannot be carried out; one sentence."""


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[:1].isdigit():
        return chr(int(code, 8) & 0xFF)
    if code not in _ESCAPES:
        raise FormatError(f"the format has the escape {match[0]!r}, which is not served")
    return _ESCAPES[code]


def formatted(text: str, arguments: Sequence[int], load: Callable[[int, int], bytes]) -> str:
    """`text` with its escapes and directives replaced by the 64-bit `arguments`. `load(address, most)` reads a string
    up to its zero byte. Raises FormatError."""
    left = list(arguments)

    def one(match: re.Match[str]) -> str:
        kind = match["kind"]
        if kind == "%":
            return "%"
        width, precision = int(match["width"] or 0), match["precision"]
        if width > WIDEST or int(precision or 0) > WIDEST:
            raise FormatError(f"the format asks for more than {WIDEST} characters in {match[0]!r}")
        if kind not in "diuxXocps" or not kind:
            raise FormatError(f"the format has {match[0]!r}, which is not served")
        if not left:
            raise FormatError("the format has more directives than there are arguments")
        return _one(match, kind, width, None if precision is None else int(precision or 0), left.pop(0), load)

    return _DIRECTIVE.sub(one, _ESCAPE.sub(_unescaped, text))


def _one(
    match: re.Match[str], kind: str, width: int, precision: int | None, value: int, load: Callable[[int, int], bytes]
) -> str:
    flags = match["flags"]
    if kind == "s":
        body = load(value, 1 << 62 if precision is None else precision).decode("utf-8", "replace")
        return body.ljust(width) if "-" in flags else body.rjust(width)
    if kind == "c":
        body = bytes((value & 0xFF,)).decode("latin-1")
        return body.ljust(width) if "-" in flags else body.rjust(width)
    bits = 64 if kind == "p" else _BITS[match["length"]]
    value &= (1 << bits) - 1
    sign = ""
    if kind in "di":
        if value >> bits - 1:
            value, sign = (1 << bits) - value, "-"
        else:
            sign = "+" if "+" in flags else " " if " " in flags else ""
    digits = (
        f"{value:o}" if kind == "o" else f"{value:X}" if kind == "X" else f"{value:x}" if kind in "xp" else str(value)
    )
    if precision is not None:
        digits = "" if not precision and not value else digits.rjust(precision, "0")
    if kind == "p" or ("#" in flags and kind in "xX" and value):
        sign = "0X" if kind == "X" else "0x"
    if "#" in flags and kind == "o" and not digits.startswith("0"):
        digits = "0" + digits
    if "-" in flags:
        return (sign + digits).ljust(width)
    if "0" in flags and precision is None:
        return sign + digits.rjust(width - len(sign), "0")
    return (sign + digits).rjust(width)
