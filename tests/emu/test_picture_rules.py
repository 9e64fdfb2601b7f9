"""What QEMU does not show of IBM's rules: pictures from registers and memory set by hand."""

from __future__ import annotations

import pytest

from emu.devices import bochs_vbe
from emu.devices.bochs_vbe import BPP, ENABLE, VIRT_WIDTH, X_OFFSET, XRES, YRES
from emu.devices.vga_memory import PLANES, place
from emu.devices.vga_registers import State
from emu.picture import picture
from emu.scanout import Addresses, scan_lines

#: CRT controller 00h-18h of modes 3 and 12h, as IBM's BIOS tables have it
MODE_3 = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")
MODE_12H = bytes.fromhex("5f4f508254800b3e0040000000000000ea8cdf2800e704e3ff")
FONT_PLANE = 2


def text() -> tuple[State, bytearray]:
    """Mode 3 with a DAC whose level of red is the index, and a font whose glyphs are the character's code in each
    line."""
    state = State(misc=0x67, sequencer=[3, 0, 3, 0, 2], crtc=list(MODE_3), attribute_index=0x20)
    state.graphics[6] = 0x0E
    state.attribute[:21] = [*range(16), 0x0C, 0, 0x0F, 8, 0]
    state.crtc[0x0A] = 0x20
    return with_dac(state), with_font(bytearray(PLANES))


def with_dac(state: State) -> State:
    for index in range(64):
        state.dac[3 * index] = index
    return state


def with_font(memory: bytearray) -> bytearray:
    for code in range(256):
        for line in range(32):
            memory[place(32 * code + line) + FONT_PLANE] = code
    return memory


def put(memory: bytearray, cell: int, code: int, attribute: int) -> None:
    memory[place(2 * cell)], memory[place(2 * cell) + 1] = code, attribute


def planar() -> tuple[State, bytearray]:
    state = State(misc=0xE3, sequencer=[3, 1, 15, 0, 6], crtc=list(MODE_12H), attribute_index=0x20)
    state.graphics[6] = 5
    state.attribute[:21] = [*range(16), 1, 0, 0x0F, 0, 0]
    return with_dac(state), bytearray(PLANES)


def indices(state: State, memory: bytearray, line: int, first: int, count: int) -> list[int]:
    """DAC indices of some pixels of a line, by their level of red."""
    view = picture(state, memory)
    at = 3 * (line * view.width + first)
    return [level >> 2 for level in view.pixels[at : at + 3 * count : 3]]


def test_the_ninth_dot_is_background_but_for_line_graphics():
    state, memory = text()
    put(memory, 0, 0x81, 0x1E)
    put(memory, 1, 0xC1, 0x1E)
    put(memory, 2, 0xDF, 0x1E)
    put(memory, 3, 0xE1, 0x1E)
    assert [indices(state, memory, 0, 9 * cell + 8, 1) for cell in range(4)] == [[1], [14], [14], [1]]
    state.attribute[0x10] &= ~4
    assert [indices(state, memory, 0, 9 * cell + 8, 1) for cell in range(4)] == [[1], [1], [1], [1]]


def test_attribute_bit_7_is_a_colour_only_when_it_does_not_blink():
    state, memory = text()
    put(memory, 0, 0, 0xF0)
    assert indices(state, memory, 0, 0, 1) == [7]
    state.attribute[0x10] &= ~8
    assert indices(state, memory, 0, 0, 1) == [15]


def test_attribute_bit_3_chooses_the_font_and_colours_stay():
    state, memory = text()
    for line in range(32):
        memory[place(0x4000 + 32 * ord("A") + line) + FONT_PLANE] = 0xF0  # font 1
    put(memory, 0, ord("A"), 0x0F)
    assert indices(state, memory, 0, 0, 8) == [0, 15, 0, 0, 0, 0, 0, 15]
    state.sequencer[3] = 0x04  # font A: 1, font B: 0
    assert indices(state, memory, 0, 0, 8) == [15, 15, 15, 15, 0, 0, 0, 0]
    put(memory, 0, ord("A"), 0x07)
    assert indices(state, memory, 0, 0, 8) == [0, 7, 0, 0, 0, 0, 0, 7]


def test_the_cursor_is_drawn_in_the_characters_colour_on_its_lines():
    state, memory = text()
    put(memory, 81, 0, 0x0A)
    state.crtc[0x0A], state.crtc[0x0B], state.crtc[0x0F] = 0x0D, 0x0E, 81
    assert [indices(state, memory, line, 9, 9)[0] for line in (16 + 12, 16 + 13, 16 + 14, 16 + 15)] == [0, 10, 10, 0]
    assert indices(state, memory, 16 + 13, 8, 11) == [0, *[10] * 9, 0]


def test_underlining_is_for_attribute_1_at_its_line():
    state, memory = text()
    state.crtc[0x14] = 12
    put(memory, 0, 0, 0x01)
    put(memory, 1, 0, 0x02)
    assert indices(state, memory, 12, 0, 18) == [1] * 9 + [0] * 9
    assert indices(state, memory, 11, 0, 9) == [0] * 9


