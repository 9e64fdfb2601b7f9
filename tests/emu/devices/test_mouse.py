"""The PS/2 mouse against IBM's Hardware Interface Technical Reference, and the wheel mouse's knocking."""

from __future__ import annotations

import pytest

from emu.devices.i8042 import I8042
from emu.devices.keyboard import Keyboard
from emu.devices.mouse import Mouse, UnknownAction
from virtual_time import VirtualTime

MS = 1_000_000
ACK = 0xFA


class Bench(VirtualTime):
    def __init__(self) -> None:
        super().__init__()
        self.mouse = Mouse(self.clock)
        self.advance(500 * MS)
        assert self.taken() == []

    def taken(self) -> list[int]:
        out = []
        while self.mouse.ready:
            out.append(self.mouse.take())
        return out

    def send(self, *values: int) -> list[int]:
        for value in values:
            self.mouse.receive(value)
        return self.taken()

    def reports(self, ms: int = 200) -> list[list[int]]:
        out = []
        for _ in range(ms):
            self.advance(MS)
            if self.mouse.ready:
                out.append(self.taken())
        return out


def test_reset_gives_the_test_s_result_and_the_id():
    bench = Bench()
    assert bench.send(0xFF) == [ACK]
    assert bench.mouse.busy
    bench.advance(500 * MS)
    assert bench.taken() == [0xAA, 0]


@pytest.mark.parametrize(("rates", "identity"), [((200, 100, 80), 3), ((200, 100, 80, 200, 200, 80), 4), ((100, 80), 0),
                                                 ((200, 200, 80), 0)])  # fmt: skip
def test_knocking_asks_for_the_wheel(rates, identity):
    bench = Bench()
    for rate in rates:
        assert bench.send(0xF3, rate) == [ACK, ACK]
    assert bench.send(0xF2) == [ACK, identity]
    bench.send(0xFF)
    bench.advance(500 * MS)
    bench.taken()
    assert bench.send(0xF2) == [ACK, 0]


def test_motion_and_buttons_are_reported_while_enabled():
    bench = Bench()
    bench.mouse.do("move 5 5")
    assert bench.reports() == []
    bench.send(0xF4)
    bench.mouse.do("move 10 -5")
    bench.mouse.do("click left")
    # sign bits 4 (x) and 5 (y), bit 3 always set
    assert bench.reports() == [[0x28, 10, 0xFB], [0x09, 0, 0], [0x08, 0, 0]]


def test_what_is_too_far_overflows():
    bench = Bench()
    bench.send(0xF4)
    bench.mouse.do("move 300 -300")
    assert bench.reports() == [[0xE8, 0xFF, 0x00]]


def test_the_sample_rate_divides_reports():
    bench = Bench()
    bench.send(0xF3, 10, 0xF4)
    bench.mouse.do("move 1 0")
    bench.mouse.do("move 2 0")
    bench.advance(99 * MS)
    assert bench.taken() == []
    bench.advance(1 * MS)
    assert bench.taken() == [8, 1, 0]
    bench.advance(100 * MS)
    assert bench.taken() == [8, 2, 0]


@pytest.mark.parametrize(("counts", "scaled"), [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (9, 18)])
def test_two_to_one_scaling_in_stream_mode_only(counts, scaled):
    bench = Bench()
    bench.send(0xE7, 0xF4)
    bench.mouse.do(f"move {counts} 0")
    assert bench.reports() == [[8, scaled, 0]]
    bench.send(0xF0)
    bench.mouse.do(f"move {counts} 0")
    assert bench.send(0xEB) == [ACK, 8, counts, 0]


def test_remote_mode_reports_when_asked():
    bench = Bench()
    bench.send(0xF0, 0xF4)
    bench.mouse.do("move 3 4")
    assert bench.reports() == []
    assert bench.send(0xEB) == [ACK, 8, 3, 4]
    assert bench.send(0xEB) == [ACK, 8, 0, 0]


