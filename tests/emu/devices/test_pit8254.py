"""The 8254 and port 61h, against the data sheet (Intel 231164) and a simulation that counts every CLK pulse."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.clock import Clock
from emu.devices.pit8254 import FREQUENCY, Pit8254, Port61, instant_of, pulses_at


class Bench:
    """A timer on a clock that the test moves; `edges` is what irq0 was told, as (CLK pulse, level)."""

    def __init__(self) -> None:
        self.clock = Clock(lambda: 0)
        self.edges: list[tuple[int, bool]] = []
        self.pit = Pit8254(self.clock, lambda level: self.edges.append((pulses_at(self.clock.now), level)))
        self.port61 = Port61(self.pit, self.clock)
        self.port61.write(0, 1, 1)
        self.edges.clear()
        self.pulse = 0

    def wait(self, pulses: int, fire: bool = True) -> None:
        self.pulse += pulses
        self.to(instant_of(self.pulse), fire)

    def to(self, now: int, fire: bool = True) -> None:
        while fire and (deadline := self.clock.next_deadline()) is not None and deadline <= now:
            self.clock.skip_to(deadline)
            self.clock.run_due()
        self.clock.skip_to(now)

    def control(self, value: int) -> None:
        self.pit.write(3, value, 1)

    def program(self, counter: int, mode: int, count: int, bcd: bool = False) -> None:
        """Both bytes, LSB first."""
        self.control(counter << 6 | 0x30 | mode << 1 | bcd)
        self.count(counter, count)

    def count(self, counter: int, count: int) -> None:
        self.pit.write(counter, count & 0xFF, 1)
        self.pit.write(counter, count >> 8, 1)

    def read2(self, counter: int) -> int:
        return self.pit.read(counter, 1) | self.pit.read(counter, 1) << 8

    def latched(self, counter: int) -> int:
        self.control(counter << 6)
        return self.read2(counter)

    def status(self, counter: int) -> int:
        self.control(0xE0 | 2 << counter)
        return self.pit.read(counter, 1)

    def out(self, counter: int) -> bool:
        return self.pit.out(counter, self.clock.now)


@pytest.fixture
def b() -> Bench:
    return Bench()


# -- time


def test_pulses_are_exact_for_ever() -> None:
    hour = 3600 * 10**9
    assert pulses_at(hour) == 3600 * FREQUENCY
    for pulse in (1, 2, 1193182, 3600 * FREQUENCY + 1, 10**15 + 7):
        assert pulses_at(instant_of(pulse)) == pulse
        assert pulses_at(instant_of(pulse) - 1) == pulse - 1


def test_rate_generator_does_not_drift(b: Bench) -> None:
    b.program(0, 2, 11932)
    b.to(10 * 10**9)
    rises = [pulse for pulse, level in b.edges if level]
    assert rises == [1 + 11932 * (i + 1) for i in range(len(rises))]
    assert len(rises) == (10 * FREQUENCY - 1) // 11932


# -- mode 0, "Interrupt on Terminal Count"


def test_mode_0_control_word_sets_out_low_at_once(b: Bench) -> None:
    assert b.out(2)
    b.control(0xB0)
    assert not b.out(2)


def test_mode_0_out_goes_high_n_plus_1_pulses_after_the_count(b: Bench) -> None:
    b.program(2, 0, 4)
    b.wait(4)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)


def test_mode_0_loading_pulse_does_not_decrement(b: Bench) -> None:
    b.program(2, 0, 4)
    b.wait(1)
    assert b.latched(2) == 4
    b.wait(1)
    assert b.latched(2) == 3


def test_mode_0_counts_on_below_zero_with_out_high(b: Bench) -> None:
    b.program(2, 0, 2)
    b.wait(4)
    assert b.latched(2) == 0xFFFF
    b.wait(0x10000)
    assert b.latched(2) == 0xFFFF
    assert b.out(2)


def test_mode_0_gate_low_disables_counting_and_leaves_out(b: Bench) -> None:
    b.program(2, 0, 5)
    b.wait(3)
    b.pit.set_gate(2, False)
    b.wait(100)
    assert b.latched(2) == 3
    assert not b.out(2)
    b.pit.set_gate(2, True)
    b.wait(3)
    assert b.out(2)


def test_mode_0_count_written_with_gate_low_is_still_loaded(b: Bench) -> None:
    b.pit.set_gate(2, False)
    b.program(2, 0, 5)
    b.wait(10)
    assert b.latched(2) == 5
    b.pit.set_gate(2, True)
    b.wait(5)
    assert b.out(2)


def test_mode_0_first_byte_of_a_new_count_stops_counting_and_lowers_out(b: Bench) -> None:
    b.program(2, 0, 3)
    b.wait(10)
    assert b.out(2)
    b.pit.write(2, 2, 1)
    assert not b.out(2)
    stopped = b.latched(2)
    b.wait(50)
    assert b.latched(2) == stopped
    b.pit.write(2, 0, 1)
    b.wait(3)
    assert b.out(2)


# -- mode 1, "Hardware Retriggerable One-Shot"


def test_mode_1_out_is_low_for_n_pulses_from_the_pulse_after_the_trigger(b: Bench) -> None:
    b.pit.set_gate(2, False)
    b.program(2, 1, 3)
    b.wait(20)
    assert b.out(2)
    b.pit.set_gate(2, True)
    assert b.out(2)
    b.wait(1)
    assert not b.out(2)
    b.wait(2)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)


def test_mode_1_is_retriggerable_and_ignores_the_level_of_gate(b: Bench) -> None:
    b.pit.set_gate(2, False)
    b.program(2, 1, 5)
    b.pit.set_gate(2, True)
    b.wait(1)
    b.pit.set_gate(2, False)
    b.wait(3)
    b.pit.set_gate(2, True)
    b.wait(5)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)


def test_mode_1_new_count_waits_for_the_next_trigger(b: Bench) -> None:
    b.pit.set_gate(2, False)
    b.program(2, 1, 5)
    b.pit.set_gate(2, True)
    b.wait(1)
    b.count(2, 2)
    b.wait(4)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)
    b.pit.set_gate(2, False)
    b.pit.set_gate(2, True)
    b.wait(2)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)


# -- mode 2, "Rate Generator"


def test_mode_2_out_is_low_for_the_one_pulse_at_count_1(b: Bench) -> None:
    b.program(2, 2, 3)
    seen = []
    for _ in range(7):
        b.wait(1)
        seen.append((b.latched(2), b.out(2)))
    assert seen == [(3, True), (2, True), (1, False), (3, True), (2, True), (1, False), (3, True)]


def test_mode_2_new_count_is_taken_at_the_end_of_the_period(b: Bench) -> None:
    b.program(2, 2, 4)
    b.wait(2)
    b.count(2, 5)
    seen = []
    for _ in range(8):
        b.wait(1)
        seen.append(b.latched(2))
    assert seen == [2, 1, 5, 4, 3, 2, 1, 5]


def test_mode_2_half_written_count_is_not_taken(b: Bench) -> None:
    b.program(2, 2, 4)
    b.wait(2)
    b.pit.write(2, 9, 1)
    b.wait(3)
    assert b.latched(2) == 4


def test_mode_2_gate_low_during_the_pulse_sets_out_high_at_once(b: Bench) -> None:
    b.program(2, 2, 3)
    b.wait(3)
    assert not b.out(2)
    b.pit.set_gate(2, False)
    assert b.out(2)


def test_mode_2_gate_rise_reloads_on_the_next_pulse(b: Bench) -> None:
    b.program(2, 2, 10)
    b.wait(5)
    b.pit.set_gate(2, False)
    b.wait(7)
    assert b.latched(2) == 6
    b.pit.set_gate(2, True)
    b.wait(1)
    assert b.latched(2) == 10


# -- mode 3, "Square Wave Mode"


def test_mode_3_even_count_as_in_figure_18(b: Bench) -> None:
    b.program(2, 3, 4)
    seen = []
    for _ in range(6):
        b.wait(1)
        seen.append((b.latched(2), b.out(2)))
    assert seen == [(4, True), (2, True), (4, False), (2, False), (4, True), (2, True)]


def test_mode_3_odd_count_as_in_figure_18(b: Bench) -> None:
    b.program(2, 3, 5)
    seen = []
    for _ in range(7):
        b.wait(1)
        seen.append((b.latched(2), b.out(2)))
    assert seen == [(4, True), (2, True), (0, True), (4, False), (2, False), (4, True), (2, True)]


def test_mode_3_new_count_is_taken_at_the_end_of_the_half_cycle(b: Bench) -> None:
    b.program(2, 3, 8)
    b.wait(2)
    b.count(2, 4)
    b.wait(3)
    assert (b.latched(2), b.out(2)) == (4, False)
    b.wait(2)
    assert (b.latched(2), b.out(2)) == (4, True)


def test_mode_3_gate_low_while_out_is_low_sets_it_high_at_once(b: Bench) -> None:
    b.program(2, 3, 4)
    b.wait(3)
    assert not b.out(2)
    b.pit.set_gate(2, False)
    assert b.out(2)


# -- modes 4 and 5, the strobes


def test_mode_4_strobes_n_plus_1_pulses_after_the_count_for_one_pulse(b: Bench) -> None:
    b.program(2, 4, 3)
    b.wait(3)
    assert b.out(2)
    b.wait(1)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)
    b.wait(0x10000)
    assert b.out(2)


def test_mode_4_first_byte_has_no_effect_on_counting_and_the_second_reloads(b: Bench) -> None:
    b.program(2, 4, 10)
    b.wait(3)
    b.pit.write(2, 20, 1)
    b.wait(2)
    assert b.latched(2) == 6
    b.pit.write(2, 0, 1)
    b.wait(1)
    assert b.latched(2) == 20


def test_mode_5_strobes_n_plus_1_pulses_after_the_trigger(b: Bench) -> None:
    b.pit.set_gate(2, False)
    b.program(2, 5, 3)
    b.wait(10)
    b.pit.set_gate(2, True)
    b.pit.set_gate(2, False)
    b.wait(3)
    assert b.out(2)
    b.wait(1)
    assert not b.out(2)
    b.wait(1)
    assert b.out(2)


# -- "Write Operations", "Read Operations"


def test_lsb_only_clears_the_msb_and_reads_the_lsb(b: Bench) -> None:
    b.control(0x90 | 2 << 1)
    b.pit.write(2, 0x80, 1)
    b.wait(2)
    assert b.pit.read(2, 1) == 0x7F
    assert b.pit.read(2, 1) == 0x7F


def test_msb_only_clears_the_lsb_and_reads_the_msb(b: Bench) -> None:
    b.control(0xA0 | 2 << 1)
    b.pit.write(2, 0x12, 1)
    b.wait(1)
    assert b.pit.read(2, 1) == 0x12
    b.wait(1)
    assert b.pit.read(2, 1) == 0x11


def test_unlatched_two_byte_read_sees_the_count_move_between_its_bytes(b: Bench) -> None:
    b.program(2, 2, 0x200)
    b.wait(1)
    assert b.pit.read(2, 1) == 0x00
    b.wait(1)
    assert b.pit.read(2, 1) == 0x01


def test_counts_of_zero_are_65536_and_in_bcd_10000(b: Bench) -> None:
    for bcd, count in ((False, 65536), (True, 10000)):
        b.program(2, 0, 0, bcd)
        b.wait(1)
        assert b.latched(2) == 0
        b.wait(count - 1)
        assert b.latched(2) == 1
        assert not b.out(2)
        b.wait(1)
        assert b.out(2)


def test_bcd_counts_and_reads_decimal_digits_and_wraps_to_9999(b: Bench) -> None:
    b.program(2, 0, 0x1000, bcd=True)
    b.wait(2)
    assert b.latched(2) == 0x0999
    b.wait(1000)
    assert b.latched(2) == 0x9999


def test_mode_bits_110_and_111_are_modes_2_and_3_and_read_back_as_written(b: Bench) -> None:
    b.control(0xBC)
    assert b.status(2) & 0x3F == 0x3C
    b.count(2, 3)
    b.wait(3)
    assert (b.latched(2), b.out(2)) == (1, False)
    b.control(0xBE)
    b.count(2, 4)
    b.wait(3)
    assert (b.latched(2), b.out(2)) == (4, False)


def test_latched_count_is_held_until_both_bytes_are_read(b: Bench) -> None:
    b.program(2, 2, 1000)
    b.wait(1)
    b.control(0x80)
    b.wait(100)
    assert b.pit.read(2, 1) == 1000 & 0xFF
    b.wait(100)
    assert b.pit.read(2, 1) == 1000 >> 8
    assert b.read2(2) == 800


def test_second_latch_command_is_ignored_until_the_first_is_read(b: Bench) -> None:
    b.program(2, 2, 1000)
    b.wait(1)
    b.control(0x80)
    b.wait(100)
    b.control(0x80)
    b.control(0xD8)
    assert b.read2(2) == 1000


def test_reprogramming_releases_the_latches(b: Bench) -> None:
    b.program(2, 2, 1000)
    b.wait(1)
    b.control(0xC8)
    b.program(2, 2, 500)
    b.wait(1)
    assert b.read2(2) == 500


def test_read_back_latches_only_the_selected_counters(b: Bench) -> None:
    b.program(0, 2, 1000)
    b.program(2, 2, 1000)
    b.wait(1)
    b.control(0xD8)
    b.wait(10)
    assert b.read2(0) == 990
    assert b.read2(2) == 1000


def test_status_is_read_before_the_count_whichever_was_latched_first(b: Bench) -> None:
    b.program(2, 2, 1000)
    b.wait(1)
    b.control(0xD8)  # count
    b.control(0xE8)  # status
    assert b.pit.read(2, 1) == 0xB4
    assert b.read2(2) == 1000
    b.control(0xC8)  # both at once
    assert b.pit.read(2, 1) == 0xB4
    assert b.read2(2) == 1000


def test_second_status_latch_is_ignored_until_the_first_is_read(b: Bench) -> None:
    b.program(2, 0, 4)
    b.control(0xE8)
    b.wait(5)
    b.control(0xE8)
    assert b.pit.read(2, 1) == 0x70
    assert b.status(2) == 0xB0


def test_null_count_lasts_from_the_write_to_the_load_into_the_counting_element(b: Bench) -> None:
    b.control(0xB4)
    assert b.status(2) & 0x40
    b.count(2, 10)
    assert b.status(2) & 0x40
    b.wait(1)
    assert not b.status(2) & 0x40
    b.pit.write(2, 20, 1)
    assert not b.status(2) & 0x40, "figure 13, note 2: two-byte counts set it with the second byte"
    b.pit.write(2, 0, 1)
    assert b.status(2) & 0x40
    b.wait(9)
    assert b.status(2) & 0x40
    b.wait(1)
    assert not b.status(2) & 0x40


def test_control_word_register_cannot_be_read(b: Bench) -> None:
    assert b.pit.read(3, 1) == b.pit.peek(3, 1) == 0xFF


def test_peek_leaves_flip_flops_latches_and_status(b: Bench) -> None:
    b.program(2, 2, 0x1234)
    b.wait(1)
    b.control(0xC8)
    before = b.pit.save()
    assert [b.pit.peek(2, 1) for _ in range(3)] == [0xB4] * 3
    assert b.pit.save() == before
    assert [b.pit.read(2, 1) for _ in range(3)] == [0xB4, 0x34, 0x12]


# -- counter 0 and IRQ 0


@pytest.mark.parametrize(
    ("mode", "count", "edges"),
    [
        (0, 5, [(0, False), (6, True)]),
        (2, 5, [(5, False), (6, True), (10, False), (11, True)]),
        (3, 4, [(3, False), (5, True), (7, False), (9, True), (11, False)]),
        (3, 5, [(4, False), (6, True), (9, False), (11, True)]),
        (4, 5, [(6, False), (7, True)]),
    ],
)
def test_irq0_gets_every_edge_at_its_pulse(b: Bench, mode: int, count: int, edges: list[tuple[int, bool]]) -> None:
    b.program(0, mode, count)
    b.wait(11)
    assert edges == b.edges


def test_reading_late_delivers_the_edges_that_are_due_once(b: Bench) -> None:
    b.program(0, 2, 5)
    b.wait(7, fire=False)
    b.latched(0)
    assert [level for _, level in b.edges] == [False, True]
    b.clock.run_due()
    b.wait(5)
    assert [level for _, level in b.edges] == [False, True, False, True]


def test_one_shot_that_ran_out_needs_no_timer(b: Bench) -> None:
    b.program(0, 0, 5)
    b.wait(10)
    assert b.clock.next_deadline() is None


# -- state


def test_saved_state_continues_equally_and_is_a_copy(b: Bench) -> None:
    b.program(0, 3, 7)
    b.program(2, 2, 9)
    b.wait(12)
    state, clock = b.pit.save(), b.clock.save()
    kept = copy.deepcopy(state)
    b.edges.clear()
    b.wait(30)
    expected = (b.edges[:], b.latched(0), b.latched(2))
    assert state == kept
    other = Bench()
    other.pit.restore(state)
    other.clock.restore(clock)
    other.pulse = 12
    assert other.pit.save() == kept
    other.edges.clear()
    other.wait(30)
    assert expected == (other.edges, other.latched(0), other.latched(2))
    assert state == kept


def test_how_often_one_looks_does_not_show_in_the_state() -> None:
    one, two = Bench(), Bench()
    for bench, steps in ((one, [500]), (two, [1, 99, 150, 250])):
        bench.program(0, 3, 37)
        bench.program(2, 2, 11)
        for step in steps:
            bench.wait(step)
            bench.pit.peek(0, 1)
            bench.port61.peek(0, 1)
    assert one.pit.save() == two.pit.save()


def test_view_names_mode_and_rate(b: Bench) -> None:
    b.program(0, 2, 0)
    b.wait(1)
    text = {field.name: field.text for field in b.pit.view().fields}
    assert "mode 2 rate generator" in text["counter 0"]
    assert "18.207 Hz" in text["counter 0"]


# -- port 61h


def test_port_61_bit_0_is_the_gate_of_counter_2(b: Bench) -> None:
    b.program(2, 0, 5)
    b.port61.write(0, 0, 1)
    b.wait(100)
    assert b.port61.read(0, 1) & 0x20 == 0
    b.port61.write(0, 1, 1)
    b.wait(5)
    assert b.port61.read(0, 1) & 0x20


def test_port_61_keeps_bits_0_to_3_and_reads_no_nmi(b: Bench) -> None:
    b.port61.write(0, 0xFF, 1)
    assert b.port61.read(0, 1) & 0xCF == 0x0F
    b.port61.write(0, 0x0C, 1)
    assert b.port61.read(0, 1) & 0xCF == 0x0C


def test_port_61_refresh_bit_toggles_each_18_pulses(b: Bench) -> None:
    bits = []
    for _ in range(400):
        b.wait(1)
        bits.append(b.port61.read(0, 1) >> 4 & 1)
    changes = [i for i in range(1, 400) if bits[i] != bits[i - 1]]
    assert {after - before for before, after in pairwise(changes)} == {18}
    b.wait(18 * 1001)
    assert b.port61.read(0, 1) >> 4 & 1 != bits[-1], "an odd number of periods in one stride"


def test_refresh_bit_follows_counter_1_when_it_is_reprogrammed(b: Bench) -> None:
    b.program(1, 2, 36)
    b.wait(1)
    first = b.port61.read(0, 1) & 0x10
    b.wait(35)
    assert b.port61.read(0, 1) & 0x10 == first
    b.wait(1)
    assert b.port61.read(0, 1) & 0x10 != first


def test_speaker_is_out_2_and_speaker_data(b: Bench) -> None:
    b.program(2, 3, 4)
    b.wait(1)
    assert not b.port61.speaker
    b.port61.write(0, 3, 1)
    assert b.port61.speaker
    b.wait(2)
    assert not b.port61.speaker


# -- against a simulation of each pulse


class PerPulse:
    """One counter of the data sheet's mode definitions, one CLK pulse at a time, in terms of pulses since the load:
    written for this test and shaped unlike the device."""

    def __init__(self, mode: int, bcd: bool, gate: bool, held: int) -> None:
        self.mode, self.modulus, self.gate = mode, 10_000 if bcd else 65536, gate
        self.out = mode != 0
        self.count = 0  # written; 0: nothing yet
        self.pending = False  # to be loaded by the next pulse
        self.edge = False
        self.frozen = False  # mode 0, between two bytes
        self.n: int | None = None  # loaded; None before the first load
        self.t = 0  # counting pulses since the load; modes 2 and 3: within the (half) period
        self.strobe = False
        self.held = held

    def first_byte(self) -> None:
        if self.mode == 0:
            self.frozen, self.out = True, False

    def write(self, count: int) -> None:
        if self.mode == 0:
            self.frozen, self.out = False, False
        self.count = count
        if self.mode in (0, 4) or (self.mode in (2, 3) and self.n is None):
            self.pending = True

    def set_gate(self, level: bool) -> None:
        self.edge |= level and not self.gate and self.mode in (1, 2, 3, 5)
        self.gate = level
        if not level and self.mode in (2, 3):
            self.out = True

    def pulse(self) -> None:
        mode, edge, self.edge = self.mode, self.edge, False
        if mode in (4, 5):
            self.out = True
        if self.pending or (edge and self.count):
            self.pending, self.n, self.t = False, self.count, 0
            if mode:
                self.out = mode != 1
            return
        if self.n is None or self.frozen or (not self.gate and mode in (0, 2, 3, 4)):
            return
        self.t += 1
        if mode in (0, 1) and self.t == self.n:
            self.out = True
        elif mode in (4, 5):
            self.out = self.t != self.n
        elif mode == 2:
            if self.t == self.n:
                self.n, self.t = self.count, 0
            self.out = self.t != self.n - 1
        elif mode == 3 and self.t == ((self.n + 1) // 2 if self.out else self.n // 2):
            self.out, self.n, self.t = not self.out, self.count, 0

    def shown(self) -> int:
        if self.n is None:
            return self.held
        value = (self.n & ~1) - 2 * self.t if self.mode == 3 else self.n - self.t
        value %= self.modulus
        return int(str(value), 16) if self.modulus == 10_000 else value


STEP = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 90)),
    st.tuples(st.just("count"), st.integers(2, 30)),
    st.tuples(st.just("first byte"), st.integers(2, 30)),
    st.tuples(st.just("gate"), st.integers(0, 1)),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 5), st.booleans(), st.booleans(), st.lists(STEP, max_size=14))
def test_any_history_equals_the_pulse_by_pulse_simulation(
    mode: int, bcd: bool, gate: bool, steps: list[tuple[str, int]]
) -> None:
    b = Bench()
    b.pit.set_gate(2, gate)
    b.control(0xB0 | mode << 1 | bcd)
    model = PerPulse(mode, bcd, gate, b.latched(2))
    for name, value in [*steps, ("wait", 1)]:
        if name == "wait":
            b.wait(value)
            for _ in range(value):
                model.pulse()
        elif name == "gate":
            b.pit.set_gate(2, bool(value))
            model.set_gate(bool(value))
        else:
            raw = int(str(value), 16) if bcd else value
            b.pit.write(2, raw, 1)
            model.first_byte()
            if name == "first byte":
                assert (model.shown(), model.out) == (b.latched(2), b.out(2))
                b.wait(3)
                for _ in range(3):
                    model.pulse()
            b.pit.write(2, 0, 1)
            model.write(value)
        assert (model.shown(), model.out) == (b.latched(2), b.out(2)), (name, value)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0, 2, 3, 4]), st.integers(2, 25), st.integers(2, 25), st.integers(0, 60))
def test_irq0_edges_equal_the_pulse_by_pulse_simulation(mode: int, first: int, second: int, after: int) -> None:
    b = Bench()
    model = PerPulse(mode, False, True, 0)
    expected = [] if model.out else [(0, False)]
    b.program(0, mode, first)
    model.write(first)
    for pulse in range(1, 200):
        if pulse == after:
            b.count(0, second)
            before = model.out
            model.write(second)
            if model.out != before:
                expected.append((pulse - 1, model.out))
        b.wait(1)
        before = model.out
        model.pulse()
        if model.out != before:
            expected.append((pulse, model.out))
    assert expected == b.edges


ACCESS = st.tuples(
    st.sampled_from(["write", "read", "gate", "wait"]),
    st.integers(0, 3),
    st.integers(0, 255) | st.sampled_from([0, 1, 2, 0x34, 0x36, 0x30, 0x38, 0x3A, 0x32, 0x35, 0xC2, 0xCE]),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(ACCESS, max_size=40), st.lists(ACCESS, max_size=15))
def test_any_accesses_keep_peek_pure_and_the_state_restorable(
    first: list[tuple[str, int, int]], second: list[tuple[str, int, int]]
) -> None:
    def access(bench: Bench, kind: str, offset: int, value: int) -> tuple[int, int]:
        if kind == "wait":
            bench.wait(value * value * 10)
        elif kind == "gate":
            bench.port61.write(0, value, 1)
        elif kind == "write":
            bench.pit.write(offset, value, 1)
        before = bench.pit.save()
        peeked = bench.pit.peek(offset, 1), bench.port61.peek(0, 1)
        bench.pit.view()
        assert bench.pit.save() == before
        if kind == "read":
            assert bench.pit.read(offset, 1) == peeked[0] <= 0xFF
        return peeked

    b, other = Bench(), Bench()
    for step in first:
        access(b, *step)
    other.pit.restore(b.pit.save())
    other.port61.restore(b.port61.save())
    other.clock.restore(b.clock.save())
    other.pulse = b.pulse
    b.edges.clear()
    other.edges.clear()
    assert [access(b, *step) for step in second] == [access(other, *step) for step in second]
    assert b.edges == other.edges
    assert b.pit.save() == other.pit.save()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from((1, 2)), st.integers(0, 5), st.integers(0, 40), st.booleans(), st.integers(0, 60)),
        max_size=4,
    ),
    st.booleans(),
)
def test_port_61_reads_the_same_for_as_long_as_it_says(
    programs: list[tuple[int, int, int, bool, int]], gate: bool
) -> None:
    b = Bench()
    b.port61.write(0, gate, 1)
    for counter, mode, count, bcd, wait in programs:
        b.program(counter, mode, count if not bcd else count // 10 << 4 | count % 10, bcd)
        b.wait(wait)
    for _ in range(6):
        value, quiet = b.port61.read(0, 1), b.port61.quiet_pulses()
        for _ in range(min(quiet, 200)):
            b.wait(1)
            assert b.port61.read(0, 1) == value
        b.wait(1)


def test_a_poll_of_port_61_is_good_for_a_whole_refresh_period(b: Bench) -> None:
    b.port61.write(0, 0, 1)
    b.program(1, 2, 18)
    b.wait(1)
    assert b.port61.quiet_pulses() == 17
    before = b.port61.read(0, 1)
    b.wait(18)
    assert b.port61.read(0, 1) == before ^ 0x10
