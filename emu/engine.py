"""The Executor protocol: run until a budget is spent or something stops it; state in, state out.

Everything above knows CPUs only through this file. Counting, stopping, breakpoints and interrupt delivery are the
engine's; when to run and for how long is the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from emu.named import Enum, IntFlag, NamedTuple
from emu.record import dataclass
from emu.typed import TYPE_CHECKING, Protocol
from emu.x86.state import CpuState

if TYPE_CHECKING:
    from emu.packed import Packing
    from emu.quiet import Begun, Quiet, QuietHit


class EngineError(Exception):
    """An engine cannot be had, or cannot go on; the text says why and what to do."""


class ExitReason(Enum):
    """Why `Executor.run` came back."""

    __hash__ = object.__hash__  # that of Enum is Python's, and asked at each stop

    BUDGET = "budget"  #: the asked number of instructions retired
    REQUEST = "request"  #: request_stop()
    HALT = "halt"  #: HLT retired (or the CPU was halted and nothing deliverable is pending)
    SHUTDOWN = "shutdown"  #: triple fault; `Exit.faults` has the chain
    BREAKPOINT = "breakpoint"  #: about to execute an address of set_breakpoints(); not yet executed
    WATCHPOINT = "watchpoint"  #: the instruction just retired accessed a watched range
    EVENT = "event"  #: the instruction just retired, or what was delivered behind it, made a change of set_event_stops
    FAILURE = "failure"  #: the engine cannot execute the state; `Exit.detail` says why


class CheckLevel(Enum):
    """How much of what Unicorn leaves out is put back by asking before instructions. See docs/fidelity.md."""

    OFF = "off"
    AUTO = "auto"  #: wherever it does not slow ordinary code: everywhere with the C helper
    FULL = "full"  #: everywhere


class Access(IntFlag):
    """Kinds of data access."""

    READ = 1
    WRITE = 2
    BOTH = 3


class Change(IntFlag):
    """What may change behind an instruction; the numbers are those of emu/native/events.c."""

    NONE = 0
    MODE = 1  #: real, protected, virtual 8086, IA-32e, or the code's width
    TASK = 2  #: a task switch


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch `length` bytes from linear `address` for `access`; with `physical`, of the CPU's accesses to that physical
    address, whatever linear address they come by."""

    address: int
    length: int
    access: Access
    physical: bool = False


