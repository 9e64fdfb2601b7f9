"""Bochs VBE registers: sizes are brought into range, and nothing a guest writes leads out of memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu.devices import bochs_vbe
from emu.devices.bochs_vbe import (
    BANK,
    BPP,
    ENABLE,
    ENABLED,
    ID,
    MEMORY_64K,
    NOCLEARMEM,
    PIXEL_BITS,
    VIRT_HEIGHT,
    VIRT_WIDTH,
    X_OFFSET,
    XRES,
    Y_OFFSET,
    YRES,
    VbeState,
)

MEMORY = 16 << 20


def program(state: VbeState, *pairs: tuple[int, int]) -> int:
    """Writes registers; how much the last write asks to have cleared."""
    clear = 0
    for state.index, value in pairs:
        clear = bochs_vbe.write(state, value, MEMORY)
    return clear


def get(state: VbeState, index: int) -> int:
    state.index = index
    return bochs_vbe.read(state, MEMORY)


def mode(width: int, height: int, bits: int, enable: int = ENABLED) -> tuple[VbeState, int]:
    state = VbeState()
    return state, program(state, (XRES, width), (YRES, height), (BPP, bits), (ENABLE, enable))


def test_the_id_takes_the_known_versions_only():
    state = VbeState()
    assert get(state, ID) == 0xB0C5
    program(state, (ID, 0xB0C0))
    program(state, (ID, 0xB0C6), (ID, 0xB0BF))
    assert get(state, ID) == 0xB0C0


def test_memory_is_told_in_64_kib():
    assert get(VbeState(), MEMORY_64K) == 256


def test_enabling_asks_to_clear_what_is_shown_unless_told_not_to():
    assert mode(1024, 768, 32)[1] == 1024 * 768 * 4
    assert mode(1024, 768, 32, ENABLED | NOCLEARMEM)[1] == 0


def test_widths_are_multiples_of_8_and_heights_what_memory_holds():
    state, _ = mode(1021, 12000, 32)
    assert (get(state, XRES), get(state, VIRT_WIDTH), get(state, YRES)) == (1016, 1016, MEMORY // (1016 * 4))
    assert get(state, VIRT_HEIGHT) == MEMORY // (1016 * 4)


def test_an_unknown_depth_becomes_8():
    assert get(mode(640, 480, 7)[0], BPP) == 8


def test_the_virtual_width_is_never_less_than_the_width():
    state, _ = mode(640, 480, 8)
    program(state, (VIRT_WIDTH, 100))
    assert get(state, VIRT_WIDTH) == 640


def test_enabling_again_goes_back_to_the_first_bank():
    state, _ = mode(640, 480, 8)
    program(state, (BANK, 3), (ENABLE, ENABLED))
    assert get(state, BANK) == 0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 0xFFFF))))
def test_what_is_shown_is_always_in_memory(writes):
    state = VbeState()
    for state.index, value in writes:
        assert 0 <= bochs_vbe.write(state, value, MEMORY) <= MEMORY
        r = state.registers
        assert 0 <= r[BANK] < MEMORY >> 16
        if state.enabled:
            assert r[BPP] in PIXEL_BITS
            assert 8 <= r[XRES] <= r[VIRT_WIDTH]
            end = (r[Y_OFFSET] + r[YRES]) * state.line_bytes + r[X_OFFSET] * PIXEL_BITS[r[BPP]] // 8
            assert end <= MEMORY
