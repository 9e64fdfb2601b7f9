"""The runs of an engine: what one begins with, what it ends by, and where it stands between two.

A run that is plain from its beginning to its end is one call of the C helper; all others, and the portable loop's, go
through `_run_on`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64

from emu.engine import Change, EngineError, Exit, ExitReason
from emu.typed import Final
from emu.unicorn_callbacks import MASK32
from emu.unicorn_control import (
    EMPTY,
    STEP_DONE,
    STOP_ASKED,
    STOP_AT,
    STOP_BREAKPOINT,
    STOP_BUDGET,
    STOP_CHANGED,
    STOP_EVENT,
)
from emu.unicorn_fast import AT_BREAKPOINT, CODE_SHIFT, NOT_BEGUN, SPENT, FastLoop
from emu.unicorn_faults import A20_MASKED, NOWHERE
from emu.unicorn_layout import ANY_LENGTH, CPU_INTERRUPT_NMI, DOUBLE_FAULT, HF2_NMI, HF_CS64, HF_INHIBIT_IRQ
from emu.unicorn_library import ERR_FETCH_PROT, ERR_FETCH_UNMAPPED
from emu.unicorn_parts import Parts
from emu.x86.msrs import canonical
from emu.x86.state import RFLAGS_IF

RSP: Final = 4
#: of Unicorn within one run, between which nothing retires: one or two are for breakpoints and watchpoints that moved.
ENTRIES: Final = 1000
FEW: Final = (1 << 31) - 1  #: an `int` of C
#: Looked up once: an enumeration's members cost several times a global name.
BUDGET, REQUEST, HALT = ExitReason.BUDGET, ExitReason.REQUEST, ExitReason.HALT
SHUTDOWN, BREAKPOINT, FAILURE = ExitReason.SHUTDOWN, ExitReason.BREAKPOINT, ExitReason.FAILURE
#: Ends of a run that a change of mode or task comes before.
_CHANGES: Final = frozenset((BUDGET, REQUEST, ExitReason.EVENT))
#: How most steps end.
STEPPED: Final = Exit(BUDGET, 1)
FETCH_ERRORS: Final = frozenset((ERR_FETCH_UNMAPPED, ERR_FETCH_PROT))


class Running(Parts):
    """An engine that runs, from whatever state its CPU has."""

    passes_edges: bool

    @property
    def retired(self) -> int:
        """See Executor."""
        return self._run_end[0] - self._control.remaining - self._live

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
        self._returning = self.odd = True

    def set_retired(self, count: int) -> None:
        """See Executor."""
        self._run_end[0], self._control.remaining = count, 0

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor. Besides, a run ends with REQUEST where an external interrupt was delivered, at the handler's
        first instruction, so that its controller can be told at an instant that does not depend on slices."""
        fast = self._fast
        if fast is None or self.odd or self._live or budget < 1:
            return self._run_oddly(budget, skip_breakpoint)
        self._live = 1
        try:
            if budget <= FEW:
                ended = fast.go_few(fast.engine, budget, skip_breakpoint)
            else:
                ended = fast.go(fast.engine, c_int64(budget), skip_breakpoint)
        finally:
            self._live = 0
        return self._helper_ended(fast, ended, budget, skip_breakpoint)

    def _helper_ended(self, fast: FastLoop, ended: int, budget: int, skip_breakpoint: bool) -> Exit:
        """The end of a run that the helper has made or begun, in its words."""
        if fast.unsettled:
            fast.settle()
        if ended == SPENT:
            return STEPPED if budget == 1 else Exit(BUDGET, budget)
        if ended == AT_BREAKPOINT:
            return self._stopped[budget - self._control.remaining]
        if ended == NOT_BEGUN:
            return self._run_from_here(budget, skip_breakpoint)
        return self._run_on(budget, skip_breakpoint, ended >> CODE_SHIFT)

    def _run_oddly(self, budget: int, skip_breakpoint: bool) -> Exit:
        """A run that may begin otherwise than behind an instruction like any other, or may not begin at all."""
        if budget < 1:
            raise ValueError(f"a budget of {budget} instructions: at least 1 is needed")
        if self._live:
            raise EngineError("run() was called inside a callback of a run")
        if self._closed:
            raise EngineError("the CPU has been closed")
        if self._fast is None:
            if self._events.any:
                return self._run_looking(budget, skip_breakpoint)
        elif not self._special():
            self._pack_halted()
            self.odd = False
            try:
                return Running.run(self, budget, skip_breakpoint=skip_breakpoint)
            finally:
                self.odd = self.odd or self._nmi  # an NMI that is blocked may become deliverable in any run
        return self._run_from_here(budget, skip_breakpoint)

    def _run_looking(self, budget: int, skip: bool) -> Exit:
        """The portable loop, where instructions are to be looked at before they are executed."""
        control, events, done = self._control, self._events, 0
        while True:
            pc = self.linear_pc
            if events.met(pc):
                passed = (skip and not self._interrupted) or (
                    self._returning and control.skip == pc and control.skip_rsp == self._regs[RSP]
                )
                waits = self._halted or (control.interrupt and self.interruptible())
                if not waits and not passed and not self._loop.repeating():
                    return Exit(BREAKPOINT, done)
            exit = self._run_from_here(1, skip)
            done += exit.executed
            skip = skip and not exit.executed
            if exit.reason is not BUDGET or done == budget:
                return Exit(exit.reason, done, exit.hit, exit.faults, exit.detail, exit.change, exit.task)

    def _run_from_here(self, budget: int, skip_breakpoint: bool) -> Exit:
        self._run_end[0] += budget - self._control.remaining
        return self._run_on(budget, skip_breakpoint, None)

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
        self._live = 1
        try:
            reason, detail = self._execute(entered)
        finally:
            self._live, self.odd = 0, True
            control.halt_run = control.step = 0
            self._ov.cflags_next.value, self._faults.alone = ANY_LENGTH, None
        if self._callbacks.error is not None and (error := self._callbacks.take_error()) is not None:
            raise error
        if self._nmi and not self._ov.request.value & CPU_INTERRUPT_NMI:
            self._nmi = False  # delivered behind an IRET
        executed = budget - control.remaining
        hit = self._watch.take_hit() if self._watch.hit else None
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

    def _pack_halted(self) -> None:
        """Have what is packed know of HLT; while the CPU is not `odd` it does."""
        if self._halted is not self._packs_halted:
            self._packs_halted = self._halted
            self._system.hidden.halted = self._halted

    def _prepare(self, budget: int, skip_breakpoint: bool) -> None:
        """What stands in the control structure when a run begins."""
        control = self._control
        control.remaining = budget
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
        left, again = control.remaining, 0
        begun = left
        while True:
            if entered is None:
                if control.remaining != left:
                    left, again = control.remaining, 0
                elif (again := again + 1) > ENTRIES:
                    return FAILURE, f"entered {ENTRIES} times, it has not executed the instruction {self._at()}"
                if self._shutdown:
                    return SHUTDOWN, ""
                if control.stop:
                    return REQUEST, ""
                if self._halted:
                    if not (control.interrupt and self.interruptible()):
                        return HALT, ""
                    if not control.remaining:
                        return BUDGET, ""
                    if self.passes_edges and control.remaining != begun:
                        return HALT, ""  # an edge of OUT at this very instant may take the request back
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
            elif env.hflags & HF_CS64 and (reason == STOP_BUDGET or code == STEP_DONE) and self._branched_beyond():
                # The fault is the branch's, which has been executed: it is delivered now, and then the budget is spent.
                control.step = control.reason = 0
                self._ov.cflags_next.value, self._faults.alone = ANY_LENGTH, None
                entered = enter()
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
                if not control.trap and not control.remaining:
                    return BUDGET, ""
                # The step met a data breakpoint: the gate delivers it, and then finds the budget spent. Or a breakpoint
                # of the guest's own is on its instruction, and the #DB is delivered before that.
                control.step = 0
            else:
                return FAILURE, f"unicorn stopped without a reason at {self.linear_pc:#x}"

    def _branched_beyond(self) -> bool:
        """True behind a near branch of 64-bit code to an address that is not canonical."""
        return not canonical(self._env.eip) and self._faults.branched()

    def _asked(self) -> bool:
        """True when the stop is one to return for, not only to translate the watchpoints again."""
        return bool(self._control.stop or self._control.taken or self._callbacks.error or self._watch.hit)

    def _at(self) -> str:
        return f"at linear {self.linear_pc:#x}"

    def _failure(self, code: int) -> str:
        at = self._at()
        if code in FETCH_ERRORS:
            masked = "" if self._env.a20_mask == -1 else f", {A20_MASKED}"
            return f"the instruction {at} cannot be fetched{masked}: {NOWHERE}"
        return f"unicorn cannot go on {at}: {self._call.strerror(code).decode()}"

    def request_stop(self) -> None:
        """See Executor. A request made while nothing runs ends the next run before its first instruction."""
        self._control.stop = 1

    @property
    def stop_flag(self) -> int | None:
        """See Executor."""
        return ctypes.addressof(self._control) + STOP_AT

    def interruptible(self) -> bool:
        """See Executor."""
        return bool(self._env.eflags & RFLAGS_IF and not self._env.hflags & HF_INHIBIT_IRQ)
