"""Display memory through the window: IBM's write and read modes by hand, and the C helper against the Python model."""

from __future__ import annotations

import ctypes
import operator
import random
from ctypes import c_uint, c_uint64, c_void_p

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.devices.vga_memory import PLANES, DisplayMemory, place
from emu.unicorn_helper import HELPER, Helper

PLAIN = [0, 0, 0, 0, 0, 0, 5, 15, 0xFF]  #: graphics: no function, memory at A0000h, all planes compared, all bits
RAM = 2  #: miscellaneous output: the CPU may access memory


class Bench:
    """Registers are set as attributes of the graphics controller's list and the sequencer's."""

    def __init__(self) -> None:
        self.display = DisplayMemory(bytearray(PLANES))
        self.sequencer, self.graphics, self.misc = [3, 1, 15, 0, 6], list(PLAIN), RAM

    def program(self, **changes: int) -> Bench:
        """`g5=2` sets graphics register 5, `s2=1` sequencer register 2, `misc` the output register."""
        for name, value in changes.items():
            if name == "misc":
                self.misc = value
            else:
                (self.graphics if name[0] == "g" else self.sequencer)[int(name[1:])] = value
        self.display.program(self.sequencer, self.graphics, self.misc)
        return self

    def planes(self, offset: int) -> bytes:
        at = place(offset)
        return bytes(self.display.memory[at : at + 4])

    def put(self, offset: int, planes: bytes) -> None:
        at = place(offset)
        self.display.memory[at : at + 4] = planes


def latched(planes: bytes, **registers: int) -> Bench:
    """Latches loaded by a read of offset 100h, which has `planes`."""
    bench = Bench().program(**registers)
    bench.put(0x100, planes)
    bench.display.read(0x100, 1)
    return bench


def test_each_offset_has_a_place_of_its_own():
    assert sorted(place(offset) for offset in range(0x10000)) == list(range(0, PLANES, 4))


def test_write_mode_0_writes_the_byte_to_the_planes_of_the_map_mask():
    bench = Bench().program(s2=0b0101)
    bench.display.write(7, 0xA5, 1)
    assert bench.planes(7) == b"\xa5\0\xa5\0"


def test_write_mode_0_rotates_right():
    bench = Bench().program(g3=3)
    bench.display.write(0, 0b0000_0101, 1)
    assert bench.planes(0) == bytes([0b1010_0000]) * 4


def test_set_reset_takes_the_place_of_the_data_in_enabled_planes():
    bench = Bench().program(g0=0b0010, g1=0b0011)
    bench.display.write(0, 0x5A, 1)
    assert bench.planes(0) == b"\x00\xff\x5a\x5a"


@pytest.mark.parametrize(
    ("function", "expected"), [(0, 0x3C), (1, 0x3C & 0x55), (2, 0x3C | 0x55), (3, 0x3C ^ 0x55)],
    ids=["unchanged", "and", "or", "xor"],
)  # fmt: skip
def test_logical_functions_are_with_the_latches(function, expected):
    bench = latched(b"\x55" * 4, g3=function << 3)
    bench.display.write(0, 0x3C, 1)
    assert bench.planes(0) == bytes([expected]) * 4


def test_bits_outside_the_bit_mask_come_from_the_latches():
    bench = latched(b"\x11\x22\x44\x88", g8=0xF0)
    bench.display.write(0, 0xAA, 1)
    assert bench.planes(0) == b"\xa1\xa2\xa4\xa8"


def test_write_mode_1_copies_the_latches_whatever_the_bit_mask():
    bench = latched(b"\x12\x34\x56\x78", g5=1, g8=0)
    bench.display.write(0x20, 0xEE, 1)
    assert bench.planes(0x20) == b"\x12\x34\x56\x78"


def test_write_mode_2_makes_a_colour_of_the_low_four_bits():
    bench = latched(b"\0\0\0\0", g5=2, g8=0x18)
    bench.display.write(0, 0xF5, 1)
    assert bench.planes(0) == b"\x18\x00\x18\x00"


def test_write_mode_3_writes_set_reset_under_the_rotated_data():
    bench = latched(b"\xff\xff\0\0", g5=3, g0=0b0101, g3=1, g8=0x7F)
    bench.display.write(0, 0b0001_1110, 1)  # rotated: 0000 1111
    assert bench.planes(0) == b"\xff\xf0\x0f\x00"


def test_read_mode_0_gives_the_plane_of_the_read_map():
    bench = Bench()
    bench.put(3, b"\x10\x20\x30\x40")
    assert [bench.program(g4=plane).display.read(3, 1) for plane in range(4)] == [0x10, 0x20, 0x30, 0x40]


