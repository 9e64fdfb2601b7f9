"""The clocks of a PC that a loop may watch: which one a source is, whether it runs, and if not what stops it.

A look ahead lets no time pass, so that any clock seems to stand still in it: what reads one has to be known by what it
reads. One that does not run ends no loop.
"""

from __future__ import annotations

from emu import layout
from emu.devices import lapic_timer
from emu.devices.hpet import ENABLE
from emu.devices.lapic import DEADLINE_MSR, R_CURRENT, X2APIC_FIRST
from emu.devices.pit8254 import REFRESH_TOGGLE, TIMER2_OUT, Counter
from emu.devices.rtc146818 import (
    A_DV,
    A_DV_RUN,
    A_RS,
    A_UIP,
    B_SET,
    C_AF,
    C_IRQF,
    C_PF,
    C_UF,
    CENTURY,
    DAY,
    DAY_OF_WEEK,
    HOURS,
    MINUTES,
    MONTH,
    REG_A,
    REG_B,
    REG_C,
    SECONDS,
    YEAR,
    State,
)
from emu.devices.vga_registers import MISC_COLOUR
from emu.devices.vga_timing import ST1_BLANK, ST1_RETRACE
from emu.loops import Round
from emu.machine import Machine
from emu.pending import TICK, is_tick, tick_comes
from emu.record import dataclass
from emu.x86.polls import WayOut
from emu.x86.rounds import Source
from emu.x86.state import CR0_PE, RFLAGS_IF

#: The timer register of the PM block (82371AB data sheet, PMTMR, offset 08h; ACPI 4.8.3.3), and its length in bytes.
_PM_TIMER, _PM_TIMER_SIZE = 8, 4
#: The main counter (IA-PC HPET 1.0a, 2.3.7), and the local APIC's current-count register (SDM vol. 3A, 11.5.4).
_HPET_COUNTER, _LAPIC_COUNT = 0xF0, R_CURRENT << 4
#: The registers of the RTC that hold the time and the date, without the alarm's (MC146818A data sheet, "Address Map").
_RTC_TIME = (SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY, MONTH, YEAR, CENTURY)
_RTC_FLAGS = ((C_PF, "the periodic flag"), (C_AF, "the alarm flag"), (C_UF, "the update-ended flag"))


@dataclass(frozen=True, slots=True)
class Timekeeper:
    """A clock that a source is part of. `still` is why it does not run, with what would make it; empty: it runs."""

    name: str
    still: str = ""

    @property
    def runs(self) -> bool:
        return not self.still

    @property
    def told(self) -> str:
        """In words, what comes of it for who waits for it."""
        return f"{self.name} runs, and changes it by itself" if self.runs else f"{self.name} stands still: {self.still}"


def clock_of(machine: Machine, found: Round, way: WayOut, source: Source) -> Timekeeper | None:
    """The clock that changes what `way` looks at of `source`, or would if it ran. None: no clock does."""
    if source.kind == "stamp":
        return Timekeeper("the time-stamp counter")
    if source.kind == "port":
        return _behind_port(machine, found, way.mask, source)
    if source.kind == "device":
        return _behind_memory(machine, source)
    if source.kind == "msr":
        return _behind_msr(machine, source.place)
    if source.kind == "memory" and is_tick((source,)):
        state = found.steps[0].state
        on = any(step.state.rflags & RFLAGS_IF for step in found.steps)
        if on and not state.cr0 & CR0_PE and tick_comes(machine):
            return Timekeeper(f"the tick count at 46Ch (IRQ {TICK})")
    return None


