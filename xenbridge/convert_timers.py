"""Timers to and from the PIT, RTC, HPET and PMTIMER records.

How far a count has gone is in none of them but the HPET's and the PM timer's: in Xen as here the 8254's counts begin
anew (pit_load, xen/arch/x86/emul-i8254.c).
"""

from __future__ import annotations

from typing import Final

from emu.devices import hpet, pit8254, rtc146818
from emu.devices.piix4_pm import ticks_at
from emu.devices.pit8254 import SPEAKER_DATA, TIMER2_GATE, Counter, Port61State, pulses_at
from emu.devices.rtc146818 import REG_A, REG_C
from emu.layout import HPET_ID
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_devices import HPET as HPET_LAYOUT
from xenbridge.wire.schema import Values

#: `mode` of a channel that has had no control word.
NOT_PROGRAMMED: Final = 0xFF
#: Where in a two-byte access a channel is: the whole word's first byte, and its second.
_LSB, _MSB, _WORD0, _WORD1 = 1, 2, 3, 4
_CMOS: Final = 14
#: ns; of a capability register that names no period.
_HPET_TICK: Final = 16


# -- 8254


def load_counter(counter: Counter, rw: int, mode: int, count: int, *, bcd: bool) -> None:
    """The control word, and `count` CLK pulses, 1 to 65,536, as a guest would write them.

    Xen and KVM count in binary whatever bit 0 of the control word is (pit_load_count, pit_get_count): a count that BCD
    has no four digits for, or not in the bytes that are written, goes on in binary, at the same rate."""
    digits = int(f"{count % 10_000}", 16) if count <= 10_000 else -1
    fits = digits >= 0 and {_LSB: not digits >> 8, _MSB: not digits & 0xFF}.get(rw, True)
    bcd = bcd and fits
    counter.write_control(rw << 4 | mode << 1 | bcd)
    raw = digits if bcd else count & 0xFFFF
    for byte in {_LSB: (raw & 0xFF,), _MSB: (raw >> 8,)}.get(rw, (raw & 0xFF, raw >> 8)):
        counter.write_count(byte)


def counter_of(channel: Values, now: int) -> Counter:
    """The counter, with its count starting at `now` (ns)."""
    counter = Counter(gate=bool(channel["gate"]), pulse=pulses_at(now))
    if channel["mode"] == NOT_PROGRAMMED:
        return counter
    rw = channel["rw_mode"] & 3 or _WORD0
    load_counter(counter, rw, channel["mode"] & 7, channel["count"], bcd=bool(channel["bcd"] & 1))
    if channel["write_state"] == _WORD1:
        counter.first_byte = channel["write_latch"]
    counter.read_high = channel["read_state"] == _WORD1
    if channel["count_latched"]:
        counter.latch = channel["latched_count"]
        counter.latch_left = 2 if channel["count_latched"] == _WORD0 else 1
        counter.read_high = counter.rw == _WORD0 and channel["count_latched"] == _MSB
    if channel["status_latched"]:
        counter.status = channel["status"]
    return counter


def channel_of(counter: Counter) -> Values:
    """The channel of the record."""
    programmed = counter.written or counter.first_byte is not None or counter.control != Counter().control
    word = _WORD1 if counter.read_high else _WORD0
    latched = 0
    if counter.latch is not None:
        latched = counter.rw if counter.rw != _WORD0 else _WORD0 if counter.latch_left == 2 else _MSB
    return {
        "count": counter.initial_count if counter.written else 0x10000,
        "latched_count": counter.latch or 0,
        "count_latched": latched,
        "status_latched": counter.status is not None,
        "status": counter.status or 0,
        "read_state": word if counter.rw == _WORD0 else counter.rw,
        "write_state": counter.rw if counter.rw != _WORD0 else _WORD0 if counter.first_byte is None else _WORD1,
        "write_latch": counter.first_byte or 0,
        "rw_mode": counter.rw,
        "mode": counter.mode if programmed else NOT_PROGRAMMED,
        "bcd": counter.bcd,
        "gate": counter.gate,
    }