def test_read_mode_1_compares_the_planes_that_are_cared_for():
    # one pixel of each colour 0-7, plane 3 clear
    bench = Bench().program(g5=8, g2=0b0101, g7=0b0111)
    bench.put(0, bytes([0b0101_0101, 0b0011_0011, 0b0000_1111, 0]))
    assert bench.display.read(0, 1) == 0b0000_0100
    assert bench.program(g7=0b0101).display.read(0, 1) == 0b0000_0101
    assert bench.program(g7=0).display.read(0, 1) == 0xFF


def test_odd_even_writes_go_to_planes_0_and_2_or_1_and_3():
    bench = Bench().program(s4=2, g5=0x10, g6=0x0E)
    bench.display.write(0x18000, 0x4241, 2)
    assert bench.planes(0) == b"\x41\x42\x41\x42"
    bench.program(s2=3).display.write(0x18002, 0x4443, 2)
    assert bench.planes(2) == b"\x43\x44\0\0"
    assert bench.display.read(0x18000, 4) == 0x44434241


def test_odd_even_reads_take_the_plane_from_the_address():
    bench = Bench().program(g5=0x10, g4=2)
    bench.put(6, b"\x01\x02\x03\x04")
    bench.put(7, b"\x05\x06\x07\x08")
    assert (bench.display.read(6, 1), bench.display.read(7, 1)) == (0x03, 0x08)


def test_chain_4_takes_the_plane_from_the_last_two_bits():
    bench = Bench().program(s4=0x0E)
    bench.display.write(0x1004, 0x44434241, 4)
    assert bench.planes(0x1004) == b"\x41\x42\x43\x44"
    assert bench.program(s4=6, g4=2).display.read(0x1004, 1) == 0x43


def test_chain_4_puts_address_bits_15_and_14_last():
    bench = Bench().program(s4=0x0E)
    bench.display.write(0x4000, 0x99, 1)
    assert bench.planes(0x4001) == b"\x99\0\0\0"


def test_chain_4_obeys_map_mask_and_bit_mask():
    bench = latched(b"\x0f" * 4, s2=0b0010, g8=0xF0, s4=0x0E)
    bench.display.write(0, 0xAAAAAAAA, 4)
    assert bench.planes(0)[0::2] == b"\0\0"
    assert bench.planes(0)[1] & 0xF0 == 0xA0


@pytest.mark.parametrize(
    ("select", "inside", "outside"),
    [(0, (0, 0x1FFFF), ()), (1, (0, 0xFFFF), (0x10000, 0x1FFFF)), (2, (0x10000, 0x17FFF), (0, 0xFFFF, 0x18000)),
     (3, (0x18000, 0x1FFFF), (0, 0x17FFF))],
)  # fmt: skip
def test_only_the_selected_window_is_decoded(select, inside, outside):
    bench = Bench().program(g6=1 | select << 2)
    for offset in (*inside, *outside):
        bench.display.write(offset, 0x77, 1)
        assert bench.display.read(offset, 1) == (0x77 if offset in inside else 0xFF)


def test_memory_is_off_with_the_ram_bit_of_misc_output():
    bench = Bench().program(misc=0)
    bench.display.write(0, 0x77, 1)
    assert bench.display.read(0, 1) == 0xFF
    assert not any(bench.display.memory)


def test_peeking_loads_no_latch():
    bench = latched(b"\x01\x02\x03\x04")
    bench.put(0, b"\x09\x09\x09\x09")
    assert bench.display.peek(0, 1) == 9
    bench.program(g5=1).display.write(1, 0, 1)
    assert bench.planes(1) == b"\x01\x02\x03\x04"


def test_the_engine_is_told_only_when_plain_memory_changes():
    told = []
    display = DisplayMemory(bytearray(PLANES), remapped=lambda: told.append(True))
    graphics = list(PLAIN)
    display.program([3, 1, 15, 0, 6], graphics, RAM)
    assert not told
    display.program([3, 1, 15, 0, 0x0E], graphics, RAM)
    assert len(told) == 1
    graphics[2] = 5  # colour compare is nothing to chain-4
    display.program([3, 1, 15, 0, 0x0E], graphics, RAM)
    assert len(told) == 1
    graphics[8] = 0x7F
    display.program([3, 1, 15, 0, 0x0E], graphics, RAM)
    assert len(told) == 2