def _behind_port(machine: Machine, found: Round, mask: int, source: Source) -> Timekeeper | None:
    place = source.place
    if source.name == "pit" and place - layout.PIT < 3:
        number = place - layout.PIT
        return Timekeeper(f"counter {number} of the 8254", _uncounted(machine, number))
    if source.name == "port61":
        return _port61(machine, mask or 0xFF)
    if source.name == "rtc" and place == layout.RTC + 1:
        return _rtc(machine, _index(machine, found), mask or 0xFF)
    if source.name == "vga" and place in (0x3BA, layout.VGA_STATUS):
        return _beam(machine, place, mask or 0xFF)
    if source.name == "piix4-pm" and (chipset := machine.board.chipset) is not None:
        base = chipset.pm.pm_base
        if base is not None and _PM_TIMER <= place - base < _PM_TIMER + _PM_TIMER_SIZE:
            return Timekeeper("the ACPI timer")
    return None


# -- the VGA


def _beam(machine: Machine, port: int, mask: int) -> Timekeeper | None:
    """The display and retrace bits of input status 1, which is at the one of its two ports that the miscellaneous
    output register says (IBM PS/2 Hardware Interface Technical Reference, "Input Status Register 1")."""
    if not mask & (ST1_BLANK | ST1_RETRACE):
        return None
    bit = "the vertical retrace (bit 3" if mask & ST1_RETRACE else "the display's blanking (bit 0"
    name = f"{bit} of port {port:X}h, the VGA's beam)"
    state = machine.board.vga.save()
    if not state.enabled:
        return Timekeeper(name, "the VGA is disabled (bit 0 of port 3C3h is 0)")
    if (port == layout.VGA_STATUS) is not bool(state.misc & MISC_COLOUR):
        other = "must become 1" if port == layout.VGA_STATUS else "must become 0"
        return Timekeeper(
            name, f"bit 0 of the miscellaneous output register has the VGA at the other port, and {other}"
        )
    return Timekeeper(name)


# -- the 8254


def _counter(machine: Machine, number: int) -> Counter:
    counter: Counter = machine.board.pit.save().counters[number]
    return counter


def _uncounted(machine: Machine, number: int) -> str:
    """Why a counter does not count (8254 data sheet, "Mode Definitions"); empty: it does."""
    counter = _counter(machine, number)
    if counter.counting or counter.load:
        return ""
    if not counter.written:
        return "no count has been written since its control word, and one must be"
    if counter.first_byte is not None:
        return "only the first byte of its count has been written, and the second must be"
    gate = " (bit 0 of port 61h)" if number == 2 else ""
    return f"its gate{gate} must rise" if counter.mode in (1, 5) else f"its gate{gate} is low, and must be high"


def _port61(machine: Machine, mask: int) -> Timekeeper | None:
    """The two bits of port 61h that are outputs of the 8254, those of them that run first."""
    clocks = []
    if mask & REFRESH_TOGGLE:
        name = "the refresh toggle (bit 4 of port 61h, counter 1 of the 8254)"
        clocks.append(Timekeeper(name, _constant(machine, 1)))
    if mask & TIMER2_OUT:
        name = "the output of counter 2 of the 8254 (bit 5 of port 61h)"
        clocks.append(Timekeeper(name, _constant(machine, 2)))
    if any(clock.runs for clock in clocks):
        return next(clock for clock in clocks if clock.runs)
    # a bit that no clock moves may be what is waited for
    return clocks[0] if clocks and not mask & ~(REFRESH_TOGGLE | TIMER2_OUT) else None


def _constant(machine: Machine, number: int) -> str:
    """Why the output of a counter does not change; empty: it does, again and again, or at least once."""
    if still := _uncounted(machine, number):
        return still
    counter = _counter(machine, number)
    if counter.mode in (2, 3) or (number == 2 and (counter.load or not counter.done)):
        return ""
    return f"in mode {counter.mode} it has come to its end, and needs another count or mode"


# -- the RTC


def _index(machine: Machine, found: Round) -> int:
    """The register of the RTC that the round looks at: as it chooses, or as chosen before."""
    chosen = [m.value for s in found.steps for m in s.met if m.write and m.space == "port" and m.place == layout.RTC]
    return (chosen[-1] if chosen else machine.board.rtc.save().index) & 0x7F


