"""The inspection and control API over a machine: registers, memory, views, breakpoints, steps, stop reasons.

Every method runs on the thread that owns the machine; `emu.worker` lets other threads in. Breakpoints belong here, so
that all front ends see one session. By duty, each on top of the one before: `inspector` looks, `panel` handles the
machine, `points` keeps what may end a run, `meeting` says what has, `steps` are the actions, and here they are run.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import partial

from emu.breakpoints import Counted
from emu.engine import EngineError, WatchHit
from emu.inspector import DebuggerError
from emu.machine import Machine, MachineError, MachineState
from emu.machine_exits import LIMIT, MachineExit, MachineStop
from emu.meeting import hit_words
from emu.points import NO_LIMITS, UNBOUNDED
from emu.progress import Watch
from emu.record import replace
from emu.steps import Action, Request, Steps
from emu.stops import BreakKind, Breakpoint, Stop, StopKind
from emu.typed import TYPE_CHECKING
from emu.views import LockstepView, StuckView

if TYPE_CHECKING:
    from emu.quiet import Begun, Quiet, QuietHit

__all__ = ["BreakKind", "Breakpoint", "Debugger", "DebuggerError", "Stop", "StopKind"]

# Looked up once: an enumeration's members cost several times a global name.
LIMITED, REQUESTED = MachineStop.LIMIT, MachineStop.REQUEST
PLAIN_STEPS = 256  #: steps between two looks at whether somebody waits
PIECE = 2_000_000  #: instructions that `run` runs between two looks at whether the guest gets anywhere
COMPARED = 1_000_000  #: instructions in lockstep between two looks at whether somebody waits


def _place_of(met: QuietHit) -> str:
    return f"{met.cs:04x}:{met.ip:04x}"


def _hit_text(counted: Counted, hit: WatchHit, met: QuietHit) -> str:
    return f"{counted.names(StopKind.WATCHPOINT.value)}{hit_words(hit, _place_of(met))}"


class Debugger(Steps):
    """One debugging session on one machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.poll: Callable[[], bool] = lambda: False  #: True when `pump` should return early
        self._action: Action | None = None
        self._request: Request | None = None
        self._target = 0
        self.progress = Watch(machine)
        #: told when a guest that gets nowhere is noticed, in the midst of the run
        self.on_stuck: Callable[[StuckView], None] = lambda view: None
        self._quiet: Quiet | None = None  # between `begin_quiet` and `end_quiet`
        #: instructions retired when quiet steps began, and behind the last that the journal has heard of
        self._quiet_from = self._quiet_told = 0
        self._hits_told = 0  # of quiet runs, to the journal
        self._begun: Begun | None = None  # a quiet step or run that `single_step` or `_run_piece` is to go on with
        self.last_stop = self._stop_at(StopKind.PAUSED, "not started")

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

    def _begin(self, action: Action) -> None:
        if self._action is not None:
            action.close()
            raise DebuggerError("the guest is running: stop it first")
        self._action, self._acting = action, True
        self._request = None
        self._passed_at = -1
        self.lasting.renew()
        if self._catcher.armed:
            self._catcher.begin()

    def single_step(self) -> Stop | None:
        """One instruction, as `begin_step` and `pump` make it, in a fraction of the time, where nothing comes before it
        and nobody looks on: its Stop. None: something does, nothing was done, and it is for those."""
        begun, self._begun = self._begun, None
        if begun is None and not self._steps_plainly():
            return None
        before = self.machine.executor.retired if begun is None else begun[1]
        if self._unarmed:
            self._arm_watches()
        self._passed_at = -1
        self._acting = True
        try:
            exit = self.machine.step() if begun is None else self.machine.finish_quiet(begun)
            if exit is None:
                return None
            self.forget()
            stop = None if exit is LIMIT else self._classify(exit)
            if stop is None and exit.reason is REQUESTED and self.machine.executor.retired == before:
                return None  # somebody posts just now, and is served first
            self._finish(stop := stop or self._stop_at(StopKind.STEP, "step"))
        finally:
            self._acting = False
        if exit is LIMIT:
            self._in_place = self.machine.executor.live()  # the devices are at this instant
        return stop

    def _steps_plainly(self) -> bool:
        """A step is no more than an instruction, and nobody looks on."""
        return not (
            self._action is not None
            or self.step_whole_repeats
            or self._passing
            or self._followers
            or self._limits() is not NO_LIMITS
            or self.read_only
        )

    def quiet_looks(self) -> Quiet | None:
        """Looks at memory by C, on this thread, until something else is asked. None: the machine makes none."""
        if self._action is not None:
            return None
        self.cpu_in_place()  # the devices are at this instant
        return self.machine.begin_quiet(False)

    def begin_quiet(self, run: int = 0, watches: Container[int] = ()) -> Quiet | None:
        """The same, and steps as `single_step` makes them, until `end_quiet`; before that nothing else is asked. With
        `run` instead of steps the first so many instructions of runs as `begin_continue` begins them, which only the
        watchpoints numbered `watches` end; where there are others, none."""
        if self._action is not None:
            return None
        self.cpu_in_place()
        machine = self.machine
        start = machine.executor.retired
        plain = not self._unarmed and self._steps_plainly() and (not run or self._runs_plainly(watches))
        quiet = machine.begin_quiet(plain, run)
        if quiet is not None:
            self._quiet, self._quiet_told, self._acting = quiet, start, quiet.left > 0
            self._quiet_from, self._hits_told = start, 0
            machine.journal.before = self._tell_quiet
            if run:
                self.progress.arm(True)
        return quiet

    def _runs_plainly(self, watches: Container[int]) -> bool:
        """A run would begin with the points that the engine has, all its watchpoints are among these and stop it each
        time, and the storm watch wakes behind more events than these."""
        from emu.quiet import MOST_HITS

        if self._armed != self._execute_points() or not self.progress.rests(MOST_HITS):
            return False
        for ids in self._watch_ids.values():
            for id in ids:
                point = self._breakpoints.get(id)
                if id not in watches or point is None or point.condition is not None or point.action is not None:
                    return False
                if point.ignore or point.temporary:
                    return False
        return True

    def _tell_quiet(self) -> None:
        """Have the journal tell of the quiet steps and hits that it has not heard of."""
        quiet = self._quiet
        assert quiet is not None, "who is told of them has begun"
        if quiet.hit_count > self._hits_told:
            self._tell_hits(quiet.hits_from(self._hits_told))
            self._hits_told = quiet.hit_count
        elif not quiet.most:
            first, self._quiet_told = self._quiet_told + 1, self._quiet_from + quiet.made
            self.machine.journal.add_steps(first, self._quiet_told)

    def _tell_hits(self, hits: Sequence[QuietHit]) -> None:
        """These were met in runs that have ended since."""
        for met in hits:
            hit, counted = self.machine.hit_of(met), Counted()
            for id in self._watch_ids[hit.watch]:
                counted.add(self._breakpoints[id])
            text = partial(_hit_text, counted, hit, met)
            self.machine.journal.add_untold(met.retired, "stop", text)
        happened = hit_words(hit, _place_of(met))
        self.last_stop = Stop(
            StopKind.WATCHPOINT, text(), met.pc, met.retired, counted.stops, hit, happened=happened,
            met=tuple(counted.met),
        )  # fmt: skip

    def end_quiet(self, begun: bool) -> None:
        """Behind `begin_quiet`. With `begun` the last step or run ended otherwise than quietly, and `single_step` or
        `begin_continue` is to be called next, which goes on with it."""
        quiet, machine = self._quiet, self.machine
        assert quiet is not None, "what ends has begun"
        self._tell_quiet()
        self._quiet, machine.journal.before, self._acting = None, None, False
        moved = quiet.made or quiet.hit_count
        machine.end_quiet(quiet.from_ if moved else None)
        if quiet.most:
            self.progress.arm(False)
        if quiet.hit_count:
            self.lasting.renew()
        if begun:
            from emu.quiet import Begun

            self._begun = Begun(quiet.ended, quiet.from_, quiet.budget)
        if moved or begun:
            self._passed_at = -1
            self.forget()
        if moved and not begun:
            if quiet.made:
                self.last_stop = self._stop_at(StopKind.STEP, "step")
            self._in_place = machine.executor.live()

    @property
    def begun_at(self) -> int | None:
        """Instructions retired where the step or run began that `end_quiet` has left to `single_step` or `pump`; None
        if it has left none."""
        return None if self._begun is None else self._begun.before

    def pump(self, instructions: int = UNBOUNDED) -> Stop | None:
        """Run a piece of the action, at most `instructions`; the Stop when it ends, else None."""
        action = self._action
        if action is None:
            raise DebuggerError("the guest is not running")
        executor = self.machine.executor
        left = instructions
        self.progress.arm(True)
        try:
            if self._request is None:
                self.forget()
                if self._passing:
                    self._owe()
                before = executor.retired
                self._plain = self._plain_steps(left)
                self._ask(next(action))
                left -= executor.retired - before
            while left > 0:
                exit = self._run_piece(left)
                if exit is None:
                    if self.poll():
                        return None
                    if (noticed := self.progress.sample()) is not None:
                        self.machine.journal.keep(executor.retired, "stuck", noticed.summary)
                        self.on_stuck(noticed)
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
        finally:
            self.progress.arm(False)
        return None

    def _plain_steps(self, left: int) -> int:
        """How many steps an action may do by itself, so that a limit is kept and whoever waits gets in."""
        if (limits := self._limits()) is not NO_LIMITS:
            left = min(left, min(limits) - self.machine.executor.retired)
        return min(left, PLAIN_STEPS)

    def _passed(self) -> bool:
        """As in Meeting; the machine comes back behind it where somebody waits, as hits may take all the time."""
        passed = super()._passed()
        if passed and self.poll():
            self.machine.request_stop()
        return passed

    def _ask(self, request: Request) -> None:
        self._request = request
        self._target = self.machine.executor.retired + request.budget

    def _run_piece(self, instructions: int) -> MachineExit | None:
        """Advance the current request; its exit, or None when there is more to run (or somebody waits)."""
        request = self._request
        assert request is not None
        executor = self.machine.executor
        if self._unarmed:
            self._arm_watches()
        self._arm(request.at)
        begun, self._begun = self._begun, None
        start = executor.retired if begun is None else begun.before
        bound = min(self._target, start + instructions)
        if (limits := self._limits()) is not NO_LIMITS:
            bound = min(bound, *limits)
        if self._followers:
            bound = min(bound, executor.retired + 1)
            self._owe()
        self.forget()
        passed = self._passed if not request.at else None
        skip = request.skip or self._passed_at == start  # a piece may end right behind a breakpoint that was passed
        if begun is None:
            exit = self.machine.run(bound, skip_breakpoint=skip, passed=passed)
        else:
            exit = self.machine.finish_run(begun, bound, passed)
        if self._followers:
            self._followers.tell(executor.retired)
        reason = exit.reason
        more = (reason is LIMITED and executor.retired < self._target and not self._bounded()) or (
            reason is REQUESTED and not self._until_met and not self._catcher.pending
        )
        if not more:
            return exit
        if request.skip and executor.retired != start:
            self._request = Request(request.budget, request.at)
        return None

    def run(self) -> Stop:
        """Pump the action to its end, on this thread."""
        while True:
            stop = self.pump(PIECE)
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
        self._acting = False
        self.forget()
        if self._passing and (failures := (passed := self._pass_here()).failures):
            stop = replace(
                stop, text=f"{stop.text}{failures}", met=(*stop.met, *passed.met), happened=stop.happened or stop.text
            )
        for id in stop.breakpoints:
            if (point := self._breakpoints.get(id)) is not None and point.temporary:
                self.remove_breakpoint(id)
        if self._until_met or stop.kind is StopKind.EVENT:
            self.set_until(None)
        self.last_stop = stop
        self.machine.journal.add(stop.retired, "stop", stop.text)
        return stop

    def lockstep(self, count: int, second: str | None = None) -> LockstepView:
        """Go on by at most `count` instructions that two CPUs run and that are compared: see emu.lockstep. Ends before
        the instruction behind which they part, at the guest's end, or where somebody waits. Breakpoints are not looked
        at. Raises DebuggerError while the guest runs, or where there is no such second CPU."""
        from emu.lockstep import LockstepMachine
        from emu.seconds import second_named  # of use here alone

        if self._action is not None:
            raise DebuggerError("the guest is running: stop it first")
        machine = self.machine
        if isinstance(machine, LockstepMachine):
            raise DebuggerError("this whole run is in lockstep: `continue` compares")
        if not machine.keeper.restorable:
            raise DebuggerError("a second machine cannot be given this one's devices, which are the hypervisor's")
        config = machine.config
        if (native := config.native) is not None:
            # What a policy has learned of this run is its own.
            from emu.policies import policy_named

            fresh = policy_named(native.policy.name, native.costs)
            config = replace(config, native=native._replace(policy=fresh))
        try:
            twin = LockstepMachine(config, second_named(config, second))
        except EngineError as error:
            raise DebuggerError(str(error)) from None
        try:
            twin.restore(machine.save())
            inner = Debugger(twin)
            inner.poll = self.poll
            inner.set_limit(twin.executor.retired + count)
            inner.begin_continue()
            stop = None
            while stop is None and not (self.poll() and twin.compared):
                stop = inner.pump(COMPARED)
            ended = "stopped" if stop is None else stop.text
            if stop is not None and stop.kind is StopKind.LIMIT:
                ended = f"{count} instructions done"
            view = twin.summary("they part" if twin.divergence is not None else ended)
            machine.outputs.take(twin.outputs)
            machine.restore(twin.save())
            machine.journal.put((*machine.journal, *twin.journal))
        finally:
            twin.close()
        self.forget()
        self._forget_passed()
        self.last_stop = self._stop_at(StopKind.PAUSED, f"lockstep: {view.ended}")
        return view

    def _not_running(self) -> None:
        if self._action is not None:
            self._finish(self._stop_at(StopKind.INTERRUPTED, "interrupted"))

    def reset(self) -> None:
        """Power-on; breakpoints stay. A running guest is stopped."""
        self._not_running()
        self.machine.reset()
        self._forget_passed()
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, "reset")

    def save(self) -> MachineState:
        return self.machine.save()

    def restore(self, state: MachineState) -> None:
        """A running guest is stopped."""
        self._not_running()
        try:
            self.machine.restore(state)
        except MachineError as error:
            raise DebuggerError(str(error)) from None
        self._forget_passed()
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, "restored")

    def loaded(self, text: str) -> None:
        """The machine was given another state by somebody else; `text` says what."""
        self._not_running()
        self._forget_passed()
        self.forget()
        self.last_stop = self._stop_at(StopKind.PAUSED, text)
