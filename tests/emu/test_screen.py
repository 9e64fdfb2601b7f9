"""The screen from VGA registers and memory: by hand for each register, and as SeaVGABIOS programs the modes."""

from __future__ import annotations

import pytest

import machines
from emu.devices.vga_memory import PLANES, place
from emu.devices.vga_registers import State
from emu.screen import CP437, screen_view

MODE_3 = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")


def text_state() -> State:
    """Mode 3: 80x25, characters of 16 lines, memory at B8000h."""
    state = State(misc=0x67, sequencer=[3, 0, 3, 0, 2], crtc=list(MODE_3), attribute_index=0x20)
    state.graphics[6] = 0x0E
    state.attribute[0x10] = 0x0C
    return state


def text_memory(*rows: str, pitch: int = 80, first: int = 0) -> bytearray:
    """Display memory with the rows from the counter `first` on: in word mode a character at each even offset of plane
    0, its attribute at the same of plane 1."""
    memory = bytearray(PLANES)
    for counter in range(0x4000):
        memory[place(2 * counter) : place(2 * counter) + 2] = b"\x20\x07"
    for number, row in enumerate(rows):
        for column, char in enumerate(row):
            memory[place(word_offset(first + number * pitch + column))] = ord(char)
    return memory


def word_offset(counter: int) -> int:
    """Word mode, 256 KiB: bit 15 of the counter comes round to bit 0."""
    return (counter << 1 | counter >> 15 & 1) & 0xFFFF


def test_80_columns_and_25_rows_of_blanks_and_text():
    view = screen_view(text_state(), text_memory("hello", "world"))
    assert (view.mode, len(view.rows), len(view.rows[0])) == ("text 80x25", 25, 80)
    assert view.text.split("\n")[:3] == ["hello", "world", ""]


def test_attributes_are_one_byte_a_cell():
    memory = text_memory("x")
    memory[place(0) + 1] = 0x4F
    view = screen_view(text_state(), memory)
    assert view.attributes[0][:2] == b"\x4f\x07"
    assert len(view.attributes) == 25


def test_start_address_counts_characters():
    state = text_state()
    state.crtc[0x0C], state.crtc[0x0D] = 0, 80
    assert screen_view(state, text_memory("one", "two")).rows[0].rstrip() == "two"


def test_offset_register_is_half_the_pitch():
    state = text_state()
    state.crtc[0x13] = 60
    assert screen_view(state, text_memory("one", "two", pitch=120)).rows[1].rstrip() == "two"


def test_word_mode_goes_on_at_odd_offsets_behind_64_kib():
    # IBM's table of the address counter's bits: in word mode bit 15 of the counter is bit 0 of the address
    state = text_state()
    state.crtc[0x0C], state.crtc[0x0D] = 0x7F, 0xFE
    memory = text_memory("abcd", first=0x7FFE)
    assert memory[place(0xFFFE)] == ord("b")
    assert memory[place(0x0001)] == ord("c")
    assert screen_view(state, memory).rows[0][:4] == "abcd"


def test_the_window_of_the_cpu_is_nothing_to_the_screen():
    state = text_state()
    state.graphics[6] = 0x0A  # B0000h
    assert screen_view(state, text_memory("mono")).rows[0].rstrip() == "mono"


def test_cursor_is_found_by_its_location_registers():
    state = text_state()
    state.crtc[0x0E], state.crtc[0x0F] = 0, 85
    assert screen_view(state, text_memory()).cursor == (1, 5)
    state.crtc[0x0F] = 80
    assert screen_view(state, text_memory()).cursor == (1, 0)


@pytest.mark.parametrize(
    ("register", "value"), [(0x0A, 0x2D), (0x0E, 0x20), (0x0A, 0x0F)], ids=["bit 5", "off screen", "start after end"]
)
def test_cursor_may_be_hidden(register, value):
    state = text_state()
    state.crtc[register] = value
    assert screen_view(state, text_memory()).cursor is None


