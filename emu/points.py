"""What may end a run: breakpoints of every kind, a limit, an event that is waited for: kept and armed in the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.catcher import Catcher
from emu.catches import Catch, CatchKind
from emu.engine import Access, Watch
from emu.inspector import DebuggerError
from emu.machine import Machine
from emu.panel import Panel
from emu.stops import BreakKind, Breakpoint, Condition
from emu.typed import Final
from emu.until import SCREEN_IDLE_PERIODS, SCREEN_PERIOD_NS, TAIL, Until

UNBOUNDED = 1 << 62
NO_LIMITS: Final = (UNBOUNDED,)
MAX_WATCH = 1 << 20  #: bytes; each page of a watched range is translated and followed
_WATCH_ACCESS = {BreakKind.WRITE: Access.WRITE, BreakKind.READ: Access.READ, BreakKind.ACCESS: Access.BOTH}
#: Of a vCPU that does not count, ns of native time for each instruction of a limit, and the least of it.
NATIVE_NS, LEAST_NATIVE_NS = 100, 10_000_000_000


class Points(Panel):
    """See the module's head."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._acting = False  #: an action goes on
        self._breakpoints: dict[int, Breakpoint] = {}
        self._next_id = 1
        self._limit: int | None = None
        self._until: Until | None = None
        self._until_met = False
        self._looked_at = (-1, -1)  # what the CPUs had done when the screen was last looked at
        self._armed: frozenset[int] = frozenset()
        self._passing: list[Breakpoint] = []  #: those that never stop
        self._points: frozenset[int] | None = None  # of `_execute_points`, while nothing changes them
        self._unarmed = False  # watchpoints have changed since the guest ran
        #: watchpoints that were removed since the guest ran, by what they watch and for whom
        self._removed: dict[tuple[BreakKind, int, int, str], Breakpoint] = {}
        self._watch_ids: dict[Watch, list[int]] = {}
        self._catcher = Catcher(machine, lambda: self.running, self.try_glance, self.place)
        self._screen_timer = machine.clock.timer("host.screen", self._look_at_screen, host=True)
        self._screen_timer.wakes = False

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
        passes: bool = False,
    ) -> Breakpoint:
        """At linear `address`. With `action` it never stops: that is done at each hit. `passes`: also where a step or
        anything else ends a run there.

        Raises DebuggerError for an address over 64 bits or a length that is not positive."""
        if not 0 <= address < 1 << 64:
            raise DebuggerError(f"address {address:#x} does not fit in 64 bits")
        if not 1 <= length <= MAX_WATCH:
            raise DebuggerError(f"a length of {length} bytes cannot be watched: use 1 to {MAX_WATCH}")
        point = Breakpoint(self._next_id, kind, address, length, True, temporary, owner, spec or f"{address:#x}")
        point.condition, point.action, point.passes = condition, action, passes
        self._next_id += 1
        self._breakpoints[point.id] = point
        self._changed(point)
        return point

    def put_back(self, kind: BreakKind, address: int, length: int, owner: str) -> Breakpoint | None:
        """Set the watchpoint like this again that was removed since the guest ran, if there is one: it keeps its number
        and its hits. gdb takes its own out at each stop, and puts them in again."""
        point = self._removed.pop((kind, address, length, owner), None)
        if point is not None:
            self._breakpoints = dict(sorted({**self._breakpoints, point.id: point}.items()))
            self._changed(point)
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
        self._changed(point)
        return point

    def _point(self, id: int) -> Breakpoint:
        point = self._breakpoints.get(id)
        if point is None:
            raise DebuggerError(f"there is no breakpoint {id}")
        return point

    def remove_breakpoint(self, id: int) -> None:
        point = self._point(id)
        del self._breakpoints[id]
        if point.kind in _WATCH_ACCESS and point.enabled and not (point.condition or point.action):
            self._removed[point.kind, point.address, point.length, point.owner] = point
        self._changed(point)

    def enable_breakpoint(self, id: int, enabled: bool) -> None:
        point = self._point(id)
        point.enabled = enabled
        self._changed(point)

    def set_condition(self, id: int, condition: Condition | None, action: Callable[[], None] | None = None) -> None:
        """What the breakpoint depends on, and what it does instead of stopping, at each arrival as one that passes."""
        point = self._point(id)
        point.condition, point.action, point.passes = condition, action, action is not None
        self._changed(point)

    def remove_owned(self, owner: str) -> None:
        """Remove all that front end `owner` has set."""
        for point in [point for point in self._breakpoints.values() if point.owner == owner]:
            self.remove_breakpoint(point.id)

    def _changed(self, point: Breakpoint) -> None:
        """`point` has come, gone, or is another one. Events are looked for from now on; addresses when the guest runs,
        since gdb takes its breakpoints away at each stop and sets them again."""
        self._points = None
        self._passing = [p for p in self._breakpoints.values() if p.passes and p.enabled]
        self._unarmed = self._unarmed or point.kind is not BreakKind.EXECUTE
        if point.catch is not None:
            self._catcher.arm(self._breakpoints.values())
            self._hear()

    def _arm_watches(self) -> None:
        self._unarmed = False
        self._removed.clear()
        watches: dict[Watch, list[int]] = {}
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

    @property
    def running(self) -> bool:
        return self._acting

    def set_limit(self, retired: int | None) -> None:
        """End any run with LIMIT when `retired` instructions have retired since reset. A vCPU that does not count has
        a bound of time for it."""
        self._limit = retired
        bound = None if retired is None else max(LEAST_NATIVE_NS, retired * NATIVE_NS)
        self.machine.native_limit = bound

    def set_until(self, condition: Until | None) -> None:
        """End any run with EVENT when `condition` holds. Raises DebuggerError for a count of instructions where they
        are not counted."""
        transitions = self.machine.transitions
        if condition is not None and condition.kind == "insns" and transitions and not transitions.vcpu.counts:
            raise DebuggerError(
                f"{condition.spec}: {transitions.vcpu.name} does not count instructions; wait for another event, "
                "or use --hypervisor model"
            )
        self._until, self._until_met, self._looked_at, self._points = condition, False, (-1, -1), None
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
        done = self.machine.executor.retired, self.machine.native_ns  # a vCPU may not count, but it takes time
        executed, self._looked_at = done != self._looked_at, done
        if not executed:
            self._screen_timer.arm(deadline + SCREEN_IDLE_PERIODS * SCREEN_PERIOD_NS)
        elif self._screen_matches():
            self._until_met = True
            self.machine.request_stop()
        else:
            self._catcher.look_at_screen()
            if self._catcher.looks_at_screen or (self._until is not None and self._until.kind == "text"):
                self._screen_timer.arm(deadline + SCREEN_PERIOD_NS)

    def _bounded(self) -> bool:
        """True when the limit, an `insns:` event or a count has been reached."""
        if (limits := self._limits()) is NO_LIMITS:
            return False
        retired = self.machine.executor.retired
        return self._catcher.counted or self.machine.native_over or any(retired >= limit for limit in limits)

    def _limits(self) -> Sequence[int]:
        """Where a run has to end, in instructions retired; at least one."""
        if self._limit is None and self._until is None and not self._catcher.armed:
            return NO_LIMITS
        found = [UNBOUNDED if self._limit is None else self._limit, *self._catcher.counts()]
        if self._until is not None and self._until.kind == "insns":
            found.append(self._until.value)
        return found