def test_text_is_panned_by_dots_and_8_is_none_of_nine():
    state, memory = text()
    put(memory, 0, 0x81, 0x0F)
    put(memory, 1, 0x80, 0x0F)
    assert indices(state, memory, 0, 0, 10)[0] == 15
    state.attribute[0x13] = 6  # seven to the left
    assert indices(state, memory, 0, 0, 3) == [15, 0, 15]


def test_colour_select_gives_the_upper_bits_of_the_index():
    state, memory = planar()
    memory[place(0)] = 0x80
    state.attribute[1] = 0x15
    assert indices(state, memory, 0, 0, 2) == [0x15, 0]
    state.attribute[0x10] |= 0x80
    state.attribute[0x14] = 0x02
    assert indices(state, memory, 0, 0, 2) == [0x25, 0x20]
    state.dac_mask = 0x0F
    assert indices(state, memory, 0, 0, 2) == [0x05, 0]


def test_line_compare_ends_panning_when_asked_to():
    state, memory = planar()
    memory[place(0)] = 0x08  # the fifth dot of both parts of the screen
    state.crtc[0x18], state.crtc[7], state.crtc[9] = 99, state.crtc[7] & ~0x10, 0
    state.attribute[0x13] = 3
    assert [indices(state, memory, line, 0, 5).index(1) for line in (0, 100)] == [1, 1]
    state.attribute[0x10] |= 0x20
    assert [indices(state, memory, line, 0, 5).index(1) for line in (0, 100)] == [1, 4]


def test_preset_row_scan_begins_inside_a_row():
    state, _ = text()
    state.crtc[8] = 5
    lines = list(scan_lines(state))
    assert [line.row_scan for line in lines[:12]] == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0]
    assert lines[11].counter == 80


@pytest.mark.parametrize(
    ("cr14", "cr17", "counter", "row_scan", "offset"),
    [
        (0x00, 0xE3, 0x1234, 0, 0x1234),  # bytes
        (0x00, 0xA3, 0x1234, 0, 0x2468),  # words
        (0x00, 0xA3, 0x8001, 0, 0x0003),  # bit 15 comes round
        (0x00, 0x83, 0x2001, 0, 0x4003),  # 64 KiB: bit 13
        (0x40, 0xA3, 0x0123, 0, 0x048C),  # doublewords
        (0x40, 0xA3, 0x3001, 0, 0xC007),  # bits 13 and 12 come round
        (0x00, 0xA2, 0x0010, 1, 0x2020),  # row scan bit 0 at address bit 13
        (0x00, 0xA2, 0x1010, 0, 0x0020),
        (0x00, 0xA0, 0x0010, 3, 0x6020),  # and bit 1 at bit 14
    ],
)
def test_the_address_counter_reaches_memory_by_ibms_table(cr14, cr17, counter, row_scan, offset):
    state = State()
    state.crtc[0x14], state.crtc[0x17] = cr14, cr17
    assert Addresses(state).offset(counter, row_scan) == offset


def vbe(bits: int, width: int, height: int, memory: int = 1 << 20) -> State:
    state, _ = planar()
    for index, value in ((XRES, width), (YRES, height), (BPP, bits), (ENABLE, 1)):
        state.vbe.index = index
        bochs_vbe.write(state.vbe, value, memory)
    return state


def test_vbe_with_4_bits_shows_planes():
    state, memory = vbe(4, 16, 2), bytearray(PLANES)
    memory[place(2)] = 0x80
    memory[place(3) + 1] = 0x01
    assert indices(state, memory, 1, 0, 16) == [1, *[0] * 14, 2]


@pytest.mark.parametrize(
    ("bits", "data", "expected"),
    [
        (15, b"\xff\x7f", b"\xff\xff\xff"), (15, b"\x00\x40", b"\x84\0\0"), (16, b"\xe0\x07", b"\0\xff\0"),
        (16, b"\x10\x00", b"\0\0\x84"), (24, b"\x01\x02\x03", b"\x03\x02\x01"),
        (32, b"\x01\x02\x03\xff", b"\x03\x02\x01"),
    ],
)  # fmt: skip
def test_vbe_direct_colours(bits, data, expected):
    state, memory = vbe(bits, 8, 1), bytearray(PLANES)
    memory[: len(data)] = data
    assert picture(state, memory).pixels[:3] == expected


def test_vbe_offsets_move_the_picture_over_a_wider_one():
    state, memory = vbe(8, 8, 1), bytearray(PLANES)
    for index, value in ((VIRT_WIDTH, 32), (X_OFFSET, 3)):
        state.vbe.index = index
        bochs_vbe.write(state.vbe, value, PLANES)
    memory[3:5] = b"\x05\x06"
    assert indices(state, memory, 0, 0, 2) == [5, 6]


def test_vbe_8_bit_dac_levels_are_not_widened():
    state, memory = vbe(8, 8, 1), bytearray(PLANES)
    state.dac[0] = 0x3F
    assert picture(state, memory).pixels[0] == 0xFF
    state.vbe.registers[ENABLE] |= bochs_vbe.DAC_8BIT
    assert picture(state, memory).pixels[0] == 0x3F


def test_a_screen_that_is_off_has_no_pixels():
    state, memory = planar()
    state.attribute_index = 0
    view = picture(state, memory)
    assert (view.mode, view.width, view.height, view.pixels) == ("off", 0, 0, b"")
