"""?, c, C, s, S, vCont: run, step, and say why the target stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emu.record import replace
from stub import messages
from stub.exchange import Piece, Watched
from stub.handlers.base import OK, Answer, Context, Handler, Running, Stays, constant
from stub.offers import offers
from stub.target import (
    SIGNAL_INT,
    SIGNAL_NONE,
    Continues,
    Steps,
    StepsRange,
    StopReason,
    StopReport,
    Target,
    TargetError,
)

#: Reasons that are sent only to a client that has announced them ("General Query Packets", qSupported).
ANNOUNCED = {StopReason.SWBREAK: "swbreak+", StopReason.HWBREAK: "hwbreak+"}
NO_REASON = StopReason.NONE
#: `Watched.accesses` of each kind of watchpoint.
_ACCESSES = {StopReason.RWATCH: 1, StopReason.WATCH: 2, StopReason.AWATCH: 3}
WATCH_REASONS = frozenset(_ACCESSES)
#: vCont actions, by the capability each needs ("Packets", vCont). gdb ignores vCont without all of c, C, s and S.
ACTIONS: dict[str, tuple[type[Any], str]] = {
    "c": (Continues, "continue"),
    "C": (Continues, "continue; signals mean nothing to a PC"),
    "s": (Steps, "one instruction; an interrupt that comes first runs through its handler"),
    "S": (Steps, "the same as `vCont;s`"),
    "t": (Continues, "stop"),
    "r": (StepsRange, "`r START,END`: step while the PC is in the range"),
}


def stop_reply(context: Context, report: StopReport) -> bytes:
    """The report as a `T` or `W` packet ("Stop Reply Packets"), with the expedited registers."""
    if report.exit_code is not None:
        process = b";process:%x" % messages.PROCESS if context.multiprocess else b""
        return b"W%02x%b" % (report.exit_code & 0xFF, process)
    thread = report.thread
    if report.reason is not NO_REASON or (text := context.heads.get((report.signal, thread))) is None:
        text = _head(context, report)
    target = context.registers
    if context.fetched and target is not None:
        layout = context.layout()
        expedites = context.expedites
        if expedites is not None and (told := expedites.expedite(thread, layout)) is not None:
            return (text + told).encode("ascii")
        values = target.read_registers(thread, layout.expedited)
        try:
            text += layout.expedited_form % tuple(map(bytes.hex, values))  # type: ignore[arg-type]
        except TypeError:  # one that cannot be known is left for the client to ask for
            for key, value in zip(layout.expedited_keys, values, strict=True):
                text += "" if value is None else f"{key}{value.hex()};"
    return text.encode("ascii")


def step_reply(context: Context, places: Sequence[tuple[int, int]]) -> tuple[bytes, tuple[Piece, ...]]:
    """The reply to a step, framed, of which C fills in the values and the checksum; and where the values are. `places`:
    those of the expedited registers in `CpuState.brief` (first byte, bytes)."""
    text, pieces = "$" + _head(context, StopReport()), []
    for key, (start, size) in zip(context.layout().expedited_keys, places, strict=True):
        text += key
        pieces.append(Piece(len(text), start, size))
        text += f"{'00' * size};"
    return f"{text}#00".encode("ascii"), tuple(pieces)


def is_step(context: Context, message: messages.Resume) -> bool:
    """It steps one instruction from where the target stands."""
    return message.address is None and _chosen(context, message.actions)[0].kind == "s"


def is_run(context: Context, message: messages.Resume) -> bool:
    """It lets all run on from where the target stands."""
    return message.address is None and _chosen(context, message.actions)[0].kind == "c"


def watched(watches: Sequence[tuple[StopReason, int, int]]) -> tuple[Watched, ...]:
    """How replies to runs that these end begin."""
    return tuple(
        Watched(address, length, _ACCESSES[reason], f"$T{StopReport().signal:02x}{reason.value}:".encode("ascii"))
        for reason, address, length in watches
    )


def _head(context: Context, report: StopReport) -> str:
    """What precedes the registers."""
    thread = report.thread
    if report.reason is not NO_REASON:
        return f"T{report.signal:02x}{_reason(context, report)}thread:{context.thread_id(thread)};core:{thread - 1:x};"
    text = f"T{report.signal:02x}thread:{context.thread_id(thread)};core:{thread - 1:x};"
    context.heads[report.signal, thread] = text
    return text


def _reason(context: Context, report: StopReport) -> str:
    feature = ANNOUNCED.get(report.reason)
    if feature is None:
        return f"{report.reason.value}:{report.address:x};"
    return f"{report.reason.value}:;" if feature in context.client else ""


def query_stop(context: Context, message: messages.QueryStop) -> Answer:
    if context.non_stop and context.target.running:
        return Running()  # "Remote Non-Stop": no thread stands still, which is no reason to stop one
    context.target.halt()
    # A guest that has ended can still be looked at, so a client that comes later is not told that it exited.
    report = replace(context.target.report(), exit_code=None)
    # As the notification said; the target knows of no signal 0.
    if context.non_stop and context.stopped_by_t and report.signal == SIGNAL_INT:
        report = replace(report, signal=SIGNAL_NONE)
    context.thread = report.thread
    return stop_reply(context, report)


def actions(target: Target) -> tuple[str, ...]:
    """The vCont actions that the target can do."""
    return tuple(letter for letter, (protocol, _) in ACTIONS.items() if offers(target, protocol))


def query_resume(context: Context, message: messages.QueryResume) -> Answer:
    return "".join(("vCont", *(f";{letter}" for letter in actions(context.target)))).encode("ascii")


def resume(context: Context, message: messages.Resume) -> Answer:
    target, continues = context.target, context.continues
    assert continues is not None
    # Signals mean nothing to a PC: C and S are c and s ("Packets", C).
    action, thread = _chosen(context, message.actions)
    if target.running and action.kind in "sr":
        raise TargetError("the guest runs, continued elsewhere: interrupt it before stepping")
    if message.address is not None and not target.running:
        if context.registers is None:
            raise TargetError("this target has no program counter to set")
        context.registers.write_pc(thread, message.address)
    if action.kind == "t":
        if not target.running:  # "Packets", vCont: "the server must ignore 't' actions for threads already stopped"
            return OK if context.non_stop else Stays(target.report())
        continues.interrupt()
    elif action.kind == "s" and context.steps is not None:
        context.steps.step(thread)
    elif action.kind == "r" and context.steps_range is not None:
        context.steps_range.step_range(thread, action.start, action.end)
    elif action.kind != "c":
        raise TargetError(f"this target cannot do {action.kind}")
    elif not target.running:
        continues.resume()
    return Running()


def _chosen(context: Context, wanted: tuple[messages.Action, ...]) -> tuple[messages.Action, int]:
    """The action that decides. For each thread that is the leftmost one that names it, or names none ("Packets",
    vCont); as all CPUs run or none does, a step of one comes before letting the others go."""
    decided: set[int] = set()
    for action in wanted:
        if action.thread is None:
            break  # all that are left
        thread = context.chosen(action.thread)
        if action.kind in "sr" and thread not in decided:
            return action, thread
        decided.add(thread)
    first = wanted[0]
    return first, context.chosen(first.thread or 0)


HANDLERS = (
    Handler((("?", "halt, and say why it stands still"),), messages.QueryStop, query_stop),
    Handler(
        (("vCont?", "the actions of `vCont`"),),
        messages.QueryResume,
        query_resume,
        (Continues, Steps),
        constant("vContSupported+"),
    ),
    Handler(
        (
            *((f"vCont;{letter}", what) for letter, (_, what) in ACTIONS.items()),
            ("c [ADDR]", "continue"),
            ("C SIGNAL[;ADDR]", "continue; signals mean nothing to a PC"),
            ("s [ADDR]", "step"),
            ("S SIGNAL[;ADDR]", "step"),
        ),
        messages.Resume,
        resume,
        (Continues,),
    ),
)
