"""The VGA's registers against IBM's "Video Subsystem" (PS/2 Hardware Interface Technical Reference)."""

from __future__ import annotations

import pytest

from emu.devices.vga import FIRST_PORT, Vga
from emu.devices.vga_memory import PLANES, DisplayMemory
from virtual_time import VirtualTime

#: CRT controller 00h-18h of mode 3 (720x400 text), as IBM's BIOS tables have it
MODE_3 = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")


class Bench(VirtualTime):
    def __init__(self, misc: int = 0x67) -> None:
        super().__init__()
        self.vga = Vga(self.clock, DisplayMemory(bytearray(PLANES)))
        self.out(0x3C2, misc)

    def out(self, port: int, value: int) -> None:
        self.vga.write(port - FIRST_PORT, value, 1)

    def inb(self, port: int) -> int:
        return self.vga.read(port - FIRST_PORT, 1)

    def set(self, port: int, index: int, value: int) -> None:
        self.out(port, index)
        self.out(port + 1, value)

    def get(self, port: int, index: int) -> int:
        self.out(port, index)
        return self.inb(port + 1)

    def attribute(self, index: int, value: int) -> None:
        self.inb(0x3DA)
        self.out(0x3C0, index)
        self.out(0x3C0, value)

    def mode_3(self) -> Bench:
        self.set(0x3C4, 0, 3)
        self.set(0x3C4, 1, 0)
        self.set(0x3D4, 0x11, 0)
        for index, value in enumerate(MODE_3):
            self.set(0x3D4, index, value)
        return self


def test_misc_output_is_written_at_3c2_and_read_at_3cc():
    bench = Bench(misc=0x67)
    assert bench.inb(0x3CC) == 0x67


def test_crtc_moves_between_3d4_and_3b4_with_misc_bit_0():
    bench = Bench(misc=0x67)
    bench.set(0x3D4, 0x0F, 0x12)
    assert (bench.inb(0x3B4), bench.inb(0x3BA)) == (0xFF, 0xFF)
    bench.out(0x3C2, 0x66)
    assert bench.get(0x3B4, 0x0F) == 0x12
    assert (bench.inb(0x3D4), bench.inb(0x3D5)) == (0xFF, 0xFF)
    bench.set(0x3D4, 0x0F, 0x99)  # nobody hears it
    assert bench.get(0x3B4, 0x0F) == 0x12


def test_feature_control_is_written_at_3da_and_read_at_3ca():
    bench = Bench()
    bench.out(0x3DA, 0x03)
    assert bench.inb(0x3CA) == 0x03


def test_ports_between_are_not_decoded():
    bench = Bench()
    assert [bench.inb(p) for p in (0x3BC, 0x3CB, 0x3CD, 0x3D0, 0x3DF)] == [0xFF] * 5


def test_video_subsystem_enable_silences_every_other_port():
    bench = Bench()
    bench.out(0x3C3, 0)
    assert (bench.inb(0x3CC), bench.inb(0x3DA)) == (0xFF, 0xFF)
    bench.out(0x3C2, 0x00)
    bench.out(0x3C3, 1)
    assert bench.inb(0x3CC) == 0x67


@pytest.mark.parametrize(("index", "mask"), list(enumerate((0x03, 0x3D, 0x0F, 0x3F, 0x0E))))
def test_sequencer_registers_have_only_their_bits(index, mask):
    bench = Bench()
    bench.set(0x3C4, index, 0xFF)
    assert bench.get(0x3C4, index) == mask


@pytest.mark.parametrize(("index", "mask"), list(enumerate((0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF))))
def test_graphics_registers_have_only_their_bits(index, mask):
    bench = Bench()
    bench.set(0x3CE, index, 0xFF)
    assert bench.get(0x3CE, index) == mask


def test_attribute_flip_flop_alternates_and_3da_resets_it():
    bench = Bench()
    bench.inb(0x3DA)
    bench.out(0x3C0, 0x11)
    bench.out(0x3C0, 0x2A)  # data
    bench.out(0x3C0, 0x11)  # index again
    assert (bench.inb(0x3C1), bench.inb(0x3C0)) == (0x2A, 0x11)
    bench.inb(0x3DA)
    bench.out(0x3C0, 0x31)
    assert bench.inb(0x3C0) == 0x31


