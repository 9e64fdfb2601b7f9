"""The 8259A pair, against the data sheet (Intel 231468; sections named in the tests) and PIIX3's 4D0h/4D1h."""

from __future__ import annotations

import copy

import pytest

from emu.devices.pic8259 import Pic8259Pair
from emu.irq import IntrPin


class FakeEngine:
    """Of an executor, what IntrPin uses: it delivers the vector it was last given when told to."""

    def __init__(self) -> None:
        self.vector: int | None = None
        self.taken: int | None = None

    def set_interrupt(self, vector: int | None) -> None:
        self.vector = vector

    def take_interrupt(self) -> int | None:
        taken, self.taken = self.taken, None
        return taken

    def deliver(self) -> int | None:
        self.taken, self.vector = self.vector, None
        return self.taken


def init(pic: Pic8259Pair, icw1: int = 0x11, master4: int = 0x01, slave4: int = 0x01) -> None:
    """As an AT BIOS does: vectors 08h and 70h, all unmasked."""
    for ports, icw2, icw3, icw4 in ((pic.master, 0x08, 0x04, master4), (pic.slave, 0x70, 0x02, slave4)):
        ports.write(0, icw1, 1)
        ports.write(1, icw2, 1)
        if not icw1 & 2:
            ports.write(1, icw3, 1)
        if icw1 & 1:
            ports.write(1, icw4, 1)


@pytest.fixture
def pic() -> Pic8259Pair:
    pair = Pic8259Pair(IntrPin())
    init(pair)
    return pair


def pulse(pic: Pic8259Pair, *irqs: int) -> None:
    """Raise the lines and keep them high."""
    for n in irqs:
        pic.set_irq(n, False)
        pic.set_irq(n, True)


def irr(chip: object) -> int:
    chip.write(0, 0x0A, 1)  # type: ignore[attr-defined]
    return int(chip.read(0, 1))  # type: ignore[attr-defined]


def isr(chip: object) -> int:
    chip.write(0, 0x0B, 1)  # type: ignore[attr-defined]
    return int(chip.read(0, 1))  # type: ignore[attr-defined]


# -- "Initialization Command Words"


def test_nothing_is_requested_before_initialisation() -> None:
    pic = Pic8259Pair(IntrPin())
    pic.master.write(1, 0, 1)
    pulse(pic, 0)
    assert pic.pending_vector() is None


def test_icw1_clears_mask_service_priority_special_mask_and_read_select(pic: Pic8259Pair) -> None:
    pic.master.write(1, 0x55, 1)
    pulse(pic, 1)
    pic.acknowledge()
    pic.master.write(0, 0xC3, 1)  # set priority: IR3 lowest
    pic.master.write(0, 0x68, 1)  # special mask mode
    assert isr(pic.master) == 0x02
    init(pic)
    assert pic.master.read(1, 1) == 0
    assert pic.master.read(0, 1) == 0, "IRR, and empty"
    assert isr(pic.master) == 0
    pulse(pic, 3, 4)
    assert pic.acknowledge() == 0x0B
    pic.master.write(1, 0x08, 1)
    assert pic.pending_vector() is None, "a masked level in service blocks without special mask mode"


def test_icw1_resets_the_edge_sense_so_a_high_line_must_fall_first(pic: Pic8259Pair) -> None:
    pulse(pic, 5)
    init(pic)
    assert pic.pending_vector() is None
    pulse(pic, 5)
    assert pic.pending_vector() == 0x0D


def test_no_interrupt_between_icw1_and_the_last_icw(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x11, 1)
    pulse(pic, 1)
    for icw in (0x20, 0x04):
        pic.master.write(1, icw, 1)
        assert pic.pending_vector() is None
    pic.master.write(1, 0x01, 1)
    assert pic.pending_vector() == 0x21


def test_single_mode_takes_no_icw3_and_ir2_is_an_ordinary_input(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x13, 1)
    pic.master.write(1, 0x20, 1)
    pic.master.write(1, 0x01, 1)
    pic.master.write(1, 0xFB, 1)
    assert pic.master.read(1, 1) == 0xFB, "the write after ICW4 is OCW1"
    pulse(pic, 10)
    assert pic.acknowledge() == 0x22


