"""The keyboard against IBM's "Keyboards (101- and 102-Key)" (PS/2 Hardware Interface Technical Reference)."""

from __future__ import annotations

import string

import pytest

from emu.devices.keyboard import BAT_NS, TYPING_NS, Keyboard, UnknownKey
from emu.devices.keyboard_tables import KEYS
from virtual_time import VirtualTime

MS = 1_000_000


class Bench(VirtualTime):
    def __init__(self) -> None:
        super().__init__()
        self.keyboard = Keyboard(self.clock)
        self.advance(BAT_NS)
        assert self.taken() == [0xAA]

    def taken(self) -> list[int]:
        out = []
        while self.keyboard.ready:
            out.append(self.keyboard.take())
        return out

    def send(self, *values: int) -> list[int]:
        for value in values:
            self.keyboard.receive(value)
        return self.taken()

    def make(self, key: str) -> str:
        self.keyboard.press(key)
        return bytes(self.taken()).hex(" ")

    def up(self, key: str) -> str:
        self.keyboard.release(key)
        return bytes(self.taken()).hex(" ")


def test_power_on_ends_with_aa():
    time = VirtualTime()
    keyboard = Keyboard(time.clock)
    assert keyboard.busy
    time.advance(BAT_NS)
    assert (keyboard.busy, keyboard.take()) == (False, 0xAA)


def test_reset_acknowledges_then_tests_itself():
    bench = Bench()
    assert bench.send(0xFF) == [0xFA]
    assert bench.keyboard.busy
    bench.advance(BAT_NS)
    assert bench.taken() == [0xAA]


def test_echo_is_answered_without_acknowledge():
    assert Bench().send(0xEE) == [0xEE]


def test_id_follows_an_acknowledge():
    assert Bench().send(0xF2) == [0xFA, 0xAB, 0x83]


def test_indicators_are_set_by_the_option_byte():
    bench = Bench()
    assert bench.send(0xED, 0x06) == [0xFA, 0xFA]
    assert bench.keyboard.state.leds == 6


def test_command_in_place_of_an_option_byte_is_taken_as_a_command():
    bench = Bench()
    assert bench.send(0xED, 0xEE) == [0xFA, 0xEE]
    assert bench.keyboard.state.leds == 0
    assert bench.send(0xED, 0xED, 0x04) == [0xFA, 0xFA, 0xFA]
    assert bench.keyboard.state.leds == 4


def test_unknown_command_is_asked_for_again():
    assert Bench().send(0xEF) == [0xFE]
    assert Bench().send(0x12) == [0xFE]


def test_invalid_option_is_asked_for_again_and_still_awaited():
    bench = Bench()
    assert bench.send(0xED, 0x08) == [0xFA, 0xFE]
    assert bench.send(0x02) == [0xFA]
    assert bench.keyboard.state.leds == 2


def test_resend_repeats_the_last_byte():
    bench = Bench()
    assert bench.send(0xF2) == [0xFA, 0xAB, 0x83]
    assert bench.send(0xFE) == [0x83]


def test_scan_code_set_is_reported_and_selected():
    bench = Bench()
    assert bench.send(0xF0, 0) == [0xFA, 0xFA, 0x02]
    assert bench.send(0xF0, 3) == [0xFA, 0xFA]
    assert bench.send(0xF0, 0) == [0xFA, 0xFA, 0x03]


@pytest.mark.parametrize(("scan_set", "make", "brk"), [(1, "1e", "9e"), (2, "1c", "f0 1c"), (3, "1c", "")])
def test_key_a_in_each_set(scan_set, make, brk):
    # key 31; in set 3 its power-on type is typematic, without a break code
    bench = Bench()
    bench.send(0xF0, scan_set)
    assert (bench.make("a"), bench.up("a")) == (make, brk)


@pytest.mark.parametrize(
    ("key", "make", "brk"),
    [
        ("rctrl", "e0 14", "e0 f0 14"),
        ("kpenter", "e0 5a", "e0 f0 5a"),
        ("f7", "83", "f0 83"),
        ("printscreen", "e0 12 e0 7c", "e0 f0 7c e0 f0 12"),
        ("pause", "e1 14 77 e1 f0 14 f0 77", ""),
        ("left", "e0 6b", "e0 f0 6b"),
    ],
)
def test_set_2_codes(key, make, brk):
    bench = Bench()
    assert (bench.make(key), bench.up(key)) == (make, brk)


