"""How a person writes an event to stop at: `int 13h`, `port 60h-64h in`, `cr 0 80000001h`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.catches import ENTRY_CLASSES, PLAIN_CLASSES, SEGMENTS, TABLES, Catch, CatchKind
from emu.engine import Access
from emu.stops import VECTOR_NAMES
from emu.x86.classes import InstructionClass
from repl.command import CommandError
from repl.rules import chosen_rules

if TYPE_CHECKING:
    from repl.session import Session

#: The forms, as documents show them.
FORMS = (
    "physical ADDRESS [LENGTH read|write|access]",
    "int [VECTOR]",
    "exception [VECTOR]",
    "interrupt [VECTOR]",
    "port FIRST[-LAST] [in|out]",
    "msr [NUMBER] [read|write]",
    "cr [NUMBER] [MASK]",
    "mode",
    "table [gdtr|idtr|ldtr|tr]",
    "segment [es|cs|ss|ds|fs|gs]",
    "iret",
    "task",
    "magic",
    "screen REGEX",
    "serial REGEX",
    "debugcon REGEX",
    "enterable [RULES]",
    "unenterable [RULES]",
    "insns COUNT|+COUNT",
)
WORDS = tuple(dict.fromkeys(form.split()[0] for form in FORMS))
_ACCESS = {
    "read": Access.READ, "write": Access.WRITE, "access": Access.BOTH, "in": Access.READ, "out": Access.WRITE,
}  # fmt: skip
_MAX_WATCH = 1 << 20


def parse_catch(session: Session, text: str) -> Catch:
    """The event that `text` describes. Raises CommandError or ExpressionError."""
    word, _, rest = text.strip().partition(" ")
    matches = [w for w in WORDS if w == word] or [w for w in WORDS if w.startswith(word) and word]
    if len(matches) != 1:
        raise CommandError(f"{word!r} is no event: there are {', '.join(WORDS)}")
    kind = CatchKind(matches[0])
    return _PARSERS[kind](session, kind, rest.strip())


def decimal_hint(catch: Catch, text: str) -> str:
    """A sentence where the vector of `catch int` was written in decimal, as BIOS interrupts are known by hexadecimal
    numbers: `int 13` is INT 0Dh. "" where both readings are one, or nothing was written. `text` is the event's."""
    digits = text.split()[-1]
    if catch.kind is not CatchKind.INT or catch.first is None or not digits.isdecimal() or catch.first < 10:
        return ""
    other = f"; for INT {digits}h write `int {digits}h`" if int(digits, 16) <= 0xFF else ""
    return f"{digits} is decimal: this is INT {catch.first:02X}h{other}"


def _text(kind: CatchKind, *words: object) -> str:
    return " ".join([kind.value, *(str(word) for word in words if word != "")])


def _number(session: Session, text: str, what: str, most: int) -> int:
    value = session.evaluate(text)
    if not 0 <= value <= most:
        raise CommandError(f"{what} {text} is out of range: 0 to {most:#x} is possible")
    return value


def _words(text: str, most: int, form: str) -> list[str]:
    words = text.split()
    if len(words) > most:
        raise CommandError(f"{words[most]!r} is one word too many: {form}")
    return words


def _form(kind: CatchKind) -> str:
    return next(form for form in FORMS if form.split()[0] == kind.value)


def _vector(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 1, _form(kind))
    if not words:
        return Catch(kind, text=_text(kind))
    named = {name.lower(): n for n, name in enumerate(VECTOR_NAMES)} if kind is CatchKind.EXCEPTION else {}
    name = words[0].lower()
    vector = named.get(name, named.get("#" + name))
    if vector is None:
        # Exceptions have the vectors below 32 (SDM vol. 3, table 6-1); the others are for interrupts.
        vector = _number(session, words[0], "vector", 0x1F if kind is CatchKind.EXCEPTION else 0xFF)
    return Catch(kind, vector, text=_text(kind, f"{vector:#04x}"))


def _range(session: Session, text: str, what: str, most: int) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _number(session, first, what, most)
    high = _number(session, last, what, most) if dash else low
    if high < low:
        raise CommandError(f"{text!r} ends before it begins")
    return low, high


def _port(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 2, _form(kind))
    if not words:
        raise CommandError(f"which port: {_form(kind)}")
    access = _direction(words[1:], ("in", "out"))
    low, high = _range(session, words[0], "port", 0xFFFF)
    shown = f"{low:#x}" if low == high else f"{low:#x}-{high:#x}"
    return Catch(kind, low, high, access, text=_text(kind, shown, *words[1:]))


def _direction(words: list[str], known: tuple[str, ...]) -> Access:
    if not words:
        return Access.BOTH
    if words[0] not in known:
        raise CommandError(f"{words[0]!r} is none of {', '.join(known)}")
    return _ACCESS[words[0]]


