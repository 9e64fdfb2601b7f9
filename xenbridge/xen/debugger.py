"""The debugger's API over a live domain, which is looked at, written, stepped and run; the rest is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from emu.catches import Catch
from emu.debugger import Debugger
from emu.inspector import DebuggerError
from emu.machine import Machine, MachineExit, MachineStop
from emu.onlooker import Visitor
from emu.stops import BreakKind, Breakpoint, Condition, Stop, StopKind
from emu.views import StuckView
from xenbridge.xen.running import RunningDomain

_ONLY_BREAKPOINTS = "Xen tells of no {}: breakpoints at addresses are what a domain has"


class DomainDebugger(Visitor):
    """`about`: a sentence that says what domain it is."""

    source = "Xen's CPU record"

    def __init__(self, domain: RunningDomain, about: str) -> None:
        # A machine in what steps and breakpoints need; for the rest it says why not.
        Debugger.__init__(self, cast(Machine, domain))
        self.domain = domain
        self.progress = _NoWatch()  # type: ignore[assignment]
        self.last_stop = Stop(StopKind.PAUSED, about, self.linear_pc() or 0, 0)

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
        passes: bool = False,
    ) -> Breakpoint:
        """As Debugger's, for execution. Raises DebuggerError for other kinds, and where steps cannot be made."""
        if kind is not BreakKind.EXECUTE:
            raise DebuggerError(_ONLY_BREAKPOINTS.format("accesses to memory that is the domain's own"))
        self.domain.stepper()
        return super().add_breakpoint(
            kind, address, length, owner=owner, temporary=temporary, spec=spec, condition=condition, action=action,
            passes=passes,
        )  # fmt: skip

    def add_catch(
        self,
        catch: Catch,
        *,
        owner: str = "prompt",
        temporary: bool = False,
        condition: Condition | None = None,
        action: Callable[[], None] | None = None,
    ) -> Breakpoint:
        raise DebuggerError(_ONLY_BREAKPOINTS.format("such events"))

    def begin_step(self, count: int = 1) -> None:
        """As Debugger's. Raises DebuggerError where steps cannot be made, as do the others of its kind."""
        self.domain.stepper()
        super().begin_step(count)

    def begin_over(self) -> None:
        self.domain.stepper()
        super().begin_over()

    def begin_range(self, start: int, end: int) -> None:
        self.domain.stepper()
        super().begin_range(start, end)

    def begin_until(self, address: int) -> None:
        self.domain.stepper()
        super().begin_until(address)

    def _classify(self, exit: MachineExit) -> Stop | None:
        kind = {MachineStop.FAILURE: StopKind.FAILURE, MachineStop.EVENT: StopKind.LIMIT}.get(exit.reason)
        return super()._classify(exit) if kind is None else self._stop_at(kind, exit.detail)

    def why_stuck(self) -> StuckView:
        raise DebuggerError("what a domain waits for is not looked for: only machines of v2e's own are known so well")


class _NoWatch:
    """In the place of `emu.progress.Watch`, which counts instructions."""

    noticed = None

    def arm(self, on: bool) -> None:
        return None

    def sample(self) -> None:
        return None

    def forget(self) -> None:
        return None