@dataclass(frozen=True, slots=True)
class WatchHit:
    """What the instruction did: `address` as the watch has it, `size` and `value` of the access."""

    watch: Watch
    address: int
    size: int
    value: int
    access: Access


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception or software interrupt on its way to its handler. `code` is None where the vector pushes none."""

    vector: int
    code: int | None
    cs: int
    rip: int
    linear: int
    cr2: int
    software: bool  #: raised by INT n, INT3 or INTO
    retired: int  #: instructions retired before the one that raised it
    interrupt: int | None = None  #: raised in delivering the external interrupt with this vector
    #: #BP by INT3 or #OF by INTO, which are exceptions though software raises them (SDM vol. 3A, 6.4.2); INT 3 and
    #: INT 4 (CD 03, CD 04) lead to the same handlers as software interrupts
    by_own_opcode: bool = False
    #: that there is no memory at `linear`, in words, where #UD comes of that
    hint: str = ""

    @property
    def is_exception(self) -> bool:
        """No software interrupt by INT n."""
        return self.by_own_opcode or not self.software


class Exit(NamedTuple):
    """The end of a run; a tuple, made in a third of the time. `change` is what of set_event_stops came with its
    last instruction, `task` the TR selector that it had before. `executed` instructions retired in it. A faulting
    instruction counts 1, each iteration of a repeated string instruction counts 1, HLT counts 1, an execution stopped
    by a breakpoint 0."""

    reason: ExitReason
    executed: int
    hit: WatchHit | None = None
    faults: tuple[Fault, ...] = ()
    detail: str = ""
    change: Change = Change.NONE
    task: int = 0


class PortIo(Protocol):
    """What IN and OUT reach. Sizes are 1, 2 or 4 bytes."""

    def port_in(self, port: int, size: int) -> int: ...
    def port_out(self, port: int, size: int, value: int) -> None: ...


class MmioBus(Protocol):
    """What physical addresses below 1 << 40 reach that no region covers. Sizes are 1, 2, 4 or 8 bytes."""

    def mmio_read(self, address: int, size: int) -> int: ...
    def mmio_write(self, address: int, size: int, value: int) -> None: ...
    def answers(self, address: int) -> bool:
        """Something answers in the page of `address`. Nothing of it changes by being asked."""


class MemoryRegion(Protocol):
    """A range of physical memory backed by this process's, as emu.memory.Region is."""

    @property
    def base(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def kind(self) -> str:
        """`ram`, or `rom`: guest writes are discarded, or go where `written` says."""

    @property
    def name(self) -> str: ...
    @property
    def host_address(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def written(self) -> int | None:
        """What takes the guest's writes instead: its distance from `host_address` is its distance from `offset`."""


class MsrDevice(Protocol):
    """A device behind model-specific registers, as a local APIC is."""

    def read_msr(self, number: int) -> int | None:
        """The 64-bit value; None: #GP(0)."""

    def write_msr(self, number: int, value: int) -> bool:
        """False: the value is refused, #GP(0)."""


@dataclass(frozen=True, slots=True)
class SharedDisplay:
    """The window of a display that an engine may serve by itself instead of asking the MMIO bus: `size` bytes from
    physical `base`, as the structure at host address `shared` says (emu/devices/vga_memory.py). `memory` is the host
    address of display memory, which is a region as well wherever it is mapped as a whole."""

    base: int
    size: int
    shared: int
    memory: int


class Cpu(Protocol):
    """What an emulator and a hypervisor's CPU have in common: state in and out, lines, what is stopped at. Used by one
    thread, except for `request_stop`."""

    name: str

    @property
    def instruction_pc(self) -> int:
        """Inside a device callback, the linear address of the instruction that is executing."""

    @property
    def retired(self) -> int:
        """Instructions retired since reset, exact at any instant; inside a device callback, those before the one
        that is executing."""

    def request_stop(self) -> None:
        """From any thread or callback: stop before the next instruction (REP iteration); never in mid-instruction."""

    def state(self) -> CpuState:
        """A copy of the CPU's state. Not inside callbacks."""

    def live(self) -> CpuState:
        """The CPU's state in place: what reads as a CpuState, each attribute as it is at that moment. Not to be
        changed, not inside callbacks, and for a few attributes only: `state` is cheaper than many."""

    def load(self, state: CpuState) -> None:
        """Replace the CPU's state. Not inside callbacks."""

    @property
    def linear_pc(self) -> int:
        """CS base + RIP, cheaply."""

    @property
    def cs_ip(self) -> tuple[int, int]:
        """The selector of CS and RIP, cheaply."""

    @property
    def halted(self) -> bool:
        """HLT retired and nothing has woken the CPU since."""

    def undisturbed(self) -> bool:
        """True when a run would begin with the next instruction: the CPU is not halted, no interrupt comes before it
        or has been delivered without `take_interrupt` being asked."""

    @property
    def resuming(self) -> tuple[int, int, bool] | None:
        """The breakpoint that is to be passed once, behind an interrupt that came first: linear address, stack pointer,
        and whether nothing has run since. None: there is none."""

    @property
    def behind(self) -> int:
        """Between two runs, the linear address of the instruction executed last, all ones where that is not known: a
        repeated one at the same address goes on there, and has not just been arrived at."""

    def go_on_behind(self, pc: int) -> None:
        """After `load`, go on with what `behind` of another CPU was."""

    def resume(self, place: tuple[int, int, bool]) -> None:
        """After `load`, go on with what `resuming` of another CPU was."""

    def set_retired(self, count: int) -> None:
        """Continue counting from `count` (after a restore)."""

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """Drive INTR: `vector` is what the controller would answer to an acknowledge now; None lowers the line.
        Allowed in callbacks. Delivered at the first instruction boundary where IF, shadow and TPR allow. The run ends
        there, but with `last` it may go on: behind the acknowledge the line is low until this is called again."""

    def take_interrupt(self) -> int | None:
        """The vector delivered since the last call (so that its controller can be acknowledged), else None."""

    #: instructions retired when what `take_interrupt` returned last was delivered
    interrupt_taken_at: int

    def interruptible(self) -> bool:
        """True if a pending INTR would be delivered before the next instruction (IF=1, no shadow)."""

    def set_a20(self, enabled: bool) -> None:
        """The A20 gate. Allowed in callbacks."""

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """Replace the set of execution breakpoints; memory is never written. A repeated string instruction is checked
        on arrival, not at each iteration."""

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """Besides the breakpoints, stop before each instruction of the `classes` (bits of emu.x86.classes) and before
        each whose first byte is at one of the `physical` addresses, which end a run with BREAKPOINT; and behind each
        of the `changes`, with EVENT."""

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """Replace the set of data watchpoints."""

    def memory_changed(self, physical: int, length: int) -> None:
        """The host wrote guest memory: drop translations made from it. Allowed in callbacks."""

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """Replace the map of RAM and ROM. Not inside callbacks."""

    def time_stamp(self) -> int:
        """The 64-bit time-stamp counter, as RDTSC would give it; at any time."""

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """Called after each instruction that has set the time-stamp counter."""

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """From now on RDMSR and WRMSR of `number` go to `device`, which keeps the value, whatever the CPU model."""

    def read_msr(self, number: int) -> int | None:
        """What RDMSR would answer in ring 0; None where it would raise #GP(0). Not inside callbacks."""

    def write_msr(self, number: int, value: int) -> bool:
        """WRMSR of 64 bits in ring 0; False where it would raise #GP(0), with nothing changed. Not inside callbacks."""

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """Called with CR8's new value, 0 to 15, when the guest or `load` has set it."""

    def set_task_priority(self, value: int) -> None:
        """What CR8 reads from now on, 0 to 15. Allowed in callbacks."""

    def raise_nmi(self) -> None:
        """An edge at NMI, which is kept while NMIs are blocked. Allowed in callbacks: the run ends, and the next one
        begins with the delivery."""

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """Called for each exception and software interrupt before it is delivered."""

    def close(self) -> None:
        """Free what the engine holds."""

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """The `pages` pages of 4 KiB from `host_address` in this process are the guest's RAM and ROM, and at address
        `marks` is a byte for each: from now on set that of each page this CPU writes, through whatever address, page
        walks included. Gives a function to be called whenever bytes were cleared, or None: this CPU cannot tell."""


class QuietSteps(Protocol):
    """An emulator that makes quiet steps: see emu.quiet."""

    def begin_quiet(self, steps: int, run: int, regions: Sequence[MemoryRegion]) -> Quiet:
        """Nothing of the CPU is touched but by the steps and runs until `end_quiet`: at most `steps` instructions, or
        none where a run would begin otherwise than with the next instruction, of which each run may have `run`.
        `regions` is where memory is. The same object each time."""

    def end_quiet(self) -> None: ...

    def finish_quiet(self, begun: Begun) -> Exit:
        """Behind `end_quiet`, the end of the step or run that was begun: as of `Executor.run`, where the first
        instruction's breakpoint is skipped."""

    def hit_of(self, hit: QuietHit) -> WatchHit:
        """What ended a quiet run; before anything else is asked."""


class Call(NamedTuple):
    """INT n (CD n) of real mode and of IA-32e mode at `cs`:`ip`, executed when so many instructions had `retired`."""

    retired: int
    vector: int
    cs: int
    ip: int


class CallNotes(Protocol):
    """INT n of real mode and of IA-32e mode that `on_fault` is not told of at once, or at all. What is noted was on its
    way to its handler like any other. Whoever is told of faults takes what came before first."""

    #: so many may still be noted; those that come with none left are told at once
    room: int

    def take(self, before: int | None = None) -> tuple[int, list[Call]]:
        """What was noted since the last call, with fewer than `before` instructions retired; the last ones, and how
        many came before them."""


class Executor(Cpu, Protocol):
    """A CPU that executes. Made and used by one thread, except for `request_stop`."""

    #: `hold_input`, `stream_input` and `stream_output` are of use now.
    answers_ahead: bool
    #: What answers ports (`serve_ports`) may have a run go on behind edges of counter 0 of the 8254.
    passes_edges: bool
    #: What a person should know about how it runs: a sentence, empty when there is nothing to tell.
    notice: str
    #: What it does not keep of what x86 promises (docs/fidelity.md), a few words each.
    unkept: tuple[str, ...]

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """Execute at most `budget` (>= 1) instructions. With `skip_breakpoint` the first instruction executed is not
        checked against the breakpoints (it is being resumed from)."""

    def packing(self) -> Packing | None:
        """How its state is moved without a copy in Python; None: it is not."""

    def quiet_steps(self) -> QuietSteps | None:
        """How it is stepped without Python; None: it is not."""

    def call_notes(self) -> CallNotes | None:
        """How it is told to note INT n; None: it tells of each. There is no room at first."""

    @property
    def stop_flag(self) -> int | None:
        """The address of a byte in this process which, set to 1 by a signal's handler in C, does what `request_stop`
        does, as long as the executor exists; None: there is none."""

    def display_changed(self) -> None:
        """What is behind the window of the SharedDisplay has changed. Allowed in callbacks."""

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """As `mark_writes`, which comes first, for the same pages: besides, set the byte of each at address `marks`."""

    def hold_input(
        self, port: int, value: int, until: int | None, *, answered: bool = True, kept: bool = False
    ) -> None:
        """Only in PortIo: byte reads of `port` would give `value`, and do nothing else, while fewer than
        `until` instructions have retired (None: while the run lasts) and no access reaches PortIo that does anything
        (one that is `answered` with this call does not). The engine may answer them by itself. `kept`: the device is a
        hypervisor's own, and the answers are counted by `take_kept` alone."""

    def tell_instructions(self, classes: int, told: Callable[[bytes], None]) -> None:
        """From now on call `told` with the bytes of each instruction of these InstructionClass bits (0: of none), some
        more may be behind them, before it is executed; `retired` and `instruction_pc` are as in a port's access. It may
        be called twice for one that faults. Not while it runs. An engine that cannot tell does not (the portable
        loop)."""

    def note_answers(self) -> None:
        """Before the first run: every access to a device is to be asked for, or counted by `take_answered`."""

    def take_answered(self) -> tuple[int, int]:
        """How many accesses to devices the engine has answered by itself since the last call (0: it answers none), and
        how many instructions had retired before the last of them; of an access to memory up to a block more."""

    def take_kept(self) -> int:
        """How many reads of what was held as `kept` the engine has answered by itself since the last call."""

    def serve_ports(self, address: int | None) -> None:
        """From now on accesses may be answered by the structure of emu/devices/shared_ports.py at `address`, where it
        says how, and change it, instead of reaching PortIo. None: each is to reach that."""

    def stream_input(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int = 1) -> None:
        """Only in PortIo.port_in: the next reads of `port`, of any of `sizes` (a sum of 1, 2 and 4 bytes), would give
        `data`, one after another, as long as no other access reaches PortIo. The engine may answer them by itself; it
        calls `taken` with the number of bytes before any other access reaches PortIo and before `run` returns. A read
        of which `data` has only a part reaches PortIo."""

    def stream_output(self, port: int, room: int, written: Callable[[bytes], None], sizes: int = 1) -> None:
        """Only in PortIo: the next writes of `port`, of any of `sizes`, would do nothing but to append to what is
        written, up to `room` bytes, as long as no other access reaches PortIo. The engine may collect them; it calls
        `written` with the bytes when `stream_input` would call `taken`. The two replace each other."""

    def msr_names(self) -> Mapping[str, int]:
        """The numbers of the CPU model's MSRs, by their names in lower case."""

    def on_rsm(self, callback: Callable[[], None] | None) -> None:
        """Called when RSM has retired in system management mode (`CpuState.smm`; elsewhere it is #UD). The run ends
        before the next instruction; to give the CPU its new state is the caller's."""
