"""The MC146818A and the PC's CMOS RAM, against the Motorola data sheet and the AT Technical Reference."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.clock import Clock
from emu.devices.rtc146818 import START, Date, Rtc, bios_geometry, pc_nvram, periodic_frequency

SECOND = 10**9
MS = 10**6
US = 10**3
A, B, C, D = 10, 11, 12, 13


class Bench:
    """A clock chip on a virtual clock that the test moves; `levels` is what irq8 was told, as (ns, level)."""

    def __init__(self, nvram: bytes = b"", start: Date = START) -> None:
        self.clock = Clock(lambda: 0)
        self.levels: list[tuple[int, bool]] = []
        self.rtc = Rtc(self.clock, lambda level: self.levels.append((self.clock.now, level)), nvram, start)

    def to(self, now: int) -> None:
        while (deadline := self.clock.next_deadline()) is not None and deadline <= now:
            self.clock.skip_to(deadline)
            self.clock.run_due()
        self.clock.skip_to(now)

    def wait(self, ns: int) -> None:
        self.to(self.clock.now + ns)

    def read(self, index: int) -> int:
        self.rtc.write(0, index, 1)
        return self.rtc.read(1, 1)

    def write(self, index: int, value: int) -> None:
        self.rtc.write(0, index, 1)
        self.rtc.write(1, value, 1)

    def set(self, **values: int) -> None:
        """As the data sheet asks: with SET = 1, then continue."""
        names = ["second", "second_alarm", "minute", "minute_alarm", "hour", "hour_alarm", "weekday", "day", "month"]
        names += ["year"]
        b = self.read(B)
        self.write(B, b | 0x80)
        for name, value in values.items():
            self.write(0x32 if name == "century" else names.index(name), value)
        self.write(B, b & 0x7F)

    def time(self) -> str:
        """In the registers' own digits."""
        year, month, day, hour, minute, second = (self.read(i) for i in (9, 8, 7, 4, 2, 0))
        return f"{self.read(0x32):02x}{year:02x}-{month:02x}-{day:02x} {hour:02x}:{minute:02x}:{second:02x}"


@pytest.fixture
def b() -> Bench:
    return Bench()


# -- time and calendar


def test_starts_at_the_fixed_date_in_bcd_and_24_hours(b: Bench) -> None:
    assert b.time() == "2020-01-01 00:00:00"
    assert b.read(6) == 4, "Wednesday, Sunday being 1"
    assert b.read(A) & 0x7F == 0x26
    assert b.read(B) == 0x02


def test_seconds_change_on_the_second(b: Bench) -> None:
    b.to(SECOND - 1)
    assert b.time() == "2020-01-01 00:00:00"
    b.to(SECOND)
    assert b.time() == "2020-01-01 00:00:01"
    b.to(3600 * SECOND)
    assert b.time() == "2020-01-01 01:00:00"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5 * 366 * 86400), st.booleans(), st.booleans())
def test_calendar_equals_the_gregorian_one_in_every_format(seconds: int, binary: bool, hours24: bool) -> None:
    start = datetime(2019, 12, 30, 11, 59, 58)
    b = Bench(start=start)
    b.write(B, 0x80 | 4 * binary | 2 * hours24)
    state = b.rtc.save()
    state.set_date(start)
    b.rtc.restore(state)
    b.write(B, 4 * binary | 2 * hours24)
    b.to(seconds * SECOND)
    date = start + timedelta(seconds=seconds)

    def code(number: int) -> int:
        return number if binary else int(str(number), 16)

    hour = code(date.hour) if hours24 else code((date.hour - 1) % 12 + 1) | 0x80 * (date.hour >= 12)
    expected = [code(date.second), code(date.minute), hour, date.isoweekday() % 7 + 1, code(date.day)]
    expected += [code(date.month), code(date.year % 100), 0x20]
    assert [b.read(i) for i in (0, 2, 4, 6, 7, 8, 9, 0x32)] == expected


def test_century_follows_the_year(b: Bench) -> None:
    b = Bench(start=datetime(1999, 12, 31, 23, 59, 59))
    b.to(SECOND)
    assert b.time() == "2000-01-01 00:00:00"


