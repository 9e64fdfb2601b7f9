"""The MC146818A real-time clock with 128 bytes of battery-backed RAM (ports 70h, 71h), and what a PC keeps in them.

Sources: Motorola MC146818A data sheet ("MC146818A" below); Dallas DS12885/DS12887 data sheet for what the divider bits
do with a 32.768 kHz crystal; IBM PC/AT Technical Reference (6280070), "Real-Time Clock/Complementary Metal Oxide
Semiconductor RAM Information", for ports and RAM; for the bytes that emulated PCs add, QEMU's hw/i386/pc.c (the
comments of pc_cmos_init) and SeaBIOS's src/hw/rtc.h.

Time is computed when looked at. A timer is armed only while an enabled interrupt is still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.clock import Clock
from emu.record import dataclass, field, replace
from emu.typed import Final, Protocol
from emu.views import DeviceView, FieldView


class Date(Protocol):
    """As `datetime.datetime` has it. That module takes 2 ms to load, which a machine that starts in 2020 can save."""

    @property
    def year(self) -> int: ...
    @property
    def month(self) -> int: ...
    @property
    def day(self) -> int: ...
    @property
    def hour(self) -> int: ...
    @property
    def minute(self) -> int: ...
    @property
    def second(self) -> int: ...
    def isoweekday(self) -> int:
        """Monday is 1."""


@dataclass(frozen=True, slots=True)
class Midnight:
    """The beginning of a day."""

    year: int
    month: int
    day: int
    weekday: int  #: Monday is 1
    hour: int = 0
    minute: int = 0
    second: int = 0

    def isoweekday(self) -> int:
        return self.weekday


#: What the clock shows at virtual time 0: a fixed date, so that equal runs read equal times. It was a Wednesday.
START: Final = Midnight(2020, 1, 1, weekday=3)

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DAY, MONTH, YEAR = range(6, 10)
REG_A, REG_B, REG_C, REG_D = range(10, 14)
#: The century in BCD, outside the chip's own registers; IBM AT RAM assignment.
CENTURY = 0x32
SIZE = 128

A_UIP = 0x80  #: update in progress, read-only
A_DV = 0x70  #: divider; 010 is the one setting that keeps time with a 32.768 kHz crystal
A_DV_RUN = 0x20
A_RS = 0x0F  #: rate of the periodic interrupt
B_SET = 0x80  #: the program sets the time: no update cycles
B_PIE = 0x40  #: periodic interrupt enable
B_AIE = 0x20  #: alarm interrupt enable
B_UIE = 0x10  #: update-ended interrupt enable; cleared by SET
B_SQWE = 0x08  #: square wave enable; the pin is not connected in a PC
B_DM = 0x04  #: data mode: 1 binary, 0 BCD
B_24 = 0x02  #: 1: 24-hour mode
B_DSE = 0x01  #: daylight saving; kept and ignored, as by the clones since the rules of 1987 changed
C_IRQF = 0x80  #: an enabled flag is set
C_PF = 0x40  #: periodic interrupt flag; each flag has the position of its enable bit
C_AF = 0x20  #: alarm interrupt flag
C_UF = 0x10  #: update-ended interrupt flag
D_VRT = 0x80  #: valid RAM and time: the battery is good
_FLAGS = C_PF | C_AF | C_UF

_PM = 0x80  #: in the hours of 12-hour mode
_DONT_CARE = 0xC0  #: alarm bytes with both top bits set match always

_SECOND = 1_000_000_000
#: tBUC: UIP is set so long before an update cycle; tUC: so long is the cycle (MC146818A, table "Update Cycle Times").
UPDATE_AHEAD = 244_000
UPDATE_LENGTH = 1_984_000
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def periodic_frequency(rate: int) -> int | None:
    """Hz of rate select `rate` (0-15) at 32.768 kHz; None for 0 (MC146818A, table "Periodic Interrupt Rate"). Rates 1
    and 2 repeat 8 and 9."""
    if rate == 0:
        return None
    return 32768 >> (rate + 6 if rate < 3 else rate - 1)


@dataclass(slots=True)
class State:
    """The chip as of instant `now`. `ram` holds registers 0-9 as they are read; A without UIP; the flags of C without
    IRQF. `update` is when the next update cycle begins, or the one under way began; it also says where in its second
    the divider is. None: the divider is held or off."""

    now: int = 0
    update: int | None = None
    index: int = 0
    nmi_masked: bool = False
    ram: list[int] = field(default_factory=lambda: [0] * SIZE)

    # -- numbers in the registers' format --------------------------------------------------------------------------

    def _decode(self, value: int) -> int:
        return value if self.ram[REG_B] & B_DM else (value >> 4) * 10 + (value & 15)

    def _encode(self, number: int) -> int:
        return number if self.ram[REG_B] & B_DM else number // 10 << 4 | number % 10

    def _encode_hour(self, hour: int) -> int:
        if self.ram[REG_B] & B_24:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | _PM * (hour >= 12)

    def _hour(self) -> int:
        raw = self.ram[HOURS]
        if self.ram[REG_B] & B_24:
            return min(self._decode(raw), 23)
        return min(self._decode(raw & ~_PM), 12) % 12 + 12 * bool(raw & _PM)

    def second_of_day(self) -> int:
        """0-86399; a number out of range counts as the highest of its register, so that the next carry mends it."""
        minutes, seconds = (min(self._decode(self.ram[i]), 59) for i in (MINUTES, SECONDS))
        return self._hour() * 3600 + minutes * 60 + seconds

    def set_date(self, date: Date) -> None:
        """All time registers, in the format that register B says."""
        ram = self.ram
        ram[SECONDS], ram[MINUTES] = self._encode(date.second), self._encode(date.minute)
        ram[HOURS] = self._encode_hour(date.hour)
        ram[DAY_OF_WEEK] = date.isoweekday() % 7 + 1
        ram[DAY], ram[MONTH], ram[YEAR] = (self._encode(n) for n in (date.day, date.month, date.year % 100))
        century = date.year // 100
        ram[CENTURY] = century // 10 << 4 | century % 10

    # -- time --------------------------------------------------------------------------------------------------------

    def _next_day(self) -> None:
        """Day of week and date; leap years are those divisible by 4 (the chip sees two digits of the year)."""
        ram = self.ram
        day_of_week = self._decode(ram[DAY_OF_WEEK])
        ram[DAY_OF_WEEK] = self._encode(day_of_week + 1 if day_of_week < 7 else 1)
        day, month, year = (self._decode(ram[i]) for i in (DAY, MONTH, YEAR))
        days = _DAYS[month - 1] if 1 <= month <= 12 else 31
        if month == 2 and year % 4 == 0:
            days = 29
        if day < days:
            ram[DAY] = self._encode(day + 1)
            return
        ram[DAY] = self._encode(1)
        if month < 12:
            ram[MONTH] = self._encode(month + 1)
            return
        ram[MONTH] = self._encode(1)
        if year < 99:
            ram[YEAR] = self._encode(year + 1)
            return
        ram[YEAR] = self._encode(0)
        century = (ram[CENTURY] >> 4) * 10 + (ram[CENTURY] & 15) + 1
        ram[CENTURY] = century // 10 % 10 << 4 | century % 10

    def _add_seconds(self, count: int) -> None:
        days, rest = divmod(self.second_of_day() + count, 86400)
        for _ in range(days):
            self._next_day()
        self.ram[SECONDS], self.ram[MINUTES] = self._encode(rest % 60), self._encode(rest // 60 % 60)
        self.ram[HOURS] = self._encode_hour(rest // 3600)

    def _alarm_set(self, register: int, values: Sequence[int]) -> list[int]:
        """Which numbers (their encodings are `values`) alarm byte `register` matches."""
        alarm = self.ram[register]
        if alarm & _DONT_CARE == _DONT_CARE:
            return list(range(len(values)))
        return [i for i, value in enumerate(values) if value == alarm]

    def until_alarm(self) -> int | None:
        """In how many update cycles (1-86400) the alarm bytes match the time; None: never."""
        sixty = [self._encode(i) for i in range(60)]
        hours = self._alarm_set(HOURS_ALARM, [self._encode_hour(i) for i in range(24)])
        minutes, seconds = self._alarm_set(MINUTES_ALARM, sixty), self._alarm_set(SECONDS_ALARM, sixty)
        if not (hours and minutes and seconds):
            return None
        start = self.second_of_day() + 1
        first_hour = start // 3600
        for hour in range(first_hour, first_hour + 25):
            if hour % 24 not in hours:
                continue
            for minute in minutes:
                base = hour * 3600 + minute * 60
                if base + seconds[-1] >= start:
                    return base + next(s for s in seconds if base + s >= start) - start + 1
        return None

    def _period_edge(self, instant: int) -> int | None:
        """The last edge of the selected divider tap at or before `instant`, ns."""
        frequency = periodic_frequency(self.ram[REG_A] & A_RS)
        if self.update is None or frequency is None:
            return None
        second = (instant - self.update) // _SECOND * _SECOND + self.update
        return second + -(-((instant - second) * frequency // _SECOND) * _SECOND // frequency)

    def next_period(self) -> int | None:
        """When the periodic flag is set next, ns."""
        frequency = periodic_frequency(self.ram[REG_A] & A_RS)
        if self.update is None or frequency is None:
            return None
        second = (self.now - self.update) // _SECOND * _SECOND + self.update
        count = (self.now - second) * frequency // _SECOND + 1
        return second + -(-count * _SECOND // frequency)

    def advance(self, now: int) -> None:
        """Carry the chip to instant `now`; an earlier one leaves it as it is."""
        if now <= self.now:
            return
        edge = self._period_edge(now)
        if edge is not None and edge > self.now:
            self.ram[REG_C] |= C_PF
        self.now = now
        if self.update is None:
            return
        if self.ram[REG_B] & B_SET:
            self.update += max(0, -(-(now - self.update) // _SECOND)) * _SECOND
            return
        count = (now - self.update - UPDATE_LENGTH) // _SECOND + 1
        if count > 0:
            alarm = self.until_alarm() if not self.ram[REG_C] & C_AF else None
            self._add_seconds(count)
            self.ram[REG_C] |= C_UF | C_AF * (alarm is not None and alarm <= count)
            self.update += count * _SECOND

    @property
    def update_in_progress(self) -> bool:
        """UIP."""
        running = self.update is not None and not self.ram[REG_B] & B_SET
        return running and self.update is not None and self.now >= self.update - UPDATE_AHEAD

    @property
    def interrupt(self) -> bool:
        """IRQF."""
        return bool(self.ram[REG_B] & self.ram[REG_C] & _FLAGS)

    def next_interrupt(self) -> int | None:
        """When an enabled flag that is still clear will be set, ns; None: never, or there is none."""
        missing = self.ram[REG_B] & ~self.ram[REG_C]
        due = [self.next_period()] if missing & B_PIE else []
        if self.update is not None and not self.ram[REG_B] & B_SET:
            if missing & B_UIE:
                due.append(self.update + UPDATE_LENGTH)
            if missing & B_AIE and (alarm := self.until_alarm()) is not None:
                due.append(self.update + (alarm - 1) * _SECOND + UPDATE_LENGTH)
        return min((instant for instant in due if instant is not None), default=None)

    # -- registers ---------------------------------------------------------------------------------------------------

    def peek(self) -> int:
        """The selected register."""
        value = self.ram[self.index]
        if self.index == REG_A:
            return value | A_UIP * self.update_in_progress
        if self.index == REG_C:
            return value | C_IRQF * self.interrupt
        return value

    def write(self, value: int) -> None:
        """To the selected register."""
        ram = self.ram
        if self.index == REG_A:
            ran = ram[REG_A] & A_DV == A_DV_RUN
            ram[REG_A] = value & ~A_UIP
            runs = value & A_DV == A_DV_RUN
            if runs and not ran:
                # "The first update cycle begins one-half second after the divider reset is removed."
                self.update = self.now + _SECOND // 2
            elif not runs:
                self.update = None
        elif self.index == REG_B:
            ram[REG_B] = value & ~B_UIE if value & B_SET else value
            if self.update is not None and value & B_SET and self.update < self.now:
                self.update += _SECOND  # SET aborts an update cycle under way
        elif self.index == SECONDS:
            ram[SECONDS] = value & 0x7F  # "the high-order bit of the seconds byte is read only"
        elif self.index not in (REG_C, REG_D):
            ram[self.index] = value


class Rtc:
    """Ports 70h (index; bit 7 masks NMI; write-only) and 71h (data). `irq8(level)` follows IRQF."""

    def __init__(self, clock: Clock, irq8: Callable[[bool], None], nvram: bytes = b"", start: Date = START) -> None:
        """`nvram`: the RAM, up to 128 bytes by index; its time registers are replaced by `start`.

        Raises ValueError for more."""
        if len(nvram) > SIZE:
            raise ValueError(f"the CMOS RAM has {SIZE} bytes, not {len(nvram)}: shorten its contents")
        self._clock = clock
        self._irq8 = irq8
        self._timer = clock.timer("rtc", self._due)
        self._level = False
        self._nvram = bytes(nvram)
        self._start = start
        self._state = State()
        self.power_on()

    def power_on(self) -> None:
        """As built: `start` and `nvram`, whatever the guest has written since."""
        now = self._clock.now
        state = State(now=now, update=now + _SECOND - UPDATE_LENGTH)
        state.ram[: len(self._nvram)] = self._nvram
        state.ram[REG_A] = A_DV_RUN | 6
        state.ram[REG_B] = B_24
        state.ram[REG_C] = 0
        state.ram[REG_D] = D_VRT
        state.set_date(self._start)
        self._state = state
        self._settle()

    def reset(self) -> None:
        """The RESET# pin: interrupts are disabled and their flags cleared; the battery keeps time and RAM."""
        self._state.advance(self._clock.now)
        self._state.ram[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        self._state.ram[REG_C] = 0
        self._state.nmi_masked = False
        self._settle()

    @property
    def alarm_enabled(self) -> bool:
        """True when the alarm may interrupt, be it a day ahead."""
        return bool(self._state.ram[REG_B] & B_AIE)

    @property
    def nmi_masked(self) -> bool:
        """Bit 7 of port 70h: NMI does not reach the CPU."""
        return self._state.nmi_masked

    def _settle(self) -> None:
        """After each change: the line, and the timer for the next interrupt."""
        self._plan()
        if self._state.interrupt != self._level:
            self._level = self._state.interrupt
            self._irq8(self._level)

    def _plan(self) -> None:
        deadline = self._state.next_interrupt()
        if deadline is None:
            self._timer.cancel()
        elif deadline != self._timer.deadline:
            self._timer.arm(deadline)

    def _due(self, deadline: int) -> None:
        self._state.advance(deadline)
        self._settle()

    def _at(self, now: int) -> State:
        state = replace(self._state, ram=list(self._state.ram))
        state.advance(now)
        return state

    # -- the bus -------------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """71h; reading register C clears its flags and lowers the interrupt. 70h is write-only and floats."""
        if offset == 0:
            return 0xFF
        state = self._state
        state.advance(self._clock.now)
        value = state.peek()
        if state.index == REG_C:
            state.ram[REG_C] = 0
        self._settle()
        return value

    def peek(self, offset: int, size: int) -> int:
        """What `read` would return."""
        return 0xFF if offset == 0 else self._at(self._clock.now).peek()

    def write(self, offset: int, value: int, size: int) -> None:
        """70h selects, 71h writes the selected register."""
        if offset == 0:
            self._state.index = value & 0x7F
            self._state.nmi_masked = bool(value & 0x80)
            return
        self._state.advance(self._clock.now)
        self._state.write(value)
        self._settle()

    # -- state ---------------------------------------------------------------------------------------------------------

    def save(self) -> State:
        """The state now. An interrupt that is due but not yet raised stays ahead."""
        now, due = self._clock.now, self._timer.deadline
        return self._at(now if due is None else min(now, due - 1))

    def restore(self, state: State) -> None:
        """Also arms the timer, so it may come before or after the clock's restore. Does not drive `irq8`."""
        self._state = replace(state, ram=list(state.ram))
        self._level = self._state.interrupt
        self._plan()

    def view(self) -> DeviceView:
        state = self._at(self._clock.now)
        ram = state.ram
        a, b, c = ram[REG_A] | A_UIP * state.update_in_progress, ram[REG_B], ram[REG_C] | C_IRQF * state.interrupt
        frequency = periodic_frequency(a & A_RS)
        year, month, day = (f"{state._decode(ram[i]):02d}" for i in (YEAR, MONTH, DAY))
        hour, rest = divmod(state.second_of_day(), 3600)
        divider = {0x20: "32.768 kHz", 0x60: "divider reset", 0x70: "divider reset"}.get(a & A_DV, "oscillator off")

        def bits(value: int, names: str) -> str:
            return " ".join(n for i, n in enumerate(names.split()) if value >> (7 - i) & 1 and n != "-") or "none"

        return DeviceView(
            "rtc",
            "Motorola MC146818A",
            "ports 70h-71h",
            (
                FieldView("date", f"{ram[CENTURY]:02x}{year}-{month}-{day}"),
                FieldView("time", f"{hour:02d}:{rest // 60:02d}:{rest % 60:02d}"),
                FieldView("alarm", " ".join(f"{ram[i]:02x}" for i in (HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM))),
                FieldView(
                    "A",
                    a,
                    f"{'UIP, ' if a & A_UIP else ''}{divider}, periodic {f'{frequency} Hz' if frequency else 'off'}",
                ),
                FieldView("B", b, bits(b, "SET PIE AIE UIE SQWE DM 24/12 DSE")),
                FieldView("C", c, bits(c, "IRQF PF AF UF - - - -")),
                FieldView("D", ram[REG_D], bits(ram[REG_D], "VRT - - - - - - -")),
                FieldView("index", state.index, "NMI masked" if state.nmi_masked else ""),
            ),
        )


#: Floppy drive types of byte 10h, by capacity in KiB (IBM AT; 2880 by later BIOSes).
FLOPPY_TYPES = {0: 0, 360: 1, 1200: 2, 720: 3, 1440: 4, 2880: 5}
#: Boot device codes of 3Dh and 38h (QEMU hw/i386/pc.c, boot_device2nibble; SeaBIOS src/boot.c).
BOOT_CODES = {"floppy": 1, "disk": 2, "cdrom": 3, "network": 4}


def bios_geometry(sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track by which an ATA disk of `sectors` sectors is described: 16 heads of 63
    sectors, at most 16383 cylinders (ATA/ATAPI-6, annex B, "Translate mode")."""
    return max(1, min(sectors // (16 * 63), 16383)), 16, 63


def pc_nvram(
    memory: int,
    disks: Sequence[int] = (),
    floppies: Sequence[int] = (),
    boot: str | Sequence[str] = "disk",
    *,
    memory_above_4g: int = 0,
    cpus: int = 1,
    floppy_signature_check: bool = True,
) -> bytes:
    """The 128 bytes of CMOS RAM that a PC's setup program would have left, checksum included.

    `memory`: bytes of RAM below 4 GiB, `memory_above_4g`: above. `disks`: the sizes in sectors of up to two disks, C:
    first. `floppies`: the capacities in KiB of up to two drives, A: first. `boot`: one or up to three of floppy, disk,
    cdrom, network, first choice first. `floppy_signature_check` False lets SeaBIOS boot floppies without 55AAh.
    Raises ValueError for what does not fit.
    """
    order = [boot] if isinstance(boot, str) else list(boot)
    if len(disks) > 2 or len(floppies) > 2 or len(order) > 3:
        raise ValueError(
            f"CMOS RAM describes up to 2 disks, 2 floppies and 3 boot devices, not {len(disks)}, {len(floppies)} and "
            f"{len(order)}: pass fewer"
        )
    unknown = [str(f) for f in floppies if f not in FLOPPY_TYPES] + [b for b in order if b not in BOOT_CODES]
    if unknown:
        raise ValueError(
            f"CMOS RAM has no code for {', '.join(unknown)}: floppies are {', '.join(map(str, FLOPPY_TYPES))} KiB, "
            f"boot devices {', '.join(BOOT_CODES)}"
        )
    ram = bytearray(SIZE)

    def word(index: int, value: int) -> None:
        ram[index : index + 2] = value.to_bytes(2, "little")

    drives = [FLOPPY_TYPES[f] for f in floppies] + [0, 0]
    ram[0x10] = drives[0] << 4 | drives[1]
    present = sum(1 for drive in drives if drive)
    # Equipment: bit 0 floppies, bit 1 coprocessor, bit 2 pointing device, bits 5-4 display 00 (EGA, VGA),
    # bits 7-6 floppies - 1.
    ram[0x14] = 0x06 | (1 | (present - 1) << 6 if present else 0)
    word(0x15, min(memory >> 10, 640))  # base memory, KiB
    extended = min(max(memory - (1 << 20), 0) >> 10, 0xFFFF)  # KiB above 1 MiB: as set up, and as POST found
    word(0x17, extended)
    word(0x30, extended)
    word(0x34, min(max(memory - (16 << 20), 0) >> 16, 0xFFFF))  # 64 KiB units above 16 MiB
    ram[0x5B:0x5E] = min(memory_above_4g >> 16, 0xFFFFFF).to_bytes(3, "little")  # 64 KiB units above 4 GiB
    ram[0x5F] = cpus - 1
    for i, size in enumerate(disks):
        cylinders, heads, sectors = bios_geometry(size)
        ram[0x12] |= 0xF0 >> 4 * i  # type 15: the extended type is in 19h (C:), 1Ah (D:)
        ram[0x19 + i] = 47  # user-defined: the parameters follow in 1Bh-23h, 24h-2Ch
        at = 0x1B + 9 * i
        word(at, cylinders)
        ram[at + 2] = heads
        word(at + 3, 0xFFFF)  # write precompensation: none
        ram[at + 5] = 0xC0 | (heads > 8) << 3  # control byte
        word(at + 6, cylinders)  # landing zone
        ram[at + 8] = sectors
        ram[0x39] |= (cylinders > 1024) << 2 * i  # translation: 0 none, 1 LBA
    codes = [BOOT_CODES[b] for b in order] + [0, 0, 0]
    ram[0x3D] = codes[1] << 4 | codes[0]
    ram[0x38] = codes[2] << 4 | (0 if floppy_signature_check else 1)
    ram[0x2E:0x30] = sum(ram[0x10:0x2E]).to_bytes(2, "big")
    return bytes(ram)
