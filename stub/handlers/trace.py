"""QT: defines, starts and stops a trace. "Debugging with GDB", "Tracepoint Packets"."""

from __future__ import annotations

from typing import Protocol

from stub import trace_messages as m
from stub.agent import AgentError
from stub.collector import Collector
from stub.handlers.base import OK, Answer, Context, Handler, constant
from stub.offers import offers
from stub.target import ConditionalPoints, TargetError
from stub.trace_target import Traces
from stub.tracing import ACTIONS, AT_ONE_PLACE, MAX_SIZE, POINTS, SOURCE, STEPS, VARIABLES, Tracepoint, Variable

#: Widths of a trace file ("Trace File Format"): of a tracepoint's number, and of a variable's.
_POINT, _VARIABLE = 0xFFFF, 0xFFFFFFFF
_LONGEST_NOTE = 4096


class _Target(ConditionalPoints, Traces, Protocol):
    """What tracing needs."""


def _target(context: Context) -> _Target:
    target = context.target
    assert offers(target, _Target)
    return target


def init(context: Context, message: m.TraceInit) -> Answer:
    halt_trace(context, "tstop")
    context.experiment.clear()
    context.look_at(None)
    return OK


def define(context: Context, message: m.DefineTracepoint) -> Answer:
    experiment = context.experiment
    if message.steps:
        _target(context).check_follow()
    if message.steps > STEPS:
        raise TargetError(f"while-stepping takes at most {STEPS} steps")
    if message.number > _POINT or len(experiment.points) >= POINTS:
        raise TargetError(f"at most {POINTS} tracepoints with numbers to {_POINT} are possible")
    if sum(point.address == message.address for point in experiment.points.values()) >= AT_ONE_PLACE:
        raise TargetError(f"at most {AT_ONE_PLACE} tracepoints can be at one place")
    point = Tracepoint(
        message.number, message.address, message.enabled, message.passes, message.condition, message.steps
    )
    Collector(_target(context), experiment, point, context.layout())  # raises where it could not be run
    place = message.number, message.address
    if (before := experiment.points.get(place)) is not None:
        _uninstall(_target(context), before)  # which nobody else could, once this one has its place
    experiment.points[place] = point
    point.complete = not message.more
    return _defined(context, point)


def add_actions(context: Context, message: m.DefineActions) -> Answer:
    point = context.experiment.point(message.number, message.address)
    if len(point.actions) + len(point.step_actions) + len(message.actions) > ACTIONS:
        raise TargetError(f"a tracepoint has at most {ACTIONS} actions")
    # gdb writes `S` before the first action of while-stepping only; all that follow belong to it, too.
    stepping = point.stepping or message.stepping
    actions, texts = (point.step_actions, point.step_texts) if stepping else (point.actions, point.texts)
    before = len(actions)
    actions += message.actions
    try:
        Collector(_target(context), context.experiment, point, context.layout())
    except AgentError:
        del actions[before:]
        raise
    point.stepping = stepping
    if message.text:
        texts.append(message.text)
    point.complete = not message.more
    return _defined(context, point)


def _defined(context: Context, point: Tracepoint) -> Answer:
    """While the trace runs, what comes to it takes part at once ("General Query Packets", InstallInTrace)."""
    if point.complete and context.experiment.running:
        _install(context, point)
    return OK


def _install(context: Context, point: Tracepoint) -> None:
    target = _target(context)
    collector = Collector(target, context.experiment, point, context.layout())
    _uninstall(target, point)
    point.installed = target.insert_tracepoint(point.address, collector.hooks())


def _uninstall(target: Traces, point: Tracepoint) -> None:
    if point.installed is not None:
        target.remove_tracepoint(point.installed)
        point.installed = None
        point.removals += 1


def add_source(context: Context, message: m.TraceSource) -> Answer:
    point = context.experiment.point(message.number, message.address)
    text = point.sources.setdefault(message.kind, bytearray())
    if message.kind == "cmd" and not message.start and text:
        text += b"\n"  # each command is one of this kind
    text += message.text
    if sum(map(len, point.sources.values())) > SOURCE or len(point.sources) > 10:
        del point.sources[message.kind]
        raise TargetError(f"at most {SOURCE} bytes of a tracepoint's source are kept")
    return OK


def enable(context: Context, message: m.EnableTracepoint) -> Answer:
    context.experiment.point(message.number, message.address).enabled = message.on
    return OK


def define_variable(context: Context, message: m.DefineVariable) -> Answer:
    variables = context.experiment.variables
    if message.number > _VARIABLE or (len(variables) >= VARIABLES and message.number not in variables):
        raise TargetError(f"at most {VARIABLES} trace state variables with numbers to {_VARIABLE:#x} are possible")
    variables[message.number] = Variable(message.number, message.name, message.value, message.value, message.builtin)
    return OK