@pytest.mark.parametrize(("icw1", "vector"), [(0xF4, 0xE0 | 3 << 2), (0xF0, 0xC0 | 3 << 3)])
def test_without_icw4_the_vector_is_the_low_half_of_the_8080_call_address(
    pic: Pic8259Pair, icw1: int, vector: int
) -> None:
    pic.master.write(0, icw1, 1)
    pic.master.write(1, 0x12, 1)
    pic.master.write(1, 0x00, 1)
    pulse(pic, 3)
    assert pic.acknowledge() == vector


def test_low_bits_of_icw2_are_replaced_by_the_level_in_8086_mode(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x11, 1)
    for icw in (0x37, 0x04, 0x01):
        pic.master.write(1, icw, 1)
    pulse(pic, 4)
    assert pic.acknowledge() == 0x34


def test_icw4_can_select_8080_mode_too(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x71, 1)
    for icw in (0x12, 0x04, 0x00):
        pic.master.write(1, icw, 1)
    pulse(pic, 3)
    assert pic.acknowledge() == 0x40 | 3 << 3


def test_icw1_sets_the_slave_mode_address_to_7(pic: Pic8259Pair) -> None:
    assert {f.name: f.text for f in pic.slave.view().fields}["ICW3"] == "slave ID 2"
    pic.slave.write(0, 0x11, 1)
    assert {f.name: f.text for f in pic.slave.view().fields}["ICW3"] == "slave ID 7"


# -- requests, "Edge and Level Triggered Modes"


def test_edge_request_is_taken_once_though_the_line_stays_high(pic: Pic8259Pair) -> None:
    pulse(pic, 1)
    assert pic.acknowledge() == 0x09
    pic.master.write(0, 0x20, 1)
    assert pic.pending_vector() is None
    assert irr(pic.master) == 0


def test_driving_a_high_line_high_again_is_no_edge(pic: Pic8259Pair) -> None:
    pulse(pic, 1)
    pic.acknowledge()
    pic.master.write(0, 0x20, 1)
    pic.set_irq(1, True)
    assert pic.pending_vector() is None


def test_request_removed_before_inta_gives_the_default_ir7_without_service(pic: Pic8259Pair) -> None:
    pulse(pic, 1)
    pic.set_irq(1, False)
    assert pic.pending_vector() is None
    assert irr(pic.master) == 0
    assert pic.acknowledge() == 0x0F
    assert isr(pic.master) == 0


def test_slave_without_a_request_gives_its_own_ir7_while_the_master_serves_ir2(pic: Pic8259Pair) -> None:
    pic.set_irq(2, True)
    assert pic.acknowledge() == 0x77
    assert isr(pic.master) == 0x04
    assert isr(pic.slave) == 0


def test_level_triggered_request_returns_after_eoi_while_the_line_is_high(pic: Pic8259Pair) -> None:
    init(pic, icw1=0x19)
    pic.set_irq(5, True)
    assert pic.acknowledge() == 0x0D
    assert irr(pic.master) == 0x20
    pic.master.write(0, 0x20, 1)
    assert pic.pending_vector() == 0x0D
    pic.set_irq(5, False)
    assert pic.pending_vector() is None


def test_elcr_makes_single_inputs_level_triggered_and_not_the_reserved_ones(pic: Pic8259Pair) -> None:
    pic.elcr.write(0, 0xFF, 1)
    pic.elcr.write(1, 0xFF, 1)
    assert (pic.elcr.read(0, 1), pic.elcr.peek(1, 1)) == (0xF8, 0xDE)
    pic.set_irq(11, True)
    pic.set_irq(1, True)
    assert pic.acknowledge() == 0x09
    pic.master.write(0, 0x20, 1)
    assert pic.acknowledge() == 0x73
    pic.slave.write(0, 0x20, 1)
    pic.master.write(0, 0x20, 1)
    assert pic.pending_vector() == 0x73


def test_imr_holds_a_request_back_and_irr_still_shows_it(pic: Pic8259Pair) -> None:
    pic.master.write(1, 0x02, 1)
    pulse(pic, 1)
    assert pic.pending_vector() is None
    assert irr(pic.master) == 0x02
    pic.master.write(1, 0x00, 1)
    assert pic.pending_vector() == 0x09


