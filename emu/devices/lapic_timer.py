"""The local APIC's timer: one-shot, periodic and TSC-deadline, in closed form.

Source: Intel SDM vol. 3A, 11.5.4 (APIC timer), 11.5.4.1 (TSC-deadline mode), figure 11-10 (divide configuration). Its
input clock is one count a virtual nanosecond, as QEMU's (hw/intc/apic_common.c); where another hypervisor had the
machine before it is that one's, so that what the guest has measured stays true.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.record import dataclass
from emu.views import FieldView

ONE_SHOT, PERIODIC, DEADLINE = 0, 1, 2
_MODES = ("one-shot", "periodic", "TSC-deadline", "reserved")


@dataclass(slots=True)
class TimerState:
    """`started` is the virtual time (ns) at which the count was `initial`; `target` the TSC deadline, 0 none."""

    mode: int = ONE_SHOT
    masked: bool = True
    divide: int = 0
    initial: int = 0
    started: int = 0
    target: int = 0
    tick: int = 1  #: ns a count of the input clock


class LapicTimer:
    """`fire` is called at each end of a count while the entry is not masked. `state` belongs to the APIC."""

    def __init__(self, clock: Clock, tsc: Callable[[], int], fire: Callable[[], None]) -> None:
        self._clock, self._tsc, self._fire = clock, tsc, fire
        self._timer = clock.timer("lapic", self._due)
        self.state = TimerState()

    @property
    def divisor(self) -> int:
        """1 to 128, from bits 3, 1 and 0: 111b is 1, 000b is 2."""
        bits = self.state.divide & 3 | self.state.divide >> 1 & 4
        return 1 << (bits + 1 & 7)

    @property
    def _period(self) -> int:
        """Of the count, in ns."""
        return self.divisor * self.state.tick

    def attach(self, state: TimerState) -> None:
        """A reset: the count begins anew with `state`."""
        self.state = state
        self._timer.cancel()

    def current(self) -> int:
        """The current-count register."""
        s = self.state
        if not s.initial or s.mode == DEADLINE:
            return 0
        gone = (self._clock.now - s.started) // self._period
        if s.mode == PERIODIC:
            return s.initial - gone % s.initial
        return max(0, s.initial - gone)

    def set_mode(self, mode: int, *, masked: bool) -> None:
        """The timer entry of the local vector table was written."""
        s = self.state
        if (mode == DEADLINE) != (s.mode == DEADLINE):
            s.initial = s.target = 0  # a change to or from TSC-deadline mode disarms (11.5.4.1)
        s.mode = mode
        self.replan(masked=masked)

    def set_initial(self, value: int) -> None:
        """Starts the count; 0 stops it. Ignored in TSC-deadline mode."""
        s = self.state
        if s.mode != DEADLINE:
            s.initial, s.started = value & 0xFFFFFFFF, self._clock.now
            self.replan(masked=s.masked)

    def set_divide(self, value: int) -> None:
        """The count goes on from where it is."""
        s = self.state
        left = self.current()
        s.divide = value
        if s.initial and s.mode != DEADLINE:
            s.started = self._clock.now - (s.initial - left) * self._period
        self.replan(masked=s.masked)

    def set_deadline(self, value: int) -> None:
        """IA32_TSC_DEADLINE; ignored in the other modes."""
        s = self.state
        if s.mode == DEADLINE:
            s.target = value
            self.replan(masked=s.masked)

    def time_set(self) -> None:
        """The time-stamp counter was written: it reaches the deadline at another time."""
        if self.state.mode == DEADLINE:
            self.replan(masked=self.state.masked)

    def deadline_value(self) -> int:
        """What IA32_TSC_DEADLINE reads: 0 when nothing is awaited."""
        s = self.state
        return s.target if s.mode == DEADLINE and s.target > self._tsc() else 0

    def replan(self, *, masked: bool) -> None:
        """Arm for the next end of the count that anyone would notice."""
        s = self.state
        s.masked = masked
        now = self._clock.now
        self._timer.cancel()
        if masked:
            return
        if s.mode == DEADLINE:
            if s.target:
                self._timer.arm(now + max(0, s.target - self._tsc()))
        elif s.initial:
            length = s.initial * self._period
            if s.mode == PERIODIC:
                self._timer.arm(s.started + ((now - s.started) // length + 1) * length)
            elif s.started + length > now:
                self._timer.arm(s.started + length)

    def _due(self, _deadline: int) -> None:
        s = self.state
        if s.mode == DEADLINE:
            s.target = 0
        if s.mode == PERIODIC:
            self.replan(masked=s.masked)  # ends that passed together are one request
        self._fire()

    def fields(self) -> list[FieldView]:
        """For the view of its APIC."""
        s = self.state
        return [
            FieldView("timer mode", _MODES[s.mode], f"input clock divided by {self.divisor}"),
            FieldView("initial count", s.initial),
            FieldView("current count", self.current()),
            FieldView("TSC deadline", self.deadline_value()),
        ]
