"""UnicornEngine: the Executor that runs any x86 state in this process.

How it stays exact: Unicorn's own stop and count can end a run in the middle of an instruction. Here one of two run
loops does the counting, stopping, breakpoints and interrupts, and Unicorn is only ever told to stop where nothing of
an instruction has happened. The fast one is a C helper that does so at the beginning of each translated block
(`emu.unicorn_fast`); the other is a few lines of machine code before every instruction (`emu.unicorn_gate`). Both
count and stop alike. The environment variable V2E_ENGINE=gate asks for the second.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, cast

from emu.engine import (
    Change,
    CheckLevel,
    EngineError,
    Exit,
    ExitReason,
    Fault,
    MemoryRegion,
    MmioBus,
    MsrDevice,
    PortIo,
    SharedDisplay,
    Watch,
)
from emu.packed import PART_DEBUG, PART_TSC, Packed, Packing
from emu.unicorn_callbacks import MASK32, Callbacks
from emu.unicorn_checks import Checks, code_reader
from emu.unicorn_control import (
    EMPTY,
    STEP_DONE,
    STOP_ASKED,
    STOP_BREAKPOINT,
    STOP_BUDGET,
    STOP_CHANGED,
    STOP_EVENT,
    BreakpointTable,
    Control,
)
from emu.unicorn_events import EventStops
from emu.unicorn_fast import (
    ALWAYS,
    AT_BREAKPOINT,
    CODE_SHIFT,
    FORCED,
    HELPER,
    NOT_BEGUN,
    SPENT,
    TRANSLATIONS,
    FastLoop,
    Helper,
    Statistics,
    detacher,
)
from emu.unicorn_faults import Faults
from emu.unicorn_gate import GateLoop
from emu.unicorn_intercepts import Intercepts
from emu.unicorn_layout import (
    ANY_LENGTH,
    CPU_INTERRUPT_NMI,
    CPU_MODELS,
    DOUBLE_FAULT,
    HF2_NMI,
    HF_CS64,
    HF_INHIBIT_IRQ,
    HIDDEN_PAGE,
    NO_EXCEPTION,
    VERSION,
)
from emu.unicorn_library import (
    ERR_FETCH_PROT,
    ERR_FETCH_UNMAPPED,
    HOOK_INSN_INVALID,
    HOOK_INTR,
    REGISTERS,
    Library,
)
from emu.unicorn_live import LiveState
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.unicorn_pack import Packer
from emu.unicorn_state import Seldom, read_state, write_state
from emu.unicorn_system import System
from emu.unicorn_thunks import CodePages, deliver_exception, deliver_invalid
from emu.unicorn_transfers import Transfers
from emu.unicorn_watch import Watchpoints
from emu.x86.cpuid import DEFAULT_MODEL, MODELS, CpuModel
from emu.x86.fidelity import unkept
from emu.x86.state import CR0_PE, CR0_PG, EFER_LMA, EFER_LME, RFLAGS_IF, CpuState, Segment
from emu.x86.vectors import denied

#: Opened behind the C helper, which the imports have loaded: that is of use only when it is there before Unicorn.
LIBRARY: Final = Library()
if isinstance(HELPER, Helper):
    HELPER.fit(LIBRARY.path)

#: Bytes of address space for translations; when they are full all are dropped. Unicorn's own choice is 1 GiB. A boot of
#: Linux fills about 60 MiB.
TRANSLATIONS_SIZE: Final = 128 << 20
PAGE: Final = 0x1000
RDX, RSP = 2, 4
#: RSM behind any prefixes but LOCK, with which it is undefined (SDM vol. 2B, RSM).
RSM: Final = b"\x0f\xaa"
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3))
REX: Final = range(0x40, 0x50)
LONGEST: Final = 15  #: bytes of an instruction
#: Looked up once: an enumeration's members cost several times a global name.
BUDGET, REQUEST, HALT = ExitReason.BUDGET, ExitReason.REQUEST, ExitReason.HALT
SHUTDOWN, BREAKPOINT, FAILURE = ExitReason.SHUTDOWN, ExitReason.BREAKPOINT, ExitReason.FAILURE
#: Ends of a run that a change of mode or task comes before.
_CHANGES: Final = frozenset((BUDGET, REQUEST, ExitReason.EVENT))
#: How most steps end.
STEPPED: Final = Exit(BUDGET, 1)
FETCH_ERRORS: Final = frozenset((ERR_FETCH_UNMAPPED, ERR_FETCH_PROT))


class UnicornEngine:
    """An Executor. `regions` must not overlap, be whole pages, and stay mapped until `close`. `mmio` None: holes read
    all ones. `timestamp` is what RDTSC returns before the guest writes it; it grows by `tick` with each instruction of
    a run (0: however it likes). `model` is the CPU's. `checks`: see `emu.unicorn_checks`. `translations` is how many
    translated blocks the fast loop keeps. `display` is served without a call of Python where that can be. `portable`
    has the loop that needs no helper. Raises EngineError when this Unicorn is not the one known here."""

    name = "unicorn"
    answers_ahead = True

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        io: PortIo,
        mmio: MmioBus | None,
        *,
        timestamp: Callable[[], int],
        checks: CheckLevel = CheckLevel.AUTO,
        model: CpuModel = MODELS[DEFAULT_MODEL],
        translations: int = TRANSLATIONS,
        display: SharedDisplay | None = None,
        tick: int = 0,
        apic: bool = False,
        portable: bool = False,
    ) -> None:
        if LIBRARY.version != VERSION:
            raise EngineError(
                f"unicorn {LIBRARY.version} is installed and only {VERSION} is known; "
                f"install it with pip install unicorn=={VERSION}"
            )
        self._handle = LIBRARY.new_engine(CPU_MODELS[model.name], TRANSLATIONS_SIZE)
        self._end = LIBRARY.close_with(self, self._handle)
        self._ov = Overlay(LIBRARY.functions, self._handle)
        self._call, self._env = self._ov.call, self._ov.env
        # Views that would be made anew at each look.
        self._regs, self._cs = self._env.regs, self._env.segs[1]
        self._ov.verify(REGISTERS, partial(LIBRARY.write_msr, self._handle), model)
        self._ov.set_features(model)

        self._base = 0  # instructions retired before this run
        self._budget = 0
        self._live = 0  # 1 while a callback runs inside an instruction that is counted already
        self._running = False
        self._marking: tuple[int, int, int] | None = None  # of mark_writes, for another map
        self._halted = False
        self._shutdown = False
        self._smm = self._smm_nmi = False
        self._smbase = 0
        self._nmi = False  # an NMI may be pending: one that came while they were blocked is delivered behind IRET
        self._tell_rsm: Callable[[], None] | None = None
        self.interrupt_taken_at = 0
        self._interrupted = False  # the run before ended by an interrupt ahead of the instruction to be resumed from
        self._returning = False  # that instruction has not been executed yet

        self._page = mmap.mmap(-1, PAGE)
        self._control = Control.from_buffer(self._page)
        self._table = BreakpointTable(self._control)
        self._code = CodePages()
        self._callbacks = Callbacks(io, mmio, self._control)
        self._system = System(self._ov, self._callbacks, model, timestamp, lambda: self.retired)
        self._seldom = Seldom()
        self._live_state = LiveState(
            self._ov, self.state, self._system.efer, lambda: self._halted, lambda: self._smm
        )  # fmt: skip
        self._faults = Faults(
            self._ov, self._control, self._callbacks, lambda: self.retired + self._live, self._read_linear
        )
        self._memory = GuestMemory(self._ov, regions, self._callbacks)
        hidden = ctypes.addressof(ctypes.c_uint8.from_buffer(self._page))
        self._memory.map_host(HIDDEN_PAGE, PAGE, hidden, "the hidden page")
        self._env.vm_vmcb = HIDDEN_PAGE
        self._loop = self._choose_loop(translations, tick, portable)
        #: runs with what goes with them in one call, of the fast loop
        self._go = self._loop.go if isinstance(self._loop, FastLoop) else None
        self._display = display
        if display is not None and isinstance(self._loop, FastLoop):
            self._loop.serve_display(self._memory, display)
        self._packer: Packer | None = None
        self.unkept = unkept(helper=isinstance(self._loop, FastLoop))
        self._watch = Watchpoints(self._ov, self._control, self._loop, self.state, self._memory.read, self._callbacks)
        reader = code_reader(self._ov, self._memory, self._watch.read_linear)
        self._events = EventStops(self._ov, self._control, self._memory, self.live(), reader)
        self._loop.serve(self._system)
        if isinstance(self._loop, GateLoop):
            intercepts = Intercepts(
                self._ov, self._control, self._code, self._system, self._memory, reader, HIDDEN_PAGE + PAGE
            )
            self._faults.intercept = intercepts.take
        self._check(checks, model, reader)
        self._transfers = Transfers(
            self._ov, self._control, self._memory, self._write_physical, reader, self._callbacks.failed
        )
        self._faults.transfers = self._transfers
        self._faults.resume = self._resume
        self._install()
        self._prove()
        reset = CpuState()
        reset.regs[RDX] = model.signature
        self.load(reset)

    def _choose_loop(self, translations: int, tick: int, portable: bool) -> FastLoop | GateLoop:
        helper = HELPER
        if portable or os.environ.get("V2E_ENGINE", "") == "gate":
            helper = FORCED
        elif isinstance(helper, Helper):
            try:
                helper.prove(self._ov, self._control, memoryview(self._page))
            except EngineError as error:
                helper = str(error)
        if isinstance(helper, str):
            self.notice = "" if helper is FORCED else f"the engine runs without its C helper, slower: {helper}"
            repeat = ctypes.cast(self._faults.on_interrupt, ctypes.c_void_p).value or 0
            return GateLoop(self._ov, self._control, self._code, self._callbacks, self._read_linear, repeat)
        self.notice = ""
        loop = FastLoop(helper, self._ov, self._control, self._memory.numbered, self._callbacks, translations, tick)
        # Once, and before Unicorn frees what another engine may then be given.
        loop.close = weakref.finalize(self, detacher(helper, self._handle))
        return loop

    def _check(self, level: CheckLevel, model: CpuModel, reader: Callable[[int, int], bytes]) -> None:
        if isinstance(self._loop, FastLoop):
            self._loop.check(segments=level is not CheckLevel.OFF, denied=denied(model))
        else:
            self._checks = Checks(self._ov, self._control, level, reader, self._callbacks.failed)

    def _read_linear(self, linear: int, length: int) -> bytes:
        return self._watch.read_linear(linear, length)

    def _write_physical(self, address: int, data: bytes) -> None:
        """What the CPU itself stores, while an instruction runs."""
        self._loop.memory_changed(self._memory.write(address, data), running=True)
        self._control.leave |= 1

    def _install(self) -> None:
        ov, code = self._ov, self._code
        delivery = {
            "control": ctypes.addressof(self._control), "cpu": ov.cpu, "do_interrupt": self._call.do_interrupt_address,
            "env": ov.env_address, "refusal": ctypes.addressof(self._transfers.refusal),
            "raise_": self._call.raise_exception_address,
        }  # fmt: skip
        # The recording hooks come before the delivering ones: Unicorn calls them in this order.
        intr, invalid = HOOK_INTR, HOOK_INSN_INVALID
        ov.add_hook(intr, self._faults.on_exception)
        ov.add_hook(invalid, self._faults.on_invalid)
        ov.add_hook(intr, code.place(deliver_exception(**delivery)))
        ov.add_hook(invalid, code.place(deliver_invalid(**delivery)))
        if isinstance(HELPER, Helper):
            if not HELPER.transfers(ov.env_address, self._transfers.callback):
                raise EngineError("too many engines at once")
            self._forget_transfers = weakref.finalize(self, HELPER.transfers, ov.env_address, None)

    def _prove(self) -> None:
        """Execute a few instructions in the hidden page and see that they are counted and stopped where they should."""
        program, at = b"\xff\xc0\xff\xc0\xff\xc0\xf4", 0x800  # inc eax, three times; hlt
        self._page[at : at + len(program)] = program
        state = CpuState(rip=HIDDEN_PAGE + at, cr0=0x60000010 | CR0_PE, efer=EFER_LME | EFER_LMA)
        state.cs = Segment(8, 0, MASK32, 0xA09B)
        self.load(state)
        story = [(exit := self.run(n)).reason.value + f" {exit.executed} {self._env.regs[0]}" for n in (2, 1, 9)]
        self._page[at : at + len(program)] = bytes(len(program))
        self._loop.flush()
        self.set_retired(0)
        expected = ["budget 2 2", "budget 1 3", "halt 1 3"]
        if story != expected:
            raise EngineError(
                f"unicorn {VERSION} does not count and stop as it should here ({story}, expected {expected}); "
                f"reinstall it with pip install --force-reinstall unicorn=={VERSION}"
            )

    # -- running

    @property
    def run_loop(self) -> str:
        """`fast` or `gate`."""
        return self._loop.name

    @property
    def statistics(self) -> Statistics | None:
        """What the fast loop did."""
        return self._loop.statistics() if isinstance(self._loop, FastLoop) else None

    @property
    def retired(self) -> int:
        """See Executor."""
        return self._base + self._budget - self._control.remaining - self._live

    @property
    def linear_pc(self) -> int:
        """See Executor."""
        env = self._env
        return env.eip if env.hflags & HF_CS64 else self._cs.base + env.eip & MASK32

    @property
    def instruction_pc(self) -> int:
        """See Cpu."""
        return self._loop.instruction_pc()

    @property
    def cs_ip(self) -> tuple[int, int]:
        """See Executor."""
        return self._cs.selector, self._env.eip

    @property
    def halted(self) -> bool:
        """See Executor."""
        return self._halted

    def undisturbed(self) -> bool:
        """See Executor."""
        control = self._control
        return not (self._halted or self._nmi or control.taken or (control.interrupt and self.interruptible()))

    @property
    def resuming(self) -> tuple[int, int, bool] | None:
        """See Cpu."""
        control = self._control
        if not (self._returning or self._interrupted) or control.skip == EMPTY:
            return None
        return control.skip, control.skip_rsp, self._interrupted

    @property
    def behind(self) -> int:
        """See Cpu."""
        return self._control.last

    def go_on_behind(self, pc: int) -> None:
        """See Cpu."""
        self._control.last = pc

    def resume(self, place: tuple[int, int, bool]) -> None:
        """See Cpu."""
        self._control.skip, self._control.skip_rsp, self._interrupted = place
        self._returning = True

    def set_retired(self, count: int) -> None:
        """See Executor."""
        self._base, self._budget, self._control.remaining = count, 0, 0

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor. Besides, a run ends with REQUEST where an external interrupt was delivered, at the handler's
        first instruction, so that its controller can be told at an instant that does not depend on slices."""
        if budget < 1:
            raise ValueError(f"a budget of {budget} instructions: at least 1 is needed")
        if self._running:
            raise EngineError("run() was called inside a callback of a run")
        if self._go is None and self._events.any:
            return self._run_looking(budget, skip_breakpoint)
        return self._run(budget, skip_breakpoint)

    def _run_looking(self, budget: int, skip: bool) -> Exit:
        """The portable loop, where instructions are to be looked at before they are executed."""
        control, done = self._control, 0
        while True:
            pc = self.linear_pc
            passed = (skip and not self._interrupted) or (
                self._returning and control.skip == pc and control.skip_rsp == self._regs[RSP]
            )
            waits = self._halted or (control.interrupt and self.interruptible())
            if self._events.met(pc) and not waits and not passed and not self._loop.repeating():
                return Exit(BREAKPOINT, done)
            exit = self._run(1, skip)
            done += exit.executed
            skip = skip and not exit.executed
            if exit.reason is not BUDGET or done == budget:
                return Exit(exit.reason, done, exit.hit, exit.faults, exit.detail, exit.change, exit.task)

    def _run(self, budget: int, skip_breakpoint: bool) -> Exit:
        # what `retired` says between runs
        self._base, self._budget = self._base + self._budget - self._control.remaining, budget
        ended = NOT_BEGUN
        if self._go is not None and not self._special():
            self._running, self._live = True, 1
            try:
                ended = self._go(budget, skip_breakpoint, self._base + budget)
            finally:
                self._running, self._live = False, 0
            if ended == SPENT:
                return STEPPED if budget == 1 else Exit(BUDGET, budget)
            if ended == AT_BREAKPOINT:
                return Exit(BREAKPOINT, budget - self._control.remaining)
        return self._run_on(budget, skip_breakpoint, None if ended == NOT_BEGUN else ended >> CODE_SHIFT)

    def _run_on(self, budget: int, skip_breakpoint: bool, entered: int | None) -> Exit:
        """What `run` has to do where its end is not one of the plain ones; `entered` is what Unicorn returned if it has
        been entered."""
        control = self._control
        took_before = control.taken if entered is None else 0
        if entered is None:
            self._prepare(budget, skip_breakpoint)
            if control.changes:
                self._events.see()
        self._interrupted = False
        self._running, self._live = True, 1
        try:
            reason, detail = self._execute(entered)
        finally:
            self._running, self._live = False, 0
            control.halt_run = control.step = 0
            self._ov.cflags_next.value = ANY_LENGTH
        if self._callbacks.error is not None and (error := self._callbacks.take_error()) is not None:
            raise error
        if self._nmi and not self._ov.request.value & CPU_INTERRUPT_NMI:
            self._nmi = False  # delivered behind an IRET
        executed = budget - control.remaining
        hit = None if self._watch.hit is None else self._watch.take_hit()
        if control.skip != EMPTY and not executed and control.taken and not took_before:
            self._interrupted = self._returning = True
        elif control.skip == EMPTY or hit is not None or reason is BREAKPOINT:
            self._returning = False
        change = self._events.changed() if control.changes else Change.NONE
        if hit is not None:
            return Exit(ExitReason.WATCHPOINT, executed, hit=hit, change=change, task=self._events.task)
        if change and reason in _CHANGES:
            return Exit(ExitReason.EVENT, executed, change=change, task=self._events.task)
        if reason is BUDGET and control.stop:
            reason = REQUEST
        if reason is REQUEST:
            control.stop = 0
        if reason is BUDGET and executed == 1:
            return STEPPED
        faults = self._faults.chain() if reason is SHUTDOWN else ()
        return Exit(reason, executed, faults=faults, detail=detail)

    def _special(self) -> bool:
        """True when a run begins otherwise than behind an instruction like any other."""
        return (
            self._halted
            or self._shutdown
            or self._interrupted
            or self._returning
            or self._watch.stale
            or bool(self._control.changes)
            or (self._nmi and not self._env.hflags2 & HF2_NMI)
        )

    def _prepare(self, budget: int, skip_breakpoint: bool) -> None:
        """What stands in the control structure when a run begins."""
        control = self._control
        control.remaining = budget
        self._loop.begins(self._base + budget)
        if budget == 1:
            # A translation of one instruction: whatever follows is not translated again for each step into it.
            control.step = 1
            self._ov.cflags_next.value = 1
        # An interrupt may have come before the instruction to be resumed from. Then its skip waits for the handler's
        # return. Any other skip ends with its run: one never met must not let a later arrival pass.
        if skip_breakpoint and not self._interrupted:
            control.skip, control.skip_rsp = self.linear_pc, self._regs[RSP]
        elif not self._returning:
            control.skip = EMPTY

    def _execute(self, entered: int | None) -> tuple[ExitReason, str]:
        """Enter Unicorn until there is a reason to return; `entered`: see `_run_on`."""
        control, env, enter, watch = self._control, self._env, self._loop.enter, self._watch
        while True:
            if entered is None:
                if self._shutdown:
                    return SHUTDOWN, ""
                if control.stop:
                    return REQUEST, ""
                if self._halted:
                    if not (control.interrupt and self.interruptible()):
                        return HALT, ""
                    if not control.remaining:
                        return BUDGET, ""
                    self._halted = False
                if watch.stale:
                    watch.translate()
                control.reason = 0
                if self._nmi and not env.hflags2 & HF2_NMI:
                    # Delivered before the first instruction.
                    self._nmi, self._faults.nmi = False, (self.retired + self._live, self.linear_pc)
                entered = enter()
                control.suppress, self._faults.nmi = 0, None
            reason, code, entered = control.reason, entered, None
            if env.old_exception == DOUBLE_FAULT:
                self._shutdown = True
            elif code and code != STEP_DONE:
                return FAILURE, self._failure(code)
            elif reason == STOP_BUDGET:
                return BUDGET, ""
            elif reason == STOP_BREAKPOINT:
                if not self._loop.repeating():
                    return BREAKPOINT, ""
                control.skip, control.skip_rsp = self.linear_pc, self._regs[RSP]
            elif reason == STOP_CHANGED:
                watch.outdated()
            elif reason == STOP_EVENT:
                return ExitReason.EVENT, ""
            elif self._ov.halted.value:
                self._halted = True
                if control.halt_run:
                    return HALT, ""
            elif reason == STOP_ASKED:
                control.halt_run = 0
                if self._asked() or not watch.stale:
                    return REQUEST, "interrupt delivered" if control.taken else ""
            elif code == STEP_DONE:
                if not control.trap:
                    return BUDGET, ""
                # The step met a data breakpoint: the gate delivers it, and then finds the budget spent.
                control.step = 0
            else:
                return FAILURE, f"unicorn stopped without a reason at {self.linear_pc:#x}"

    def _asked(self) -> bool:
        """True when the stop is one to return for, not only to translate the watchpoints again."""
        return bool(self._control.stop or self._control.taken or self._callbacks.error or self._watch.hit)

    def _failure(self, code: int) -> str:
        at = f"at linear {self.linear_pc:#x}"
        if code in FETCH_ERRORS:
            masked = "" if self._env.a20_mask == -1 else ", with A20 masked (address bit 20 is 0)"
            return f"the instruction {at} cannot be fetched{masked}: no RAM or ROM is there"
        return f"unicorn cannot go on {at}: {self._call.strerror(code).decode()}"

    def request_stop(self) -> None:
        """See Executor. A request made while nothing runs ends the next run before its first instruction."""
        self._control.stop = 1

    # -- state

    def state(self) -> CpuState:
        """See Executor."""
        state = read_state(self._ov, halted=self._halted, seldom=self._seldom)
        state.smm, state.smm_nmi, state.smbase = self._smm, self._smm_nmi, self._smbase
        self._system.fill(state)
        return state

    def live(self) -> CpuState:
        """See Executor."""
        return cast(CpuState, self._live_state)

    def load(self, state: CpuState) -> None:
        """See Executor."""
        write_state(self._ov, state, self._seldom)
        self._system.loaded(state)
        self._nmi = state.nmi_pending
        wakes = state.nmi_pending and not state.nmi_blocked
        self._halted, self._shutdown = state.halted and not wakes, False
        self._smm, self._smm_nmi, self._smbase = state.smm, state.smm_nmi, state.smbase
        self._control.last = self._control.skip = EMPTY
        self._control.trap = 0
        self._interrupted = self._returning = False
        self._faults.forget()
        self._loop.forget()
        self._watch.translate()

    # -- state, packed

    def packing(self) -> Packing | None:
        """See Executor. The portable loop has no helper that would do it."""
        if self._packer is None:
            if not isinstance(self._loop, FastLoop):
                return None
            self._packer = Packer(self._loop, self._system.hidden)
            self.packed: Packed = self._packer.packed
            self._packer.number(self._memory.numbers())
        return self

    def pack(self) -> bool:
        """See emu.packed.Packing."""
        packer = self._packer
        if packer is None or self._nmi or self._smm or self._returning or self._interrupted or self._shutdown:
            return False
        self._system.hidden.halted = self._halted
        return packer.pack() != 0

    def unpack(self, parts: int) -> None:
        """See emu.packed.Packing."""
        packer = self._packer
        assert packer is not None, "what is unpacked has been packed"
        packer.unpack(parts)
        self._halted = bool(self.packed.halted)
        self._nmi = self._shutdown = self._interrupted = self._returning = False
        if parts & PART_TSC:
            self._system.take_tsc_adjust(self.packed.tsc_adjust)
        self._faults.forget()
        if parts & PART_DEBUG or self._watch.placed:
            self._watch.translate()

    def host_changed(self, pieces: int, count: int) -> None:
        """See emu.packed.Packing."""
        assert self._packer is not None, "somebody else has run from what was packed"
        self._packer.host_changed(pieces, count)

    # -- interrupts

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Executor. TPR does not block it: an 8259 reaches the CPU past the local APIC (SDM vol. 3A, 11.8.3)."""
        control = self._control
        control.masked = 0
        if vector is None:
            control.interrupt = 0
        else:
            control.vector, control.last_for_now = vector, last
            control.interrupt = 1

    def take_interrupt(self) -> int | None:
        """See Executor."""
        if not self._control.taken:
            return None
        self._control.taken = 0
        # With the gate no instruction has begun since.
        self.interrupt_taken_at = self._control.taken_at if self._go is not None else self.retired + self._live
        return self._control.taken_vector

    def interruptible(self) -> bool:
        """See Executor."""
        return bool(self._env.eflags & RFLAGS_IF and not self._env.hflags & HF_INHIBIT_IRQ)

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Executor."""
        self._system.tell_task_priority = callback

    def set_task_priority(self, value: int) -> None:
        """See Executor."""
        self._env.v_tpr = value & 0xF

    def raise_nmi(self) -> None:
        """See Executor."""
        self._ov.request.value |= CPU_INTERRUPT_NMI
        self._nmi = True
        if not self._env.hflags2 & HF2_NMI:
            self._halted = False
        self._control.stop = 1

    def on_rsm(self, callback: Callable[[], None] | None) -> None:
        """See Executor."""
        self._tell_rsm = callback

    def _resume(self) -> bool:
        """An instruction is undefined: is it RSM, in system management mode?"""
        if not self._smm:
            return False
        env = self._env
        code = self._read_linear(self.linear_pc, LONGEST)
        at = 0
        while at < len(code) and (code[at] in PREFIXES or (env.hflags & HF_CS64 and code[at] in REX)):
            at += 1
        if code[at : at + 2] != RSM:
            return False
        env.old_exception, env.error_code = NO_EXCEPTION, 0
        self._control.stop = 1
        if self._tell_rsm is not None:
            self._tell_rsm()
        return True

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Executor."""
        mask = -1 if enabled else ~(1 << 20)
        if self._env.a20_mask == mask:
            return
        self._env.a20_mask = mask
        self._call.tlb_flush(self._ov.cpu)
        if self._running:
            self._control.leave = 1
        if self._watch.active:
            self._watch.outdated()
            self._control.halt_run = 1

    def memory_changed(self, physical: int, length: int) -> None:
        """See Executor. Of an engine that was closed nothing is left to be changed."""
        if not self._end.alive:
            return
        self._loop.memory_changed(self._memory.ranges(physical, length), running=self._running)
        if self._running:
            self._control.leave = 1

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Executor."""
        if self._running:
            raise EngineError("remap() was called inside a callback of a run")
        # For each page that it takes out or puts in Unicorn translates the same linear address, as the CPU would: with
        # paging that sets accessed bits, or faults, which counts as a fault of the guest that is being delivered.
        env, cr0 = self._env, self._env.cr[0]
        env.cr[0] = cr0 & ~CR0_PG
        try:
            enough = self._memory.remap(regions, self._drop)
        finally:
            env.cr[0] = cr0
        if self._marking is not None:
            self._loop.mark_writes(*self._marking, self._memory.places())
        if self._packer is not None:
            self._packer.number(self._memory.numbers())
        if self._display is not None and isinstance(self._loop, FastLoop):
            self._loop.serve_display(self._memory, self._display)
        self._call.tlb_flush(self._ov.cpu)
        self._events.remapped()
        if not enough or not isinstance(self._loop, FastLoop):
            self._loop.flush()  # blocks of the gate may cross into what was taken out
        if self._watch.active:
            self._watch.outdated()

    def _drop(self, ranges: list[tuple[int, int]]) -> None:
        self._loop.memory_changed(ranges, running=False)

    def display_changed(self) -> None:
        """See Executor."""
        self._call.tlb_flush(self._ov.cpu)

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._marking = host_address, pages, marks
        self._memory.mark_writes(host_address, pages, marks)
        return self._loop.mark_writes(host_address, pages, marks, self._memory.places())

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._memory.trace_writes(marks)
        return self._loop.trace_writes(marks)

    # -- ports

    def hold_input(self, port: int, value: int, until: int | None, *, answered: bool = True) -> None:
        """See Executor."""
        self._loop.hold(port, value, ALWAYS if until is None else self._base + self._budget - 1 - until, answered)

    def note_answers(self) -> None:
        """See Executor."""
        self._loop.note_answers()

    def take_answered(self) -> tuple[int, int]:
        """See Executor."""
        return self._loop.take_answered()

    def serve_ports(self, address: int | None) -> None:
        """See Executor."""
        self._loop.serve_ports(address)

    def stream_input(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int = 1) -> None:
        """See Executor."""
        self._loop.stream(port, data, taken, sizes)

    def stream_output(self, port: int, room: int, written: Callable[[bytes], None], sizes: int = 1) -> None:
        """See Executor."""
        self._loop.collect(port, room, written, sizes)

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Executor."""
        if self._table.replace(linear):
            self._loop.breakpoints_changed()
        self._interrupted = self._returning = False

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Executor."""
        if self._events.replace(classes, physical, changes):
            self._loop.flush()
        self._interrupted = self._returning = False

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Executor."""
        self._watch.replace(tuple(watches))

    def time_stamp(self) -> int:
        """See Executor."""
        return self._system.tsc()

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Executor."""
        self._system.tell_time_stamp = callback

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Executor."""
        self._system.claim(number, device)

    def msr_names(self) -> Mapping[str, int]:
        """See Executor."""
        return self._system.msr_names()

    def read_msr(self, number: int) -> int | None:
        """See Executor."""
        return self._system.read_msr(number)

    def write_msr(self, number: int, value: int) -> bool:
        """See Executor."""
        self._loop.forget()
        return self._system.write_msr(number, value)

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Executor."""
        self._faults.tell = callback

    def close(self) -> None:
        """See Executor. The engine must not be used afterwards."""
        if isinstance(HELPER, Helper):
            self._forget_transfers()
        self._loop.close()
        self._end()
