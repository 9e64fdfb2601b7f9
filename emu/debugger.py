"""The inspection and control API over a machine: registers, memory, views, breakpoints, steps, stop reasons.

Every method runs on the thread that owns the machine; `emu.worker` lets other threads in. Breakpoints belong here, so
that all front ends see one session.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final

from emu.breakpoints import Counted
from emu.catcher import Catcher
from emu.catches import Catch, CatchKind
from emu.engine import Access, Watch
from emu.inspector import MAX_INSTRUCTION, DebuggerError, Inspector
from emu.journal import Event
from emu.machine import LIMIT, Machine, MachineError, MachineExit, MachineState, MachineStop
from emu.record import dataclass, replace
from emu.steering import Steering
from emu.stops import BreakKind, Breakpoint, Condition, Stop, StopKind, fault_chain
from emu.until import SCREEN_IDLE_PERIODS, SCREEN_PERIOD_NS, TAIL, Until
from emu.views import EntryView, FingerprintView, RegisterView, SegmentView
from emu.x86 import disasm
from emu.x86.modes import code_bits
from emu.x86.state import CpuState
from emu.x86.vmentry import Rules

__all__ = ["BreakKind", "Breakpoint", "Debugger", "DebuggerError", "Stop", "StopKind"]

UNBOUNDED = 1 << 62
_NO_LIMITS: Final = (UNBOUNDED,)
PLAIN_STEPS = 256  #: steps between two looks at whether somebody waits
MAX_WATCH = 1 << 20  #: bytes; each page of a watched range is translated and followed
_WATCH_ACCESS = {BreakKind.WRITE: Access.WRITE, BreakKind.READ: Access.READ, BreakKind.ACCESS: Access.BOTH}


#: Exits behind which events are told of; the others are the guest's end.
_CATCHING = (MachineStop.LIMIT, MachineStop.REQUEST, MachineStop.BREAKPOINT, MachineStop.WATCHPOINT, MachineStop.EVENT)
#: Exits after which the screen will not change any more: `text:` is matched once again.
_LAST_LOOK = (MachineStop.DEADLOCK, MachineStop.SHUTDOWN, MachineStop.POWEROFF)


@dataclass(frozen=True, slots=True)
class _Request:
    """What an action asks of the machine: `budget` more instructions, stopping also at the linear addresses `at`."""

    budget: int = UNBOUNDED
    at: frozenset[int] = frozenset()
    skip: bool = False


#: Until something stops it; the same from where a breakpoint was met that did not.
_GO, _GO_ON = _Request(), _Request(skip=True)
_Action = Generator[_Request, MachineExit, Stop]
_Part = Generator[_Request, MachineExit, "Stop | None"]


class Debugger(Inspector):
    """One debugging session on one machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.machine = machine
        self.step_whole_repeats = False  #: True: a step takes a repeated string instruction as a whole
        self.step_into_interrupts = False  #: True: a step that meets an interrupt stops in its handler
        self.poll: Callable[[], bool] = lambda: False  #: True when `pump` should return early
        self._breakpoints: dict[int, Breakpoint] = {}
        self._next_id = 1
        self._action: _Action | None = None
        self._request: _Request | None = None
        self._target = 0
        self._limit: int | None = None
        self._until: Until | None = None
        self._until_met = False
        self._looked_at = -1  # instructions retired when the screen was last looked at
        self._armed: frozenset[int] = frozenset()
        self._passed_at = -1  # instructions retired at the breakpoint passed last
        self._met: Stop | None = None  #: that of the breakpoints `_passed` has looked at last
        self._points: frozenset[int] | None = None  # of `_execute_points`, while nothing changes them
        self._plain = 0  # steps that an action may do by itself before it asks for the next
        self._watch_ids: dict[Watch, list[int]] = {}
        self.steering = Steering(machine)
        self._catcher = Catcher(machine, lambda: self.running, self.try_glance, self.place)
        self._screen_timer = machine.clock.timer("host.screen", self._look_at_screen, host=True)
        self._screen_timer.wakes = False
        self.last_stop = self._stop_at(StopKind.PAUSED, "not started")

    def live_cpu(self) -> CpuState:
        """See Inspector."""
        return self.machine.executor.live()

    # -- what every session can be asked, also one without a machine (emu.onlooker)

    @property
    def retired(self) -> int | None:
        """Instructions retired since reset; None where nobody counts."""
        return self.machine.executor.retired

    @property
    def virtual_ns(self) -> int | None:
        """Virtual time; None where there is none."""
        return self.machine.clock.now

    def events(self) -> tuple[Event, ...]:
        """The journal, oldest first."""
        return tuple(self.machine.journal)

    def msr_names(self) -> Mapping[str, int]:
        """The numbers of the model-specific registers that can be asked for, by their names in lower case."""
        return self.machine.executor.msr_names()

    def request_stop(self) -> None:
        """From any thread: a running guest stops before its next instruction."""
        self.machine.request_stop()

    def fingerprint(self) -> FingerprintView:
        return self.machine.fingerprint()

    # -- breakpoints

    def breakpoint_list(self) -> tuple[Breakpoint, ...]:
        return tuple(self._breakpoints.values())

    def add_breakpoint(
        self,
        kind: BreakKind,
        address: int,
        length: int = 1,
        *,
        owner: str = "prompt",
        temporary: bool = False,
        spec: str = "",
        condition: Condition | None = None,
        action: Callable[[], None] | None = None,
    ) -> Breakpoint:
        """At linear `address`. With `action` it never stops: that is done at each hit.

        Raises DebuggerError for an address over 64 bits or a length that is not positive."""
        if not 0 <= address < 1 << 64:
            raise DebuggerError(f"address {address:#x} does not fit in 64 bits")
        if not 1 <= length <= MAX_WATCH:
            raise DebuggerError(f"a length of {length} bytes cannot be watched: use 1 to {MAX_WATCH}")
        point = Breakpoint(self._next_id, kind, address, length, True, temporary, owner, spec or f"{address:#x}")
        point.condition, point.action = condition, action
        self._next_id += 1
        self._breakpoints[point.id] = point
        self._arm_watches()
        return point

    def add_catch(
        self,
        catch: Catch,
        *,
        owner: str = "prompt",
        temporary: bool = False,
        condition: Condition | None = None,
        action: Callable[[], None] | None = None,
    ) -> Breakpoint:
        """Stop at an event. Raises DebuggerError where it can never come."""
        if catch.kind is CatchKind.COUNT and (catch.first or 0) <= self.machine.executor.retired:
            raise DebuggerError(f"{self.machine.executor.retired} instructions have retired already")
        point = Breakpoint(self._next_id, BreakKind.CATCH, 0, 1, True, temporary, owner, catch.text)
        point.catch, point.condition, point.action = catch, condition, action
        self._next_id += 1
        self._breakpoints[point.id] = point
        self._arm_watches()
        return point

    def _point(self, id: int) -> Breakpoint:
        point = self._breakpoints.get(id)
        if point is None:
            raise DebuggerError(f"there is no breakpoint {id}")
        return point

    def remove_breakpoint(self, id: int) -> None:
        self._point(id)
        del self._breakpoints[id]
        self._arm_watches()

    def enable_breakpoint(self, id: int, enabled: bool) -> None:
        self._point(id).enabled = enabled
        self._arm_watches()

    def set_condition(self, id: int, condition: Condition | None, action: Callable[[], None] | None = None) -> None:
        """What the breakpoint depends on, and what it does instead of stopping."""
        point = self._point(id)
        point.condition, point.action = condition, action

    def remove_owned(self, owner: str) -> None:
        """Remove all that front end `owner` has set."""
        self._breakpoints = {i: p for i, p in self._breakpoints.items() if p.owner != owner}
        self._arm_watches()

    def _arm_watches(self) -> None:
        self._points = None
        watches: dict[Watch, list[int]] = {}
        self._catcher.arm(self._breakpoints.values())
        self._hear()
        for watch, point in self._catcher.watches():
            watches.setdefault(watch, []).append(point.id)
        for point in self._breakpoints.values():
            if point.enabled and point.kind in _WATCH_ACCESS:
                watch = Watch(point.address, point.length, _WATCH_ACCESS[point.kind])
                watches.setdefault(watch, []).append(point.id)
        if watches != self._watch_ids:
            self._watch_ids = watches
            self.machine.executor.set_watchpoints(tuple(watches))

    def _execute_points(self) -> frozenset[int]:
        if self._points is None:
            points = {p.address for p in self._breakpoints.values() if p.enabled and p.kind is BreakKind.EXECUTE}
            if self._until is not None and self._until.kind == "pc":
                points.add(self._until.value)
            self._points = frozenset(points)
        return self._points

    def _arm(self, extra: frozenset[int]) -> None:
        wanted = self._execute_points()
        if extra:
            wanted |= extra
        if wanted != self._armed:
            self._armed = wanted
            self.machine.executor.set_breakpoints(wanted)

    # -- control

    @property
    def running(self) -> bool:
        return self._action is not None

    def set_limit(self, retired: int | None) -> None:
        """End any run with LIMIT when `retired` instructions have retired since reset."""
        self._limit = retired

    def set_until(self, condition: Until | None) -> None:
        """End any run with EVENT when `condition` holds."""
        self._until, self._until_met, self._looked_at, self._points = condition, False, -1, None
        self._screen_timer.cancel()
        self._hear()

    def _hear(self) -> None:
        """Have text that somebody waits for told, and the screen looked at."""
        until = self._until.kind if self._until is not None else ""
        reads = until in ("serial", "debugcon") or self._catcher.reads_text
        self.machine.outputs.on_text = self._text_sent if reads else None
        if (until == "text" or self._catcher.looks_at_screen) and self._screen_timer.deadline is None:
            self._screen_timer.arm(self.machine.clock.now)

    def _text_sent(self, name: str) -> None:
        self._catcher.text_sent(name)
        until = self._until
        if until is None or until.kind != name or until.pattern is None or self._until_met:
            return
        if until.pattern.search(self.machine.outputs.text(name, TAIL)):
            self._until_met = True
            self.machine.request_stop()

    def _until_spec(self) -> str:
        return self._until.spec if self._until is not None else ""

    def _screen_matches(self) -> bool:
        until = self._until
        if until is None or until.pattern is None or until.kind != "text":
            return False
        return until.pattern.search(self.machine.screen().text) is not None

    def _look_at_screen(self, deadline: int) -> None:
        # An idle CPU changes no screen: while it sleeps there is little to look at, and looking costs.
        executed, self._looked_at = self.machine.executor.retired != self._looked_at, self.machine.executor.retired
        if not executed:
            self._screen_timer.arm(deadline + SCREEN_IDLE_PERIODS * SCREEN_PERIOD_NS)
        elif self._screen_matches():
            self._until_met = True
            self.machine.request_stop()
        else:
            self._catcher.look_at_screen()
            if self._catcher.looks_at_screen or (self._until is not None and self._until.kind == "text"):
                self._screen_timer.arm(deadline + SCREEN_PERIOD_NS)

    def begin_continue(self) -> None:
        self._begin(self._continue())

    def begin_step(self, count: int = 1) -> None:
        self._begin(self._step(count))

    def begin_over(self) -> None:
        """One instruction, but a CALL, INT, LOOP or repeated string instruction as a whole."""
        self._begin(self._over())

    def begin_range(self, start: int, end: int) -> None:
        """Step while the linear PC is in [start, end), at least once."""
        self._begin(self._range(start, end))

    def begin_until(self, address: int) -> None:
        """Run to linear `address`, or to a breakpoint."""
        self._begin(self._to(address))

    def _begin(self, action: _Action) -> None:
        if self._action is not None:
            action.close()
            raise DebuggerError("the guest is running: stop it first")
        self._action = action
        self._request = None
        self._passed_at = -1
        if self._catcher.armed:
            self._catcher.begin()

    def pump(self, instructions: int = UNBOUNDED) -> Stop | None:
        """Run a piece of the action, at most `instructions`; the Stop when it ends, else None."""
        action = self._action
        if action is None:
            raise DebuggerError("the guest is not running")
        executor = self.machine.executor
        left = instructions
        try:
            if self._request is None:
                self.forget()
                before = executor.retired
                self._plain = self._plain_steps(left)
                self._ask(next(action))
                left -= executor.retired - before
            while left > 0:
                exit = self._run_piece(left)
                if exit is None:
                    if self.poll():
                        return None
                    left = 0
                    continue
                before = executor.retired
                self._plain = self._plain_steps(left)
                self._ask(action.send(exit))
                left -= max(1, executor.retired - before)
                if self.poll():
                    return None
        except StopIteration as end:
            return self._finish(end.value)
        return None

    def _plain_steps(self, left: int) -> int:
        """How many steps an action may do by itself, so that a limit is kept and whoever waits gets in."""
        if (limits := self._limits()) is not _NO_LIMITS:
            left = min(left, min(limits) - self.machine.executor.retired)
        return min(left, PLAIN_STEPS)

    def _ask(self, request: _Request) -> None:
        self._request = request
        self._target = self.machine.executor.retired + request.budget

    def _run_piece(self, instructions: int) -> MachineExit | None:
        """Advance the current request; its exit, or None when there is more to run (or somebody waits)."""
        request = self._request
        assert request is not None
        executor = self.machine.executor
        self._arm(request.at)
        bound = min(self._target, executor.retired + instructions)
        if (limits := self._limits()) is not _NO_LIMITS:
            bound = min(bound, *limits)
        self.forget()
        start = executor.retired
        passed = self._passed if not request.at else None
        skip = request.skip or self._passed_at == start  # a piece may end right behind a breakpoint that was passed
        exit = self.machine.run(bound, skip_breakpoint=skip, passed=passed)
        if request.skip and executor.retired != start:
            self._request = _Request(request.budget, request.at)
        if exit.reason is MachineStop.LIMIT and executor.retired < self._target and not self._bounded():
            return None
        if exit.reason is MachineStop.REQUEST and not self._until_met and not self._catcher.pending:
            return None
        return exit

    def _bounded(self) -> bool:
        """True when the limit, an `insns:` event or a count has been reached."""
        if (limits := self._limits()) is _NO_LIMITS:
            return False
        retired = self.machine.executor.retired
        return self._catcher.counted or any(retired >= limit for limit in limits)

    def _limits(self) -> Sequence[int]:
        """Where a run has to end, in instructions retired; at least one."""
        if self._limit is None and self._until is None and not self._catcher.armed:
            return _NO_LIMITS
        found = [UNBOUNDED if self._limit is None else self._limit, *self._catcher.counts()]
        if self._until is not None and self._until.kind == "insns":
            found.append(self._until.value)
        return found

    def run(self) -> Stop:
        """Pump the action to its end, on this thread."""
        while True:
            stop = self.pump()
            if stop is not None:
                return stop

    def stop(self) -> Stop:
        """End the running action: INTERRUPTED."""
        return self._finish(self._stop_at(StopKind.INTERRUPTED, "interrupted"))

    def fail(self, text: str) -> Stop:
        """End the running action: FAILURE, with `text`."""
        return self._finish(self._stop_at(StopKind.FAILURE, text))

    def _finish(self, stop: Stop) -> Stop:
        if self._action is not None:
            self._action.close()
        self._action = self._request = None
        self.forget()
        for id in stop.breakpoints:
            if (point := self._breakpoints.get(id)) is not None and point.temporary:
                self.remove_breakpoint(id)
        if self._until_met or stop.kind is StopKind.EVENT:
            self.set_until(None)
        self.last_stop = stop
        self.machine.journal.add(stop.retired, "stop", stop.text)
        return stop

    # -- actions

    def _here(self) -> tuple[int, int]:
        """Linear PC and linear stack pointer: where a handler must come back to."""
        state = self.machine.cpu_state()
        return state.linear_pc, (state.regs[4] if state.long64 else (state.ss.base + state.regs[4]) & 0xFFFFFFFF)

    def _pass_interrupts(self) -> _Part:
        """Let interrupts that come before the next instruction run through their handlers."""
        machine = self.machine
        machine.service()
        while machine.interrupt_due or machine.executor.halted:
            if self.step_into_interrupts:
                return None
            here = self._here()
            while True:
                exit = yield _Request(at=frozenset((here[0],)))
                if exit.reason is not MachineStop.BREAKPOINT or exit.exit is None:
                    return self._classify(exit) or self._limit_stop()
                if self._here() == here:
                    break
                stop = self._classify(exit)
                if stop is not None:
                    return stop
                exit = yield _Request(1, skip=True)  # the address was met on another stack: go on
                if (stop := self._classify(exit)) is not None:
                    return stop
            machine.service()
        return None

    def _one(self) -> _Part:
        """One instruction; a Stop when something else came first."""
        if self._plain > 0 and (exit := self.machine.step()) is not None:
            self._plain -= 1
            return self._classify(exit)
        stop = yield from self._pass_interrupts()
        if stop is not None:
            return stop
        exit = yield _Request(1, skip=True)
        return self._classify(exit)

    def _continue(self) -> _Action:
        met = True  # what stands at the first instruction has been met, or the guest was not to stop there
        while True:
            exit = yield _GO_ON if met else _GO
            stop = self._classify(exit)
            if stop is not None:
                return stop
            met = exit.reason is MachineStop.BREAKPOINT

    def _whole(self) -> _Part:
        """One instruction, a repeated string instruction with all its iterations."""
        pc, sp = self._here()
        raw, bits = self._try_code(pc), code_bits(self.machine.cpu_state())
        stop = yield from self._one()
        if not disasm.is_rep_string(raw, bits):
            return stop
        after = pc + disasm.length(raw, bits)
        while stop is None and self._here() == (pc, sp):
            # Interrupts come between two iterations, and their handlers may use the instruction too.
            exit = yield _Request(at=frozenset((after,)), skip=True)
            if exit.reason is MachineStop.BREAKPOINT and self._here() == (after, sp):
                return None
            stop = self._classify(exit)
            while stop is None and self._here()[1] != sp:
                exit = yield _Request(at=frozenset((after, pc)), skip=self._here()[0] in (after, pc))
                stop = None if exit.reason is MachineStop.BREAKPOINT and self._here()[1] == sp else self._classify(exit)
        return stop

    def _step(self, count: int) -> _Action:
        one = self._whole if self.step_whole_repeats else self._one
        for done in range(count):
            stop = yield from one()
            if stop is None and done < count - 1:
                stop = self._breakpoint_here()
            if stop is not None:
                return stop
        return self._stop_at(StopKind.STEP, "step")

    def _over(self) -> _Action:
        state = self.machine.cpu_state()
        raw = self._try_code(state.linear_pc)
        bits = code_bits(state)
        if not disasm.is_call_like(raw, bits):
            stop = yield from self._one()
            return stop or self._stop_at(StopKind.STEP, "step")
        pc, sp = self._here()
        after = pc + disasm.length(raw, bits)
        # Deeper calls of a recursion come by with a lower stack pointer. INT 25h and 26h leave the flags behind.
        lowest = sp - bits // 8 if disasm.is_interrupt(raw, bits) else sp
        stop = yield from self._one()
        if stop is None and self._here()[0] == after:
            return self._stop_at(StopKind.STEP, "step")  # done, or a CALL of the next instruction to learn its address
        while stop is None:
            exit = yield _Request(at=frozenset((after,)), skip=self._here()[0] == after)
            if exit.reason is MachineStop.BREAKPOINT and self._here()[0] == after and self._here()[1] >= lowest:
                return self._breakpoint_here() or self._stop_at(StopKind.STEP, "step")
            stop = self._classify(exit)
        return stop

    def _range(self, start: int, end: int) -> _Action:
        one = self._whole if self.step_whole_repeats else self._one
        while True:
            stop = yield from one()
            if stop is None and not start <= self.machine.executor.linear_pc < end:
                stop = self._stop_at(StopKind.STEP, "step")
            stop = stop or self._breakpoint_here()
            if stop is not None:
                return stop

    def _to(self, address: int) -> _Action:
        stop = yield from self._one()
        while stop is None and self.machine.executor.linear_pc != address:
            exit = yield _Request(at=frozenset((address,)))
            stop = self._classify(exit)
        return stop or self._stop_at(StopKind.STEP, f"reached {address:#x}")

    def _try_code(self, linear: int) -> bytes:
        return self.read_linear(linear, self.readable(linear, MAX_INSTRUCTION))

    # -- stop reasons

    def _stop_at(self, kind: StopKind, text: str, **more: object) -> Stop:
        executor = self.machine.executor
        return Stop(kind, text, executor.linear_pc, executor.retired, **more)  # type: ignore[arg-type]

    def _where(self) -> str:
        cs, ip = self.machine.executor.cs_ip
        return f"{cs:04x}:{ip:04x}"

    def _passed(self) -> bool:
        """True when none of the breakpoints just met stops: the machine goes on by itself."""
        self.forget()
        self._met = self._breakpoint_here()
        if self._met is None:
            self._passed_at = self.machine.executor.retired
        return self._met is None

    def _breakpoint_here(self) -> Stop | None:
        """The Stop of the enabled breakpoints at the linear PC whose ignore counts are used up."""
        pc = self.machine.executor.linear_pc
        counted: Counted | None = None
        for point in self._breakpoints.values():
            if point.address == pc and point.enabled and point.kind is BreakKind.EXECUTE:
                counted = counted or Counted()
                counted.add(point)
        if counted is not None and counted.stops:
            text = f"{counted.names('breakpoint')} at {self._where()}{counted.failures}"
            return self._stop_at(
                StopKind.BREAKPOINT, text, breakpoints=tuple(counted.stops), failed=bool(counted.failures)
            )
        if (self._catcher.classes or self._catcher.physical) and (caught := self._caught(self._catcher.here())):
            return caught
        if self._until is not None and self._until.kind == "pc" and self._until.value == pc:
            return self._stop_at(StopKind.EVENT, f"{self._until.spec} at {self._where()}")
        return None

    def _limit_stop(self) -> Stop | None:
        if self._until is None and self._limit is None:
            return None
        retired = self.machine.executor.retired
        if self._until is not None and self._until.kind == "insns" and retired >= self._until.value:
            return self._stop_at(StopKind.EVENT, f"{retired} instructions retired")
        if self._limit is not None and retired >= self._limit:
            return self._stop_at(StopKind.LIMIT, f"the budget of {self._limit} instructions ran out at {self._where()}")
        return None

    def _classify(self, exit: MachineExit) -> Stop | None:
        """The Stop an exit of the machine means, None when the action goes on."""
        if (
            self._catcher.armed
            and exit.reason in _CATCHING
            and (caught := self._caught(self._catcher.take(exit.exit))) is not None
        ):
            return caught
        if exit is LIMIT:
            return self._limit_stop()
        if exit.reason in _LAST_LOOK and self._screen_matches():
            return self._stop_at(StopKind.EVENT, f"{self._until_spec()} at {self._where()}")
        match exit.reason:
            case MachineStop.LIMIT:
                return self._limit_stop()
            case MachineStop.REQUEST:
                if self._until_met and self._until is not None:
                    return self._stop_at(StopKind.EVENT, f"{self._until.spec} at {self._where()}")
                return None
            case MachineStop.BREAKPOINT:
                met, self._met = self._met, None
                if met is None and (met := self._breakpoint_here()) is None:
                    self._passed_at = self.machine.executor.retired
                return met
            case MachineStop.WATCHPOINT:
                return self._watch_stop(exit)
            case MachineStop.EVENT:
                return None  # of a change that no breakpoint counts
            case MachineStop.EXIT:
                return self._stop_at(StopKind.EXIT, f"the guest ended with code {exit.code}", exit_code=exit.code)
            case MachineStop.POWEROFF:
                return self._stop_at(StopKind.POWEROFF, "the guest powered off")
            case MachineStop.SHUTDOWN:
                faults = exit.exit.faults if exit.exit else ()
                return self._stop_at(StopKind.SHUTDOWN, "triple fault: " + fault_chain(faults), faults=faults)
            case MachineStop.DEADLOCK:
                return self._stop_at(StopKind.DEADLOCK, f"{exit.detail} at {self._where()}: nothing can wake the CPU")
            case MachineStop.FAILURE:
                return self._stop_at(StopKind.FAILURE, f"{exit.detail} at {self._where()}")

    def _caught(self, events: list[tuple[Breakpoint, str]]) -> Stop | None:
        """The Stop of events that happened, or are about to; None when none of them counts."""
        if not events:
            return None
        counted, words = Counted(), []
        for point, text in events:
            if counted.add(point):
                words.append(text)
        if not counted.stops:
            return None
        text = f"{counted.names('catch')}: {'; '.join(dict.fromkeys(words))}; now at {self._where()}{counted.failures}"
        return self._stop_at(
            StopKind.CATCH, text, breakpoints=tuple(dict.fromkeys(counted.stops)), failed=bool(counted.failures)
        )

    def _watch_stop(self, exit: MachineExit) -> Stop | None:
        hit = exit.exit.hit if exit.exit else None
        if hit is None:
            return None
        counted = Counted()
        for id in self._watch_ids.get(hit.watch, ()):
            counted.add(self._breakpoints[id])
        if not counted.stops:
            return None
        verb = "wrote" if hit.access is Access.WRITE else "read"
        where = f"physical {hit.address:#x}" if hit.watch.physical else f"{hit.address:#x}"
        what = f"{verb} {hit.value:#x} ({hit.size} bytes) at {where}"
        text = f"{counted.names('watchpoint')}: {what}, now at {self._where()}{counted.failures}"
        return self._stop_at(StopKind.WATCHPOINT, text, breakpoints=tuple(counted.stops), hit=hit)

    # -- the machine as a whole

    def _not_running(self) -> None:
        if self._action is not None:
            self._finish(self._stop_at(StopKind.INTERRUPTED, "interrupted"))

    def reset(self) -> None:
        """Power-on; breakpoints stay. A running guest is stopped."""
        self._not_running()
        self.machine.reset()
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, "reset")

    def save(self) -> MachineState:
        return self.machine.save()

    def restore(self, state: MachineState) -> None:
        """A running guest is stopped."""
        self._not_running()
        self.machine.restore(state)
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, "restored")

    def loaded(self, text: str) -> None:
        """The machine was given another state by somebody else; `text` says what."""
        self._not_running()
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, text)

    def type_text(self, text: str) -> None:
        """Type on the guest's keyboard (US layout)."""
        self._feed("text", text)

    def press(self, keys: str) -> None:
        """Strokes separated by blanks, keys of one stroke joined by `+`: "ctrl+alt+delete enter"."""
        self._feed("keys", keys)

    def move_mouse(self, action: str) -> None:
        """`move DX DY`, `wheel N`, or `down`, `up`, `click` with a button's name."""
        self._feed("mouse", action)

    def send_serial(self, text: str) -> None:
        """To the guest's COM1."""
        self._feed("serial", text)

    def _feed(self, kind: str, data: str) -> None:
        try:
            self.machine.feed(kind, data)
        except MachineError as error:
            raise DebuggerError(str(error)) from None

    def msrs(self) -> tuple[RegisterView, ...]:
        """The model-specific registers that the CPU model has, with their numbers."""
        executor = self.machine.executor
        values = ((name, number, executor.read_msr(number)) for name, number in self.msr_names().items())
        return tuple(
            RegisterView(name, 64, value, f"{number:x}h") for name, number, value in values if value is not None
        )

    def msr(self, number: int) -> int:
        """What RDMSR would answer in ring 0. Raises DebuggerError where the CPU would fault."""
        value = self.machine.executor.read_msr(number)
        if value is None:
            raise DebuggerError(f"the CPU has no MSR {number:#x}: RDMSR would raise #GP(0)")
        return value

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR in ring 0. Raises DebuggerError where the CPU would fault."""
        self.msr(number)
        if not self.machine.executor.write_msr(number, value):
            raise DebuggerError(f"MSR {number:#x} does not take {value:#x}: WRMSR would raise #GP(0)")
        self.forget()

    def native_segments(self, rules: Rules) -> tuple[SegmentView, ...]:
        """The segment registers, with what of them a CPU that goes by `rules` refuses."""
        broken = rules.broken(self.cpu())
        first = {b.register: b.text for b in reversed(broken)}
        return tuple(replace(view, native=first.get(view.name, "yes")) for view in self.segments())

    def why(self, rules: Rules) -> EntryView:
        """Whether a CPU that goes by `rules` can enter the present state, why not, and which near instruction ends
        that. Inspection: nothing of the guest changes."""
        broken = rules.broken(self.cpu())
        ahead = self._ahead(rules) if broken else ""
        return EntryView(rules.name, rules.title, tuple(str(b) for b in broken), ahead)

    def _ahead(self, rules: Rules) -> str:
        from emu.foresight import REACH, foresee  # of use here alone

        found = foresee(self.machine, rules.enterable)
        self.forget()
        if found is None:
            return f"no instruction among the next {REACH}, up to the first that reaches a device, changes that"
        linear, bits = found.before.linear_pc, code_bits(found.before)
        (shown,) = disasm.decode(found.code, linear, bits, found.before.rip, 1)
        loads = ", ".join(name.upper() for name in found.loads())
        return f"`{shown.text}` at {linear:#x} loads {loads}: behind it the state can be entered"

    def port_in(self, port: int, size: int = 1) -> int:
        """A real IN, with its side effects on the device."""
        self.machine.service()
        return self.machine.cpu_ports.port_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        """A real OUT, with its side effects on the device."""
        self.machine.service()
        self.machine.cpu_ports.port_out(port, size, value)
        self.forget()
