"""How a run of a machine ends."""

from __future__ import annotations

from emu.engine import Exit, ExitReason
from emu.named import Enum
from emu.record import dataclass


class MachineStop(Enum):
    """Why `Machine.run` came back."""

    LIMIT = "limit"
    REQUEST = "request"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    SHUTDOWN = "shutdown"
    DEADLOCK = "deadlock"  #: halted, and nothing can wake the CPU
    STANDSTILL = "standstill"  #: no instruction retires, and no time passes, however often the CPU is let on
    EXIT = "exit"  #: the debug-exit port was written
    POWEROFF = "poweroff"
    FAILURE = "failure"
    EVENT = "event"  #: a change of mode or task, see Executor.set_event_stops


@dataclass(frozen=True, slots=True)
class MachineExit:
    """`exit` is the engine's part of the story where it had one; `code` what the debug-exit port was given."""

    reason: MachineStop
    exit: Exit | None = None
    code: int | None = None
    detail: str = ""


#: What the machine says of an end that the engine met.
EXIT_STOPS = {
    ExitReason.BREAKPOINT: MachineStop.BREAKPOINT,
    ExitReason.WATCHPOINT: MachineStop.WATCHPOINT,
    ExitReason.EVENT: MachineStop.EVENT,
    ExitReason.SHUTDOWN: MachineStop.SHUTDOWN,
    ExitReason.FAILURE: MachineStop.FAILURE,
}
#: How `run` and `step` end when nothing else happened.
LIMIT = MachineExit(MachineStop.LIMIT)