def test_several_wires_to_one_irq_are_ored(pic: Pic8259Pair) -> None:
    init(pic, icw1=0x19)
    first, second = pic.line(5), pic.line(5)
    first.set(True)
    second.set(True)
    first.set(False)
    assert pic.pending_vector() == 0x0D
    second.set(False)
    assert pic.pending_vector() is None


def test_line_refuses_an_irq_that_does_not_exist(pic: Pic8259Pair) -> None:
    with pytest.raises(ValueError, match="IRQ 16"):
        pic.line(16)


# -- "Fully Nested Mode", EOI


def test_ir0_is_highest_and_service_blocks_equal_and_lower_levels(pic: Pic8259Pair) -> None:
    pulse(pic, 4, 3)
    assert pic.acknowledge() == 0x0B
    pulse(pic, 3)
    assert pic.pending_vector() is None
    pulse(pic, 0)
    assert pic.acknowledge() == 0x08
    assert isr(pic.master) == 0x09


def test_non_specific_eoi_ends_the_highest_level_in_service(pic: Pic8259Pair) -> None:
    pulse(pic, 3)
    pic.acknowledge()
    pulse(pic, 0)
    pic.acknowledge()
    pic.master.write(0, 0x20, 1)
    assert isr(pic.master) == 0x08


def test_specific_eoi_ends_the_named_level(pic: Pic8259Pair) -> None:
    pulse(pic, 3)
    pic.acknowledge()
    pulse(pic, 0)
    pic.acknowledge()
    pic.master.write(0, 0x63, 1)
    assert isr(pic.master) == 0x01


def test_ocw2_010_does_nothing(pic: Pic8259Pair) -> None:
    pulse(pic, 3)
    pic.acknowledge()
    before = pic.save()
    pic.master.write(0, 0x43, 1)
    assert pic.save() == before


def test_automatic_eoi_leaves_nothing_in_service(pic: Pic8259Pair) -> None:
    init(pic, master4=0x03)
    pulse(pic, 3)
    assert pic.acknowledge() == 0x0B
    assert isr(pic.master) == 0
    pulse(pic, 5)
    assert pic.pending_vector() == 0x0D


# -- "Automatic Rotation", "Specific Rotation"


def test_rotate_on_non_specific_eoi_makes_the_ended_level_lowest(pic: Pic8259Pair) -> None:
    pulse(pic, 4)
    pic.acknowledge()
    pic.master.write(0, 0xA0, 1)
    assert isr(pic.master) == 0
    pulse(pic, 4, 6)
    assert pic.acknowledge() == 0x0E
    pulse(pic, 0)
    assert pic.pending_vector() is None, "IR0 is below IR6 after the rotation"


def test_rotate_on_specific_eoi_ends_and_lowers_the_named_level(pic: Pic8259Pair) -> None:
    pulse(pic, 1)
    pic.acknowledge()
    pic.master.write(0, 0xE1, 1)
    assert isr(pic.master) == 0
    pulse(pic, 0, 1, 3)
    assert pic.acknowledge() == 0x0B


def test_set_priority_lowers_the_named_level_without_eoi(pic: Pic8259Pair) -> None:
    pulse(pic, 6)
    pic.acknowledge()
    pic.master.write(0, 0xC5, 1)
    assert isr(pic.master) == 0x40
    pulse(pic, 0, 7)
    assert pic.pending_vector() is None
    pic.master.write(0, 0x66, 1)
    assert pic.acknowledge() == 0x0F


def test_rotate_in_automatic_eoi_mode_is_set_and_cleared(pic: Pic8259Pair) -> None:
    init(pic, master4=0x03)
    pic.master.write(0, 0x80, 1)
    pulse(pic, 1)
    pic.acknowledge()
    pulse(pic, 1, 4)
    assert pic.acknowledge() == 0x0C
    pic.master.write(0, 0x00, 1)
    assert pic.acknowledge() == 0x09
    pulse(pic, 0, 5)
    assert pic.acknowledge() == 0x0D, "IR4 stayed lowest: IR5 first"


# -- "Special Mask Mode", "Poll Command", "Reading the 8259A Status"


