"""Transitions: the Executor that has two CPUs, and decides which of them executes now, and why.

The vCPU runs where the policy wants it, the state can be entered, and nothing is set that only the emulator can do. It
leaves at exits: ports and memory of devices, and what a hypervisor has to be asked about. The policy then says how long
the CPU remains emulated. Who executes is no part of the guest: with a vCPU that counts its instructions a run is the
same to the byte under any policy. The ledger counts what it would have cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from emu.caught import LOOK_FIRST, LOOK_LAST, Caught
from emu.engine import Executor, Exit, ExitReason, MmioBus, PortIo
from emu.hopping import Hopping
from emu.ledger import Costs
from emu.named import NamedTuple
from emu.policies import Policy
from emu.vcpu import ExitCause, MakeVcpu, Place, VmExit
from emu.x86.modes import Mode, mode_of
from emu.x86.state import CpuState

#: Looked up once: an enumeration's members cost several times a global name.
BUDGET, REQUEST, STOPPED = ExitReason.BUDGET, ExitReason.REQUEST, ExitCause.STOPPED
HISTORY = 64  #: transitions that are remembered
#: Exits behind which the state may be one that cannot be entered again.
_CHANGING = frozenset((ExitCause.CR, ExitCause.MSR, ExitCause.DESCRIPTOR, ExitCause.TASK_SWITCH, ExitCause.REFUSED))

#: Exits of which the policy is not asked.
_UNDECIDED = frozenset((ExitCause.ENTRY_FAILED, ExitCause.REFUSED, ExitCause.FORBIDDEN, ExitCause.INTERRUPT))


class NativeConfig(NamedTuple):
    """Whose vCPU runs natively, and by what policy."""

    make: MakeVcpu
    policy: Policy
    costs: Costs
    #: The host's clock, ns, where emulated instructions are to take the time that they take; None: `tick` ns each.
    clock: Callable[[], int] | None = None
    #: told, in a sentence, when hops take the larger share of the cost
    notice: Callable[[str], None] = lambda text: None


class Transition(NamedTuple):
    """One move. `pc` is linear, `reason` a few words."""

    retired: int
    pc: int
    native: bool  #: to native; else to the emulator
    reason: str


def _words(reason: str | VmExit) -> str:
    return reason if isinstance(reason, str) else str(reason.site)


def _told(native: bool, pc: int, reason: str | VmExit) -> str:
    return f"{'native' if native else 'emulated'} at {pc:#x}: {_words(reason)}"


class EntryRefused(Exception):
    """Native execution was asked for in a state that cannot be entered, or in spite of what is set."""


class Transitions(Caught):
    """An Executor. `place` is what both CPUs are made for; `make_emulator` is given it with ports and memory that tell
    of accesses."""

    def __init__(
        self,
        make_emulator: Callable[[PortIo, MmioBus], Executor],
        place: Place,
        config: NativeConfig,
        unmarked: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        super().__init__(make_emulator, place, config.make, config.policy, config.costs, unmarked)
        self.forbidden: tuple[tuple[int, int], ...] = ()  #: (first, last) linear addresses never to be native at
        self.forbidden_modes: frozenset[Mode] = frozenset()
        # Transitions but for their words, which are made when somebody looks.
        self._moves: deque[tuple[int, int, bool, str | VmExit]] = deque(maxlen=HISTORY)
        #: told of each transition, with what makes its text
        self.told: Callable[[int, Callable[[], str]], None] = lambda retired, text: None
        #: gives the virtual time in ns that a run may go on to, for a vCPU that does not count
        self.deadline: Callable[[], int | None] = lambda: None
        #: told the virtual time in ns that a vCPU which does not count has spent
        self.spent: Callable[[int], None] = lambda ns: None
        #: says what is to be told of that a vCPU which does not count does not tell; empty: nothing
        self.watched: Callable[[], str] = lambda: ""
        #: whether the keeper of devices is to be asked before the next instruction
        self.due: Callable[[], bool] = lambda: False
        self._clock, self._notice = config.clock, config.notice
        self.hopping = Hopping(self.ledger)
        self._guest_time = place.timestamp
        self._at = self._time = 0  # an instant on the host's clock, and the guest's time then
        self._resumed = False
        self._amid = False  # the CPU has moved in the middle of a repeated instruction, which is no arrival at it
        self._was_native = False
        #: how often native entry has failed since the CPU was native last, by the rules or at the vCPU
        self.failing = 0
        self.rejected = 0  #: how often of these the vCPU itself failed where the rules let it in
        self.rejection = ""  #: and its words, the last time

    # -- who executes

    @property
    def history(self) -> list[Transition]:
        """The last transitions, the latest last."""
        return [Transition(retired, pc, native, _words(reason)) for retired, pc, native, reason in self._moves]

    def force(self, native: bool | None) -> None:
        """Native or emulated from now on; None: as the policy says. Raises EntryRefused when the state cannot be
        entered now."""
        if native:
            if reason := self.obstacle() or self.out_of_bounds():
                raise EntryRefused(reason)
            if broken := self.vcpu.refused(self.state()):
                raise EntryRefused("; ".join(map(str, broken)))
        self.forced = native
        self._until = self._held = 0
        self._forget()
        if native is not None:
            self._go(native, "forced")

    def emulate(self, count: int) -> None:
        """Emulate the next `count` instructions, whatever is forced; then go on as the policy says."""
        self.forced = None
        self._go(False, f"asked for, {count} instructions")
        self._forget()
        self._until = self._held = self.retired + count

    def set_policy(self, policy: Policy) -> None:
        """See Caught."""
        super().set_policy(policy)
        self.hopping.begin()

    def clear_ledger(self) -> None:
        """Count from 0 again."""
        self.ledger.clear()
        self.hopping.begin()

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """Never be native at a linear address in one of the (first, last) ranges, or in one of the modes."""
        self.forbidden, self.forbidden_modes = tuple(ranges), frozenset(modes)
        self.vcpu.forbid(self.forbidden, self.forbidden_modes)

    def out_of_bounds(self) -> str:
        """Why it is forbidden to be native here; empty: it is not."""
        if not self.forbidden and not self.forbidden_modes:
            return ""
        return self._forbidden_at(self.linear_pc, mode_of(self.live()))

    def _forbidden_at(self, pc: int, mode: Mode) -> str:
        if mode in self.forbidden_modes:
            return f"{mode.label} mode is forbidden"
        for first, last in self.forbidden:
            if first <= pc <= last:
                return f"{first:#x}-{last:#x} is forbidden"
        return ""

    def barred(self, pc: int, mode: Mode) -> str:
        """See Caught."""
        return super().barred(pc, mode) or self._forbidden_at(pc, mode)

    @property
    def stays(self) -> bool:
        """It is native, and nothing that has been set since ends that before the next instruction."""
        if not self.native or self._leaving() or self.out_of_bounds():
            return False
        # KVM tells of no write to a control register: a stop may come before anybody has looked at the state.
        return self.vcpu.enterable(self.vcpu.live())

    def obstacle(self) -> str:
        """What keeps the CPU emulated whatever its state is; empty: nothing."""
        return self.vcpu.unable() or ("" if self.vcpu.counts else self.watched())

    def _go(self, native: bool, reason: str | VmExit) -> None:
        """Move, if it is not there, and tell of it. An exit that is the reason is told by its site."""
        if native is self.native:
            return
        retired = self._active.retired
        if not self._quiet:
            pc = self._active.linear_pc
            self._moves.append((retired, pc, native, reason))
            self.told(retired, partial(_told, native, pc, reason))
            if native:
                self.ledger.hops_in += 1
            else:
                self.ledger.hops_out += 1
            if text := self.hopping.look(self.policy):
                self._notice(text)
        self._look = LOOK_FIRST
        self._activate(self.vcpu if native else self.emulator, retired)

    def quiet(self, on: bool) -> None:
        """While it is on, what runs is a look ahead: by the emulator, not counted and not told."""
        if on:
            self._was_native, self._quiet = self.native, True
            self._go(False, "")
        else:
            self._go(self._was_native, "")
            self._quiet = False

    def keep_time(self) -> None:
        """An access has taken the host's time: on the host's clock the emulator's run is cut behind it, so that the
        guest's time does not stand still meanwhile."""
        if self._clock is not None and not self.native and not self._quiet:
            self._shortened = True
            self.emulator.request_stop()

    def keeps_pace(self, going: bool) -> None:
        """Whether the guest's time follows the host's from now on, between runs too, where it goes by it."""
        self._resumed = going
        self._anchor()

    def lateness(self) -> int:
        """How far the guest's time, in ns, has fallen behind the host's since this was asked last or the guest was
        resumed; 0 where it does not go by it. Whoever asks lets it pass."""
        if self._clock is None:
            return 0
        at, time = self._at, self._time
        self._anchor()
        late = self._at - at - (self._time - time)
        if late <= 0:
            return 0
        self._time += late
        return late

    def _anchor(self) -> None:
        if self._clock is not None:
            self._at, self._time = self._clock(), self._guest_time()

    # -- running

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor."""
        if budget < 1:
            raise ValueError(f"a budget of {budget} instructions: at least 1 is needed")
        if self._quiet:
            return self.emulator.run(budget, skip_breakpoint=skip_breakpoint)
        retired = start = self._active.retired
        end = start + budget
        if not self._resumed:
            self._anchor()
        if self.native and (reason := self._leaving()):
            self._go(False, reason)
            self._forget()
        while True:
            if self._stop:
                self._stop = False
                return Exit(REQUEST, retired - start)
            if retired >= end:
                return Exit(BUDGET, retired - start)
            skip = (skip_breakpoint and retired == start) or self._amid
            self._amid = False
            one_run = self._run_native if self.native else self._run_emulated
            exit = one_run(retired, end - retired, skip)
            retired = self._active.retired
            if exit is None:
                continue
            if exit.reason is REQUEST:
                self._stop = False
            executed = retired - start
            return exit if exit.executed == executed else exit._replace(executed=executed)

    def _leaving(self) -> str:
        """Why the CPU must not be native any more when a run begins; empty: it may."""
        if not self.wants_native:
            return f"the policy is {self.policy.name}"
        return self.obstacle()

    def _run_emulated(self, before: int, budget: int, skip: bool) -> Exit | None:
        """One run, with `before` instructions retired. None: there is nothing to tell of its end."""
        if self.wants_native:
            if before >= self._until and self._enter(before):
                return None
            budget = min(budget, self._until - before)
        self._shortened = False
        emulator, executed = self.emulator, -1
        try:
            exit = emulator.run(budget, skip_breakpoint=skip)
            executed = exit.executed
        finally:
            if executed < 0:  # a device or a callback has failed
                executed = emulator.retired - before
            self.ledger.emulated += executed
            self.ledger.requests += emulator.take_kept()
        if late := self.lateness():
            self.spent(late)
        self._catch_up()
        if exit.reason is REQUEST and self._shortened and not exit.detail and not self._stop:
            # A signal's handler may have asked for the same stop.
            return exit if self.due() else None
        return None if exit.reason is BUDGET else exit

    def _enter(self, retired: int) -> bool:
        """Go native if that can be; otherwise say when to look again."""
        reason = self.obstacle() or self.out_of_bounds()
        if not reason and self.vcpu.enterable(self.emulator.live()):
            if self._look > LOOK_FIRST and self._dwell and self.forced is None:
                # Nobody had a choice until now: the dwell begins here, as behind an exit that the emulator has to take.
                self._look, self._until = LOOK_FIRST, retired + self._dwell
                return False
            if self._points and self.linear_pc in self._points:
                # In the middle of a repeated instruction the other CPU would take it for an arrival.
                self._until = retired + 1
                return False
            self._go(True, "forced" if self.forced else "enterable")
            return True
        if not reason:
            self.failing += 1
        if self._look == LOOK_FIRST:
            self.ledger.failed += 1
        self._until = retired + self._look
        self._look = min(2 * self._look, LOOK_LAST)
        return False

    def _run_native(self, before: int, budget: int, skip: bool) -> Exit | None:
        """See _run_emulated."""
        vcpu = self.vcpu
        if self._resident is not None:
            self._remain(self.policy.fixed == 0 or bool(self.forced))
        try:
            exit = vcpu.enter(budget, self.deadline(), skip_breakpoint=skip)
        finally:
            self.ledger.native += vcpu.retired - before
            if self._resident is not None:
                self.ledger.inside += self._resident.take_kept()
                if self._remains:
                    self.ledger.exits.update(self._resident.take_exits())
        if exit.cause is not ExitCause.ENTRY_FAILED:
            self.failing = self.rejected = 0
        if exit.elapsed:
            self.spent(exit.elapsed)
            self.ledger.elapsed += exit.elapsed
            self._elapsed += exit.elapsed
        if late := self.lateness():
            self.spent(late)
        if exit.cause is STOPPED:
            stop = exit.stop
            return None if stop is None or (stop.reason is BUDGET and vcpu.counts) else stop
        return self._exited(exit)

    def _exited(self, exit: VmExit) -> Exit | None:
        if exit.done:
            self._changed(exit)
            return exit.stop
        self.ledger.exits[exit.cause] += 1
        if exit.cause in _UNDECIDED:
            self._put_out(exit)
            return exit.stop
        if self.forced:
            dwell = 0
        elif self.policy.learns:
            dwell = self._accessed(exit, self._active.retired - (not exit.before), caught=False)
        else:
            dwell = self._dwell = self.policy.dwell(exit, True)
        if dwell:
            self._out(exit, dwell, exit)
        elif exit.before and (done := self._complete(exit)) is not None:
            return done
        return exit.stop

    def _put_out(self, exit: VmExit) -> None:
        """An exit behind which nobody has a choice."""
        if exit.cause is ExitCause.INTERRUPT:
            return
        if exit.cause is ExitCause.ENTRY_FAILED:
            self.ledger.failed += 1
            self.failing += 1
            self.rejected, self.rejection = self.rejected + 1, exit.detail
            self._out(exit, LOOK_FIRST, f"entry failed: {exit.detail}")
        elif exit.cause is ExitCause.REFUSED:
            self._out(exit, 1, f"{self.vcpu.name} cannot execute {exit.detail}")
        else:
            self._out(exit, LOOK_FIRST, self.out_of_bounds() or exit)
        self._forget()

    def _out(self, exit: VmExit, dwell: int, reason: str | VmExit) -> None:
        self._go(False, reason)
        self._amid = not exit.before and exit.stop is None and exit.pc == self._active.linear_pc
        self._until = self._active.retired + dwell

    def _complete(self, exit: VmExit) -> Exit | None:
        """The hypervisor executes what the exit is before."""
        before = self.vcpu.retired
        try:
            done = self.vcpu.complete(exit)
        finally:
            self.ledger.native += self.vcpu.retired - before
        if done.reason is REQUEST and self.vcpu.retired == before:
            self.ledger.exits[exit.cause] -= 1  # something came before it, and it will be an exit again
        if exit.cause in _CHANGING and not self.vcpu.enterable(self.vcpu.live()):
            self._changed(exit)
        return None if done.reason is BUDGET else done

    def _changed(self, exit: VmExit) -> None:
        """Behind an exit that the hypervisor has handled the state cannot be entered."""
        broken = self.vcpu.refused(self.vcpu.state())
        self._out(exit, LOOK_FIRST, f"cannot be entered again: {broken[0]}")
        self._forget()
        if self.policy.learns and self.forced is None:
            # The emulator has it whatever was decided; for how long, once it can be entered, is to be decided now.
            retired = self._active.retired
            dwell = self._accessed(exit, retired - 1, caught=True)
            self._until = max(self._until, retired + dwell)

    # -- state

    def set_retired(self, count: int) -> None:
        """See Cpu. Instants that were looked forward to are other ones now."""
        self._until, self._held = count, 0
        self._forget()
        super().set_retired(count)

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        was = self.native
        super().load(state)
        if was and not self.native and not self._quiet:
            self.ledger.hops_out += 1
            self._moves.append((self.retired, self.linear_pc, False, "given a state that cannot be entered"))
            self._look, self._until = LOOK_FIRST, self.retired
            self._forget()
