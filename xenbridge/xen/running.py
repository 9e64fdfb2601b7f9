"""A live domain that runs: what the debugger asks of a machine, over steps and plain unpausing.

Xen counts no instructions: `retired` counts steps, and one for each stretch that runs on, so that two instants are told
apart. Breakpoints are met by steps: on SVM, Xen 4.17 has nothing else that writes no byte of the guest's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from emu.clock import Clock
from emu.engine import Exit, ExitReason, Watch
from emu.inspector import DebuggerError
from emu.journal import Journal
from emu.machine_exits import LIMIT, MachineExit, MachineStop
from emu.outputs import Outputs
from emu.x86.state import CpuState
from xenbridge.xen.channels import serve_until
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.live import LiveDomain
from xenbridge.xen.server import pause_between_accesses
from xenbridge.xen.stepper import Place, Stepper
from xenbridge.xen.wake import Wake, Woken

#: Seconds after which `run` comes back, so that who waits is heard: at least, for each instruction asked for, at most.
_LEAST, _EACH, _MOST = 0.01, 1e-7, 0.2
PATIENCE: Final = 10.0  #: seconds that a device model may take
#: Seconds for a step: the handlers of ticks that were missed while the domain was paused come before it.
STEP_PATIENCE: Final = 60.0
UNANSWERED: Final = "domain {} waits for its device model, which does not answer: do not write its registers"
PAUSED: Final = "domain {} is paused by somebody else too, and does not run before it is unpaused there"
_ONE_CPU: Final = "the others would run meanwhile"


class DomainCpu:
    """What is asked of a machine's CPU: of the paused vCPU, read from Xen once at each place where it stands."""

    transitions = None
    halted = False  # to Xen a vCPU that halts is one that waits: its step ends behind the interrupt's handler

    def __init__(self, read: Callable[[], CpuState]) -> None:
        self._read = read
        self._state: CpuState | None = None
        self._last: CpuState | None = None  # to be shown where the domain has gone
        self.retired = 0
        self.points: frozenset[int] = frozenset()

    def moved(self, count: int = 1) -> None:
        """The vCPU stands somewhere else."""
        self._state, self.retired = None, self.retired + count

    def changed(self) -> None:
        """Its registers were written."""
        self._state = None

    def live(self) -> CpuState:
        """See emu.engine.Cpu. Of a domain that is gone, what was known last."""
        if self._state is None:
            try:
                self._state = self._last = self._read()
            except DebuggerError:
                if self._last is None:
                    raise
                return self._last
        return self._state

    state = live

    @property
    def linear_pc(self) -> int:
        """See emu.engine.Cpu."""
        return self.live().linear_pc

    @property
    def cs_ip(self) -> tuple[int, int]:
        """See emu.engine.Cpu."""
        state = self.live()
        return state.cs.selector, state.rip

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See emu.engine.Cpu."""
        self.points = frozenset(linear)

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See emu.engine.Cpu. There are none: the debugger refuses them."""

    def request_stop(self) -> None:
        """See emu.engine.Cpu. The machine's `request_stop` ends runs."""


class NotOfDomains(DebuggerError, AttributeError):
    """What only machines have. Who asks whether it is there, as a protocol does, hears that it is not."""


