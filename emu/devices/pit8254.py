"""The 8254 programmable interval timer and system control port B (port 61h), which gates and observes it.

Source: Intel 8254 Programmable Interval Timer data sheet, order number 231164 ("8254" below): sections "Write
Operations", "Read Operations", "Mode Definitions", "Operation Common to All Modes". Port 61h: IBM PC/AT Technical
Reference (6280070), "System Board", and Intel 82371SB (PIIX3) data sheet 290550, "NMISC".

Nothing is done per tick. A counter holds its state as of one CLK pulse and is carried to a later one in closed form.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.shared_ports import SharedPorts
from emu.record import dataclass, replace
from emu.views import DeviceView, FieldView

#: CLK of all three counters, Hz (the AT's 14.318 MHz crystal divided by 12).
FREQUENCY = 1_193_182
_SECOND = 1_000_000_000

#: Control word D7-D6 = 11: the read-back command (8254, figure 10); its D5 and D4 are active low.
_READ_BACK = 3
_RB_NO_COUNT = 0x20
_RB_NO_STATUS = 0x10
#: Status byte (8254, figure 11); D5-D0 repeat the control word.
_STATUS_OUT = 0x80
_STATUS_NULL_COUNT = 0x40

_MODE_NAMES = (
    "interrupt on terminal count",
    "hardware retriggerable one-shot",
    "rate generator",
    "square wave",
    "software triggered strobe",
    "hardware triggered strobe",
)
_RW_NAMES = ("none", "LSB", "MSB", "LSB then MSB")

#: The count that makes counter 1 ask for a DRAM refresh each 15.085 us, as every PC's POST programs it.
MAX_QUIET = 0xFFFF  #: CLK pulses
REFRESH_COUNT = 18


def pulses_at(now: int) -> int:
    """CLK pulses since virtual time 0, at instant `now` (ns)."""
    return now * FREQUENCY // _SECOND


def instant_of(pulse: int) -> int:
    """The first ns at which `pulses_at` is `pulse`."""
    return -(-pulse * _SECOND // FREQUENCY)


@dataclass(slots=True)
class Counter:
    """One counter, as of CLK pulse `pulse`. Its fields are the whole state; the names are the data sheet's.

    `ce` (the counting element) and `loaded` (the count last moved into it) are in counts, not in BCD digits; a count
    of 0 stands for 65536 (BCD: 10000) until it is decremented.
    """

    control: int = 0x36  #: D5-D0 of the control word: RW1 RW0 M2 M1 M0 BCD
    count_register: int = 0  #: CR, 16 bits as written
    written: bool = False  #: a whole count has arrived since the control word
    null_count: bool = True  #: CR holds a count that is not yet in CE
    first_byte: int | None = None  #: the LSB of a two-byte count whose MSB is still to come
    read_high: bool = False  #: the next byte of a two-byte read is the MSB
    latch: int | None = None  #: OL when latched by a command, 16 bits
    latch_left: int = 0  #: bytes of it not yet read
    status: int | None = None  #: the latched status byte
    gate: bool = True
    trigger: bool = False  #: GATE rose; sampled by the next CLK pulse
    load: bool = False  #: the next CLK pulse moves CR to CE
    running: bool = False  #: CE has been loaded since the control word
    ce: int = 0
    loaded: int = 0
    done: bool = False  #: terminal count was reached since the last load (modes 0, 1, 4, 5)
    out: bool = True
    rises: int = 0  #: how often OUT rose, modulo 2: what a toggle flip-flop on it shows
    pulse: int = 0

    @property
    def mode(self) -> int:
        """0-5; M2 is a don't care in modes 2 and 3 (8254, figure 7)."""
        mode = self.control >> 1 & 7
        return mode & 3 if mode > 5 else mode

    @property
    def rw(self) -> int:
        """RW1 RW0: 1 LSB only, 2 MSB only, 3 LSB then MSB."""
        return self.control >> 4 & 3

    @property
    def bcd(self) -> bool:
        return bool(self.control & 1)

    @property
    def modulus(self) -> int:
        return 10_000 if self.bcd else 0x10000

    @property
    def initial_count(self) -> int:
        """CR in counts, 1 to `modulus`."""
        raw = self.count_register
        count = sum((raw >> 4 * i & 15) * 10**i for i in range(4)) if self.bcd else raw
        return count or self.modulus

    @property
    def shown(self) -> int:
        """CE as a read sees it: 16 bits, in BCD digits when counting so."""
        count = self.ce % self.modulus
        return int(f"{count}", 16) if self.bcd else count

    # -- the CLK input -------------------------------------------------------------------------------------------

    def _set_out(self, level: bool) -> None:
        if level and not self.out:
            self.rises ^= 1
        self.out = level

    def _move_count(self) -> None:
        """CR to CE: "initial count minus one" for the odd counts of mode 3."""
        count = self.initial_count
        self.loaded = count
        self.ce = count & ~1 if self.mode == 3 else count
        self.null_count = self.load = self.trigger = self.done = False
        self.running = True

    @property
    def counting(self) -> bool:
        """CE is decremented by CLK pulses. GATE is only an edge trigger in modes 1 and 5."""
        if not self.running or (self.mode == 0 and self.first_byte is not None):
            return False
        return self.gate or self.mode in (1, 5)

    def _clk(self) -> None:
        """One CLK pulse, in the words of the data sheet's mode definitions."""
        mode = self.mode
        if mode in (4, 5):
            self._set_out(True)  # a strobe lasts one CLK pulse
        triggered = self.trigger and self.written
        self.trigger = False
        if self.load or triggered:
            self._move_count()
            if mode != 0:
                self._set_out(mode != 1)
        elif not self.counting:
            return
        elif mode == 2:
            if self.ce == 1:
                self._move_count()
                self._set_out(True)
            else:
                self.ce -= 1
                if self.ce == 1:
                    self._set_out(False)
        elif mode == 3:
            if self.loaded == 1:
                self._move_count()
                return
            expired = self.ce == 0
            if not expired:
                self.ce -= 2
            tail = not expired and self.loaded & 1 and self.out  # an odd count's high half is one pulse longer
            if self.ce == 0 and not tail:
                self._move_count()
                self._set_out(not self.out)
        else:
            self.ce = (self.ce - 1) % self.modulus
            if self.ce == 0 and not self.done:
                self.done = True
                self._set_out(mode < 2)

    def quiet(self) -> int | None:
        """How many of the coming CLK pulses do nothing but decrement; None: all of them, or they do nothing at all."""
        mode = self.mode
        if self.load or (self.trigger and self.written) or (mode in (4, 5) and not self.out):
            return 0
        if not self.counting or self.done:
            return None
        if mode in (2, 3) and self.loaded == 1:
            return 0 if self.null_count else None
        if mode == 2:
            return max(0, self.ce - 2)
        return max(0, self.ce // 2 - 1) if mode == 3 else self.ce - 1

    def _decrement(self, pulses: int) -> None:
        """`pulses` CLK pulses, not more than are quiet."""
        self.ce -= 2 * pulses if self.mode == 3 else pulses

    def advance(self, pulse: int) -> None:
        """Carry the counter to CLK pulse `pulse`; earlier pulses leave it as it is."""
        left = pulse - self.pulse
        if left <= 0:
            return
        self.pulse = pulse
        while left:
            quiet = self.quiet()
            if quiet is None:
                self.trigger = False
                if self.counting and self.done:
                    self.ce = (self.ce - left) % self.modulus
                return
            if quiet:
                step = min(left, quiet)
                self._decrement(step)
                left -= step
                continue
            self._clk()
            left -= 1
            if self.mode in (2, 3) and self.counting and not self.null_count and left > self.loaded > 1:
                periods, left = divmod(left, self.loaded)
                self.rises ^= periods & 1

    def next_edge(self) -> int | None:
        """The CLK pulse at which OUT changes next if nothing is written and GATE stays; None: never."""
        if self.mode == 2 and self.loaded > 1 and self.counting and not self.load and not self.trigger:
            # The usual clock: low at the count of 1, high again at the next.
            if self.out and self.ce > 1:
                return self.pulse + self.ce - 1
            if not self.out and self.ce == 1:
                return self.pulse + 1
        ahead = replace(self)
        while (quiet := ahead.quiet()) is not None:
            ahead._decrement(quiet)
            ahead._clk()
            ahead.pulse += quiet + 1
            if ahead.out != self.out:
                return ahead.pulse
        return None

    # -- the bus and GATE: all of these act at the present `pulse` -----------------------------------------------

    def write_control(self, control: int) -> None:
        """A control word: "all control logic is immediately reset and OUT goes to a known initial state"."""
        self.control = control & 0x3F
        self.count_register = 0
        self.written = self.read_high = self.trigger = self.load = self.running = self.done = False
        self.first_byte = self.latch = self.status = None
        self.latch_left = 0
        self.null_count = True
        self._set_out(self.mode != 0)

    def write_count(self, value: int) -> None:
        """A byte of a count, as RW1 RW0 says."""
        if self.mode == 0:
            self._set_out(False)
        if self.rw == 3 and self.first_byte is None:
            self.first_byte = value
            return
        if self.rw == 3:
            self.count_register = value << 8 | (self.first_byte or 0)
            self.first_byte = None
        else:
            self.count_register = value if self.rw == 1 else value << 8
        # Modes 2 and 3 take a later count at the end of the (half) period, modes 1 and 5 at a trigger.
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.running):
            self.load = True
        self.written = self.null_count = True

    def latch_count(self) -> None:
        """The counter latch command; "ignored" while an earlier one has not been read."""
        if self.latch is None:
            self.latch = self.shown
            self.latch_left = 2 if self.rw == 3 else 1

    def latch_status(self) -> None:
        """The status half of the read-back command; ignored while an earlier one has not been read."""
        if self.status is None:
            self.status = self.control | _STATUS_OUT * self.out | _STATUS_NULL_COUNT * self.null_count

    def peek(self) -> int:
        """The byte that the next read returns."""
        if self.status is not None:
            return self.status
        value = self.shown if self.latch is None else self.latch
        high = self.rw == 2 or (self.rw == 3 and self.read_high)
        return value >> 8 if high else value & 0xFF

    def read(self) -> int:
        """A byte: the latched status first, then the latched count, then CE."""
        value = self.peek()
        if self.status is not None:
            self.status = None
            return value
        if self.rw == 3:
            self.read_high = not self.read_high
        if self.latch is not None:
            self.latch_left -= 1
            if not self.latch_left:
                self.latch = None
        return value

    def set_gate(self, level: bool) -> None:
        """GATE (8254, figure 21): in modes 2 and 3 a low level also sets OUT high at once."""
        if level and not self.gate and self.mode not in (0, 4):
            self.trigger = True
        if not level and self.mode in (2, 3):
            self._set_out(True)
        self.gate = level


