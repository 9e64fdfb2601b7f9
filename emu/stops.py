"""Stop reasons and breakpoints: the values in which the debugger speaks of control."""

from __future__ import annotations

from collections.abc import Callable

from emu.catches import Catch
from emu.engine import Fault, WatchHit
from emu.named import Enum
from emu.record import dataclass

VECTOR_NAMES = (
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS", "#GP", "#PF", "#15",
    "#MF", "#AC", "#MC", "#XM",
)  # fmt: skip


class StopKind(Enum):
    """What ended a run."""

    __hash__ = object.__hash__  # that of Enum is Python's, and asked at each stop

    PAUSED = "paused"  #: at reset, or after a restore: not run yet
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    CATCH = "catch"  #: an event that a breakpoint waits for
    STEP = "step"
    INTERRUPTED = "interrupted"
    LIMIT = "limit"
    EVENT = "event"  #: what `set_until` waited for
    EXIT = "exit"
    POWEROFF = "poweroff"
    SHUTDOWN = "shutdown"
    DEADLOCK = "deadlock"
    FAILURE = "failure"


class BreakKind(Enum):
    """What a breakpoint watches for; the value is the prompt's word for it."""

    __hash__ = object.__hash__  # that of Enum is Python's, and asked at each stop

    EXECUTE = "break"
    WRITE = "watch"
    READ = "rwatch"
    ACCESS = "awatch"
    CATCH = "catch"  #: an event: Breakpoint.catch


@dataclass(frozen=True, slots=True)
class Met:
    """A breakpoint that a stop is due to, for front ends that number theirs by themselves: `owner` and `address` as
    Breakpoint has them. `failed` names what of it could not be evaluated, "condition" or "commands", and `why` says in
    a sentence why; both are "" where all could."""

    id: int
    owner: str
    address: int
    failed: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the guest stands still. `text` is one sentence; `retired` counts from reset. `met` are the breakpoints that
    are the cause, or could not be evaluated; where there are any, `happened` is the sentence without them."""

    kind: StopKind
    text: str
    linear_pc: int
    retired: int
    breakpoints: tuple[int, ...] = ()  #: ids hit
    hit: WatchHit | None = None
    exit_code: int | None = None  #: what was written to the debug-exit port
    faults: tuple[Fault, ...] = ()  #: the chain that led to a shutdown
    happened: str = ""
    met: tuple[Met, ...] = ()

    @property
    def failed(self) -> bool:
        """A condition or an action could not be evaluated; `text` says why."""
        return any(met.failed for met in self.met)


class ConditionFailed(Exception):
    """A condition or an action cannot be evaluated; one sentence. The guest stops there, and the stop says so."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Stop only where `holds` does: called on the machine's thread while the guest stands at the place, it changes
    nothing, and may raise ConditionFailed. `text` is what people are shown of it."""

    text: str
    holds: Callable[[], bool]


@dataclass(slots=True)
class Breakpoint:
    """`address` is linear, `length` in bytes (1 for execution). `ignore` hits are passed over; a hit whose condition
    does not hold is none. `owner` is the front end that set it ("prompt", "gdb"), `spec` what the user typed."""

    id: int
    kind: BreakKind
    address: int
    length: int = 1
    enabled: bool = True
    temporary: bool = False
    owner: str = "prompt"
    spec: str = ""
    hits: int = 0
    ignore: int = 0
    condition: Condition | None = None  #: what it depends on, besides
    action: Callable[[], None] | None = None  #: done instead of stopping
    catch: Catch | None = None
    passes: bool = False  #: it never stops, and each arrival counts once, whatever ends a run there
    met_at: int = -1  #: instructions retired when that was last so
    begun: tuple[int, int, int] = (0, 0, 0)  #: (E/R)CX, SI and DI then
    #: The linear PC and stack pointer at which it was met, where an interrupt came before the instruction: that the
    #: handler comes back there is no other arrival.
    owed: tuple[int, int] | None = None


def fault_chain(faults: tuple[Fault, ...]) -> str:
    """ "#GP(0x8) at f000:1234, then #DF(0x0) at f000:1234"; behind each its hint, if it has one."""
    if not faults:
        return "no fault was recorded"
    parts = []
    for fault in faults:
        name = VECTOR_NAMES[fault.vector] if fault.vector < len(VECTOR_NAMES) else f"vector {fault.vector:#x}"
        code = "" if fault.code is None else f"({fault.code:#x})"
        what = "" if fault.interrupt is None else f" in delivering interrupt {fault.interrupt:#04x}"
        hint = f" ({fault.hint})" if fault.hint else ""
        parts.append(f"{name}{code}{what} at {fault.cs:04x}:{fault.rip:04x}{hint}")
    return ", then ".join(parts)
