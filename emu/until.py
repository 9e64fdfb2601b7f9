"""Conditions that end a run: what `--until` and the prompt's `until` wait for."""

from __future__ import annotations

from emu.typed import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import re

from emu.record import dataclass

KINDS = ("text", "serial", "debugcon", "pc", "insns", "exit")
#: How often the screen is looked at, in virtual ns: instants are defined by virtual time, so that runs agree.
SCREEN_PERIOD_NS = 2_000_000
SCREEN_IDLE_PERIODS = 16  #: so many periods pass between looks while the CPU does not execute
#: Only this many of the last characters of a console are searched, so that a chatty guest stays fast.
TAIL = 8192


class UntilError(Exception):
    """One sentence: which condition cannot be understood and what is allowed."""


@dataclass(frozen=True, slots=True)
class Until:
    """`pattern` for text, serial and debugcon; `value` for pc (linear address) and insns (retired in all)."""

    kind: Literal["text", "serial", "debugcon", "pc", "insns", "exit"]
    spec: str
    pattern: re.Pattern[str] | None = None
    value: int = 0


def _number(text: str, what: str) -> int:
    try:
        value = int(text.replace("_", ""), 0)
    except ValueError:
        raise UntilError(f"{what} {text!r} is not a number: write 31744 or 0x7c00") from None
    if not 0 <= value < 1 << 64:
        raise UntilError(f"{what} {text} is not between 0 and 2**64 - 1")
    return value


def parse_until(spec: str) -> Until:
    """`text:REGEX`, `serial:REGEX`, `debugcon:REGEX`, `pc:ADDR` (linear, or SEG:OFF as in real mode), `insns:N`,
    `exit`. Raises UntilError."""
    kind, _, rest = spec.partition(":")
    if kind == "exit" and not rest:
        return Until("exit", spec)
    if kind not in KINDS or kind == "exit" or not rest:
        allowed = "text:REGEX, serial:REGEX, debugcon:REGEX, pc:ADDR, insns:N or exit"
        raise UntilError(f"{spec!r} is no event: use {allowed}")
    if kind == "pc":
        segment, colon, offset = rest.partition(":")
        if colon:
            linear = (_number("0x" + segment.removeprefix("0x"), "segment") << 4) + _number(
                "0x" + offset.removeprefix("0x"), "offset"
            )
            return Until("pc", spec, value=linear)
        return Until("pc", spec, value=_number(rest, "address"))
    if kind == "insns":
        count = _number(rest, "instruction count")
        if count < 1:
            raise UntilError(f"instruction count {count} is less than 1")
        return Until("insns", spec, value=count)
    import re  # no other kind has it loaded

    try:
        pattern = re.compile(rest, re.MULTILINE)
    except re.error as error:
        raise UntilError(f"{rest!r} is no regular expression: {error}") from None
    return Until(kind, spec, pattern)  # type: ignore[arg-type]
