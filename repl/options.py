"""The values of command-line options: what is a size, a choice that this version has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

MIB = 1 << 20
MEMORY_MIN, MEMORY_MAX = 1 * MIB, 3072 * MIB
#: DOMID_FIRST_RESERVED of xen/include/public/xen.h is the first that no domain has.
DOMAIN_MAX = 0x7FF0 - 1
#: Where gdb is awaited at a prompt.
DEFAULT_GDB = "127.0.0.1:1234"
GDB_OFF = "off"

#: Of a file that is to be written, behind its name.
READ = "is read by this run: name another file"

_SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class UsageError(Exception):
    """What was asked cannot be done; one sentence for stderr, status 2."""


def parse_memory(text: str) -> int:
    """`--memory`: bytes. A whole number of MiB from 1M to 3G, with a suffix. Raises UsageError."""
    digits = text.rstrip("kKmMgGiIbB")
    unit, rest = text[len(digits) :][:1].lower(), text[len(digits) + 1 :]
    if not (digits.isascii() and digits.isdigit()) or unit not in _SUFFIXES or rest not in ("", "b", "B", "ib", "iB"):
        raise UsageError(f"--memory {text!r} is not a size: write a number with k, M or G, as 64M")
    size = int(digits[:20]) * _SUFFIXES[unit]
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        raise UsageError(f"--memory {text} is out of range: 1M to 3G is possible")
    if size % MIB:
        raise UsageError(f"--memory {text} is not a whole number of MiB")
    return size


def parse_count(option: str, text: str, least: int = 1) -> int:
    """A number of `least` or more, decimal or 0x. Raises UsageError, with the wanted form of what looks like a
    number."""
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a whole number: {_wanted(option, text)}") from None
    if not least <= value < 1 << 62:
        raise UsageError(f"{option} {text} is out of range: {least} to 2**62 - 1 is possible")
    return value


def parse_domain(text: str) -> int:
    """`DOMAIN`, a number of Xen's. Raises UsageError."""
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(
            f"DOMAIN {text!r} is not a number of a domain: `xl list` shows them, beside the names"
        ) from None
    if not 0 <= value <= DOMAIN_MAX:
        raise UsageError(f"DOMAIN {text} is out of range: 0 to {DOMAIN_MAX} is possible")
    return value


def _wanted(option: str, text: str) -> str:
    """How to write what was meant: digits, whatever was added to them, or an example where none can be made out."""
    import re  # for what is refused only

    plain = re.fullmatch(r"\s*0*([1-9][0-9]{0,11})\s*", text)
    scaled = re.fullmatch(r"\s*0*([1-9][0-9]{0,8})\s*([kmg])\s*", text, re.IGNORECASE)
    power = re.fullmatch(r"\s*0*([1-9][0-9]{0,8})e\+?([0-9])\s*", text, re.IGNORECASE)
    grouped = re.fullmatch(r"\s*[1-9][0-9]{0,2}([,'. ][0-9]{3}){1,4}\s*", text)
    if plain:
        meant = int(plain[1])
    elif scaled:
        meant = int(scaled[1]) * 1000 ** (1 + "kmg".index(scaled[2].lower()))
    elif power:
        meant = int(power[1]) * 10 ** int(power[2])
    elif grouped:
        meant = int(re.sub("[^0-9]", "", text))
    else:
        return "write it in digits, as 1000000, 1_000_000 or 0xf4240"
    return f"write it in digits, as {option} {meant}" + (f" or {meant:_}" if meant >= 1000 else "")


def choose(option: str, value: str, available: Sequence[str], later: Sequence[str] = ()) -> str:
    """`value` if this version has it. `later` are values the option will have. Raises UsageError."""
    if value in available:
        return value
    have = f"{', '.join(available[:-1])} or {available[-1]}" if len(available) > 1 else available[0]
    if any(value == name or (name.endswith(":") and value.startswith(name)) for name in later):
        raise UsageError(f"{option} {value} is not available in this version: use {have}")
    raise UsageError(f"{option} {value!r} is unknown: use {have}")


def input_named(target: str | os.PathLike[str], inputs: Iterable[str]) -> bool:
    """Whether `target` is one of the files that the run reads, by whatever name: nobody may write to it."""
    return os.path.exists(target) and any(os.path.exists(name) and os.path.samefile(name, target) for name in inputs)


def refuse_input(option: str, target: str | os.PathLike[str], inputs: Iterable[str]) -> None:
    """Raises UsageError for a file to be written that the run reads."""
    if input_named(target, inputs):
        raise UsageError(f"{option} {str(target)!r} {READ}")
