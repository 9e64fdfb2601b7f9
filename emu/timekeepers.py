"""The clocks of a PC that a loop may watch: which one a source is, and whether it runs.

A look ahead lets no time pass, so that any clock seems to stand still in it: what reads one has to be known by what it
reads. One that does not run ends no loop, and is none here.
"""

from __future__ import annotations

from emu import layout
from emu.devices.hpet import ENABLE
from emu.devices.pit8254 import REFRESH_TOGGLE, TIMER2_OUT, Counter
from emu.devices.rtc146818 import A_DV, A_DV_RUN, A_UIP, B_SET, C_PF, C_UF
from emu.loops import Round
from emu.machine import Machine
from emu.pending import TICK, is_tick, tick_comes
from emu.x86.polls import Source, WayOut
from emu.x86.state import CR0_PE, RFLAGS_IF

#: The timer register of the PM block (82371AB data sheet, PMTMR, offset 08h; ACPI 4.8.3.3), and its length in bytes.
_PM_TIMER, _PM_TIMER_SIZE = 8, 4
#: The main counter (IA-PC HPET 1.0a, 2.3.7), and the local APIC's current-count register (SDM vol. 3A, 11.5.4).
_HPET_COUNTER, _LAPIC_COUNT = 0xF0, 0x390
#: The registers of the RTC that hold the time and the date, without the alarm's (MC146818A data sheet, "Address Map").
_RTC_TIME = (0, 2, 4, 6, 7, 8, 9, layout.RTC_CENTURY)


def clock_of(machine: Machine, found: Round, way: WayOut, source: Source) -> str:
    """The name of the running clock that changes what `way` looks at of `source`; empty: it is none."""
    if source.kind == "stamp":
        return "the time-stamp counter"
    if source.kind == "port":
        return _behind_port(machine, found, way.mask, source)
    if source.kind == "device":
        return _behind_memory(machine, source)
    if source.kind == "memory" and is_tick((source,)):
        state = found.steps[0].state
        on = any(step.state.rflags & RFLAGS_IF for step in found.steps)
        if on and not state.cr0 & CR0_PE and tick_comes(machine):
            return f"the tick count at 46Ch (IRQ {TICK})"
    return ""


def _behind_port(machine: Machine, found: Round, mask: int, source: Source) -> str:
    place = source.place
    if source.name == "pit" and place - layout.PIT < 3:
        number = place - layout.PIT
        return f"counter {number} of the 8254" if _counts(_counter(machine, number)) else ""
    if source.name == "port61":
        return _port61(machine, mask or 0xFF)
    if source.name == "rtc" and place == layout.RTC + 1:
        return _rtc(machine, _index(machine, found), mask or 0xFF)
    if source.name == "piix4-pm" and (chipset := machine.board.chipset) is not None:
        base = chipset.pm.pm_base
        if base is not None and _PM_TIMER <= place - base < _PM_TIMER + _PM_TIMER_SIZE:
            return "the ACPI timer"
    return ""


def _counter(machine: Machine, number: int) -> Counter:
    counter: Counter = machine.board.pit.save().counters[number]
    return counter


def _counts(counter: Counter) -> bool:
    return counter.counting or counter.load


def _port61(machine: Machine, mask: int) -> str:
    if mask & REFRESH_TOGGLE and _goes_round(_counter(machine, 1)):
        return "the refresh toggle (bit 4 of port 61h, counter 1 of the 8254)"
    if mask & TIMER2_OUT and (_goes_round(counter := _counter(machine, 2)) or (_counts(counter) and not counter.done)):
        return "the output of counter 2 of the 8254 (bit 5 of port 61h)"
    return ""


def _goes_round(counter: Counter) -> bool:
    return counter.mode in (2, 3) and _counts(counter)


def _index(machine: Machine, found: Round) -> int:
    """The register of the RTC that the round looks at: as it chooses, or as chosen before."""
    chosen = [m.value for s in found.steps for m in s.met if m.write and m.space == "port" and m.place == layout.RTC]
    return (chosen[-1] if chosen else machine.board.rtc.save().index) & 0x7F


def _rtc(machine: Machine, index: int, mask: int) -> str:
    ram = machine.board.rtc.save().ram
    a, b = ram[0xA], ram[0xB]
    if a & A_DV != A_DV_RUN:
        return ""
    keeps_time = not b & B_SET
    periodic = C_PF if a & 0xF else 0
    moving = (
        (keeps_time and index in _RTC_TIME)
        or (keeps_time and index == 0xA and mask & A_UIP)
        or (index == 0xC and mask & (periodic | (C_UF if keeps_time else 0)))
    )
    return "the real-time clock" if moving else ""


def _behind_memory(machine: Machine, source: Source) -> str:
    chipset = machine.board.chipset
    if chipset is None:
        return ""
    offset = source.place - layout.HPET
    if source.name == "hpet" and _HPET_COUNTER <= offset < _HPET_COUNTER + 8:
        return "the HPET's main counter" if chipset.hpet.save().config & ENABLE else ""
    if source.name == "lapic" and source.place & 0xFFF == _LAPIC_COUNT:
        return "the local APIC's timer" if chipset.lapic.timer.current() else ""
    return ""
