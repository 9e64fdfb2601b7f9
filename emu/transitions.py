"""Transitions: the Executor that has two CPUs, and decides which of them executes now, and why.

The vCPU runs where the policy wants it, the state can be entered, and nothing is set that only the emulator can do. It
leaves at exits: ports and memory of devices, and what a hypervisor has to be asked about. The policy then says how long
the CPU remains emulated. Who executes is no part of the guest: with a vCPU that counts its instructions a run is the
same to the byte under any policy. The ledger counts what it would have cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from emu.engine import Executor, Exit, ExitReason, MmioBus, PortIo
from emu.ledger import Costs, Ledger
from emu.policies import Policy
from emu.record import replace
from emu.twin import Twin
from emu.vcpu import ExitCause, MakeVcpu, Place, Site, VmExit
from emu.x86.modes import mode_of
from emu.x86.state import CpuState
from emu.x86.vmentry import Broken

BUDGET, REQUEST = ExitReason.BUDGET, ExitReason.REQUEST
#: How soon a state that could not be entered is looked at again, in instructions: at first, and at most.
LOOK_FIRST, LOOK_LAST = 16, 4096
HISTORY = 64  #: transitions that are remembered
#: Exits behind which the state may be one that cannot be entered again.
_CHANGING = frozenset((ExitCause.CR, ExitCause.MSR, ExitCause.DESCRIPTOR, ExitCause.TASK_SWITCH, ExitCause.REFUSED))


class NativeConfig(NamedTuple):
    """Whose vCPU runs natively, and by what policy."""

    make: MakeVcpu
    policy: Policy
    costs: Costs


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
            vcpu = config.make(place)
        except BaseException:
            emulator.close()
            raise
        super().__init__(emulator, vcpu, place.regions, unmarked)
        self.policy = config.policy
        self.ledger = Ledger(config.costs)
        self.forced: bool | None = None  #: True: native, False: emulated, whatever the policy says
        self.history: deque[Transition] = deque(maxlen=HISTORY)
        #: told of each transition, with what makes its text
        self.told: Callable[[int, Callable[[], str]], None] = lambda retired, text: None
        #: gives the virtual time in ns that a run may go on to, for a vCPU that does not count
        self.deadline: Callable[[], int | None] = lambda: None
        #: told the virtual time in ns that a vCPU which does not count has spent
        self.spent: Callable[[int], None] = lambda ns: None
        self.refusal: tuple[Broken, ...] = ()  #: why the state could not be entered when that was looked at last
        self._until = 0  # instructions retired at which to think about going native
        self._look = LOOK_FIRST
        self._site: Site | None = None  # of the access before
        self._access_at = 0  # instructions retired before it
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
            if reason := self.obstacle():
                raise EntryRefused(reason)
            if broken := self.vcpu.refused(self.state()):
                raise EntryRefused("; ".join(map(str, broken)))
        self.forced = native
        if native is not None:
            self._until = 0
            self._go(native, "forced")

    def set_policy(self, policy: Policy) -> None:
        """Decide by `policy` from now on."""
        self.policy, self._site, self._until = policy, None, 0

    def obstacle(self) -> str:
        """What keeps the CPU emulated whatever its state is; empty: nothing."""
        return self.vcpu.unable()

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
        while True:
            retired = self.retired
            if self._stop:
                self._stop = False
                return Exit(REQUEST, retired - start)
            if retired >= end:
                return Exit(BUDGET, retired - start)
            skip = skip_breakpoint and retired == start
            exit = self._run_native(end - retired, skip) if self.native else self._run_emulated(end - retired, skip)
            if exit is None:
                continue
            if exit.reason is REQUEST:
                self._stop = False
            executed = self.retired - start
            return exit if exit.executed == executed else replace(exit, executed=executed)

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
        try:
            exit = self.emulator.run(budget, skip_breakpoint=skip)
        finally:
            self.ledger.emulated += self.emulator.retired - before
        return None if exit.reason is BUDGET else exit

    def _enter(self) -> bool:
        """Go native if that can be; otherwise say when to look again."""
        reason = self.obstacle()
        if not reason and self.vcpu.likely(self.emulator.live()):
            self.refusal = self.vcpu.refused(self.emulator.state())
            if not self.refusal:
                self._go(True, "forced" if self.forced else "enterable")
                return True
        if self._look == LOOK_FIRST:
            self.ledger.failed += 1
        self._until = self.retired + self._look
        self._look = min(2 * self._look, LOOK_LAST)
        return False

    def _run_native(self, budget: int, skip: bool) -> Exit | None:
        vcpu = self.vcpu
        before = vcpu.retired
        try:
            exit = vcpu.enter(budget, self.deadline(), skip_breakpoint=skip)
        finally:
            self.ledger.native += vcpu.retired - before
        if exit.elapsed:
            self.spent(exit.elapsed)
        if exit.cause is ExitCause.STOPPED:
            stop = exit.stop
            return None if stop is None or (stop.reason is BUDGET and vcpu.counts) else stop
        return self._exited(exit)

    def _exited(self, exit: VmExit) -> Exit | None:
        self.ledger.charge(exit)
        if exit.cause is ExitCause.ENTRY_FAILED:
            self.ledger.failed += 1
            self._out(exit, LOOK_FIRST, f"entry failed: {exit.detail}")
        elif exit.cause is ExitCause.REFUSED:
            self._out(exit, 1, f"{self.vcpu.name} cannot execute {exit.detail}")
        elif exit.cause is not ExitCause.INTERRUPT:
            dwell = 0 if self.forced else self._accessed(exit, self.retired - (not exit.before), caught=False)
            if dwell:
                self._out(exit, dwell, "")
            elif exit.before and (done := self._complete(exit)) is not None:
                return done
        return exit.stop

    def _out(self, exit: VmExit, dwell: int, reason: str) -> None:
        self._go(False, reason or str(exit.site))
        self._until = self.retired + dwell

    def _complete(self, exit: VmExit) -> Exit | None:
        """The hypervisor executes what the exit is before."""
        before = self.vcpu.retired
        try:
            done = self.vcpu.complete(exit)
        finally:
            self.ledger.native += self.vcpu.retired - before
        if exit.cause in _CHANGING and (broken := self.vcpu.refused(self.vcpu.state())):
            self.refusal = broken
            self._out(exit, LOOK_FIRST, f"cannot be entered again: {broken[0]}")
        return None if done.reason is BUDGET else done

    # -- accesses, and what the policy learns of them

    def _accessed(self, exit: VmExit, at: int, *, caught: bool) -> int:
        """There was an access with `at` instructions retired before it; how long to remain emulated behind it."""
        site, before = exit.site, self._site
        if before is not None:
            (self.policy.hit if caught else self.policy.missed)(before, at - self._access_at)
        self._site, self._access_at = site, at
        return self.policy.dwell(exit)

    def _noted(self, cause: ExitCause, address: int, write: bool) -> None:
        """The emulator is about to access a device, which would have been an exit."""
        if self._quiet or not self.wants_native or self.native:
            return
        self.ledger.caught += 1
        at, emulator = self.emulator.retired, self.emulator
        exit = VmExit(cause, emulator.instruction_pc, mode_of(emulator.live()), address, write)
        if dwell := self._accessed(exit, at, caught=True):
            self._until = max(self._until, at + 1 + dwell)

    # -- state

    def set_retired(self, count: int) -> None:
        """See Cpu. Instants that were looked forward to are other ones now."""
        self._until, self._site = count, None
        super().set_retired(count)

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        was = self.native
        super().load(state)
        if was and not self.native and not self._quiet:
            self.ledger.hops_out += 1
            self.history.append(Transition(self.retired, self.linear_pc, False, "given a state that cannot be entered"))
            self._look, self._until = LOOK_FIRST, self.retired


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
