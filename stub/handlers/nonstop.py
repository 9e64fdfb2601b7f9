"""QNonStop, vStopped, vCtrlC: resuming is answered at once, and a stop comes as a notification ("Remote Non-Stop").

The one CPU is either stopped or runs, and at most one stop is not seen yet: until `vStopped` has come, the client takes
the CPU for running, and what it wants of it then is what holds already.
"""

from __future__ import annotations

from stub import messages
from stub.handlers.base import OK, Answer, Context, Handler, Running
from stub.target import Continues

RUNS = "the CPU runs: stop it before asking for its registers, which change all the time"
#: What is not answered while the CPU runs; memory is, between two instructions.
OF_THE_STOPPED = (
    messages.ReadRegisters,
    messages.ReadRegister,
    messages.WriteRegisters,
    messages.WriteRegister,
)


def non_stop(context: Context, message: messages.NonStop) -> Answer:
    """gdb says so after it has asked for the registers' description: a guest that ran then is to run on."""
    context.non_stop, context.unseen = message.on, False
    if not (message.on and context.halted):
        return OK
    assert context.continues is not None
    context.halted = False
    context.continues.resume()
    return Running()


def while_running(context: Context, message: messages.Resume) -> Answer:
    """A thread that runs is not resumed again ("Packets", vCont); it can be stopped, which is told of later."""
    assert context.continues is not None
    for action in message.actions:
        context.chosen(action.thread or 0)
        if action.kind == "t" and not context.unseen:
            context.stop_asked = True
            context.continues.interrupt()
    return OK


def stop_seen(context: Context, message: messages.StopSeen) -> Answer:
    context.unseen = False
    return OK  # of one CPU there is no other stop


def interrupt_all(context: Context, message: messages.InterruptAll) -> Answer:
    assert context.continues is not None
    if context.target.running:
        context.continues.interrupt()
    return OK


HANDLERS = (
    Handler(
        (("QNonStop:FLAG", "1: `vCont` is answered at once, and a stop is the notification `%Stop`; 0: as ever"),),
        messages.NonStop,
        non_stop,
        (Continues,),
        lambda context: () if context.looks_on else ("QNonStop+",),
    ),
    Handler(
        (("vStopped", "the notification has been read; no more stops"),), messages.StopSeen, stop_seen, (Continues,)
    ),
    Handler(
        (("vCtrlC", "interrupt, as the byte 03 does in all-stop mode"),),
        messages.InterruptAll,
        interrupt_all,
        (Continues,),
    ),
)