def pit_state(records: tuple[Record, ...], now: int) -> tuple[pit8254.State, Port61State] | None:
    """The 8254 and port 61h at `now` (ns). Counter 1, which no hypervisor runs, requests refreshes unless it was
    programmed."""
    record = hvm.find(records, "PIT")
    if record is None:
        return None
    values = record.values()
    counters = [counter_of(channel, now) for channel in values["channels"]]
    if values["channels"][1]["mode"] == NOT_PROGRAMMED:
        counters[1].write_control(0x14)
        counters[1].write_count(pit8254.REFRESH_COUNT)
    port = TIMER2_GATE * counters[2].gate | SPEAKER_DATA * bool(values["speaker_data_on"])
    return pit8254.State(counters), Port61State(port)


def pit_record(state: pit8254.State, port61: Port61State) -> Record:
    """Counters and speaker."""
    return build_record("PIT", {
        "channels": [channel_of(counter) for counter in state.counters],
        "speaker_data_on": bool(port61.value & SPEAKER_DATA), "pad0": 0,
    })  # fmt: skip


# -- RTC


def rtc_state(records: tuple[Record, ...], like: rtc146818.State, now: int) -> rtc146818.State | None:
    """The clock's own 14 registers, RAM and the fraction of a second as in `like`; `now` in ns."""
    record = hvm.find(records, "RTC")
    if record is None:
        return None
    values = record.values()
    ram = [*values["cmos_data"], *like.ram[_CMOS:]]
    ram[REG_A] &= ~rtc146818.A_UIP
    ram[REG_C] &= 0x70
    runs = ram[REG_A] & rtc146818.A_DV == rtc146818.A_DV_RUN
    update = now + 1_000_000_000 - rtc146818.UPDATE_LENGTH if runs else None
    return rtc146818.State(now, update, values["cmos_index"] & 0x7F, False, ram)


def rtc_record(state: rtc146818.State) -> Record:
    """The 14 registers; RAM has no place in it."""
    ram = bytearray(state.ram[:_CMOS])
    ram[REG_C] |= rtc146818.C_IRQF * state.interrupt
    values = {"cmos_data": bytes(ram), "cmos_index": state.index, "pad0": 0, "rtc_offset": 0}
    return build_record("RTC", values)


# -- HPET


def hpet_state(records: tuple[Record, ...], now: int) -> hpet.State | None:
    """With the period that the guest has read, so that what it measures stays true."""
    record = hvm.find(records, "HPET")
    if record is None:
        return None
    values = record.values()
    state = hpet.State(values["config"] & (hpet.ENABLE | hpet.LEGACY), values["isr"] & 7)
    state.tick = (values["capability"] >> 32) // hpet.FS_PER_NS or _HPET_TICK
    state.stopped = values["mc64"]
    state.origin = now - values["mc64"] * state.tick
    for timer, saved, period in zip(state.timers, values["timers"], values["period"], strict=True):
        timer.config = timer.config & ~hpet.WRITABLE | saved["config"] & hpet.WRITABLE
        timer.comparator, timer.period = saved["cmp"], period
    return state


def hpet_record(state: hpet.State, counter: int) -> Record:
    """`counter`: the main counter now."""
    values = HPET_LAYOUT.empty()
    values.update(
        capability=state.tick * hpet.FS_PER_NS << 32 | HPET_ID, config=state.config, isr=state.status, mc64=counter,
        timers=[{"config": t.config, "cmp": t.comparator, "fsb": 0, "res4": 0} for t in state.timers],
        period=[t.period for t in state.timers],
    )  # fmt: skip
    return build_record("HPET", values)


# -- PM timer


def pm_timer(records: tuple[Record, ...], now: int) -> tuple[int, int, int] | None:
    """(ticks it is ahead of those of `now`, status, enable)."""
    record = hvm.find(records, "PMTIMER")
    if record is None:
        return None
    values = record.values()
    return values["tmr_val"] - ticks_at(now), values["pm1a_sts"], values["pm1a_en"]


def pm_record(ticks: int, status: int, enable: int) -> Record:
    """`ticks` of the timer, of which 32 bits are kept."""
    return build_record("PMTIMER", {"tmr_val": ticks & 0xFFFFFFFF, "pm1a_sts": status, "pm1a_en": enable})