def _msr(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 2, _form(kind))
    number, access = None, Access.BOTH
    shown = ""
    if words and words[0] not in ("read", "write"):
        name = words.pop(0)
        known = session.debugger.msr_names()
        number = known.get(name.lower().removeprefix("ia32_"))
        if number is None:
            number = _number(session, name, "MSR", 0xFFFFFFFF)
        shown = f"{number:#x}"
    access = _direction(words, ("read", "write"))
    classes = (InstructionClass.RDMSR if Access.READ in access else 0) | (
        InstructionClass.WRMSR if Access.WRITE in access else 0
    )
    return Catch(kind, number, access=access, classes=int(classes), text=_text(kind, shown, *words))


def _cr(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 2, _form(kind))
    number = None
    if words:
        digits = words[0].lower().removeprefix("cr")
        number = int(digits) if digits.isdigit() else -1
        if number not in (0, 2, 3, 4, 8):
            raise CommandError(f"there is no control register {words[0]}: there are 0, 2, 3, 4 and 8")
    mask = _number(session, words[1], "mask", (1 << 64) - 1) if len(words) > 1 else 0
    shown = (str(number) if number is not None else "", f"{mask:#x}" if mask else "")
    return Catch(kind, number, mask=mask, classes=PLAIN_CLASSES[kind], text=_text(kind, *shown))


def _plain(session: Session, kind: CatchKind, rest: str) -> Catch:
    _words(rest, 0, _form(kind))
    return Catch(kind, classes=PLAIN_CLASSES.get(kind, 0), text=_text(kind))


def _register(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 1, _form(kind))
    known = {name: int(c) for name, c in TABLES.items()} if kind is CatchKind.TABLE else SEGMENTS
    if words and words[0].lower() not in known:
        raise CommandError(f"{words[0]!r} is none of {', '.join(known)}")
    chosen = [words[0].lower()] if words else list(known)
    classes = 0
    for name in chosen:
        classes |= known[name]
    return Catch(kind, classes=classes, text=_text(kind, *(chosen if words else [])))


def _pattern(session: Session, kind: CatchKind, rest: str) -> Catch:
    if not rest:
        raise CommandError(f"which text: {_form(kind)}")
    try:
        pattern = re.compile(rest, re.MULTILINE)
    except re.error as error:
        raise CommandError(f"{rest!r} is no regular expression: {error}") from None
    return Catch(kind, pattern=pattern, text=_text(kind, rest))


def _count(session: Session, kind: CatchKind, rest: str) -> Catch:
    if not rest:
        raise CommandError(f"how many: {_form(kind)}")
    count = _number(session, rest.removeprefix("+"), "count", 1 << 62)
    if rest.startswith("+"):
        count += session.debugger.machine.executor.retired
    return Catch(kind, count, text=_text(kind, count))


def _entry(session: Session, kind: CatchKind, rest: str) -> Catch:
    from emu.x86 import vmentry

    words = _words(rest, 1, _form(kind))
    rules = session.debugger.steering.rules or vmentry.VTX2006
    if words:
        rules = chosen_rules(words[0])
    return Catch(kind, classes=ENTRY_CLASSES, text=_text(kind, rules.name), rules=rules)


def _physical(session: Session, kind: CatchKind, rest: str) -> Catch:
    words = _words(rest, 3, _form(kind))
    if not words:
        raise CommandError(f"which address: {_form(kind)}")
    access = _ACCESS[words.pop()] if len(words) > 1 and words[-1] in ("read", "write", "access") else None
    address = _number(session, words[0], "address", (1 << 52) - 1)
    if access is None:
        if len(words) > 1:
            raise CommandError(f"say read, write or access behind the length: {_form(kind)}")
        return Catch(kind, address, access=None, text=_text(kind, f"{address:#x}"))
    length = _number(session, words[1], "length", _MAX_WATCH) if len(words) > 1 else 1
    if not length:
        raise CommandError("a length of 0 bytes cannot be watched")
    name = next(word for word in ("read", "write", "access") if _ACCESS[word] is access)
    return Catch(kind, address, address + length - 1, access, text=_text(kind, f"{address:#x}", length, name))


_PARSERS: dict[CatchKind, Callable[[Session, CatchKind, str], Catch]] = {
    CatchKind.PHYSICAL: _physical,
    CatchKind.INT: _vector,
    CatchKind.EXCEPTION: _vector,
    CatchKind.INTERRUPT: _vector,
    CatchKind.PORT: _port,
    CatchKind.MSR: _msr,
    CatchKind.CR: _cr,
    CatchKind.MODE: _plain,
    CatchKind.TABLE: _register,
    CatchKind.SEGMENT: _register,
    CatchKind.IRET: _plain,
    CatchKind.TASK: _plain,
    CatchKind.MAGIC: _plain,
    CatchKind.SCREEN: _pattern,
    CatchKind.SERIAL: _pattern,
    CatchKind.DEBUGCON: _pattern,
    CatchKind.ENTERABLE: _entry,
    CatchKind.UNENTERABLE: _entry,
    CatchKind.COUNT: _count,
}
