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

from emu.engine import Executor, Exit, ExitReason, Fault, MmioBus, PortIo
from emu.ledger import Costs, Ledger
from emu.named import NamedTuple
from emu.policies import Policy
from emu.twin import Twin
from emu.vcpu import ExitCause, MakeVcpu, Place, Site, VmExit
from emu.x86.modes import Mode, mode_of
from emu.x86.state import CR0_PE, CpuState

BUDGET, REQUEST = ExitReason.BUDGET, ExitReason.REQUEST
#: How soon a state that could not be entered is looked at again, in instructions: at first, and at most.
LOOK_FIRST, LOOK_LAST = 16, 4096
NATIVE_NS = 1  #: what an instruction is taken to last on a vCPU that does not count them
TOLD = 16  #: of the accesses that the emulator has answered by itself so many are told to the policy
HISTORY = 64  #: transitions that are remembered
#: Exits behind which the state may be one that cannot be entered again.
_CHANGING = frozenset((ExitCause.CR, ExitCause.MSR, ExitCause.DESCRIPTOR, ExitCause.TASK_SWITCH, ExitCause.REFUSED))


class NativeConfig(NamedTuple):
    """Whose vCPU runs natively, and by what policy."""

    make: MakeVcpu
    policy: Policy
    costs: Costs
    #: The host's clock, ns, where emulated instructions are to take the time that they take; None: `tick` ns each.
    clock: Callable[[], int] | None = None


class Transition(NamedTuple):
    """One move. `pc` is linear, `reason` a few words."""

    retired: int
    pc: int
    native: bool  #: to native; else to the emulator
    reason: str


class EntryRefused(Exception):
    """Native execution was asked for in a state that cannot be entered, or in spite of what is set."""