def test_reading_attribute_data_does_not_move_the_flip_flop():
    bench = Bench()
    bench.inb(0x3DA)
    bench.out(0x3C0, 0x13)
    bench.inb(0x3C1)
    bench.out(0x3C0, 0x05)
    assert bench.inb(0x3C1) == 0x05


@pytest.mark.parametrize(("index", "mask"), [(0, 0x3F), (0x0F, 0x3F), (0x10, 0xEF), (0x12, 0x3F), (0x14, 0x0F)])
def test_attribute_registers_have_only_their_bits(index, mask):
    bench = Bench()
    bench.attribute(index, 0xFF)
    assert bench.inb(0x3C1) == mask


def test_cr11_protects_registers_0_to_7_but_not_line_compare():
    bench = Bench().mode_3()
    bench.set(0x3D4, 0x07, 0x0F)
    bench.set(0x3D4, 0x11, 0x8E)
    bench.set(0x3D4, 0x00, 0x11)
    bench.set(0x3D4, 0x07, 0xF0)
    assert (bench.get(0x3D4, 0x00), bench.get(0x3D4, 0x07)) == (0x5F, 0x1F)
    bench.set(0x3D4, 0x08, 0x11)
    assert bench.get(0x3D4, 0x08) == 0x11
    bench.set(0x3D4, 0x11, 0x0E)
    bench.set(0x3D4, 0x00, 0x11)
    assert bench.get(0x3D4, 0x00) == 0x11


def test_vertical_retrace_registers_read_only_with_evra():
    bench = Bench().mode_3()
    assert bench.get(0x3D4, 0x10) == 0x9C
    bench.set(0x3D4, 0x11, 0)
    bench.set(0x3D4, 0x03, 0x02)
    assert bench.get(0x3D4, 0x10) == 0


def test_dac_takes_three_components_and_advances():
    bench = Bench()
    bench.out(0x3C8, 0xFF)
    for value in (0x3F, 0x55, 0x01, 0x02, 0x03, 0x04):
        bench.out(0x3C9, value)
    bench.out(0x3C7, 0xFF)
    assert [bench.inb(0x3C9) for _ in range(6)] == [0x3F, 0x15, 0x01, 0x02, 0x03, 0x04]


def test_dac_state_tells_read_from_write_mode():
    bench = Bench()
    bench.out(0x3C7, 4)
    assert bench.inb(0x3C7) == 3
    bench.out(0x3C8, 4)
    assert bench.inb(0x3C7) == 0


def test_dac_colour_changes_only_with_its_third_write():
    bench = Bench()
    bench.out(0x3C8, 1)
    bench.out(0x3C9, 0x10)
    bench.out(0x3C9, 0x20)
    bench.out(0x3C7, 1)
    assert [bench.inb(0x3C9) for _ in range(3)] == [0, 0, 0]


def test_dac_mask_is_readable():
    bench = Bench()
    bench.out(0x3C6, 0x0F)
    assert bench.inb(0x3C6) == 0x0F


def test_mode_3_has_449_lines_at_70_hz():
    timing = Bench().mode_3().vga.timing()
    assert (timing.lines, timing.shown, timing.retrace_start, timing.retrace_end) == (449, 400, 412, 414)
    assert 1e9 / (timing.line_ns * timing.lines) == pytest.approx(70.09, abs=0.01)
    assert 1e6 / timing.line_ns == pytest.approx(31.47, abs=0.01)  # kHz
    assert timing.visible_ns == 720 * 1_000_000_000 // 28_322_000


def test_retrace_bit_is_up_for_two_lines_of_each_frame():
    bench = Bench().mode_3()
    timing = bench.vga.timing()
    frame = timing.line_ns * timing.lines
    up = [line for line in range(449) for _ in [bench.until(3 * frame + line * timing.line_ns)] if bench.inb(0x3DA) & 8]
    assert up == [412, 413]


def test_display_bit_is_up_in_horizontal_and_vertical_blanking():
    bench = Bench().mode_3()
    timing = bench.vga.timing()
    assert not bench.inb(0x3DA) & 1
    bench.until(timing.visible_ns)
    assert bench.inb(0x3DA) & 1
    bench.until(timing.line_ns)
    assert not bench.inb(0x3DA) & 1
    bench.until(timing.line_ns * 400)
    assert bench.inb(0x3DA) & 9 == 1