@pytest.mark.parametrize("size", [PLANES // 2, PLANES + 4096])
def test_memory_must_be_a_power_of_two_and_hold_the_planes(size):
    with pytest.raises(ValueError, match=str(size)):
        DisplayMemory(bytearray(size))


# -- the same in C

NIBBLE, BYTE = st.integers(0, 15), st.integers(0, 255)
REGISTERS = st.fixed_dictionaries(
    {
        "s2": NIBBLE, "s4": st.sampled_from([2, 6, 0x0A, 0x0E]), "g0": NIBBLE, "g1": NIBBLE, "g2": NIBBLE,
        "g3": st.integers(0, 31), "g4": st.integers(0, 3), "g5": st.sampled_from([0, 1, 2, 3, 8, 0x10, 0x13, 0x1A]),
        "g6": NIBBLE, "g7": NIBBLE, "g8": st.sampled_from([0xFF, 0x0F, 0xA5]),
    }
)  # fmt: skip
VBE = st.none() | st.tuples(st.integers(0, 7), st.booleans())
OFFSETS = st.integers(0, 0x1FFF8) | st.integers(0, 64) | st.integers(0x18000, 0x18040)
ACCESSES = st.lists(
    st.tuples(st.sampled_from([1, 2, 4, 8]), OFFSETS, st.none() | st.integers(0, 2**64 - 1)), min_size=3
)
STEPS = st.lists(st.tuples(REGISTERS, VBE, ACCESSES), min_size=1, max_size=6)
#: What memory holds at first, so that latches are no zeros.
NOISE = random.Random(1).randbytes(2 * PLANES)


class InC:
    """The helper's functions on a display of their own."""

    def __init__(self, size: int) -> None:
        if not isinstance(HELPER, Helper):
            pytest.skip(f"there is no C helper: {HELPER}")
        self.display = DisplayMemory(bytearray(size))
        read = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint, c_void_p)
        write = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint, c_uint64, c_void_p)
        self._read, self._write = read(HELPER.display_read), write(HELPER.display_write)

    def read(self, offset: int, size: int) -> int:
        value: int = self._read(None, offset, size, ctypes.addressof(self.display.shared))
        return value

    def write(self, offset: int, value: int, size: int) -> None:
        self._write(None, offset, size, value & (1 << 8 * size) - 1, ctypes.addressof(self.display.shared))


@pytest.mark.slow
@settings(max_examples=300)
@given(STEPS, st.integers(0, 2**32 - 1))
def test_the_c_helper_does_what_the_model_does(steps, latch):
    model, helper = DisplayMemory(bytearray(NOISE)), InC(len(NOISE))
    helper.display.memory[:] = NOISE
    model.shared.latch = helper.display.shared.latch = latch
    sequencer, graphics = [3, 1, 15, 0, 6], list(PLAIN)
    for registers, vbe, accesses in steps:
        for name, value in registers.items():
            (graphics if name[0] == "g" else sequencer)[int(name[1:])] = value
        for display in (model, helper.display):
            display.program(sequencer, graphics, RAM, vbe)
        for width, offset, value in accesses:
            if value is None:
                assert helper.read(offset, width) == model.read(offset, width)
            else:
                helper.write(offset, value, width)
                model.write(offset, value, width)
    assert helper.display.memory == model.memory
    assert helper.display.shared.latch == model.shared.latch


def test_the_c_helper_is_an_oracle_of_more_than_zeros():
    helper = InC(PLANES)
    helper.display.program([3, 1, 15, 0, 6], PLAIN, RAM)
    helper.write(0, 0x1234, 2)
    assert helper.read(0, 2) == 0x1234


@settings(max_examples=300, deadline=None)
@given(
    s2=st.integers(0, 15), s4=st.integers(0, 15), g6=st.integers(0, 15),
    g5=st.builds(operator.or_, st.integers(0, 3), st.sampled_from([0, 0x10, 0x40])),
    others=st.fixed_dictionaries(
        {}, optional={"g0": st.integers(0, 15), "g1": st.integers(0, 15), "g3": st.integers(0, 31),
                      "g8": st.sampled_from([0, 1, 0x80, 0xFF])}),
    latch=st.sampled_from([0, 0xFFFFFFFF, 0x00FF0000, 0x12345678]),
    misc=st.sampled_from([0, RAM]), offset=st.integers(0, 0x1FFFF),
)  # fmt: skip
def test_the_window_takes_a_write_where_one_makes_a_difference(
    s2: int, s4: int, g5: int, g6: int, others: dict[str, int], latch: int, misc: int, offset: int
) -> None:
    display = Bench().program(s2=s2, s4=s4, g5=g5, g6=g6, misc=misc, **others).display
    display.shared.latch = latch
    found = []
    for value in (0, 0xFF):
        display.write(offset, value, 1)
        found.append(bytes(display.memory))
    assert display.takes(offset) == (found[0] != found[1])