class RunningDomain(LiveDomain):
    """A `Subject` that runs. Methods are one thread's, but for `request_stop`; between two runs the domain is paused.

    What else the debugger knows of machines is refused in a sentence."""

    transitions = native_limit = None
    native_over = interrupt_due = False

    def __init__(self, domain: Domain, cpu: int = 0) -> None:
        super().__init__(domain, cpu)
        self.executor = DomainCpu(super().cpu_state)
        self.clock = Clock(lambda: self.executor.retired)
        self.journal, self.outputs = Journal(), Outputs()
        self._wake = Wake()
        self._stepper: Stepper | None = None

    def __getattr__(self, name: str) -> Any:
        raise NotOfDomains("that is for machines of v2e's own: this is a domain of Xen")

    def cpu_state(self, cpu: int = 0) -> CpuState:
        """See Subject."""
        return self.executor.live() if cpu == 0 else super().cpu_state(cpu)

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        """See Subject."""
        super().load_cpu(state, cpu)
        self.executor.changed()

    def service(self) -> None:
        """Nothing of the domain is served here."""

    def request_stop(self) -> None:
        """From any thread or signal handler: `run` returns REQUEST as soon as the vCPU stands."""
        self._wake.set()

    # -- running

    def stepper(self) -> Stepper:
        """Made when it is needed first. Raises DebuggerError where this domain cannot be stepped."""
        if self._stepper is None:
            if (count := self.cpu_count()) != 1:
                raise DebuggerError(f"domain {self.domain.domid} has {count} vCPUs, steps are of one: {_ONE_CPU}")
            self._stepper = self._asked(lambda: Stepper(self.domain, self._wake))
        return self._stepper

    def step(self) -> MachineExit | None:
        """One instruction, whatever breakpoint is on it; None where it was not done, and is for `run`."""
        before = self.executor.retired
        exit = self.run(before + 1, skip_breakpoint=True)
        return None if exit is LIMIT and self.executor.retired == before else exit

    def run(
        self, until: int, *, skip_breakpoint: bool = False, passed: Callable[[], bool] | None = None
    ) -> MachineExit:
        """As Machine.run. Without breakpoints more than one instruction is a stretch that runs on: it is paused when
        somebody waits, and for a moment every 0.2 s. What cannot be stepped ends with EVENT, a domain that has gone
        with FAILURE; `detail` says it."""
        cpu, points = self.executor, self.executor.points
        end = time.monotonic() + min(_MOST, max(_LEAST, (until - cpu.retired) * _EACH))
        while True:
            if self._wake.taken():
                return MachineExit(MachineStop.REQUEST)
            if until <= cpu.retired:
                return LIMIT
            try:
                if points and not skip_breakpoint and cpu.linear_pc in points:
                    if passed is None or not passed():
                        return MachineExit(MachineStop.BREAKPOINT, Exit(ExitReason.BREAKPOINT, 0))
                elif not points and until > cpu.retired + 1:
                    return self._run_on(end)
                self._steps(until, points, end)
            except Woken:
                cpu.moved(0)
                if time.monotonic() > end:
                    return LIMIT
                continue
            except XenError as error:
                cpu.moved(0)
                return MachineExit(MachineStop.FAILURE if self._gone() else MachineStop.EVENT, detail=str(error))
            skip_breakpoint = False
            if time.monotonic() > end and cpu.linear_pc not in points:
                return LIMIT

    def _steps(self, until: int, points: frozenset[int], end: float) -> None:
        """One step, and more up to a breakpoint."""
        cpu, left = self.executor, until - self.executor.retired

        def enough(place: Place) -> bool:
            nonlocal left
            left -= 1
            cpu.moved()
            return left <= 0 or place.linear in points or time.monotonic() > end

        self.stepper().run(enough, patience=STEP_PATIENCE)

    def _run_on(self, end: float) -> MachineExit:
        domain, left = self.domain, max(0.0, end - time.monotonic())
        domain.resume()
        try:
            if "paused" in domain.states():
                return MachineExit(MachineStop.EVENT, detail=PAUSED.format(domain.domid))
            if self._stepper is not None and self._stepper.owes:
                self._stepper.let_run(self._wake, left)
            else:
                serve_until(self._wake.descriptor, domain.serving, left)
        finally:
            domain.pause()
            self.executor.moved()
        if not pause_between_accesses(domain, PATIENCE):
            return MachineExit(MachineStop.EVENT, detail=UNANSWERED.format(domain.domid))
        if "shutdown" in domain.states():
            return self._shut_down()
        return LIMIT

    def _gone(self) -> bool:
        """The domain will not run any more."""
        try:
            return "shutdown" in self.domain.states()
        except XenError:
            return True

    def _shut_down(self) -> MachineExit:
        reason = self.domain.shutdown_reason()
        if reason == "poweroff":
            return MachineExit(MachineStop.POWEROFF)
        return MachineExit(MachineStop.FAILURE, detail=f"domain {self.domain.domid} has shut down: {reason}")

    def close(self) -> None:
        """Let go of it, paused."""
        if self._stepper is not None:
            self._stepper.close()
            self._stepper = None
        self._wake.close()
