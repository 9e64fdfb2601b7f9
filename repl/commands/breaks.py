"""Breakpoints and watchpoints: unlimited, never written into memory, shared with gdb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu.stops import BreakKind, Breakpoint, Condition
from repl.catches import FORMS
from repl.command import Argument, CommandError, Result, command
from repl.kinds import BREAKPOINT, EVENT, PLACE, RANGE

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


_PLACE = Argument("address", PLACE, form="ADDRESS [if EXPRESSION]")
_EVENT = Argument("event", EVENT, form="EVENT [if EXPRESSION]")
_RANGE = Argument("address", RANGE, form="ADDRESS [LENGTH] [if EXPRESSION]")
_NUMBERS = Argument("number", BREAKPOINT, optional=True, many=True)


def _set(session: Session, args: Args, kind: BreakKind, temporary: bool = False) -> Result:
    place = args["address"]
    point = session.debugger.add_breakpoint(
        kind, place.address, place.length, owner=session.owner, temporary=temporary, spec=place.spec,
        condition=_condition(session, place.condition),
    )  # fmt: skip
    return Result((_copy(point),))


def _condition(session: Session, text: str) -> Condition | None:
    return session.condition(text) if text else None


def _copy(point: Breakpoint) -> Breakpoint:
    # Views leave the machine's thread, and a breakpoint's counters move on.
    return Breakpoint(
        point.id, point.kind, point.address, point.length, point.enabled, point.temporary, point.owner, point.spec,
        point.hits, point.ignore, point.condition, None, point.catch,
    )  # fmt: skip


@command("break", "breaks", "stop before the instruction at ADDRESS, with `if` where EXPRESSION is not 0", _PLACE,
         aliases=("b", "vb", "lb"))  # fmt: skip
def set_break(session: Session, args: Args) -> Result:
    return _set(session, args, BreakKind.EXECUTE)


@command("tbreak", "breaks", "stop once before the instruction at ADDRESS", _PLACE, aliases=("tb",))
def tbreak(session: Session, args: Args) -> Result:
    return _set(session, args, BreakKind.EXECUTE, temporary=True)


@command("watch", "breaks", "stop behind an instruction that writes to LENGTH bytes at ADDRESS", _RANGE,
         aliases=("watch write",))  # fmt: skip
def watch(session: Session, args: Args) -> Result:
    return _set(session, args, BreakKind.WRITE)


@command("rwatch", "breaks", "stop behind an instruction that reads from LENGTH bytes at ADDRESS", _RANGE,
         aliases=("watch read",))  # fmt: skip
def rwatch(session: Session, args: Args) -> Result:
    return _set(session, args, BreakKind.READ)


@command("awatch", "breaks", "stop behind an instruction that reads or writes LENGTH bytes at ADDRESS", _RANGE)
def awatch(session: Session, args: Args) -> Result:
    return _set(session, args, BreakKind.ACCESS)


_CATCHES = (
    """Events, and where the guest stands then:

"""
    + "\n".join(f"    {form}" for form in FORMS)
    + """

Before the instruction: physical ADDRESS, msr, cr, table, segment, iret, magic (XCHG BX,BX). Behind it: port, mode,
task, physical with an access, insns, serial, debugcon, enterable and unenterable (by the rules of `why`). In the
handler, before its first instruction: int, exception, interrupt. screen: at the next look, each 2 ms of virtual time.
Numbers are decimal without 0x or h: `catch int 0x13` or `catch int 13h` is INT 13h, `catch int 13` is INT 0Dh.
INT3 and INTO raise exceptions, bp and of; INT 3 and INT 4 with the same vectors are `int`.
Without a number any of its kind is meant. MASK: those bits of the register have to change. `segment cs` is a far
transfer, IRET or INT; what interrupts load is not meant."""
)


@command("catch", "breaks", "stop at EVENT, with `if` where EXPRESSION is not 0", _EVENT, details=_CATCHES)
def catch(session: Session, args: Args) -> Result:
    return _catch(session, args)


@command("tcatch", "breaks", "stop once at EVENT, see catch", _EVENT)
def tcatch(session: Session, args: Args) -> Result:
    return _catch(session, args, temporary=True)


def _catch(session: Session, args: Args, temporary: bool = False) -> Result:
    event, condition, hint = args["event"]
    point = session.debugger.add_catch(
        event, owner=session.owner, temporary=temporary, condition=_condition(session, condition)
    )
    return Result((_copy(point),), text=hint)


def _chosen(session: Session, numbers: tuple[int, ...], own: bool = False) -> list[Breakpoint]:
    """The breakpoints of these numbers, of none: all (`own`: all the prompt's). Raises CommandError."""
    points = {point.id: point for point in session.debugger.breakpoint_list()}
    if not numbers:
        return [p for p in points.values() if not own or p.owner == session.owner]
    for number in numbers:
        if number not in points:
            known = ", ".join(str(n) for n in points) or "none"
            raise CommandError(f"there is no breakpoint {number}; there is: {known}")
    return [points[n] for n in dict.fromkeys(numbers)]


@command("delete", "breaks", "delete breakpoints by NUMBER (without: all set here)", _NUMBERS,
         aliases=("d", "del", "clear"))  # fmt: skip
def delete(session: Session, args: Args) -> Result:
    points = _chosen(session, args["number"], own=True)
    for point in points:
        if point.owner != session.owner:
            raise CommandError(f"breakpoint {point.id} belongs to {point.owner}: delete it there, or disable it here")
    for point in points:
        session.debugger.remove_breakpoint(point.id)
    return Result()


@command("enable", "breaks", "enable breakpoints by NUMBER (without: all)", _NUMBERS, aliases=("bpe",))
def enable(session: Session, args: Args) -> Result:
    for point in _chosen(session, args["number"]):
        session.debugger.enable_breakpoint(point.id, True)
    return Result()


@command("disable", "breaks", "disable breakpoints by NUMBER (without: all)", _NUMBERS, aliases=("bpd",))
def disable(session: Session, args: Args) -> Result:
    for point in _chosen(session, args["number"]):
        session.debugger.enable_breakpoint(point.id, False)
    return Result()


@command("breaks", "breaks", "list breakpoints and watchpoints, gdb's too",
         aliases=("info breakpoints", "info break", "info watchpoints", "blist"), looks=True)  # fmt: skip
def breaks(session: Session, args: Args) -> Result:
    points = session.debugger.breakpoint_list()
    return Result((tuple(_copy(p) for p in points),)) if points else Result(text="no breakpoints")
