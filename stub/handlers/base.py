"""What every handler works with: the connection's context, the kinds of answer, and the packets about the session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from emu.record import dataclass, field
from stub import messages
from stub.offers import offers
from stub.packet import PACKET_SIZE, frame
from stub.target import (
    SIGNAL_NONE,
    ConditionalPoints,
    Continues,
    Description,
    Detaches,
    Expedites,
    HardwareBreakpoints,
    HasMemory,
    HasPhysicalMemory,
    HasRegisters,
    Kills,
    Restarts,
    SelectsThread,
    SoftwareBreakpoints,
    Steps,
    StepsRange,
    StopReport,
    SweepsMemory,
    Target,
    TargetError,
    Watchpoints,
)
from stub.trace_target import Traces
from stub.traceframe import ShownFrame
from stub.tracing import Experiment, Frame


@dataclass(frozen=True, slots=True)
class Running:
    """The target has been resumed: the answer is a stop reply, later."""


@dataclass(frozen=True, slots=True)
class Stays:
    """The target has not been resumed, though the client takes it for running: it is told of this stop at once."""

    report: StopReport


@dataclass(frozen=True, slots=True)
class Silent:
    """The packet has no answer."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """Print `output`, then what the injected runner makes of the command `text` ("": nothing to run), or `failure`."""

    text: str
    output: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The target stands still again, restarted: answered by a stop reply, or not at all."""

    replies: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """The client has given up the guest (`D`, `k`). `payload` is the answer, None for none. A kill is carried out when
    the connection ends, after the answer is out; in extended mode the client may restart the guest instead."""

    payload: bytes | None
    killed: bool


Answer = bytes | Running | Stays | Silent | Monitor | Stopped | Gone

OK = b"OK"
#: "Standard Replies": the empty packet says that a packet is not supported.
UNSUPPORTED = b""
#: Characters of framing, escapes and run-length encoding, which error texts cannot carry.
_PLAIN = str.maketrans({"#": "", "$": "", "*": "x", "}": ")", "{": "(", "\n": " "})


def error_text(text: str) -> bytes:
    """`E.text` ("Standard Replies")."""
    return b"E." + text.translate(_PLAIN).encode("ascii", "replace")


class Gathered(NamedTuple):
    """What many places in memory had: what the question is called, which (address, length), and all their bytes."""

    checksum: int
    ranges: tuple[tuple[int, int], ...]
    data: bytes

    @property
    def packet(self) -> bytes:
        """`qv2e.Same`, as gdb's helper sends it."""
        return frame(b"qv2e.Same:%x" % self.checksum)

    @property
    def spans(self) -> tuple[tuple[int, bytes], ...]:
        """Each address with what is there."""
        ends = itertools.accumulate(length for _, length in self.ranges)
        pairs = zip(self.ranges, ends, strict=True)
        return tuple((address, self.data[end - length : end]) for (address, length), end in pairs)