def test_time_is_set_under_set_and_runs_on(b: Bench) -> None:
    b.set(second=0x58, minute=0x59, hour=0x23, weekday=7, day=0x28, month=0x02, year=0x24)
    b.wait(2 * SECOND)
    assert b.time() == "2024-02-29 00:00:00"
    assert b.read(6) == 1


def test_set_holds_the_time_and_the_divider_runs_on(b: Bench) -> None:
    b.to(300 * MS)
    b.write(B, 0x82)
    b.to(5300 * MS)
    assert b.time() == "2020-01-01 00:00:00"
    b.write(B, 0x02)
    b.to(6 * SECOND - 1)
    assert b.time() == "2020-01-01 00:00:00"
    b.to(6 * SECOND)
    assert b.time() == "2020-01-01 00:00:01"


def test_set_aborts_an_update_cycle_under_way(b: Bench) -> None:
    b.to(SECOND - 1000 * US)
    assert b.read(A) & 0x80
    b.write(B, 0x82)
    assert not b.read(A) & 0x80
    b.write(B, 0x02)
    assert not b.read(A) & 0x80
    b.to(SECOND + 1)
    assert b.time() == "2020-01-01 00:00:00"
    b.to(2 * SECOND)
    assert b.time() == "2020-01-01 00:00:01"


def test_number_out_of_range_is_mended_by_the_next_carry(b: Bench) -> None:
    b.set(second=0x75, minute=0x10)
    b.wait(SECOND)
    assert b.time() == "2020-01-01 00:11:00"


def test_months_out_of_range_have_31_days(b: Bench) -> None:
    b.set(second=0x59, minute=0x59, hour=0x23, day=0x30, month=0x13)
    b.wait(SECOND)
    assert b.time() == "2020-13-31 00:00:00"
    b.wait(86400 * SECOND)
    assert b.time() == "2021-01-01 00:00:00"


def test_top_bit_of_the_seconds_byte_is_read_only(b: Bench) -> None:
    b.write(0, 0xA5)
    assert b.read(0) == 0x25


# -- register A


def test_uip_is_set_244_us_before_the_cycle_and_for_its_1984_us(b: Bench) -> None:
    end = 7 * SECOND
    for instant, uip in ((end - 2228 * US - 1, 0), (end - 2228 * US, 1), (end - 1, 1), (end, 0)):
        b.to(instant)
        assert b.read(A) >> 7 == uip, instant


def test_uip_cannot_be_written(b: Bench) -> None:
    b.write(A, 0xA6)
    assert b.read(A) == 0x26


@pytest.mark.parametrize("divider", [0x60, 0x70, 0x00])
def test_first_update_cycle_begins_500_ms_after_the_divider_reset(b: Bench, divider: int) -> None:
    b.write(A, divider | 6)
    b.to(10 * SECOND)
    assert b.time() == "2020-01-01 00:00:00"
    b.write(A, 0x26)
    end = 10_500 * MS + 1984 * US
    b.to(end - 1)
    assert b.time() == "2020-01-01 00:00:00"
    b.to(end)
    assert b.time() == "2020-01-01 00:00:01"
    b.to(end + SECOND)
    assert b.time() == "2020-01-01 00:00:02"


def test_rates_are_those_of_the_table_at_32768_hz() -> None:
    assert [periodic_frequency(rate) for rate in range(16)] == [
        *(None, 256, 128, 8192, 4096, 2048, 1024, 512),
        *(256, 128, 64, 32, 16, 8, 4, 2),
    ]


# -- interrupts


@pytest.mark.parametrize("rate", range(1, 16))
def test_periodic_interrupt_has_its_rate_without_drift(b: Bench, rate: int) -> None:
    b.write(A, 0x20 | rate)
    b.write(B, 0x42)
    count = 0
    while (deadline := b.clock.next_deadline()) is not None and deadline <= SECOND:
        b.to(deadline)
        assert b.read(C) == 0xC0
        count += 1
    assert count == periodic_frequency(rate)
    assert len(b.levels) == 2 * count