class Transitions(Twin):
    """An Executor. `place` is what both CPUs are made for; `make_emulator` is given it with ports and memory that tell
    of accesses."""

    def __init__(
        self,
        make_emulator: Callable[[PortIo, MmioBus], Executor],
        place: Place,
        config: NativeConfig,
        unmarked: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        emulator = make_emulator(_NotedPorts(place.io, self._noted), _NotedMemory(place.mmio, self._noted))
        try:
            vcpu = config.make(place._replace(inside=self._inside))
        except BaseException:
            emulator.close()
            raise
        super().__init__(emulator, vcpu, place.regions, unmarked)
        self._kept = place.kept
        self.policy = config.policy
        self.ledger = Ledger(config.costs)
        self.forbidden: tuple[tuple[int, int], ...] = ()  #: (first, last) linear addresses never to be native at
        self.forbidden_modes: frozenset[Mode] = frozenset()
        self.forced: bool | None = None  #: True: native, False: emulated, whatever the policy says
        self.history: deque[Transition] = deque(maxlen=HISTORY)
        #: told of each transition, with what makes its text
        self.told: Callable[[int, Callable[[], str]], None] = lambda retired, text: None
        #: gives the virtual time in ns that a run may go on to, for a vCPU that does not count
        self.deadline: Callable[[], int | None] = lambda: None
        #: told the virtual time in ns that a vCPU which does not count has spent
        self.spent: Callable[[int], None] = lambda ns: None
        #: says what is to be told of that a vCPU which does not count does not tell; empty: nothing
        self.watched: Callable[[], str] = lambda: ""
        self._clock, self._tick = config.clock, place.tick
        self._held = 0  # instructions retired up to which a person wants it emulated
        self._until = 0  # instructions retired at which to think about going native
        self._look = LOOK_FIRST
        self._site: Site | None = None  # of the access before
        self._access_at = 0  # instructions retired before it
        self._exit: VmExit | None = None  # itself
        self._native = 0  # the ledger's native instructions up to it
        self._elapsed = 0  # ns that a vCPU which does not count has spent since
        self._amid = False  # the CPU has moved in the middle of a repeated instruction, which is no arrival at it
        self._shortened = False  # the emulator's run is ended because the CPU is to go native earlier
        emulator.note_answers()
        self._dwell = 0  # decided at it
        self._quiet = False
        self._was_native = False

    # -- who executes

    @property
    def wants_native(self) -> bool:
        """The policy, or a person, wants the CPU native wherever that can be."""
        return self.policy.enters if self.forced is None else self.forced

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

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """Never be native at a linear address in one of the (first, last) ranges, or in one of the modes."""
        self.forbidden, self.forbidden_modes = tuple(ranges), frozenset(modes)
        self.vcpu.forbid(self.forbidden, self.forbidden_modes)

    def out_of_bounds(self) -> str:
        """Why it is forbidden to be native here; empty: it is not."""
        if self.forbidden_modes and (mode := mode_of(self.live())) in self.forbidden_modes:
            return f"{mode.label} mode is forbidden"
        pc = self.linear_pc if self.forbidden else 0
        for first, last in self.forbidden:
            if first <= pc <= last:
                return f"{first:#x}-{last:#x} is forbidden"
        return ""

    @property
    def stays(self) -> bool:
        """It is native, and nothing that has been set since ends that before the next instruction."""
        return self.native and not self._leaving() and not self.out_of_bounds()

    def set_policy(self, policy: Policy) -> None:
        """Decide by `policy` from now on."""
        self.policy, self._site, self._until = policy, None, 0
        policy.moved()

    def _forget(self) -> None:
        """What comes now is no consequence of what the policy decided."""
        self._site = None
        self.policy.moved()

    def obstacle(self) -> str:
        """What keeps the CPU emulated whatever its state is; empty: nothing."""
        return self.vcpu.unable() or ("" if self.vcpu.counts else self.watched())

    def _go(self, native: bool, reason: str) -> None:
        """Move, if it is not there, and tell of it."""
        if native is self.native:
            return
        if not self._quiet:
            retired, pc = self.retired, self.linear_pc
            self.history.append(Transition(retired, pc, native, reason))
            where = "native" if native else "emulated"
            self.told(retired, lambda: f"{where} at {pc:#x}: {reason}")
            if native:
                self.ledger.hops_in += 1
            else:
                self.ledger.hops_out += 1
        self._look = LOOK_FIRST
        self._activate(self.vcpu if native else self.emulator)

    def quiet(self, on: bool) -> None:
        """While it is on, what runs is a look ahead: by the emulator, not counted and not told."""
        if on:
            self._was_native, self._quiet = self.native, True
            self._go(False, "")
        else:
            self._go(self._was_native, "")
            self._quiet = False

    # -- running

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor."""
        if budget < 1:
            raise ValueError(f"a budget of {budget} instructions: at least 1 is needed")
        if self._quiet:
            return self.emulator.run(budget, skip_breakpoint=skip_breakpoint)
        start = self.retired
        end = start + budget
        if self.native and (reason := self._leaving()):
            self._go(False, reason)
            self._forget()
        while True:
            retired = self.retired
            if self._stop:
                self._stop = False
                return Exit(REQUEST, retired - start)
            if retired >= end:
                return Exit(BUDGET, retired - start)
            skip = (skip_breakpoint and retired == start) or self._amid
            self._amid = False
            exit = self._run_native(end - retired, skip) if self.native else self._run_emulated(end - retired, skip)
            if exit is None:
                continue
            if exit.reason is REQUEST:
                self._stop = False
            executed = self.retired - start
            return exit if exit.executed == executed else exit._replace(executed=executed)

    def _leaving(self) -> str:
        """Why the CPU must not be native any more when a run begins; empty: it may."""
        if not self.wants_native:
            return f"the policy is {self.policy.name}"
        return self.obstacle()

    def _run_emulated(self, budget: int, skip: bool) -> Exit | None:
        before = self.emulator.retired
        if self.wants_native:
            if before >= self._until and self._enter():
                return None
            budget = min(budget, self._until - before)
        self._shortened = False
        begun = 0 if self._clock is None else self._clock()
        try:
            exit = self.emulator.run(budget, skip_breakpoint=skip)
        finally:
            executed = self.emulator.retired - before
            self.ledger.emulated += executed
        if self._clock is not None and (late := self._clock() - begun - executed * self._tick) > 0:
            self.spent(late)
        self._catch_up()
        if exit.reason is REQUEST and self._shortened and not exit.detail and not self._stop:
            return None
        return None if exit.reason is BUDGET else exit

    def _enter(self) -> bool:
        """Go native if that can be; otherwise say when to look again."""
        reason = self.obstacle() or self.out_of_bounds()
        if not reason and self.vcpu.enterable(self.emulator.live()):
            if self._look > LOOK_FIRST and self._dwell and self.forced is None:
                # Nobody had a choice until now: the dwell begins here, as behind an exit that the emulator has to take.
                self._look, self._until = LOOK_FIRST, self.retired + self._dwell
                return False
            if self.linear_pc in self._points:
                # In the middle of a repeated instruction the other CPU would take it for an arrival.
                self._until = self.retired + 1
                return False
            self._go(True, "forced" if self.forced else "enterable")
            return True
        if self._look == LOOK_FIRST:
            self.ledger.failed += 1
        self._until = self.retired + self._look
        self._look = min(2 * self._look, LOOK_LAST)
        return False

    def _run_native(self, budget: int, skip: bool) -> Exit | None:
        vcpu = self.vcpu
        self._remain(self.policy.fixed == 0 or bool(self.forced))
        before = vcpu.retired
        try:
            exit = vcpu.enter(budget, self.deadline(), skip_breakpoint=skip)
        finally:
            self.ledger.native += vcpu.retired - before
            if self._resident is not None and self._remains:
                self.ledger.exits.update(self._resident.take_exits())
        if exit.elapsed:
            self.spent(exit.elapsed)
            self._elapsed += exit.elapsed
        if exit.cause is ExitCause.STOPPED:
            stop = exit.stop
            return None if stop is None or (stop.reason is BUDGET and vcpu.counts) else stop
        return self._exited(exit)

    def _exited(self, exit: VmExit) -> Exit | None:
        if exit.done:
            self._changed(exit)
            return exit.stop
        self.ledger.charge(exit)
        if exit.cause is ExitCause.ENTRY_FAILED:
            self.ledger.failed += 1
            self._out(exit, LOOK_FIRST, f"entry failed: {exit.detail}")
            self._forget()
        elif exit.cause is ExitCause.REFUSED:
            self._out(exit, 1, f"{self.vcpu.name} cannot execute {exit.detail}")
            self._forget()
        elif exit.cause is ExitCause.FORBIDDEN:
            self._out(exit, LOOK_FIRST, self.out_of_bounds())
            self._forget()
        elif exit.cause is not ExitCause.INTERRUPT:
            dwell = 0 if self.forced else self._accessed(exit, self.retired - (not exit.before), caught=False)
            if dwell:
                self._out(exit, dwell, "")
            elif exit.before and (done := self._complete(exit)) is not None:
                return done
        return exit.stop

    def _out(self, exit: VmExit, dwell: int, reason: str) -> None:
        self._go(False, reason or str(exit.site))
        self._amid = not exit.before and exit.pc == self.linear_pc and exit.stop is None
        self._until = self.retired + dwell

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

    # -- accesses, and what the policy learns of them

    def _accessed(self, exit: VmExit, at: int, *, caught: bool) -> int:
        """There was an access with `at` instructions retired before it; how long to remain emulated behind it."""
        if self.policy.learns:
            site, before = exit.site, self._site
            gap = at - self._access_at
            if before is not None and not gap and (caught or self.vcpu.counts):
                return self._dwell  # another access of the same instruction
            native = self.ledger.native
            if before is not None and caught:
                self.policy.hit(before, gap)
            elif before is not None:
                emulated = gap - exit.before - (native - self._native)
                emulated = max(0, min(gap, emulated))
                if not self.vcpu.counts:
                    gap = emulated + max(1, self._elapsed // NATIVE_NS)
                self.policy.missed(before, gap, emulated, self.vcpu.counts)
            self._elapsed = 0
            self._exit, self._site, self._access_at, self._native = exit, site, at, native
        self._dwell = self.policy.dwell(exit, not caught)
        return self._dwell

    def _noted(self, cause: ExitCause, address: int, write: bool) -> None:
        """The emulator is about to access a device, which would have been an exit."""
        if self._kept is not None and self._kept(cause, address):
            if not self._quiet:
                self.ledger.requests += 1
            return  # a native CPU's would have been no exit to anybody but the hypervisor
        if self._quiet or not self.wants_native or self.native:
            return
        self._catch_up()
        at, emulator = self.emulator.retired, self.emulator
        mode = mode_of(emulator.live()) if self.policy.learns else Mode.REAL
        self._caught(VmExit(cause, emulator.instruction_pc, mode, address, write), at)

    def _inside(self) -> None:
        """The vCPU has accessed a device that is the hypervisor's own."""
        self.ledger.inside += 1

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Cpu."""
        super().on_fault(callback)
        if self.vcpu.real_is_v86:
            self.emulator.on_fault(partial(self._fault, callback))

    def _fault(self, callback: Callable[[Fault], None] | None, fault: Fault) -> None:
        """The emulator delivers an exception or a software interrupt, which may be an exit too."""
        wanted = self.wants_native and not self._quiet and not self.native
        if wanted and fault.interrupt is None and not self.emulator.live().cr0 & CR0_PE:
            self._catch_up()
            cause = ExitCause.SOFTWARE_INTERRUPT if fault.software else ExitCause.EXCEPTION
            self._caught(VmExit(cause, fault.linear, Mode.REAL, fault.vector), fault.retired)
        if callback is not None:
            callback(fault)

    def _caught(self, exit: VmExit, at: int) -> None:
        self.ledger.caught += 1
        until = max(self._held, at + 1 + self._accessed(exit, at, caught=True))
        if until > self._until:
            self._until = until
        elif until < self._until and self._look == LOOK_FIRST:
            self._until, self._shortened = until, True
            self.emulator.request_stop()

    def _catch_up(self) -> None:
        """Accesses that the emulator has answered by itself: as if they had come at equal distances from where the last
        one was that is known."""
        count, at = self.emulator.take_answered()
        exit = self._exit
        if not count or self._quiet or not self.wants_native or self.native:
            return
        self.ledger.caught += count
        span, site = at - self._access_at, self._site
        if self.policy.learns and exit is not None and site is not None and span > 0:
            for _ in range(min(count, TOLD)):
                self.policy.hit(site, max(1, span // count))
                self._dwell = self.policy.dwell(exit, False)
            self._access_at, self._native = at, self.ledger.native
        self._until = max(self._until, at + 1 + self._dwell)

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
            self.history.append(Transition(self.retired, self.linear_pc, False, "given a state that cannot be entered"))
            self._look, self._until = LOOK_FIRST, self.retired
            self._forget()


class _NotedPorts:
    """The emulator's ports."""

    def __init__(self, io: PortIo, note: Callable[[ExitCause, int, bool], None]) -> None:
        self._io, self._note = io, note

    def port_in(self, port: int, size: int) -> int:
        self._note(ExitCause.PIO, port, False)
        return self._io.port_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self._note(ExitCause.PIO, port, True)
        self._io.port_out(port, size, value)


class _NotedMemory:
    """The emulator's MMIO."""

    def __init__(self, bus: MmioBus, note: Callable[[ExitCause, int, bool], None]) -> None:
        self._bus, self._note = bus, note

    def mmio_read(self, address: int, size: int) -> int:
        self._note(ExitCause.MMIO, address, False)
        return self._bus.mmio_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self._note(ExitCause.MMIO, address, True)
        self._bus.mmio_write(address, size, value)