@pytest.mark.parametrize(
    ("key", "make", "brk"),
    [
        ("f7", "41", "c1"),
        ("printscreen", "e0 2a e0 37", "e0 b7 e0 aa"),
        ("pause", "e1 1d 45 e1 9d c5", ""),
        ("delete", "e0 53", "e0 d3"),
        ("f12", "58", "d8"),
    ],
)
def test_set_1_codes(key, make, brk):
    bench = Bench()
    bench.send(0xF0, 1)
    assert (bench.make(key), bench.up(key)) == (make, brk)


def test_modifiers_change_printscreen_and_pause():
    bench = Bench()
    bench.make("ctrl")
    assert (bench.make("printscreen"), bench.up("printscreen")) == ("e0 7c", "e0 f0 7c")
    assert bench.make("pause") == "e0 7e e0 f0 7e"
    bench.up("ctrl")
    bench.make("alt")
    assert (bench.make("printscreen"), bench.up("printscreen")) == ("84", "f0 84")


def test_cursor_keys_undo_a_held_shift():
    bench = Bench()
    bench.make("shift")
    assert (bench.make("left"), bench.up("left")) == ("e0 f0 12 e0 6b", "e0 f0 6b e0 12")
    bench.make("rshift")
    assert bench.make("up") == "e0 f0 12 e0 f0 59 e0 75"


def test_cursor_keys_add_a_shift_under_numlock():
    bench = Bench()
    bench.send(0xED, 2)
    assert (bench.make("left"), bench.up("left")) == ("e0 12 e0 6b", "e0 f0 6b e0 f0 12")
    bench.make("shift")
    assert bench.make("right") == "e0 74"


def test_keypad_slash_undoes_shift_but_ignores_numlock():
    bench = Bench()
    bench.send(0xED, 2)
    assert (bench.make("kp/"), bench.up("kp/")) == ("e0 4a", "e0 f0 4a")
    bench.make("shift")
    assert bench.make("kp/") == "e0 f0 12 e0 4a"


def test_typematic_starts_after_500_ms_and_repeats_at_10_9_a_second():
    bench = Bench()
    assert bench.make("a") == "1c"
    bench.advance(500 * MS - 1)
    assert bench.taken() == []
    bench.advance(1)
    assert bench.taken() == [0x1C]
    bench.advance(91_740_000)  # (8 + 3) * 2 * 4.17 ms
    assert bench.taken() == [0x1C]
    bench.up("a")
    bench.advance(1000 * MS)
    assert bench.taken() == []


def test_typematic_rate_and_delay_are_programmable():
    bench = Bench()
    assert bench.send(0xF3, 0x00) == [0xFA, 0xFA]
    bench.make("a")
    bench.advance(250 * MS)
    assert bench.taken() == [0x1C]
    bench.advance(33_360_000)
    assert bench.taken() == [0x1C]


def test_only_the_last_key_pressed_repeats():
    bench = Bench()
    bench.make("a")
    bench.make("b")
    bench.advance(500 * MS)
    assert bench.taken() == [0x32]
    bench.up("b")
    bench.advance(1000 * MS)
    assert bench.taken() == []


def test_default_disable_stops_scanning_and_enable_resumes():
    bench = Bench()
    assert bench.send(0xF5) == [0xFA]
    assert bench.make("a") == ""
    bench.up("a")
    assert bench.send(0xF4) == [0xFA]
    assert bench.make("a") == "1c"


def test_defaults_restore_rate_and_set():
    bench = Bench()
    bench.send(0xF3, 0)
    bench.send(0xF0, 3)
    assert bench.send(0xF6) == [0xFA]
    assert (bench.keyboard.state.rate, bench.keyboard.state.scan_set) == (0x2B, 2)


def test_enable_clears_the_buffer():
    bench = Bench()
    bench.keyboard.press("a")
    assert bench.send(0xF4) == [0xFA]


def test_set_3_key_types_follow_the_all_keys_commands():
    bench = Bench()
    bench.send(0xF0, 3)
    assert bench.send(0xF8) == [0xFA]  # make and break
    assert (bench.make("a"), bench.up("a")) == ("1c", "f0 1c")
    bench.send(0xFA)  # typematic, make and break
    bench.make("a")
    bench.advance(500 * MS)
    assert bench.taken() == [0x1C]
    assert bench.up("a") == "f0 1c"
    bench.send(0xF9)  # make only
    bench.make("a")
    bench.advance(1000 * MS)
    assert (bench.taken(), bench.up("a")) == ([], "")