@pytest.mark.parametrize(("maximum_scan_line", "rows"), [(0x4F, 25), (0x47, 50), (0x4D, 28)])
def test_rows_follow_the_character_height(maximum_scan_line, rows):
    state = text_state()
    state.crtc[9] = maximum_scan_line
    assert screen_view(state, text_memory()).mode == f"text 80x{rows}"


@pytest.mark.parametrize("columns", [40, 132])
def test_columns_follow_horizontal_display_end(columns):
    state = text_state()
    state.crtc[1] = columns - 1
    state.crtc[0x13] = columns // 2
    view = screen_view(state, text_memory("a", "b", pitch=columns))
    assert (view.mode, view.rows[1][0]) == (f"text {columns}x25", "b")


def test_line_compare_splits_the_screen():
    state = text_state()
    state.crtc[0x0D] = 160  # two rows on
    state.crtc[0x18], state.crtc[7], state.crtc[9] = 16 * 3 - 1, state.crtc[7] & ~0x10, 0x0F
    view = screen_view(state, text_memory("zero", "one", "two", "three", "four"))
    assert [row.rstrip() for row in view.rows[:5]] == ["two", "three", "four", "zero", "one"]


@pytest.mark.parametrize("how", ["sequencer 1", "sequencer reset", "retraces off", "palette not given"])
def test_screen_that_is_off_shows_nothing(how):
    state = text_state()
    if how == "sequencer 1":
        state.sequencer[1] |= 0x20
    elif how == "sequencer reset":
        state.sequencer[0] = 1
    elif how == "retraces off":
        state.crtc[0x17] &= 0x7F
    else:
        state.attribute_index = 0
    view = screen_view(state, text_memory("hidden"))
    assert (view.mode, view.rows, view.cursor) == ("off", (), None)


def test_power_on_is_off():
    assert screen_view(State(), bytes(PLANES)).mode == "off"


def test_code_page_437_has_a_glyph_for_every_code():
    assert len(CP437) == 256
    assert (CP437[0], CP437[1], CP437[0x7F], CP437[0xB0], CP437[0xFF]) == (" ", "☺", "⌂", "░", "\xa0")
    assert all(c.isprintable() or c == "\xa0" for c in CP437)


BODY = """
        mov ss, ax
        mov sp, 0x7000
        mov word [0x10*4], dummy
        mov word [0x10*4+2], 0xf000
        mov word [0x15*4], dummy
        mov word [0x15*4+2], 0xf000
        call 0xc000:3
        mov ax, {mode}
        int 0x10
        {more}
        mov al, 0
        out 0xf4, al
        hlt
        dummy: iret
"""
PRINT = """
        mov ax, 0x0e48
        int 0x10
        mov ax, 0x0e69
        int 0x10
"""


def after_vgabios(mode: int, more: str = ""):
    """The screen after SeaVGABIOS has set `mode`."""
    vga = machines.seabios()[1]
    debugger = machines.debugger(machines.rom(BODY.format(mode=mode, more=more)), option_roms=(vga,))
    machine = debugger.machine
    assert machine.run(20_000_000).code == 0
    return machine.screen()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0x03, "text 80x25"), (0x01, "text 40x25"), (0x04, "graphics 320x200"),
        (0x06, "graphics 640x200"), (0x0D, "graphics 320x200"), (0x10, "graphics 640x350"),
        (0x12, "graphics 640x480"), (0x13, "graphics 320x200"),
    ],
)  # fmt: skip
def test_seavgabios_sets_its_modes(mode, expected):
    assert after_vgabios(mode).mode == expected


def test_seavgabios_prints_and_moves_the_cursor():
    view = after_vgabios(3, PRINT)
    assert (view.text.strip(), view.cursor) == ("Hi", (0, 2))


def test_seavgabios_loads_the_8_line_font_for_50_rows():
    view = after_vgabios(3, "mov ax, 0x1112\nmov bl, 0\nint 0x10\n" + PRINT)
    assert (view.mode, view.text.strip()) == ("text 80x50", "Hi")
