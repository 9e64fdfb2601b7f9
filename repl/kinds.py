"""The types of arguments commands take: how each is read and completed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from emu.catches import Catch
from emu.record import dataclass
from emu.x86.modes import Mode
from repl.catches import WORDS, decimal_hint, parse_catch
from repl.command import CommandError, Kind, split_arguments
from repl.expr import ExpressionError

if TYPE_CHECKING:
    from repl.session import Session

#: Names completed where an expression is typed.
REGISTER_WORDS = (
    *(f"{size}{name}" for size in ("e", "", "r") for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip")),
    *(f"{name}{half}" for name in "abcd" for half in "lh"),
    *(f"r{n}" for n in range(8, 16)),
    *("eflags", "rflags", "pc", "es", "cs", "ss", "ds", "fs", "gs", "efer"),
    *(f"cr{n}" for n in (0, 2, 3, 4, 8)),
    *(f"dr{n}" for n in (0, 1, 2, 3, 6, 7)),
)
_HEX = "0123456789abcdefABCDEF"
_MAX_COUNT = 1_000_000_000_000


@dataclass(frozen=True)
class Place:
    """Where a breakpoint is to be: a linear address as it was typed, bytes, and an expression or ""."""

    address: int
    spec: str
    length: int
    condition: str


def _number(session: Session, text: str) -> int:
    return session.evaluate(text)


def _limited(what: str, low: int, high: int) -> Kind:
    def parse(session: Session, text: str) -> int:
        value = session.evaluate(text)
        if not low <= value <= high:
            raise CommandError(f"{what} {text.strip()} is out of range: {low} to {high:#x} is possible")
        return value

    return Kind(what, f"{what}, an expression from {low} to {high:#x}", parse)


def _expression_words(session: Session, prefix: str) -> Iterable[str]:
    dollar = "$" if prefix.startswith("$") else ""
    yield from (dollar + name for name in REGISTER_WORDS)
    yield from session.symbols.names()


def _address(session: Session, text: str) -> int:
    return session.address(text)


def _address_text(session: Session, text: str) -> tuple[int, str]:
    return session.address(text), text.strip().lstrip("*")


def _assignment(session: Session, text: str) -> tuple[str, int]:
    match = re.match(r"\s*\$?(\w+)(?:\s*=\s*|\s+)(.*\S)\s*$", text)
    if match is None:
        raise CommandError(f"{text.strip()!r} does not name a register and a value: write `set eax 5`")
    return match[1].lower(), session.evaluate(match[2])


def _over_or_into(session: Session, text: str) -> str:
    if text not in ("over", "into"):
        raise CommandError(f"{text!r} is neither `over` nor `into`")
    return text


def _each_or_whole(session: Session, text: str) -> str:
    if text not in ("each", "whole"):
        raise CommandError(f"{text!r} is neither `each` nor `whole`")
    return text


def _text(session: Session, text: str) -> str:
    return text


def _word(session: Session, text: str) -> str:
    return text.strip("\"'")


def _path(session: Session, text: str) -> Path:
    if "\0" in text:
        raise CommandError("a path holds no NUL")
    try:
        return Path(text.strip("\"'")).expanduser()
    except RuntimeError:  # the home of somebody who is not known
        raise CommandError(f"{text!r}: there is no such user") from None


def _path_words(session: Session, prefix: str) -> Iterable[str]:
    directory, _ = os.path.split(prefix)
    try:
        entries = sorted(os.scandir(directory or "."), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        yield os.path.join(directory, entry.name) + ("/" if entry.is_dir() else "")


FORCES = ("native", "emulated", "off")
POLICY_WORDS = ("emulated", "native", "auto", "learn", "dwell:", "why", "save", "load")


def _forced(session: Session, text: str) -> str:
    if text not in FORCES:
        raise CommandError(f"{text!r} is none of {', '.join(FORCES)}")
    return text


def _clear(session: Session, text: str) -> str:
    if text != "clear":
        raise CommandError(f"{text!r} is not `clear`, which is all that `ledger` knows")
    return text


def _spans(session: Session, text: str) -> tuple[int, int] | Mode | str:
    """What `forbid` names: (first, last) linear addresses, a mode, or "off"."""
    text = text.strip()
    if text == "off":
        return text
    for mode in Mode:
        if text in (mode.label, mode.name.lower()):
            return mode
    first, dash, last = text.partition("-")
    if dash and not (first.strip() and last.strip()):
        raise CommandError(f"{text!r} has no {'end' if first.strip() else 'beginning'}: give both, as 0x8000-0x8fff")
    try:
        low = session.address(first)
        high = session.address(last) if dash else low
    except ExpressionError as error:
        modes = ", ".join(mode.label for mode in Mode)
        raise CommandError(f"{text!r} is neither addresses ({error}) nor a mode: {modes}") from None
    if high < low:
        raise CommandError(f"{text!r} ends before it begins")
    return low, high


def _png_option(session: Session, text: str) -> Path:
    match = re.match(r"--png[ =]\s*(.*\S)\s*$", text)
    if match is None:
        raise CommandError(f"{text.strip()!r} is not what `screen` knows: `screen --png FILE` writes a picture")
    return _path(session, match[1])


def _png_words(session: Session, prefix: str) -> Iterable[str]:
    if prefix.startswith("--png "):
        return [f"--png {word}" for word in _path_words(session, prefix.removeprefix("--png ").lstrip())]
    return ["--png "]


def _device_words(session: Session, prefix: str) -> Iterable[str]:
    return (view.name for view in session.call(session.debugger.devices))


def _breakpoint_words(session: Session, prefix: str) -> Iterable[str]:
    return (str(point.id) for point in session.debugger.breakpoint_list())


def _conditional(text: str) -> tuple[str, str]:
    """What stands before and behind the last word `if`."""
    match = re.match(r"(.*?)(?:^|\s)if\s+(.*\S)\s*$", text)
    return (match[1], match[2]) if match else (text, "")


def _place(session: Session, text: str) -> Place:
    place, condition = _conditional(text)
    if not place.strip():
        raise CommandError("there is no address before `if`")
    return Place(*_address_text(session, place), 1, condition)


def _range(session: Session, text: str) -> Place:
    place, condition = _conditional(text)
    words = split_arguments(place)
    if not 1 <= len(words) <= 2:
        raise CommandError(f"{text.strip()!r} is not an address, a length, and `if` with an expression")
    length = session.evaluate(words[1]) if len(words) > 1 else 1
    return Place(*_address_text(session, words[0]), length, condition)


def _event(session: Session, text: str) -> tuple[Catch, str, str]:
    """The event, its condition, and what to say of how it was written ("": nothing)."""
    event, condition = _conditional(text)
    catch = parse_catch(session, event)
    return catch, condition, decimal_hint(catch, event)


def _bytes_or_number(session: Session, text: str) -> int | bytes:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return _unescaped(text[1:-1]).encode("utf-8")
    return session.evaluate(text)


def _unescaped(text: str) -> str:
    """`\\n`, `\\r`, `\\t`, `\\\\`, `\\"`, `\\0` and `\\xHH` as C has them. Raises CommandError for another one."""
    plain = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b", "b": "\b", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
    out, at = "", 0
    while at < len(text):
        character = text[at]
        at += 1
        if character != "\\":
            out += character
            continue
        escape = text[at : at + 1]
        at += 1
        if escape in plain and escape:
            out += plain[escape]
        elif escape == "x" and len(digits := text[at : at + 2]) == 2 and set(digits) <= set(_HEX):
            out += chr(int(digits, 16))
            at += 2
        else:
            raise CommandError(f'there is no escape \\{escape}; \\n \\r \\t \\b \\e \\0 \\\\ \\" and \\xHH are known')
    return out


def _quoted(session: Session, text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _typed(session: Session, text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return _unescaped(text)


def _msr_words(session: Session, prefix: str) -> Iterable[str]:
    return session.call(lambda: tuple(session.debugger.msr_names()))


def _msr(session: Session, text: str) -> int:
    name = text.strip().lower().removeprefix("ia32_").removeprefix("msr_")
    number = session.debugger.msr_names().get(name)
    if number is None:
        number = session.evaluate(text)
        if not 0 <= number <= 0xFFFFFFFF:
            raise CommandError(f"MSR {number:#x} is out of range: 0xffffffff is the last one")
    return number


ADDRESS = Kind("address", "a linear address, or seg:off", _address, _expression_words)
PLACE = Kind("address", "a linear address, or seg:off; `if` and an expression", _place, _expression_words, rest=True)
RANGE = Kind("address", "an address, a length; `if` and an expression", _range, _expression_words, rest=True)
EVENT = Kind("event", "an event; `if` and an expression", _event, lambda session, prefix: WORDS, rest=True)
MSR = Kind("msr", "a name like efer, or a number, an expression", _msr, _msr_words)
NUMBER = Kind("number", "an expression", _number, _expression_words)
EXPRESSION = Kind("expression", "an expression, blanks included", _number, _expression_words, rest=True)
COUNT = _limited("count", 1, _MAX_COUNT)
PORT = _limited("port", 0, 0xFFFF)
ASSIGNMENT = Kind("register value", "a register's name, and an expression", _assignment, _expression_words, rest=True)
VALUE = Kind("value", 'an expression, or text in "double quotes"', _bytes_or_number, _expression_words)
HANDLERS = Kind("over or into", "`over` or `into`", _over_or_into, lambda session, prefix: ("over", "into"))
RULES = Kind("rules", "the rules of a CPU", _word, lambda session, prefix: ("vtx2006", "vtx", "svm", "kvm"))
POLICY = Kind("policy", "a policy", _text, lambda session, prefix: POLICY_WORDS, rest=True)
FORCE = Kind("native, emulated or off", "`native`, `emulated` or `off`", _forced, lambda session, prefix: FORCES)
LEDGER = Kind("clear", "`clear`", _clear, lambda session, prefix: ("clear",))
SPAN = Kind("span", "ADDRESS, ADDRESS-ADDRESS, a mode, or off", _spans, lambda session, prefix: (
    "off", *(mode.label for mode in Mode)), rest=True)  # fmt: skip
SECOND = Kind("second", "the second CPU", _word, lambda session, prefix: ("emulator", "hooked", "portable"))
REPEATS = Kind("each or whole", "`each` or `whole`", _each_or_whole, lambda session, prefix: ("each", "whole"))
DEVICE = Kind("device", "a device's name", _word, _device_words)
BREAKPOINT = Kind("number", "a breakpoint's number", _number, _breakpoint_words)
NAME = Kind("name", "any word", _word)
SNAPSHOT = Kind("name", "a snapshot's name", _word, lambda session, prefix: sorted(session.snapshots.states))
PATH = Kind("file", "a file's path", _path, _path_words)
PNG = Kind("--png FILE", "--png and the path of a file to write", _png_option, _png_words, rest=True)
TYPED = Kind("text", "text to type, with \\n for Enter; quotes keep blanks at its ends", _typed, rest=True)
KEYS = Kind("keys", "keys joined by +, strokes divided by blanks", _text, rest=True)
MOUSE = Kind("action", "what the mouse does", _text, lambda session, prefix: (
    "move", "wheel", "click", "down", "up", "left", "right", "middle", "side", "extra"), rest=True)  # fmt: skip
LINE = Kind("line", "the beginning of a command; double quotes around it keep a blank at its end", _quoted, rest=True)
COMMAND = Kind("command", "a command's name", _text, lambda session, prefix: session.table.words, rest=True)
EVENT_KIND = Kind("kind", "a kind of event", _word, lambda session, prefix: (
    "interrupt", "exception", "int", "bios", "mode", "reset", "input", "stop"))  # fmt: skip