def test_set_3_key_types_of_single_keys_until_a_command_ends_the_list():
    bench = Bench()
    bench.send(0xF0, 3)
    assert bench.send(0xFC, 0x1C, 0x32) == [0xFA, 0xFA, 0xFA]
    assert bench.make("c") == ""  # scanning stands still meanwhile
    bench.up("c")
    assert bench.send(0xEE) == [0xEE]
    assert (bench.make("b"), bench.up("b")) == ("32", "f0 32")
    assert (bench.make("c"), bench.up("c")) == ("21", "")


def test_set_3_modifiers_have_break_codes_at_power_on():
    bench = Bench()
    bench.send(0xF0, 3)
    assert (bench.make("shift"), bench.up("shift")) == ("12", "f0 12")
    assert (bench.make("f1"), bench.up("f1")) == ("07", "")


@pytest.mark.parametrize(("scan_set", "overrun"), [(1, 0xFF), (2, 0x00)])
def test_seventeenth_byte_is_the_overrun_code(scan_set, overrun):
    bench = Bench()
    bench.send(0xF0, scan_set)
    for name in "abcdefghijklmnopqrst":
        bench.keyboard.press(name)
    codes = bench.taken()
    assert len(codes) == 17
    assert (codes[16], overrun in codes[:16]) == (overrun, False)


def test_long_text_is_never_lost():
    bench = Bench()
    text = "the quick brown fox jumps over the lazy dog 0123456789\n" * 3
    bench.keyboard.type_text(text)
    by_code = {key.set2: name for name, key in KEYS.items() if not key.extended}
    typed = ""
    while bench.step():
        codes = bench.taken()
        if codes and codes[0] != 0xF0:
            name = by_code[codes[0]]
            typed += {"space": " ", "enter": "\n"}.get(name, name)
    assert typed == text


def test_typing_waits_for_a_reader():
    bench = Bench()
    bench.keyboard.type_text("ab")
    bench.advance(100 * TYPING_NS)
    assert bench.taken() == [0x1C]
    bench.advance(TYPING_NS)
    assert bench.taken() == [0xF0, 0x1C]


def test_capital_is_typed_with_shift():
    bench = Bench()
    bench.keyboard.type_text("A")
    codes = []
    while bench.step():
        codes += bench.taken()
    assert codes == [0x12, 0x1C, 0xF0, 0x1C, 0xF0, 0x12]


def test_every_printable_character_has_a_key():
    Bench().keyboard.type_text(string.printable.replace("\x0b", "").replace("\x0c", ""))


def test_chord_releases_in_reverse_order():
    bench = Bench()
    bench.keyboard.chord(["ctrl", "alt", "delete"])
    codes = []
    while bench.step():
        codes += bench.taken()
    assert bytes(codes).hex(" ") == "14 11 e0 71 e0 f0 71 f0 11 f0 14"


def test_unknown_names_and_characters_are_refused_with_nothing_typed():
    bench = Bench()
    for attempt in (
        lambda: bench.keyboard.press("hyper"),
        lambda: bench.keyboard.chord(["a", "hyper"]),
        lambda: bench.keyboard.type_text("aé"),
    ):
        with pytest.raises(UnknownKey):
            attempt()
    assert not bench.step()


def test_no_two_keys_share_a_code():
    assert len({(k.extended, k.set2) for k in KEYS.values()}) == len(KEYS)
    assert len({k.set3 for k in KEYS.values()}) == len(KEYS)


def test_state_is_copied_both_ways():
    bench = Bench()
    bench.keyboard.press("a")
    saved = bench.keyboard.save()
    bench.taken()
    assert saved.queue == [0x1C]
    bench.keyboard.restore(saved)
    bench.taken()
    assert saved.queue == [0x1C]


def test_reset_forgets_an_unsent_result_of_the_test_at_power_on():
    """BIOS-bochs enables the interface, resets the keyboard and takes the next byte for the acknowledge."""
    time = VirtualTime()
    keyboard = Keyboard(time.clock)
    time.advance(500_000_000)
    assert keyboard.ready
    keyboard.receive(0xFF)
    assert keyboard.take() == 0xFA
    assert not keyboard.ready