@dataclass(slots=True)
class State:
    """The three counters, each as of the instant of the save."""

    counters: list[Counter]


class Pit8254:
    """Ports 40h-43h. `irq0(level)` follows OUT of counter 0 at the exact instants of its edges.

    The gates of counters 0 and 1 are tied high, that of counter 2 is port 61h's. Before a control word the chip's
    state is undefined; here OUT is high and nothing counts, but counter 1 already makes refresh requests, on which
    software depends that finds a firmware which never programs it.
    """

    def __init__(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None = None) -> None:
        """From `shared` an engine may answer counter 0's latch commands and their reads."""
        self._clock = clock
        self._shared = SharedPorts() if shared is None else shared
        self._irq0 = irq0
        self.timer = clock.timer("pit", self._edge)
        #: called before anybody looks: an engine may have passed edges of counter 0 (`emu.devices.ticks`)
        self.before: Callable[[], None] = lambda: None
        self._counters: list[Counter] = []
        self._next_edge: int | None = None
        self.revision = 0  #: changes with everything but time that can change a pin
        self.reset()

    def reset(self) -> None:
        """Power-on."""
        self.revision += 1
        pulse = pulses_at(self._clock.now)
        self._counters = [Counter(gate=i != 2, pulse=pulse) for i in range(3)]
        self._counters[1].write_control(0x14)
        self._counters[1].write_count(REFRESH_COUNT)
        self._replan()
        self._share()
        self._irq0(True)

    # -- what an engine may answer by itself -------------------------------------------------------------------------

    def _share(self) -> None:
        """Say how counter 0 goes on, if an engine may answer for it."""
        c, shared = self._counters[0], self._shared
        left = c.latch_left if c.latch is not None else 0
        shared.ready = ready = (
            c.mode == 2 and c.rw == 3 and not c.bcd and c.counting and c.loaded > 1 and c.ce > 0
            and not (c.load or c.trigger or c.null_count) and c.status is None and c.read_high == (left == 1)
        )  # fmt: skip
        if ready:
            shared.pulse, shared.ce, shared.loaded = c.pulse, c.ce, c.loaded
            shared.latch, shared.left = c.latch or 0, left
            self._share_edge()

    def _share_edge(self) -> None:
        assert self._next_edge is not None, "mode 2 goes on for ever"
        self._shared.edge, self._shared.out = self._next_edge, self._counters[0].out

    def passed(self, edge: int, out: bool) -> None:
        """An engine has passed edges of counter 0: OUT is `out` now, and changes next at CLK pulse `edge`. `irq0` was
        not told."""
        counter = self._counters[0]
        counter.advance(edge - (counter.loaded - 1 if out else 1))
        self._next_edge = edge
        self.timer.move(instant_of(edge))

    def _take_back(self) -> None:
        """Know what was latched and read meanwhile."""
        self.before()
        shared = self._shared
        if shared.ready:
            c, left = self._counters[0], shared.left
            c.latch, c.latch_left, c.read_high = shared.latch if left else None, left, left == 1

    # -- time ------------------------------------------------------------------------------------------------------

    def _catch_up(self, pulse: int, index: int = 0) -> None:
        """Counter 0 to `pulse`, telling `irq0` of each edge on the way, and counter `index`. Nobody is told of what the
        others do, so they are carried on when somebody asks."""
        self.before()
        counter = self._counters[0]
        while self._next_edge is not None and self._next_edge <= pulse:
            counter.advance(self._next_edge)
            self._next_edge = counter.next_edge()
            self._irq0(counter.out)
        counter.advance(pulse)
        if index:
            self._counters[index].advance(pulse)

    def _replan(self) -> None:
        self._next_edge = self._counters[0].next_edge()
        if self._next_edge is None:
            self.timer.cancel()
        elif (deadline := instant_of(self._next_edge)) != self.timer.deadline:
            self.timer.arm(deadline)

    def _edge(self, deadline: int) -> None:
        self._catch_up(pulses_at(deadline))
        if self._next_edge is not None:
            self.timer.arm(instant_of(self._next_edge))
        if self._shared.ready:
            self._share_edge()
        else:
            self._share()  # a count may have been loaded since it was written

    def quiet(self, index: int, now: int) -> int:
        """For how many CLK pulses from `now` on the OUT pin of counter `index` surely stays as it is; at most 65535."""
        quiet = self._at(index, now).quiet()
        return MAX_QUIET if quiet is None else quiet

    def quiet_toggle(self, index: int, now: int) -> int:
        """As `quiet`, of the flip-flop of `toggle`, which does not change when OUT falls."""
        counter = self._at(index, now)
        if counter.mode == 2 and counter.loaded > 1 and counter.counting and not (counter.load or counter.trigger):
            return counter.ce - 1
        return self.quiet(index, now)

    def _at(self, index: int, now: int) -> Counter:
        """Counter `index` as of `now`. Counter 0 is copied, its edges being still to be told to `irq0`; the others
        have nobody to tell, and how far they have been carried does not show."""
        if not index:
            self._take_back()
        counter = self._counters[index] if index else replace(self._counters[0])
        counter.advance(pulses_at(now))
        return counter

    # -- the bus ---------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Port 40h + `offset`. The control word register is write-only: the data bus stays high-impedance."""
        if offset == 3:
            return 0xFF
        self._catch_up(pulses_at(self._clock.now), offset)
        if offset:
            return self._counters[offset].read()
        self._take_back()
        value = self._counters[0].read()
        self._share()
        return value

    def peek(self, offset: int, size: int) -> int:
        """What `read` would return."""
        return 0xFF if offset == 3 else self._at(offset, self._clock.now).peek()

    def write(self, offset: int, value: int, size: int) -> None:
        """Port 40h + `offset`: a count byte, or at 43h a control word, a counter latch or a read-back command."""
        self._take_back()
        self._write(offset, value)
        self._share()

    def _write(self, offset: int, value: int) -> None:
        self.revision += 1
        pulse = pulses_at(self._clock.now)
        self._catch_up(pulse, offset if offset < 3 else value >> 6 if value >> 6 < 3 else 0)
        before = self._counters[0].out
        if offset < 3:
            self._counters[offset].write_count(value)
        elif value >> 6 == _READ_BACK:
            for i, counter in enumerate(self._counters):
                if value & 2 << i:
                    counter.advance(pulse)
                    if not value & _RB_NO_COUNT:
                        counter.latch_count()
                    if not value & _RB_NO_STATUS:
                        counter.latch_status()
            return
        elif value & 0x30 == 0:
            self._counters[value >> 6].latch_count()
            return
        else:
            self._counters[value >> 6].write_control(value)
        self._replan()
        if self._counters[0].out != before:
            self._irq0(self._counters[0].out)

    # -- pins ------------------------------------------------------------------------------------------------------

    def set_gate(self, index: int, level: bool) -> None:
        """Drive GATE of counter `index` (0-2)."""
        self.revision += 1
        self._catch_up(pulses_at(self._clock.now), index)
        before = self._counters[0].out
        self._counters[index].set_gate(level)
        self._replan()
        if not index:
            self._take_back()
            self._share()
        if self._counters[0].out != before:
            self._irq0(self._counters[0].out)

    def out(self, index: int, now: int) -> bool:
        """OUT of counter `index` at instant `now` (ns, not in the past)."""
        return self._at(index, now).out

    def toggle(self, index: int, now: int) -> bool:
        """A flip-flop toggled by each rise of OUT of counter `index`, at instant `now` (ns, not in the past)."""
        return bool(self._at(index, now).rises)

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> State:
        """The state now. An edge that is due but not yet told to `irq0` stays ahead."""
        self._take_back()
        pulse = pulses_at(self._clock.now)
        counters = [replace(c) for c in self._counters]
        counters[0].advance(pulse if self._next_edge is None else min(pulse, self._next_edge - 1))
        for counter in counters[1:]:
            counter.advance(pulse)
        return State(counters)

    def restore(self, state: State) -> None:
        """Also arms the timer, so it may come before or after the clock's restore. Does not drive `irq0`."""
        self.revision += 1
        self._counters = [replace(c) for c in state.counters]
        self._replan()
        self._share()

    def view(self) -> DeviceView:
        now = self._clock.now
        fields = []
        for i in range(3):
            c = self._at(i, now)
            hertz = f", {FREQUENCY / c.loaded:.3f} Hz" if c.mode in (2, 3) and c.running else ""
            text = f"mode {c.mode} {_MODE_NAMES[c.mode]}, {_RW_NAMES[c.rw]}, {'BCD' if c.bcd else 'binary'}{hertz}"
            fields += [
                FieldView(f"counter {i}", c.control, text),
                FieldView(f"counter {i} CR", c.count_register, "NULL COUNT" if c.null_count else "in CE"),
                FieldView(f"counter {i} CE", c.shown, "counting" if c.counting else "not counting"),
                FieldView(f"counter {i} pins", f"GATE={c.gate:d} OUT={c.out:d}"),
            ]
            if c.latch is not None:
                fields.append(FieldView(f"counter {i} OL", c.latch, f"latched, {c.latch_left} bytes to read"))
            if c.status is not None:
                fields.append(FieldView(f"counter {i} status", c.status, "latched"))
        return DeviceView("pit", "Intel 8254", "ports 40h-43h", tuple(fields))