def read_only(context: Context, message: m.TraceReadOnly) -> Answer:
    context.experiment.read_only = message.ranges
    return OK


def start(context: Context, message: m.TraceStart) -> Answer:
    experiment, target = context.experiment, _target(context)
    halt_trace(context, "tstop")
    context.look_at(None)
    experiment.on_stop = lambda: _uninstall_all(target)
    try:
        for point in experiment.points.values():
            _install(context, point)
    except TargetError:
        _uninstall_all(target)
        raise
    experiment.start()
    return OK


def _uninstall_all(target: Traces) -> None:
    for point in target.experiment.points.values():
        _uninstall(target, point)


def stop(context: Context, message: m.TraceStop) -> Answer:
    halt_trace(context, "tstop")
    return OK


def halt_trace(context: Context, reason: str) -> None:
    """End the trace, if one runs."""
    context.experiment.stop(reason)


def abandoned(context: Context) -> None:
    """The client goes: so does its trace, unless it said otherwise."""
    if offers(context.target, Traces) and not context.looks_on and not context.experiment.stays:
        halt_trace(context, "tdisconnected")


def disconnected(context: Context, message: m.TraceDisconnected) -> Answer:
    context.experiment.stays = message.on
    return OK


def buffer(context: Context, message: m.TraceBuffer) -> Answer:
    found = context.experiment.buffer
    if message.circular is not None:
        found.circular = message.circular
    if message.size is not None:
        found.resize(MAX_SIZE if message.size == -1 else message.size)
    return OK


def notes(context: Context, message: m.TraceNotes) -> Answer:
    experiment = context.experiment
    for text in (message.user, message.notes, message.stop):
        if text is not None and len(text) > _LONGEST_NOTE:
            raise TargetError(f"a note has at most {_LONGEST_NOTE} bytes")
    if message.user is not None:
        experiment.user = message.user
    if message.notes is not None:
        experiment.notes = message.notes
    if message.stop is not None:
        experiment.text = message.stop.decode("utf-8", "replace")
    return OK


_REQUIRES = (Traces, ConditionalPoints)
HANDLERS = (
    Handler((("QTinit", "no tracepoints, no frames"),), m.TraceInit, init, _REQUIRES),
    Handler(
        (("QTDP:N:PLACE:ENA:STEP:PASS", "tracepoint N at an address, with a condition (`:XLEN,EXPR`) if need be"),),
        m.DefineTracepoint,
        define,
        _REQUIRES,
        constant("ConditionalTracepoints+", "InstallInTrace+", "tracenz+"),
    ),
    Handler(
        (
            (
                "QTDP:-N:PLACE:ACTION",
                "an action of it: `R` registers, `M` memory, `X` an agent expression; with an `S` before it the first "
                "of those behind each of STEP instructions",
            ),
        ),
        m.DefineActions,
        add_actions,
        _REQUIRES,
    ),
    Handler(
        (("QTDPsrc:N:PLACE:TYPE:START:SLEN:SOURCE", "what the person typed, kept for `qTfP`"),),
        m.TraceSource,
        add_source,
        _REQUIRES,
        constant("TracepointSource+"),
    ),
    Handler(
        (("QTEnable:N:PLACE", "also while the trace runs"), ("QTDisable:N:PLACE", "the same")),
        m.EnableTracepoint,
        enable,
        _REQUIRES,
        constant("EnableDisableTracepoints+"),
    ),
    Handler(
        (("QTDV:N:VALUE:BUILTIN:NAME", "a trace state variable with its initial value"),),
        m.DefineVariable,
        define_variable,
        _REQUIRES,
    ),
    Handler(
        (("QTro:START,END", "what does not change: in a frame it is read from the machine"),),
        m.TraceReadOnly,
        read_only,
        _REQUIRES,
    ),
    Handler((("QTStart", "collect from now on, into an empty buffer"),), m.TraceStart, start, _REQUIRES),
    Handler((("QTStop", "collect no more"),), m.TraceStop, stop, _REQUIRES),
    Handler(
        (("QTDisconnected:FLAG", "1: the trace goes on when this client goes"),),
        m.TraceDisconnected,
        disconnected,
        _REQUIRES,
        constant("DisconnectedTracing+"),
    ),
    Handler(
        (
            ("QTBuffer:circular:FLAG", "1: the oldest frames make room for new ones"),
            ("QTBuffer:size:BYTES", f"the size of the buffer, -1 for the most there is, {MAX_SIZE:x}"),
        ),
        m.TraceBuffer,
        buffer,
        _REQUIRES,
        constant("QTBuffer:size+"),
    ),
    Handler(
        (("QTNotes:user:HEX;notes:HEX;tstop:HEX;", "words that `qTStatus` gives again"),),
        m.TraceNotes,
        notes,
        _REQUIRES,
    ),
)