@dataclass
class Context:
    """A connection as handlers see it."""

    target: Target
    supported: Callable[[Context], str]  #: what qSupported answers, derived from the active handlers
    release_points: Callable[[Context], None]  #: takes away the breakpoints of this client
    has_runner: bool = False  #: there is somebody to run monitor commands
    client: set[str] = field(default_factory=set)  #: features that the client announced, with their `+`
    extended: bool = False
    started: bool = False  #: this client has run the guest (`vRun`), so that it ends with it
    looks_on: bool = False  #: another client has the target
    vacant: Callable[[], bool] = lambda: False  #: it had, and has gone
    non_stop: bool = False  #: `QNonStop:1`
    stop_asked: bool = False  #: by `vCont;t`, which is no signal to the guest
    stopped_by_t: bool = False  #: the last stop that was notified was that, and `?` says the same
    halted: bool = False  #: the first packet has stopped the guest, and no more than greetings have come since
    unseen: bool = False  #: the last stop was notified, and `vStopped` has not come
    stays_stopped: bool = False  #: `D` leaves the guest standing still
    no_ack: bool = False
    thread: int = 1  #: `Hg`
    description: Description | None = None  #: the one the client numbers registers by
    fetched: bool = False  #: the client has read `description`
    document_name: tuple[str, str] = ("", "")  #: object and annex that qXfer reads
    document: bytes = b""  #: and its text
    #: The threads (id, number, name, what it does), and the document that says so.
    threads: tuple[list[tuple[str, int, str, str]], str] = field(default_factory=lambda: ([], ""))
    points: set[tuple[int, int, int]] = field(default_factory=set)  #: (type, address, kind) inserted by this client
    persistent: set[tuple[int, int, int]] = field(default_factory=set)  #: those of `points` that stay when it goes
    printed: Callable[[str], None] = lambda text: None  #: a breakpoint's commands print to the client
    frame: Frame | None = None  #: the trace frame that is looked at instead of the target
    #: how stop replies without a reason begin, by signal and thread
    heads: dict[tuple[int, int], str] = field(default_factory=dict)
    gathered: Gathered | None = None  #: by the last `qv2e.Memory`
    listed: list[bytes] = field(default_factory=list)  #: what `qTsP` and `qTsV` have yet to say
    wrote: int = -1  #: the register that the packet before this one has written, if it was `P`
    # The target again, as what it can do, or None: asking a protocol at each packet costs more than the packet.
    selects: SelectsThread | None = field(init=False)  #: of several threads
    registers: HasRegisters | None = field(init=False)
    expedites: Expedites | None = field(init=False)
    read: Callable[[int, int], bytes] | None = field(init=False)  #: memory, as `physical` says
    write: Callable[[int, bytes], None] | None = field(init=False)
    sweeps: SweepsMemory | None = field(init=False)
    continues: Continues | None = field(init=False)
    steps: Steps | None = field(init=False)
    steps_range: StepsRange | None = field(init=False)
    software: SoftwareBreakpoints | None = field(init=False)
    hardware: HardwareBreakpoints | None = field(init=False)
    watches: Watchpoints | None = field(init=False)
    conditional: ConditionalPoints | None = field(init=False)

    def __post_init__(self) -> None:
        target = self.target
        self.physical = False
        self.selects = target if len(target.threads()) > 1 and offers(target, SelectsThread) else None
        if self.selects is not None:
            self.thread = self.selects.selected()
        self.look_at(None)
        self.continues = target if offers(target, Continues) else None
        self.steps = target if offers(target, Steps) else None
        self.steps_range = target if offers(target, StepsRange) else None
        self.software = target if offers(target, SoftwareBreakpoints) else None
        self.hardware = target if offers(target, HardwareBreakpoints) else None
        self.watches = target if offers(target, Watchpoints) else None
        self.conditional = target if offers(target, ConditionalPoints) else None

    def look_at(self, frame: Frame | None) -> None:
        """Have registers and memory come from a trace frame, or from the target again."""
        target = self.target
        self.frame = frame
        self.expedites = target if offers(target, Expedites) and frame is None else None
        if frame is not None and offers(target, Traces):
            shown = ShownFrame(target, frame, target.experiment)
            self.registers, self.read, self.write = shown, shown.read_memory, shown.write_memory
            self.sweeps = None
        else:
            self.registers = target if offers(target, HasRegisters) else None
            self.physical = self._physical

    @property
    def experiment(self) -> Experiment:
        """The target's trace. Raises TargetError where there is none."""
        if not offers(self.target, Traces):
            raise TargetError("this target has no tracepoints")
        return self.target.experiment

    @property
    def physical(self) -> bool:
        """True while this client's `m`, `x`, `M`, `X` and their kin name physical addresses."""
        return self._physical

    @physical.setter
    def physical(self, on: bool) -> None:
        """Raises TargetError where there are no physical addresses."""
        target = self.target
        if self.frame is not None:
            raise TargetError("a trace frame has linear addresses only: `tfind none` first")
        if not on:
            self.read = target.read_memory if offers(target, HasMemory) else None
            self.write = target.write_memory if offers(target, HasMemory) else None
        elif offers(target, HasPhysicalMemory):
            self.read, self.write = target.read_physical, target.write_physical
        else:
            raise TargetError("this target knows only one kind of address")
        self.sweeps = target if offers(target, SweepsMemory) else None
        self._physical = on

    def layout(self) -> Description:
        """The registers as the client numbers them. Raises TargetError when the target has none."""
        if self.description is None:
            if self.registers is None:
                raise TargetError("this target has no registers")
            self.description = self.registers.describe().standard()
        return self.description

    @property
    def heading(self) -> tuple[object, ...]:
        """What the form of a stop reply without a reason depends on, as far as the client decides it."""
        return self.multiprocess, self.description

    def forget_layout(self) -> None:
        """The target is another one (restarted): until the client reads the description, it keeps its own view."""
        if not self.fetched:
            self.description = None

    @property
    def multiprocess(self) -> bool:
        """True when the client names processes."""
        return "multiprocess+" in self.client

    def thread_id(self, thread: int) -> str:
        """As the client writes it ("Packets", thread-id)."""
        return f"p{messages.PROCESS:x}.{thread:x}" if self.multiprocess else f"{thread:x}"

    def release(self) -> None:
        """Take away what this client has inserted."""
        self.release_points(self)

    def error(self, text: str) -> bytes:
        """The error reply to a packet for which old clients take only numbers ("Standard Replies")."""
        return error_text(text) if "error-message+" in self.client else b"E01"

    def chosen(self, thread: int) -> int:
        """`thread` where the client names one, else any. Raises TargetError for one that does not exist."""
        threads = self.target.threads()
        if thread in (0, -1):
            return threads[0]
        if thread not in threads:
            raise TargetError(f"there is no thread {thread}: the threads are {', '.join(map(str, threads))}")
        return thread