def test_resolution():
    bench = Bench()
    bench.send(0xE8, 0, 0xF4)
    bench.mouse.do("move 8 0")
    assert bench.reports() == [[8, 2, 0]]
    assert bench.send(0xE8, 4) == [ACK, 0xFE]


def test_a_second_invalid_input_is_an_error_and_a_valid_one_forgets_the_first():
    bench = Bench()
    assert bench.send(0xE8, 9, 9, 2, 0x55, 0x55) == [ACK, 0xFE, 0xFC, ACK, 0xFE, 0xFC]
    assert bench.send(0x55, 0xF5, 0x55) == [0xFE, ACK, 0xFE]


def test_wrap_mode_echoes_all_but_its_end():
    bench = Bench()
    assert bench.send(0xEE, 0x12, 0xF4, 0xEC) == [ACK, 0x12, 0xF4, ACK]
    assert bench.send(0xF2) == [ACK, 0]


def test_status_and_defaults():
    bench = Bench()
    bench.mouse.do("down right")
    bench.send(0xE7, 0xF3, 40, 0xE8, 3, 0xF4)
    assert bench.send(0xE9) == [ACK, 0x31, 3, 40]  # enabled, 2:1, right button
    assert bench.send(0xF6, 0xE9)[1:] == [ACK, 0x01, 2, 100]


def test_wheel_and_side_buttons():
    bench = Bench()
    bench.send(0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF4)
    bench.mouse.do("wheel 1")
    assert bench.reports() == [[8, 0, 0, 0xFF]]
    bench.send(0xF3, 200, 0xF3, 200, 0xF3, 80)
    bench.mouse.do("wheel -2")
    bench.mouse.do("click extra")
    assert bench.reports() == [[8, 0, 0, 2], [8, 0, 0, 0x20], [8, 0, 0, 0]]


def test_resend_and_unknown_commands():
    bench = Bench()
    assert bench.send(0x55) == [0xFE]
    bench.send(0xF2)
    assert bench.send(0xFE) == [0]


@pytest.mark.parametrize("action", ["", "jump", "move 1", "move a b", "click nose", "wheel", "move 99999999 0"])
def test_actions_that_do_not_exist(action):
    bench = Bench()
    before = bench.mouse.save()
    with pytest.raises(UnknownAction):
        bench.mouse.do(action)
    assert bench.mouse.save() == before


def test_the_8042_hands_reports_on_with_irq_12():
    time = VirtualTime()
    edges = []
    mouse = Mouse(time.clock)
    kbc = I8042(time.clock, lambda on: None, edges.append, lambda on: None, lambda: None, Keyboard(time.clock), mouse)

    def out(offset: int, value: int) -> None:
        kbc.write(offset, value, 1)
        time.advance(30 * MS)

    def data() -> tuple[int, int]:
        found = kbc.read(4, 1) & 0x21, kbc.read(0, 1)
        time.advance(2 * MS)
        return found

    out(4, 0x60)
    out(0, 0x12)  # IRQ 12, keyboard off
    time.advance(500 * MS)
    out(4, 0xD4)
    out(0, 0xF4)
    assert data() == (0x21, ACK)
    edges.clear()
    mouse.do("move 1 2")
    time.advance(30 * MS)
    assert edges[-1] is True
    assert [data()[1] for _ in range(3)] == [8, 1, 2]


def test_a_state_in_the_middle_of_a_click_goes_on_elsewhere():
    bench, other = Bench(), Bench()
    bench.send(0xF4)
    bench.mouse.do("move 1 2")
    bench.mouse.do("click left")
    bench.advance(11 * MS)
    bench.taken()
    other.mouse.restore(bench.mouse.save())
    other.clock.restore(bench.clock.save())
    assert other.reports() == bench.reports() != []
    assert other.mouse.view().chip == "IBM PS/2 mouse"