#: Port 61h, writable bits.
TIMER2_GATE = 0x01  #: "Timer Counter 2 Enable": GATE of counter 2
SPEAKER_DATA = 0x02  #: "Speaker Data Enable": OUT of counter 2 reaches the speaker
_WRITABLE = 0x0F  #: also bit 2 "PCI SERR# / RAM parity check disable" and bit 3 "IOCHK# disable"
#: Read-only bits. 7 (SERR#/parity) and 6 (IOCHK#) read 0: memory and boards here have no errors to report.
REFRESH_TOGGLE = 0x10  #: "Refresh Cycle Toggle": changes with each refresh request of counter 1
TIMER2_OUT = 0x20  #: "Timer Counter 2 OUT Status"


@dataclass(slots=True)
class Port61State:
    """The four bits that can be written."""

    value: int = 0


class Port61:
    """System control port B, port 61h."""

    def __init__(self, pit: Pit8254, clock: Clock) -> None:
        self._pit = pit
        self._clock = clock
        self._state = Port61State()
        self._shown, self._shown_pulse, self._shown_revision = 0, -1, -1

    def reset(self) -> None:
        """Power-on: all writable bits are 0, GATE of counter 2 is low."""
        self.write(0, 0, 1)

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """A read of this port has no side effects."""
        # Delay loops poll this port far more often than the pins change: what they show is kept for a CLK pulse.
        pulse = pulses_at(self._clock.now)
        if self._pit.revision != self._shown_revision or pulse != self._shown_pulse:
            now = self._clock.now
            self._shown = REFRESH_TOGGLE * self._pit.toggle(1, now) | TIMER2_OUT * self._pit.out(2, now)
            self._shown_pulse, self._shown_revision = pulse, self._pit.revision
        return self._state.value | self._shown

    def quiet_pulses(self) -> int:
        """For how many CLK pulses from now on a read gives the same, unless a port is written."""
        now = self._clock.now
        return min(self._pit.quiet_toggle(1, now), self._pit.quiet(2, now))

    def write(self, offset: int, value: int, size: int) -> None:
        """Bits 4-7 are read-only."""
        self._state.value = value & _WRITABLE
        self._pit.set_gate(2, bool(value & TIMER2_GATE))

    @property
    def speaker(self) -> bool:
        """The level at the speaker: OUT of counter 2 and "speaker data"."""
        return bool(self._state.value & SPEAKER_DATA) and self._pit.out(2, self._clock.now)

    def save(self) -> Port61State:
        return replace(self._state)

    def restore(self, state: Port61State) -> None:
        """GATE of counter 2 is part of the timer's state."""
        self._state = replace(state)

    def view(self) -> DeviceView:
        value = self.peek(0, 1)
        names = ("timer 2 gate", "speaker data", "parity check disable", "IOCHK# disable", "refresh toggle", "OUT 2")
        on = " ".join(name for i, name in enumerate(names) if value >> i & 1)
        return DeviceView("port61", "system control port B", "port 61h", (FieldView("value", value, on or "none"),))