@contextmanager
def thread_of(context: Context) -> Iterator[None]:
    """The client's thread is selected, and what was selected before is so again behind it."""
    selects = context.selects
    if selects is None:
        yield
        return
    before = selects.selected()
    selects.select(context.thread)
    try:
        yield
    finally:
        selects.select(before)


@dataclass(frozen=True, slots=True)
class Handler:
    """Answers one kind of message. Active when the target implements all of `requires`; `features` says what that
    adds to qSupported's answer. `forms` says how its packets are written and what each is for, as documents show
    it; small words are what they begin with, capital ones stand for something."""

    forms: tuple[tuple[str, str], ...]
    message: type[Any]
    run: Callable[[Context, Any], Answer]
    requires: tuple[type[Any], ...] = ()
    features: Callable[[Context], tuple[str, ...]] = lambda context: ()

    def active(self, target: Target) -> bool:
        return all(offers(target, protocol) for protocol in self.requires)


def constant(*features: str) -> Callable[[Context], tuple[str, ...]]:
    """Features that need nothing but their handler."""
    return lambda context: features


def query_supported(context: Context, message: messages.QuerySupported) -> Answer:
    context.client = {feature for feature in message.features if feature.endswith("+")}
    context.heads.clear()
    return context.supported(context).encode("ascii")


def start_no_ack(context: Context, message: messages.StartNoAck) -> Answer:
    context.no_ack = True
    return OK


def must_reply_empty(context: Context, message: messages.MustReplyEmpty) -> Answer:
    return UNSUPPORTED


def extended_mode(context: Context, message: messages.ExtendedMode) -> Answer:
    context.extended = True
    return OK


def set_thread(context: Context, message: messages.SetThread) -> Answer:
    thread = context.chosen(message.thread)
    if message.op == "g":
        context.thread = thread
    return OK


def thread_alive(context: Context, message: messages.ThreadAlive) -> Answer:
    context.chosen(message.thread)
    return OK


def current_thread(context: Context, message: messages.CurrentThread) -> Answer:
    return f"QC{context.thread_id(context.thread)}".encode("ascii")


def query_attached(context: Context, message: messages.QueryAttached) -> Answer:
    return b"0" if context.started else b"1"


def first_threads(context: Context, message: messages.FirstThreads) -> Answer:
    return f"m{','.join(map(context.thread_id, context.target.threads()))}".encode("ascii")


def next_threads(context: Context, message: messages.NextThreads) -> Answer:
    return b"l"


def thread_extra(context: Context, message: messages.ThreadExtra) -> Answer:
    thread = context.chosen(message.thread)
    return f"{context.target.thread_name(thread)}: {context.target.thread_text(thread)}".encode().hex().encode()


def symbols_available(context: Context, message: messages.SymbolsAvailable) -> Answer:
    return OK  # none are needed


def kill(context: Context, message: messages.Kill) -> Answer:
    context.target.halt()
    return Gone(OK if message.replies else None, killed=True)


