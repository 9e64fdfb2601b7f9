"""What a client may not ask, or is answered otherwise, in the state that its connection is in."""

from __future__ import annotations

from emu.record import replace
from stub import messages
from stub.handlers import nonstop, qxfer, resume
from stub.handlers.base import Answer, Context, error_text
from stub.states import State
from stub.traceframe import UNCHANGED

#: Where there is no guest: gdb takes each thread that it is told of behind `W` for a guest that it has.
NO_THREADS = '<?xml version="1.0"?>\n<threads></threads>\n'


def refusal(context: Context, state: State, message: messages.Message) -> Answer | None:
    """The answer to what does not fit `state`, None when it fits."""
    if context.non_stop and (state is State.RUNNING or context.unseen):
        match message:
            case messages.Resume():
                return nonstop.while_running(context, message)
            case messages.MonitorCommand():
                return None
            case message if state is State.RUNNING and isinstance(message, nonstop.OF_THE_STOPPED):
                return error_text(nonstop.RUNS)
    match message:
        case messages.NonStop(on) if state is State.RUNNING and on is not context.non_stop:
            return error_text("the guest runs: interrupt it first")
        case messages.Resume() | messages.Reverse() | messages.MonitorCommand() | messages.Restart() if (
            state is State.RUNNING
        ):
            return error_text("the guest runs: interrupt it first")
        case messages.QueryStop() if state is State.ENDED:
            ended = replace(context.target.report(), exit_code=0)  # the client has killed it or seen it exit
            return resume.stop_reply(context, ended)
        case messages.FirstThreads() if state is State.ENDED:
            return b"l"
        case messages.ThreadAlive() if state is State.ENDED:
            return error_text("the guest has ended")
        case messages.Transfer("threads", "", offset, length) if state is State.ENDED:
            return qxfer.piece(NO_THREADS.encode("ascii"), offset, length)
        case messages.Resume() | messages.Reverse() | messages.Restart() if context.frame is not None:
            return error_text(UNCHANGED)
        case messages.Resume() | messages.Reverse() if state is State.ENDED:
            return error_text("the guest has ended: restart it with `run`")
    return None