def test_special_mask_mode_lets_lower_levels_pass_a_masked_one_in_service(pic: Pic8259Pair) -> None:
    pulse(pic, 3)
    pic.acknowledge()
    pic.master.write(1, 0x08, 1)
    pulse(pic, 5)
    assert pic.pending_vector() is None
    pic.master.write(0, 0x28, 1)
    assert pic.pending_vector() is None, "ESMM = 0: SMM is a don't care"
    pic.master.write(0, 0x68, 1)
    assert pic.pending_vector() == 0x0D
    pic.master.write(0, 0x48, 1)
    assert pic.pending_vector() is None


def test_non_specific_eoi_skips_a_masked_level_in_special_mask_mode(pic: Pic8259Pair) -> None:
    pulse(pic, 3)
    pic.acknowledge()
    pic.master.write(1, 0x08, 1)
    pic.master.write(0, 0x68, 1)
    pulse(pic, 5)
    pic.acknowledge()
    pic.master.write(0, 0x20, 1)
    assert isr(pic.master) == 0x08


def test_poll_acknowledges_the_highest_request_and_lasts_one_read(pic: Pic8259Pair) -> None:
    pulse(pic, 5, 6)
    pic.master.write(0, 0x0C, 1)
    assert pic.master.peek(0, 1) == 0x85
    assert pic.master.peek(0, 1) == 0x85, "peek does not acknowledge"
    assert pic.master.read(0, 1) == 0x85
    assert isr(pic.master) == 0x20
    assert pic.pending_vector() is None


def test_poll_without_a_request_has_bit_7_clear(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x0C, 1)
    assert pic.master.read(0, 1) & 0x80 == 0
    assert isr(pic.master) == 0


def test_read_select_is_kept_until_changed(pic: Pic8259Pair) -> None:
    pulse(pic, 1)
    pic.acknowledge()
    pulse(pic, 4)
    pic.master.write(0, 0x0B, 1)
    assert [pic.master.read(0, 1) for _ in range(2)] == [0x02, 0x02]
    pic.master.write(0, 0x08, 1)
    assert pic.master.read(0, 1) == 0x02, "RR = 0: no action"
    pic.master.write(0, 0x0A, 1)
    assert pic.master.read(0, 1) == 0x10


# -- "Cascade Mode", "Special Fully Nested Mode", "Buffered Mode"


def test_slave_request_enters_service_in_both_chips(pic: Pic8259Pair) -> None:
    pulse(pic, 12)
    assert irr(pic.master) == 0x04
    assert pic.acknowledge() == 0x74
    assert (isr(pic.master), isr(pic.slave)) == (0x04, 0x10)
    assert irr(pic.slave) == 0


def test_slave_inputs_rank_between_irq_1_and_irq_3(pic: Pic8259Pair) -> None:
    pulse(pic, 3, 8, 1)
    taken = []
    for _ in range(3):
        vector = pic.acknowledge()
        taken.append(vector)
        if vector >= 0x70:
            pic.slave.write(0, 0x20, 1)
        pic.master.write(0, 0x20, 1)
    assert taken == [0x09, 0x70, 0x0B]


def test_higher_slave_request_waits_for_the_master_unless_special_fully_nested(pic: Pic8259Pair) -> None:
    pulse(pic, 12)
    pic.acknowledge()
    pulse(pic, 8)
    assert pic.pending_vector() is None
    init(pic, master4=0x11)
    pulse(pic, 12)
    pic.acknowledge()
    pulse(pic, 8, 3)
    assert pic.acknowledge() == 0x70
    assert pic.pending_vector() is None, "IR3 of the master stays below the slave in service"


def test_second_slave_request_follows_an_automatic_eoi_of_the_first(pic: Pic8259Pair) -> None:
    init(pic, slave4=0x03)
    pulse(pic, 8, 9)
    assert pic.acknowledge() == 0x70
    pic.master.write(0, 0x20, 1)
    assert pic.acknowledge() == 0x71


def test_slave_answers_only_to_its_own_id(pic: Pic8259Pair) -> None:
    pic.slave.write(0, 0x11, 1)
    for icw in (0x70, 0x05, 0x01):
        pic.slave.write(1, icw, 1)
    pulse(pic, 8)
    assert pic.acknowledge() == 0xFF, "nobody drives the data bus"
    assert isr(pic.slave) == 0


def test_default_ir7_is_left_to_a_slave_on_ir7(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x11, 1)
    for icw in (0x08, 0x80, 0x01):
        pic.master.write(1, icw, 1)
    assert pic.acknowledge() == 0xFF, "the only slave has ID 2"


