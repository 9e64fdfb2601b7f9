"""A client that only looks, as another one was first: what it may ask, and what the rest is answered. Of the prompt's
commands it has those that only look: that is for their runner to say."""

from __future__ import annotations

from emu.record import replace
from stub import messages, trace_messages
from stub.handlers.base import OK, Answer, Context, Gone, Handler, Monitor, Running, Silent, Stays
from stub.handlers.monitor import COMMANDS
from stub.handlers.resume import stop_reply
from stub.target import SIGNAL_INT, StopReport, TargetError

#: Packets that change nothing but this connection.
LOOKS = (
    messages.QuerySupported, messages.StartNoAck, messages.MustReplyEmpty, messages.ReadRegisters,
    messages.ReadRegister, messages.ReadMemory, messages.ReadMemoryBinary, messages.GatherMemory, messages.SameMemory,
    messages.SearchMemory, messages.ChecksumMemory, messages.QueryResume, messages.SetThread, messages.ThreadAlive,
    messages.CurrentThread,
    messages.QueryAttached, messages.FirstThreads, messages.NextThreads, messages.ThreadExtra, messages.Transfer,
    messages.SymbolsAvailable, messages.QemuQuery, messages.StopSeen, trace_messages.QueryTrace,
    trace_messages.QueryTracepoint, trace_messages.QueryVariable, trace_messages.ListTracepoints,
    trace_messages.ListVariables, trace_messages.SelectFrame, trace_messages.ReadTraceBuffer,
)  # fmt: skip
REFUSAL = (
    "another client came first and has the machine, this one looks: registers and memory can be read, and `continue` "
    "waits for the next stop"
)
VACANT = (
    "the client that had the machine has gone: connect again to have it (in gdb `disconnect`, then `target`); this one "
    "still looks: registers and memory can be read, and `continue` waits for the next stop"
)


def refusal(context: Context) -> str:
    """Why this client may not, and who may."""
    return VACANT if context.vacant() else REFUSAL


def answer(context: Context, message: messages.Message, handler: Handler) -> Answer:
    """The answer of `handler` where it only looks, one that changes nothing, or a refusal (TargetError)."""
    match message:
        case messages.QueryStop():
            report = replace(context.target.report(), exit_code=None)
            context.thread = report.thread
            return stop_reply(context, report)  # halting is for the other one; a guest that runs is shown as it is
        case messages.Resume(actions) if all(action.kind == "c" for action in actions) and message.address is None:
            return Running()  # nothing runs by it: it waits
        case messages.Resume() | messages.Reverse():
            # gdb takes an error here for a stop, and steps again for ever; after a signal that nobody sent it stays.
            return Stays(StopReport(SIGNAL_INT, note=refusal(context)))
        case messages.Detach():
            return Gone(OK, killed=False)
        case messages.Kill(replies=False):
            return Gone(None, killed=False)
        case messages.Kill() if context.vacant():
            # gdb kills what it has before it connects again, and does not connect where that is refused.
            return Gone(OK, killed=False)
        case messages.QemuSet(name="PhyMemMode"):
            return handler.run(context, message)
        case messages.MonitorCommand(text):
            own = not text.split() or text.split()[0] in (*COMMANDS, "help")
            return handler.run(context, message) if own or context.has_runner else Monitor("", failure=refusal(context))
        case messages.NonStop(on=False):
            return OK
        case messages.Restart(replies=False):
            return Silent()
    if isinstance(message, LOOKS):
        return handler.run(context, message)
    raise TargetError(refusal(context))