def test_the_status_is_steady_up_to_the_next_edge_and_no_longer():
    timing = Bench().mode_3().vga.timing()
    now, edges = 0, 0
    while now < timing.line_ns * timing.lines:
        left = timing.steady(now)
        values = {timing.status(now + part) for part in (0, left // 2, left - 1)}
        assert len(values) == 1
        edges += timing.status(now + left) not in values
        now += left
    assert now == timing.line_ns * timing.lines
    # two in each line on display but that blanking of the last runs into the rest, two of retrace, one of the frame
    assert edges == 2 * timing.shown + 2


def test_half_line_clocking_doubles_the_vertical_timing():
    bench = Bench().mode_3()
    bench.set(0x3D4, 0x17, 0xA7)
    timing = bench.vga.timing()
    assert (timing.lines, timing.shown, timing.retrace_start, timing.retrace_end) == (898, 800, 824, 828)


def test_subsystem_enable_takes_display_memory_away_too():
    bench = Bench()
    bench.set(0x3CE, 6, 5)
    bench.vga.memory.write(0, 0x55, 1)
    bench.out(0x3C3, 0)
    assert bench.vga.memory.read(0, 1) == 0xFF


def test_reset_disables_vbe_and_keeps_memory():
    bench = Bench()
    bench.vga.vbe.write(0, 3, 2)
    bench.vga.vbe.write(1, 8, 2)
    bench.vga.vbe.write(0, 4, 2)
    bench.vga.vbe.write(2, 1, 2)
    bench.vga.memory.write(5, 0x55, 1)
    assert bench.vga.memory.memory[5] == 0x55
    bench.vga.reset()
    bench.vga.vbe.write(0, 4, 2)
    assert (bench.vga.vbe.read(1, 2), bench.vga.memory.memory[5]) == (0, 0x55)


def test_vbe_ports_are_16_bits_wide():
    bench = Bench()
    bench.vga.vbe.write(0, 0, 2)
    assert [bench.vga.vbe.read(offset, 2) for offset in (0, 1, 2)] == [0, 0xB0C5, 0xB0C5]
    assert bench.vga.vbe.read(1, 1) == 0xFF
    bench.vga.vbe.write(0, 5, 1)
    assert bench.vga.vbe.read(0, 2) == 0


def test_retrace_runs_before_the_crtc_is_programmed():
    bench = Bench()
    seen = set()
    for _ in range(2000):
        seen.add(bench.inb(0x3DA) & 9)
        bench.advance(16_000)
    assert seen == {0, 1, 9}


def test_retrace_interrupt_is_latched_until_cleared():
    # CR11 bit 4: 0 clears the interrupt, and holds it cleared
    bench = Bench().mode_3()
    bench.set(0x3D4, 0x11, 0x0E & ~0x10)
    bench.advance(20_000_000)
    assert not bench.inb(0x3C2) & 0x80
    bench.set(0x3D4, 0x11, 0x1E)
    bench.advance(20_000_000)
    bench.set(0x3D4, 0x0F, 0)  # another register clears nothing
    assert bench.inb(0x3C2) & 0x80
    bench.set(0x3D4, 0x11, 0x0E)
    bench.set(0x3D4, 0x11, 0x1E)
    assert not bench.inb(0x3C2) & 0x80


def test_peek_leaves_the_flip_flop_and_the_dac_alone():
    bench = Bench()
    bench.inb(0x3DA)
    bench.out(0x3C0, 0x10)
    before = bench.vga.save()
    for offset in range(0x2C):
        bench.vga.peek(offset, 1)
    assert bench.vga.save() == before


def test_state_is_copied_both_ways():
    bench = Bench().mode_3()
    saved = bench.vga.save()
    bench.set(0x3D4, 0x0F, 0x77)
    assert saved.crtc[0x0F] == MODE_3[0x0F]
    bench.vga.restore(saved)
    bench.set(0x3D4, 0x0F, 0x77)
    assert saved.crtc[0x0F] == MODE_3[0x0F]


def test_view_says_what_the_registers_mean():
    fields = {field.name: field for field in Bench().mode_3().vga.view().fields}
    assert fields["misc output"].text == "CRTC at 3D4h, memory on, 28.322 MHz, sync for 400 lines"
    assert fields["CRTC"].text == "400 of 449 lines, 70.1 Hz, 0-7 protected"
