"""The states of a connection, and what kinds of messages make a difference to them."""

from __future__ import annotations

import enum

from stub import messages

#: Packets by which a client learns with whom it speaks.
GREETINGS = (
    messages.Unknown,
    messages.QuerySupported,
    messages.StartNoAck,
    messages.MustReplyEmpty,
    messages.ExtendedMode,
    messages.QueryResume,
    messages.SymbolsAvailable,
    messages.SetThread,
    messages.Transfer,
)
#: Messages that change nothing, and are answered alike until something does.
LOOKS = frozenset(
    (
        messages.ReadMemory,
        messages.ReadMemoryBinary,
        messages.GatherMemory,
        messages.SameMemory,
        messages.ReadRegisters,
        messages.ReadRegister,
        messages.CurrentThread,
    )
)
#: Messages that change nothing that can be looked at: breakpoints never stand in the guest's memory.
POINTS = frozenset((messages.InsertPoint, messages.RemovePoint))
#: Messages between two steps of one command of gdb's: behind others a person has seen that the guest stands still.
BETWEEN = frozenset(
    (
        *LOOKS,
        messages.SetThread,
        messages.QueryResume,
        *POINTS,
    )
)


class State(enum.Enum):
    """See the head of `stub.session`."""

    __hash__ = object.__hash__  # that of Enum is Python's, and asked with each packet

    NEW = "new"
    STOPPED = "stopped"
    RUNNING = "running"
    MONITOR = "monitor"
    ENDED = "ended"
    CLOSED = "closed"


MOVES: dict[State, frozenset[State]] = {
    State.NEW: frozenset((State.STOPPED, State.CLOSED)),
    State.STOPPED: frozenset((State.STOPPED, State.RUNNING, State.MONITOR, State.ENDED, State.CLOSED)),
    State.RUNNING: frozenset((State.STOPPED, State.RUNNING, State.MONITOR, State.ENDED, State.CLOSED)),
    State.MONITOR: frozenset((State.STOPPED, State.RUNNING, State.ENDED, State.CLOSED)),
    State.ENDED: frozenset((State.STOPPED, State.RUNNING, State.ENDED, State.CLOSED)),
    State.CLOSED: frozenset((State.CLOSED,)),
}
