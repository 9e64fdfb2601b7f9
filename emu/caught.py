"""Accesses and faults that are exits, or would have been: how the ledger and the policy are told of them.

The emulator's accesses to devices find the CPU emulated; what a vCPU leaves native execution for is an exit. Behind
each the policy says how long the CPU is to remain emulated. Who executes then is decided in `emu.transitions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from emu.engine import Executor, Fault, MmioBus, PortIo
from emu.ledger import Costs, Ledger
from emu.noted import NotedMemory, NotedPorts
from emu.policies import Policy
from emu.twin import Twin
from emu.vcpu import ExitCause, MakeVcpu, Place, Site, VmExit
from emu.x86.modes import Mode, mode_of
from emu.x86.state import CR0_PE

#: How soon a state that could not be entered is looked at again, in instructions: at first, and at most.
LOOK_FIRST, LOOK_LAST = 16, 65_536
#: Accesses to devices, which the emulator may answer by itself.
_DEVICES = frozenset((ExitCause.PIO, ExitCause.MMIO))
TOLD = 16  #: of the accesses that the emulator has answered by itself so many are told to the policy


class Caught(Twin):
    """Two CPUs whose accesses are counted, and told to `policy`. `place` is what both CPUs are made for, `make` makes
    the vCPU; `make_emulator` is given the place's ports and memory, telling of accesses."""

    def __init__(
        self,
        make_emulator: Callable[[PortIo, MmioBus], Executor],
        place: Place,
        make: MakeVcpu,
        policy: Policy,
        costs: Costs,
        unmarked: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        emulator = make_emulator(NotedPorts(place.io, self._noted), NotedMemory(place.mmio, self._noted))
        try:
            vcpu = make(place._replace(inside=self._inside))
        except BaseException:
            emulator.close()
            raise
        super().__init__(emulator, vcpu, place.regions, unmarked)
        self._kept = place.kept
        self.policy = policy
        self.ledger = Ledger(costs)
        self.forced: bool | None = None  #: True: native, False: emulated, whatever the policy says
        self._held = 0  # instructions retired up to which a person wants it emulated
        self._until = 0  # instructions retired at which to think about going native
        self._look = LOOK_FIRST
        self._shortened = False  # the emulator's run is ended because the CPU is to go native earlier
        self._quiet = False  # a look ahead is run, of which nobody is told
        self._site: Site | None = None  # of the access before
        self._access_at = 0  # instructions retired before it
        self._exit: VmExit | None = None  # itself
        self._access: VmExit | None = None  # that one, or the last that was to a device
        self._native = 0  # the ledger's native instructions up to it
        self._elapsed = 0  # ns that a vCPU which does not count has spent since
        self._dwell = 0  # decided at it
        emulator.note_answers()
        self._ask_to_be_told()

    @property
    def wants_native(self) -> bool:
        """The policy, or a person, wants the CPU native wherever that can be."""
        return self.policy.enters if self.forced is None else self.forced

    def set_policy(self, policy: Policy) -> None:
        """Decide by `policy` from now on."""
        self.policy, self._site, self._until = policy, None, 0
        policy.moved()
        self._ask_to_be_told()

    def _ask_to_be_told(self) -> None:
        """Whether the emulator tells of instructions that would have been exits, or of accesses alone."""
        self.emulator.tell_instructions(self.vcpu.exiting if self.policy.sees_all else 0, self._instruction)

    def _forget(self) -> None:
        """What comes now is no consequence of what the policy decided."""
        self._site = None
        self.policy.moved()

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
                    gap = emulated + max(1, int(self._elapsed / self.ledger.costs.native_ns))
                self.policy.missed(before, gap, emulated, self.vcpu.counts)
            self._elapsed = 0
            self._exit, self._site, self._access_at, self._native = exit, site, at, native
            if exit.cause in _DEVICES:
                self._access = exit
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
        self._caught(self._met(cause, emulator.instruction_pc, address, write), at)

    def _met(self, cause: ExitCause, pc: int, address: int, write: bool = False) -> VmExit:
        """What would have been an exit, with what only those that learn ask for."""
        if not self.policy.learns:
            return VmExit(cause, pc, Mode.REAL, address, write)
        live = self.emulator.live()
        mode = mode_of(live)
        barred = "system management mode is the emulator's" if live.smm else self.barred(pc, mode)
        return VmExit(cause, pc, mode, address, write, barred=barred)

    def _instruction(self, code: bytes) -> None:
        """The emulator is about to execute an instruction that may be an exit."""
        if self._quiet or not self.wants_native or self.native:
            return
        emulator = self.emulator
        at = emulator.retired
        if self._site is not None and at == self._access_at:
            return  # the exit was before it, and is known
        if (found := self.vcpu.exits_at(code, emulator.live())) is not None:
            cause, address, write = found
            self._catch_up()
            self._caught(self._met(cause, emulator.instruction_pc, address, write), at)

    def barred(self, pc: int, mode: Mode) -> str:
        """Why no code in this mode, at the linear address `pc`, can be native, whatever is decided; empty: it may."""
        return self.vcpu.rules.never.get(mode, "")

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
            self._caught(self._met(cause, fault.linear, fault.vector), fault.retired)
        if callback is not None:
            callback(fault)

    def _caught(self, exit: VmExit, at: int) -> None:
        self.ledger.caught += 1
        until = max(self._held, at + 1 + self._accessed(exit, at, caught=True))
        if until > self._until:
            # That the state could not be entered at some time before is nothing to this dwell: it is not begun twice.
            self._until, self._look = until, LOOK_FIRST
        elif until < self._until and self._look == LOOK_FIRST:
            self._until, self._shortened = until, True
            self.emulator.request_stop()

    def _catch_up(self) -> None:
        """Accesses that the emulator has answered by itself: as if they were like the last one that is known in this
        mode, and had come at equal distances from the last touch."""
        count, at = self.emulator.take_answered()
        exit, access = self._exit, self._access
        if exit is not None and access is not None and access.mode is exit.mode:
            exit = access
        if not count or self._quiet or self.native or not self.wants_native:
            return
        self.ledger.caught += count
        span, site = at - self._access_at, self._site
        if self.policy.learns and exit is not None and site is not None and span > 0:
            for _ in range(min(count, TOLD)):
                self.policy.hit(site, max(1, span // count))
                self._dwell, site = self.policy.dwell(exit, False), exit.site
            self._site, self._access_at, self._native = site, at, self.ledger.native
        self._until = max(self._until, at + 1 + self._dwell)