def test_periodic_flag_is_set_without_its_enable_and_raises_no_line(b: Bench) -> None:
    b.wait(SECOND // 2)
    assert b.read(C) == 0x40
    assert b.read(C) == 0
    assert b.levels == []
    assert b.clock.next_deadline() is None, "no timer without an enabled interrupt"


def test_rate_0_gives_no_periodic_flag(b: Bench) -> None:
    b.write(A, 0x20)
    b.write(B, 0x42)
    b.wait(SECOND // 2)
    assert b.read(C) == 0
    assert b.clock.next_deadline() is None


def test_update_ended_interrupt_comes_when_the_new_time_can_be_read(b: Bench) -> None:
    b.write(A, 0x20)
    b.write(B, 0x12)
    b.to(SECOND - 1)
    assert b.levels == []
    b.to(SECOND)
    assert b.levels == [(SECOND, True)]
    assert b.time().endswith("00:00:01")
    assert b.read(C) == 0x90
    assert b.levels[-1] == (SECOND, False)


def test_line_stays_up_until_register_c_is_read(b: Bench) -> None:
    b.write(B, 0x12)
    b.to(5 * SECOND)
    assert b.levels == [(SECOND, True)]
    b.read(C)
    b.to(6 * SECOND)
    assert b.levels == [(SECOND, True), (5 * SECOND, False), (6 * SECOND, True)]


def test_enabling_an_interrupt_whose_flag_is_set_raises_the_line_at_once(b: Bench) -> None:
    b.to(SECOND)
    b.write(B, 0x12)
    assert b.levels == [(SECOND, True)]
    b.write(B, 0x02)
    assert b.levels[-1] == (SECOND, False)


def test_set_clears_uie(b: Bench) -> None:
    b.write(B, 0x92)
    assert b.read(B) == 0x82


def test_alarm_matches_once_a_day(b: Bench) -> None:
    b.set(second_alarm=0x30, minute_alarm=0x05, hour_alarm=0x01)
    b.write(B, 0x22)
    b.to(2 * 86400 * SECOND)
    b.read(C)
    at = (3600 + 5 * 60 + 30) * SECOND
    assert b.levels[0] == (at, True)
    b.to((2 * 86400 + 3930) * SECOND)
    assert b.levels[-1] == (2 * 86400 * SECOND + at, True)
    assert b.read(C) & 0xA0 == 0xA0


@pytest.mark.parametrize(
    ("alarm", "instants"),
    [
        ((0xC0, 0xFF, 0xC1), [1, 2, 3, 4]),
        ((0x15, 0xFF, 0xC0), [15, 75, 135, 195]),
        ((0x00, 0x30, 0xC0), [1800, 5400, 9000, 12600]),
        ((0x10, 0xC0, 0x02), [7210, 7270, 7330, 7390]),
        ((0xC0, 0x59, 0x23), [86340, 86341, 86342, 86343]),
    ],
)
def test_alarm_bytes_from_c0_up_match_always(b: Bench, alarm: tuple[int, int, int], instants: list[int]) -> None:
    b.set(second_alarm=alarm[0], minute_alarm=alarm[1], hour_alarm=alarm[2])
    b.write(A, 0x20)
    b.write(B, 0x22)
    seen: list[int] = []
    while len(seen) < len(instants):
        deadline = b.clock.next_deadline()
        assert deadline is not None
        b.to(deadline)
        assert b.read(C) & 0x20
        seen.append(deadline // SECOND)
    assert seen == instants


def test_alarm_flag_is_found_when_only_looked_at_later(b: Bench) -> None:
    b.set(second_alarm=0x05, minute_alarm=0x00, hour_alarm=0x00)
    b.to(4 * SECOND)
    assert not b.read(C) & 0x20
    b.to(9 * SECOND)
    assert b.read(C) & 0x20
    b.to(60 * SECOND)
    assert not b.read(C) & 0x20


def test_alarm_that_no_time_has_never_comes(b: Bench) -> None:
    b.set(second_alarm=0x61, minute_alarm=0xC0, hour_alarm=0xC0)
    b.write(B, 0x22)
    assert b.clock.next_deadline() is None


def test_alarm_in_12_hours_compares_the_pm_bit(b: Bench) -> None:
    b.write(B, 0x00)
    b.set(second=0x59, minute=0x59, hour=0x11, second_alarm=0x00, minute_alarm=0x00, hour_alarm=0x92)
    b.write(B, 0x20)
    b.wait(2 * SECOND)
    assert b.read(C) & 0x20
    assert b.read(4) == 0x92


def test_irqf_is_the_or_of_enabled_flags(b: Bench) -> None:
    b.write(A, 0x2F)
    b.to(SECOND)
    assert b.read(C) == 0x50
    b.to(2 * SECOND)
    b.write(B, 0x12)
    assert b.read(C) == 0xD0


# -- ports, RAM, state


def test_index_port_is_write_only_and_its_top_bit_masks_nmi(b: Bench) -> None:
    b.rtc.write(0, 0x8D, 1)
    assert b.rtc.nmi_masked
    assert b.rtc.read(0, 1) == b.rtc.peek(0, 1) == 0xFF
    assert b.rtc.read(1, 1) == 0x80
    b.rtc.write(0, 0x0D, 1)
    assert not b.rtc.nmi_masked


def test_registers_c_and_d_are_read_only(b: Bench) -> None:
    b.write(D, 0)
    b.write(C, 0xFF)
    assert b.read(D) == 0x80
    assert b.read(C) == 0


def test_all_128_bytes_are_there() -> None:
    b = Bench(bytes(range(128)))
    assert [b.read(i) for i in range(14, 128) if i != 0x32] == [i for i in range(14, 128) if i != 0x32]
    assert [b.read(i) for i in (1, 3, 5)] == [1, 3, 5]
    b.write(0x7F, 0xAA)
    assert b.read(0x7F) == 0xAA


def test_too_much_ram_is_refused() -> None:
    with pytest.raises(ValueError, match="128 bytes, not 129"):
        Bench(bytes(129))


def test_peek_of_c_clears_nothing(b: Bench) -> None:
    b.write(B, 0x12)
    b.to(SECOND)
    b.rtc.write(0, C, 1)
    before = b.rtc.save()
    assert b.rtc.peek(1, 1) == b.rtc.peek(1, 1) == 0xD0
    assert b.rtc.save() == before
    assert b.levels == [(SECOND, True)]


def test_reset_pin_disables_interrupts_and_keeps_time_and_ram(b: Bench) -> None:
    b.write(0x40, 0x5A)
    b.write(B, 0x7A)
    b.to(3 * SECOND)
    assert b.levels[-1][1]
    b.rtc.reset()
    assert not b.levels[-1][1]
    assert b.read(B) == 0x02
    assert b.read(C) == 0
    assert b.read(0x40) == 0x5A
    assert b.time() == "2020-01-01 00:00:03"


def test_power_on_is_as_built_at_whatever_time(b: Bench) -> None:
    b.write(0x40, 0x5A)
    b.to(3 * SECOND)
    b.read(0)
    b.clock.skipped = 0
    b.rtc.power_on()
    assert b.read(0x40) == 0
    assert b.time() == "2020-01-01 00:00:00"
    b.to(SECOND)
    assert b.time() == "2020-01-01 00:00:01"


def test_saved_state_continues_equally_and_is_a_copy(b: Bench) -> None:
    b.write(A, 0x2D)
    b.write(B, 0x52)
    b.to(10_200 * MS)
    state, clock = b.rtc.save(), b.clock.save()
    kept = copy.deepcopy(state)
    b.levels.clear()

    def go_on(bench: Bench) -> list[object]:
        story: list[object] = []
        for _ in range(8):
            bench.wait(333 * MS)
            story += [bench.time(), bench.read(C)]
        return [*story, *bench.levels]

    expected = go_on(b)
    assert state == kept
    other = Bench()
    other.rtc.restore(state)
    other.clock.restore(clock)
    assert other.rtc.save() == kept
    other.levels.clear()
    assert go_on(other) == expected
    assert state == kept


def test_how_often_one_looks_does_not_show_in_the_state() -> None:
    one, two = Bench(), Bench()
    for bench, step in ((one, 5 * SECOND), (two, 125 * MS)):
        bench.write(B, 0x22)
        while bench.clock.now < 5 * SECOND:
            bench.wait(step)
            bench.read(0)
    assert one.rtc.save() == two.rtc.save()


ACCESS = st.tuples(
    st.integers(0, 15) | st.sampled_from([A, B, C, 0x32]),
    st.none() | st.integers(0, 255) | st.sampled_from([0x26, 0x2F, 0x23, 0x72, 0x7A, 0x82, 0xC0]),
    st.sampled_from([0, 1, 100, 10_000, 300_000]),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(ACCESS, max_size=30), st.lists(ACCESS, max_size=15))
def test_any_accesses_keep_peek_pure_and_the_state_restorable(
    first: list[tuple[int, int | None, int]], second: list[tuple[int, int | None, int]]
) -> None:
    def access(bench: Bench, index: int, value: int | None, wait: int) -> int:
        bench.wait(wait * 12_345)
        bench.rtc.write(0, index, 1)
        before = bench.rtc.save()
        peeked = bench.rtc.peek(1, 1)
        bench.rtc.view()
        assert bench.rtc.save() == before
        if value is None:
            assert bench.rtc.read(1, 1) == peeked <= 0xFF
        else:
            bench.rtc.write(1, value, 1)
        return peeked

    b, other = Bench(), Bench()
    for step in first:
        access(b, *step)
    other.rtc.restore(b.rtc.save())
    other.clock.restore(b.clock.save())
    b.levels.clear()
    other.levels.clear()
    assert [access(b, *step) for step in second] == [access(other, *step) for step in second]
    assert b.levels == other.levels
    assert b.rtc.save() == other.rtc.save()


def test_view_shows_date_and_enables(b: Bench) -> None:
    b.write(B, 0x52)
    fields = {field.name: field for field in b.rtc.view().fields}
    assert fields["date"].value == "2020-01-01"
    assert fields["B"].text == "PIE UIE 24/12"
    assert "1024 Hz" in fields["A"].text


# -- what a PC keeps in the RAM


def word(ram: bytes, at: int) -> int:
    return ram[at] | ram[at + 1] << 8


def test_memory_bytes() -> None:
    ram = pc_nvram(64 << 20)
    assert len(ram) == 128
    assert word(ram, 0x15) == 640
    assert word(ram, 0x17) == word(ram, 0x30) == 63 * 1024
    assert word(ram, 0x34) == 48 << 4
    big = pc_nvram(3 << 30, memory_above_4g=5 << 30)
    assert word(big, 0x30) == 0xFFFF
    assert word(big, 0x34) == (3072 - 16) << 4
    assert word(big, 0x5B) | big[0x5D] << 16 == 5 << 14
    small = pc_nvram(1 << 20)
    assert word(small, 0x30) == word(small, 0x34) == 0


def test_floppies_and_equipment() -> None:
    assert pc_nvram(1 << 20)[0x14] == 0x06
    two = pc_nvram(1 << 20, floppies=[1440, 360])
    assert (two[0x10], two[0x14]) == (0x41, 0x47)
    one = pc_nvram(1 << 20, floppies=[2880])
    assert (one[0x10], one[0x14]) == (0x50, 0x07)


def test_disk_types_and_parameters() -> None:
    ram = pc_nvram(1 << 20, disks=[20160, 4_000_000])
    assert ram[0x12] == 0xFF
    assert (ram[0x19], ram[0x1A]) == (47, 47)
    assert (word(ram, 0x1B), ram[0x1D], ram[0x20], ram[0x23]) == (20, 16, 0xC8, 63)
    assert word(ram, 0x24) == 4_000_000 // 1008
    assert ram[0x39] == 0x04, "more than 1024 cylinders: LBA translation for the second disk"
    assert pc_nvram(1 << 20, disks=[20160])[0x12] == 0xF0


def test_geometry_has_at_least_one_and_at_most_16383_cylinders() -> None:
    assert bios_geometry(1) == (1, 16, 63)
    assert bios_geometry(1 << 40) == (16383, 16, 63)


def test_boot_order() -> None:
    assert pc_nvram(1 << 20, boot="cdrom")[0x3D] == 0x03
    ram = pc_nvram(1 << 20, boot=["floppy", "disk", "cdrom"], floppy_signature_check=False)
    assert (ram[0x3D], ram[0x38]) == (0x21, 0x31)


def test_checksum_is_the_sum_of_10h_to_2dh_high_byte_first() -> None:
    ram = pc_nvram(64 << 20, disks=[20160, 20160], floppies=[1440])
    assert ram[0x2E] << 8 | ram[0x2F] == sum(ram[0x10:0x2E])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"disks": [1, 2, 3]}, "2 disks"),
        ({"floppies": [1000]}, "1000"),
        ({"boot": "tape"}, "tape"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pc_nvram(1 << 20, **arguments)  # type: ignore[arg-type]