def test_input_that_icw3_calls_no_slave_gets_the_masters_vector(pic: Pic8259Pair) -> None:
    pic.master.write(0, 0x11, 1)
    for icw in (0x08, 0x00, 0x01):
        pic.master.write(1, icw, 1)
    pulse(pic, 8)
    assert pic.acknowledge() == 0x0A


def test_buffered_mode_takes_master_or_slave_from_icw4(pic: Pic8259Pair) -> None:
    init(pic, master4=0x0D, slave4=0x09)
    pulse(pic, 8)
    assert pic.acknowledge() == 0x70
    init(pic, master4=0x09, slave4=0x09)
    pulse(pic, 8)
    assert pic.acknowledge() == 0x0A, "a chip told to be a slave never cascades"


# -- the pin, state, views


def test_delivery_by_the_engine_is_in_service_at_the_next_look() -> None:
    pin, engine = IntrPin(), FakeEngine()
    pic = Pic8259Pair(pin)
    pin.connect(pic, engine)  # type: ignore[arg-type]
    init(pic)
    pulse(pic, 3, 4)
    assert engine.vector == 0x0B
    engine.deliver()
    assert isr(pic.master) == 0x08
    assert engine.vector is None
    pic.master.write(0, 0x20, 1)
    assert engine.vector == 0x0C
    pic.set_irq(4, False)
    assert engine.vector is None


def test_save_catches_up_with_a_delivery_first() -> None:
    pin, engine = IntrPin(), FakeEngine()
    pic = Pic8259Pair(pin)
    pin.connect(pic, engine)  # type: ignore[arg-type]
    init(pic)
    pulse(pic, 3)
    engine.deliver()
    assert pic.save().master.isr == 0x08


def test_peek_settles_and_changes_nothing_else() -> None:
    pin, engine = IntrPin(), FakeEngine()
    pic = Pic8259Pair(pin)
    pin.connect(pic, engine)  # type: ignore[arg-type]
    init(pic)
    pic.master.write(0, 0x0B, 1)
    pulse(pic, 3)
    engine.deliver()
    assert pic.master.peek(0, 1) == 0x08
    before = pic.save()
    pic.master.peek(1, 1)
    assert pic.save() == before


def test_state_and_lines_come_back() -> None:
    pic, other = Pic8259Pair(IntrPin()), Pic8259Pair(IntrPin())
    line, other_line = pic.line(5), other.line(5)
    init(pic)
    line.set(True)
    pulse(pic, 9)
    pic.acknowledge()
    state = pic.save()
    kept = copy.deepcopy(state)
    other.restore(state)
    assert other_line.level
    assert other.save() == kept
    pic.master.write(1, 0xFF, 1)
    assert state == kept
    assert other.pending_vector() is None
    other.slave.write(0, 0x20, 1)
    other.master.write(0, 0x20, 1)
    assert other.acknowledge() == 0x0D
    other_line.set(False)
    assert not other.save().master.inputs & 0x20


def test_restore_drives_the_pin(pic: Pic8259Pair) -> None:
    pulse(pic, 5)
    pin, engine = IntrPin(), FakeEngine()
    other = Pic8259Pair(pin)
    pin.connect(other, engine)  # type: ignore[arg-type]
    other.restore(pic.save())
    assert engine.vector == 0x0D


def test_restore_refuses_other_lines(pic: Pic8259Pair) -> None:
    state = pic.save()
    pic.line(3)
    with pytest.raises(ValueError, match="lines"):
        pic.restore(state)


def test_reset_masks_everything_and_keeps_the_inputs(pic: Pic8259Pair) -> None:
    pic.set_irq(5, True)
    pic.reset()
    assert pic.pending_vector() is None
    assert pic.master.read(1, 1) == 0xFF
    init(pic, icw1=0x19)
    assert pic.pending_vector() == 0x0D


def test_view_decodes_the_mask(pic: Pic8259Pair) -> None:
    pic.master.write(1, 0xB8, 1)
    fields = {field.name: field for field in pic.view().fields}
    assert fields["master IMR"].value == 0xB8
    assert fields["master IMR"].text == "masked: IRQ 3 4 5 7"
    assert fields["slave base"].value == 0x70
    assert pic.slave.view().where == "ports A0h-A1h"