def _rtc(machine: Machine, index: int, mask: int) -> Timekeeper | None:
    state = machine.board.rtc.save()
    name = "the real-time clock"
    if index in _RTC_TIME:
        return Timekeeper(name, _unset(state))
    if index == REG_A and mask & A_UIP:
        return Timekeeper(name, _unset(state)) if mask == A_UIP or not _unset(state) else None
    if index != REG_C:
        return None
    enabled = state.ram[REG_B] & (C_PF | C_AF | C_UF)
    wanted = mask & (C_PF | C_AF | C_UF) | (enabled if mask & C_IRQF else 0)
    if mask == C_IRQF and not enabled:
        return Timekeeper(name, "bits 6 to 4 of its register B enable no interrupt, and one must become 1")
    still = [(flag, words, _unflagged(state, flag)) for flag, words in _RTC_FLAGS if wanted & flag]
    if any(not why for _, _, why in still):
        return Timekeeper(name)
    if not still or mask & ~(C_PF | C_AF | C_UF | C_IRQF):
        return None
    _, words, why = still[0]
    return Timekeeper(f"{words} of {name}", why)


def _divided(state: State) -> str:
    """Why the divider chain stands still; empty: it runs (MC146818A data sheet, "Divider Stages", at 32.768 kHz)."""
    if (bits := state.ram[REG_A] & A_DV) != A_DV_RUN:
        return f"the divider bits of its register A (6 to 4) are {bits >> 4:03b}b, and must become 010b"
    return ""


def _unset(state: State) -> str:
    """Why there are no update cycles; empty: there are."""
    if still := _divided(state):
        return still
    return "SET (bit 7 of its register B) is 1, and must become 0" if state.ram[REG_B] & B_SET else ""


def _unflagged(state: State, flag: int) -> str:
    """Why a flag of register C is not set by and by; empty: it is."""
    if flag == C_PF:
        rate = "" if state.ram[REG_A] & A_RS else "the rate (bits 3 to 0 of its register A) is 0, which is none"
        return _divided(state) or rate
    if flag == C_AF and not _unset(state) and state.until_alarm() is None:
        return "the alarm (its registers 1, 3 and 5) is at no time of the day"
    return _unset(state)


# -- in memory, and in MSRs


def _behind_memory(machine: Machine, source: Source) -> Timekeeper | None:
    chipset = machine.board.chipset
    if chipset is None:
        return None
    offset = source.place - layout.HPET
    if source.name == "hpet" and _HPET_COUNTER <= offset < _HPET_COUNTER + 8:
        at = f"{layout.HPET + 0x10:X}h"
        still = f"ENABLE (bit 0 of its general configuration at {at}) is 0, and must become 1"
        return Timekeeper("the HPET's main counter", "" if chipset.hpet.save().config & ENABLE else still)
    if source.name == "lapic" and source.place & 0xFFF == _LAPIC_COUNT:
        return _lapic(chipset.lapic.timer)
    return None


def _behind_msr(machine: Machine, number: int) -> Timekeeper | None:
    """Of the x2APIC's current count, and of the deadline, which is 0 when it has come (SDM vol. 3A, 11.5.4.1)."""
    if (chipset := machine.board.chipset) is None:
        return None
    if number == X2APIC_FIRST + R_CURRENT and chipset.lapic.x2apic:
        return _lapic(chipset.lapic.timer)
    if number == DEADLINE_MSR and chipset.lapic.timer.deadline_value():
        return Timekeeper("the local APIC's timer")
    return None


def _lapic(timer: lapic_timer.LapicTimer) -> Timekeeper:
    name = "the local APIC's timer"
    if timer.current():
        return Timekeeper(name)
    if timer.state.mode == lapic_timer.DEADLINE:
        return Timekeeper(name, "it is in TSC-deadline mode (bits 18:17 of its LVT entry), where the count is always 0")
    if timer.state.initial:
        return Timekeeper(name, "it has counted down in one-shot mode, and its initial count must be written again")
    return Timekeeper(name, "its initial count is 0, and another must be written")