def detach(context: Context, message: messages.Detach) -> Answer:
    assert offers(context.target, Detaches)
    context.release()
    if not context.stays_stopped:
        context.target.detach()
    return Gone(OK, killed=False)


def attach(context: Context, message: messages.Attach) -> Answer:
    if not context.extended:
        raise TargetError("this connection has the machine already; `target extended-remote` can detach and attach")
    context.started = False
    if context.non_stop:
        # "Packets", vAttach: no stop reply here; a CPU that stands still is one that has stopped since.
        return Running() if context.target.running else Stays(StopReport(SIGNAL_NONE))
    context.target.halt()
    context.forget_layout()
    return Stopped(replies=True)


def restart(context: Context, message: messages.Restart) -> Answer:
    """Outside of extended mode as gdbserver: `R` is no packet that it knows, `vRun` an error."""
    target = context.target
    assert offers(target, Restarts)
    if not context.extended:
        if not message.replies:
            return UNSUPPORTED
        raise TargetError("this connection has the machine already; `target extended-remote` can restart it by `run`")
    context.target.halt()
    target.restart()
    context.forget_layout()
    context.started = context.started or message.replies  # `R` is answered by nothing, and leaves things as they were
    return Stopped(message.replies)


HANDLERS = (
    Handler(
        (("qSupported:FEATURE;...", "what the client can do; answered with what is served here"),),
        messages.QuerySupported,
        query_supported,
        features=lambda context: (
            f"PacketSize={PACKET_SIZE:x}",
            *(("multiprocess+",) if context.multiprocess else ()),
        ),
    ),
    Handler(
        (("QStartNoAckMode", "no more `+` and `-`"),),
        messages.StartNoAck,
        start_no_ack,
        features=constant("QStartNoAckMode+"),
    ),
    Handler(
        (("vMustReplyEmpty", "answered by the empty packet, as any unknown one"),),
        messages.MustReplyEmpty,
        must_reply_empty,
    ),
    Handler(
        (("!", "extended mode: the session outlives the guest, which can be restarted"),),
        messages.ExtendedMode,
        extended_mode,
        (Restarts,),
    ),
    Handler(
        (("Hg THREAD", "the thread of `g`, `p` and such"), ("Hc THREAD", "taken, and meaningless beside `vCont`")),
        messages.SetThread,
        set_thread,
    ),
    Handler((("T THREAD", "is this thread alive?"),), messages.ThreadAlive, thread_alive),
    Handler((("qC", "the current thread"),), messages.CurrentThread, current_thread),
    Handler(
        (("qAttached", "1: the machine was there before the client, so quitting detaches; 0 behind `vRun`: it kills"),),
        messages.QueryAttached,
        query_attached,
    ),
    Handler((("qfThreadInfo", "the threads: one a CPU"),), messages.FirstThreads, first_threads),
    Handler((("qsThreadInfo", "no more threads"),), messages.NextThreads, next_threads),
    Handler((("qThreadExtraInfo,THREAD", "name, mode and state of a CPU"),), messages.ThreadExtra, thread_extra),
    Handler((("qSymbol::", "no symbols are needed"),), messages.SymbolsAvailable, symbols_available),
    Handler(
        (("k", "end the guest; acknowledged, then the connection closes"), ("vKill;PID", "end the guest")),
        messages.Kill,
        kill,
        (Kills,),
    ),
    Handler(
        (("vAttach;PID", "in extended mode, after `D` or `vKill`: halt, answered by a stop reply"),),
        messages.Attach,
        attach,
        (Restarts,),
    ),
    Handler(
        (("D", "leave: this client's breakpoints go, the guest runs on"), ("D;PID", "the same")),
        messages.Detach,
        detach,
        (Detaches,),
    ),
    Handler(
        (
            ("R XX", "in extended mode: restart from power-on, without an answer"),
            ("vRun;...", "in extended mode: restart, answered by a stop reply"),
        ),
        messages.Restart,
        restart,
        (Restarts,),
    ),
)


def console(text: str) -> bytes:
    """An `O` packet's payload ("Stop Reply Packets"): text for the client's console."""
    return b"O" + text.encode("utf-8").hex().encode("ascii")
