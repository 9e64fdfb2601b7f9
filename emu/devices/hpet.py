"""The high precision event timer: a 64-bit counter of 10 ns, three timers, legacy replacement; no FSB delivery.

Source: IA-PC HPET specification 1.0a: 2.3 (registers), 2.3.8 (timer configuration), 2.3.9.2.2 (periodic mode, value
set), 2.4.2 (legacy replacement routes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from emu import layout
from emu.clock import Clock
from emu.devices.shared_ports import HPET_TIMERS, SharedPorts
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

TICK_NS = 10
FS_PER_NS = 1_000_000
TIMERS = HPET_TIMERS
WORD = (1 << 64) - 1
HALF = (1 << 32) - 1
FAR = 1 << 62  #: ns from 0: an engine counts in 64 bits
# General configuration.
ENABLE, LEGACY = 1, 2
# Timer configuration.
LEVEL, INT_ENABLE, PERIODIC, PERIODIC_CAPABLE, SIZE_64, SET_VALUE, MODE_32 = 2, 4, 8, 16, 32, 64, 256
ROUTES = 0x00F00000  #: I/O APIC inputs 20-23
WRITABLE = LEVEL | INT_ENABLE | PERIODIC | MODE_32 | 0x3E00


@dataclass(slots=True)
class TimerState:
    """`period` is what periodic mode adds; `line` the level of its interrupt."""

    config: int = PERIODIC_CAPABLE | SIZE_64 | ROUTES << 32
    comparator: int = WORD
    period: int = 0
    line: int | None = None  #: the I/O APIC input, or IRQ, that is held; None: none


@dataclass(slots=True)
class State:
    """While enabled the counter is (now - `origin`) / `tick`, else `stopped`."""

    config: int = 0
    status: int = 0
    origin: int = 0
    stopped: int = 0
    timers: list[TimerState] = field(default_factory=lambda: [TimerState() for _ in range(TIMERS)])
    displaced: list[bool] = field(default_factory=lambda: [False, False])  #: levels of the 8254 and the RTC
    tick: int = TICK_NS  #: ns; another where another hypervisor had the machine before


class Hpet:
    """MMIO of 1 KiB at FED00000h. `irq(n, level)` drives I/O APIC input `n`. ISA IRQ 0 and 8, driven by `isa[0]` and
    `isa[1]`, are the 8254's and the RTC's, which drive `displaced(0)` and `displaced(1)`; legacy replacement takes
    them away."""

    def __init__(
        self,
        clock: Clock,
        irq: Callable[[int, bool], None],
        isa: tuple[Callable[[bool], None], Callable[[bool], None]],
        shared: SharedPorts | None = None,
        replaces: Callable[[bool], None] = lambda on: None,
    ) -> None:
        """In `shared` an engine may answer reads of the main counter, and take writes to comparators of idle timers.
        `replaces` is told before legacy replacement begins or ends, for an 8254 that drives nothing here."""
        self._replaces = replaces
        self._shared = SharedPorts() if shared is None else shared
        self._clock, self._irq, self._isa = clock, irq, isa
        self._timers = [clock.timer(f"hpet.{n}", self._due(n)) for n in range(TIMERS)]
        self._state = State()

    def displaced(self, which: int) -> Callable[[bool], None]:
        """What the 8254 (0) or the RTC (1) drives its line by."""

        def drive(level: bool) -> None:
            self._state.displaced[which] = level
            if not self._state.config & LEGACY:
                self._isa[which](level)

        return drive

    @property
    def counter(self) -> int:
        """The main counter."""
        s = self._state
        return (self._clock.now - s.origin) // s.tick & WORD if s.config & ENABLE else s.stopped

    def _due(self, n: int) -> Callable[[int], None]:
        def fire(_deadline: int) -> None:
            s, t = self._state, self._state.timers[n]
            if t.config & PERIODIC and t.period:
                mask = HALF if t.config & MODE_32 else WORD
                late = (self.counter - t.comparator & mask) // t.period
                t.comparator = t.comparator + (late + 1) * t.period & mask
            if t.config & LEVEL:
                s.status |= 1 << n
                self._drive(n, True)
            else:
                self._drive(n, False)
                self._drive(n, True)  # an edge; the line stays high until the next
            self._plan(n)

        return fire

    def _target(self, n: int) -> int:
        """The line of timer `n`; ISA lines as negative numbers below -1."""
        if self._state.config & LEGACY and n < 2:
            return -2 if n == 0 else -3
        return self._state.timers[n].config >> 9 & 31

    def line(self, n: int) -> tuple[int | None, int]:
        """Of timer `n` the ISA IRQ that it drives, if any, and the input of the I/O APIC."""
        target = self._target(n)
        return {-2: (0, 2), -3: (8, 8)}.get(target, (None, target))

    def _drive(self, n: int, level: bool) -> None:
        t = self._state.timers[n]
        if not level:
            if t.line is not None:
                line, t.line = t.line, None
                self._set(line, False)
            return
        t.line = self._target(n)
        self._set(t.line, True)

    def _set(self, line: int, level: bool) -> None:
        if line < 0:
            self._isa[0 if line == -2 else 1](level)
        elif line >= 20 and ROUTES >> line & 1:
            self._irq(line, level)

    def _plan(self, n: int) -> None:
        s, t = self._state, self._state.timers[n]
        self._timers[n].cancel()
        if not s.config & ENABLE or not t.config & INT_ENABLE:
            return
        counter = self.counter
        if t.config & MODE_32:
            ticks = (t.comparator - counter & HALF) or 1 << 32
        else:
            ticks = (t.comparator - counter & WORD) or 1 << 64
        if ticks < 1 << 58:  # 91 years: nobody waits so long
            self._timers[n].arm(s.origin + (self._ticks_gone() + ticks) * s.tick)

    def _ticks_gone(self) -> int:
        return (self._clock.now - self._state.origin) // self._state.tick

    # -- registers

    def peek(self, offset: int, size: int) -> int:
        self._take_back()
        at, shift = offset & ~7, 8 * (offset & 7)
        return self._get(at) >> shift & (1 << 8 * size) - 1

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def _get(self, at: int) -> int:
        s = self._state
        if at >= 0x100 and (at - 0x100) // 0x20 < TIMERS:
            t = s.timers[(at - 0x100) // 0x20]
            return {0: t.config, 8: t.comparator}.get(at & 0x1F, 0)
        capabilities = s.tick * FS_PER_NS << 32 | layout.HPET_ID
        return {0x00: capabilities, 0x10: s.config, 0x20: s.status, 0xF0: self.counter}.get(at, 0)

    def write(self, offset: int, value: int, size: int) -> None:
        """Aligned 32- and 64-bit accesses; others are ignored."""
        if size < 4 or offset % size:
            return
        self._take_back()
        self._write(offset, value, size)
        self._share()

    def _write(self, offset: int, value: int, size: int) -> None:
        at, shift = offset & ~7, 8 * (offset & 4)
        mask = ((1 << 8 * size) - 1) << shift
        value = value << shift & mask
        s = self._state
        if at == 0x10:
            self._configure(s.config & ~mask | value)
        elif at == 0x20:
            for n in range(TIMERS):
                if value & s.status & 1 << n:
                    s.status &= ~(1 << n)
                    self._drive(n, False)
        elif at == 0xF0 and not s.config & ENABLE:
            s.stopped = s.stopped & ~mask | value
        elif at >= 0x100 and (at - 0x100) // 0x20 < TIMERS:
            n = (at - 0x100) // 0x20
            if at & 0x1F == 0:
                self._configure_timer(n, s.timers[n].config & ~mask | value)
            elif at & 0x1F == 8:
                self._compare(n, value, mask)

    def _configure(self, value: int) -> None:
        s = self._state
        now, before = self.counter, s.config
        s.config = value & (ENABLE | LEGACY)
        if s.config & ENABLE and not before & ENABLE:
            s.origin = self._clock.now - s.stopped * s.tick
        elif before & ENABLE and not s.config & ENABLE:
            s.stopped = now
        if (before ^ s.config) & LEGACY:
            self._replaces(bool(s.config & LEGACY))
            for n in range(2):
                self._drive(n, False)
                self._isa[n](False if s.config & LEGACY else s.displaced[n])
        for n in range(TIMERS):
            self._plan(n)

    def _share(self) -> None:
        s, shared = self._state, self._shared
        shared.hpet_tick = 0
        if s.config & ENABLE and abs(s.origin) < FAR:
            shared.hpet_origin, shared.hpet_tick = s.origin, s.tick
        shared.idle_timers = 0
        for n, t in enumerate(s.timers):
            if not t.config & (INT_ENABLE | PERIODIC | SET_VALUE | MODE_32):
                shared.idle_timers |= 1 << n
                shared.comparators[n] = t.comparator

    def _take_back(self) -> None:
        """Know the comparators that an engine has written meanwhile."""
        shared = self._shared
        if idle := shared.idle_timers:
            for n, t in enumerate(self._state.timers):
                if idle >> n & 1:
                    t.comparator = shared.comparators[n]

    def _configure_timer(self, n: int, value: int) -> None:
        t = self._state.timers[n]
        t.config = t.config & ~(WRITABLE | SET_VALUE) | value & (WRITABLE | SET_VALUE)
        if t.config & MODE_32:
            t.comparator &= HALF
            t.period &= HALF
        if not t.config & INT_ENABLE or (t.line is not None and t.line != self._target(n)):
            self._drive(n, False)
        self._plan(n)

    def _compare(self, n: int, value: int, mask: int) -> None:
        """In periodic mode the value is the period, and the comparator too only right after SET_VALUE."""
        t = self._state.timers[n]
        if t.config & MODE_32:
            mask &= HALF
            value &= HALF
        if not t.config & PERIODIC or t.config & SET_VALUE:
            t.comparator = t.comparator & ~mask | value
        if t.config & PERIODIC:
            t.period = t.period & ~mask | value
        t.config &= ~SET_VALUE
        self._plan(n)

    # -- state

    def reset(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for n in range(TIMERS):
            self._drive(n, False)
        if self._state.config & LEGACY:
            self._replaces(False)
        self._state = State(displaced=self._state.displaced, tick=self._state.tick)
        self._share()
        for drive, level in zip(self._isa, self._state.displaced, strict=True):
            drive(level)

    def save(self) -> State:
        self._take_back()
        return copy.deepcopy(self._state)

    def restore(self, state: State) -> None:
        """Its timers come back with the clock, lines with their receivers."""
        before, self._state = self._state.config, copy.deepcopy(state)
        if (before ^ self._state.config) & LEGACY:
            self._replaces(bool(self._state.config & LEGACY))
        self._share()

    def view(self) -> DeviceView:
        self._take_back()
        s = self._state
        on = "counts" if s.config & ENABLE else "stopped"
        fields = [
            FieldView("configuration", s.config, f"{on}{', legacy replacement' if s.config & LEGACY else ''}"),
            FieldView("status", s.status),
            FieldView("counter", self.counter, f"{s.tick} ns"),
        ]
        for n, t in enumerate(s.timers):
            words = ["periodic" if t.config & PERIODIC else "one-shot", "32-bit" if t.config & MODE_32 else "64-bit"]
            words += ["level" if t.config & LEVEL else "edge", "on" if t.config & INT_ENABLE else "off"]
            fields.append(FieldView(f"timer {n}", t.config & HALF, f"{' '.join(words)}, input {t.config >> 9 & 31}"))
            fields.append(FieldView(f"timer {n} comparator", t.comparator, f"period {t.period}"))
        return DeviceView("hpet", "HPET", "FED00000h", tuple(fields))
