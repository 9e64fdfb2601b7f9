"""The local APIC, its timer, the I/O APIC and the HPET, against the SDM's and data sheets' words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.devices.hpet import Hpet
from emu.devices.ioapic import IoApic
from emu.devices.lapic import Lapic, Message
from emu.irq import IntrPin
from emu.x86.cpuid import MODELS
from virtual_time import VirtualTime

SELF = 1 << 18


class Apics:
    """A local and an I/O APIC on virtual time, the local one switched on by software."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.lapic = Lapic(self.time.clock, IntrPin(), lambda: self.time.clock.now, MODELS["max"].with_apic())
        self.ioapic = IoApic(IntrPin(), self.lapic.send)
        self.lapic.on_eoi = self.ioapic.end_of_interrupt
        self.inits = 0
        self.lapic.on_init = self._init
        self.put(0xF0, 0x1FF)

    def _init(self) -> None:
        self.inits += 1

    def put(self, offset: int, value: int) -> None:
        self.lapic.write(offset, value, 4)

    def get(self, offset: int) -> int:
        return self.lapic.read(offset, 4)

    def take(self) -> int | None:
        """The vector an interruptible CPU would take now."""
        return None if self.lapic.pending_vector() is None else self.lapic.acknowledge()

    def entry(self, n: int, low: int, high: int = 0) -> None:
        for register, value in ((0x11 + 2 * n, high), (0x10 + 2 * n, low)):
            self.ioapic.write(0, register, 1)
            self.ioapic.write(0x10, value, 4)

    def entry_low(self, n: int) -> int:
        self.ioapic.write(0, 0x10 + 2 * n, 1)
        return self.ioapic.read(0x10, 4)


@pytest.fixture
def apics():
    return Apics()


@given(st.sets(st.integers(16, 255), min_size=1, max_size=20))
def test_vectors_come_highest_first_and_only_from_a_higher_class(vectors):
    apics = Apics()
    for vector in vectors:
        apics.put(0x300, SELF | vector)
    left, in_service = set(vectors), []
    while left or in_service:
        vector = apics.take()
        top = max(left, default=0)
        if left and top >> 4 > max(in_service, default=0) >> 4:
            assert vector == top
            left.remove(vector)
            in_service.append(vector)
        else:
            assert vector is None
            apics.put(0xB0, 0)
            in_service.remove(max(in_service))


@pytest.mark.parametrize(
    ("tpr", "in_service", "ppr"),
    [(0, 0, 0), (0x45, 0, 0x45), (0x45, 0x31, 0x45), (0x45, 0x58, 0x50), (0x4F, 0x40, 0x4F)],
)
def test_ppr_is_the_higher_of_tpr_and_isr(apics, tpr, in_service, ppr):
    """SDM vol. 3A, 11.8.3.1."""
    if in_service:
        apics.put(0x300, SELF | in_service)
        assert apics.take() == in_service
    apics.put(0x80, tpr)
    assert apics.get(0xA0) == ppr


def test_an_apic_off_by_software_masks_its_table_and_takes_no_interrupt(apics):
    apics.put(0x320, 0x40)
    apics.put(0xF0, 0xFF)
    assert apics.get(0x320) == 0x10040
    apics.put(0x320, 0x40)
    assert apics.get(0x320) == 0x10040
    apics.put(0x300, SELF | 0x50)
    assert apics.take() is None


@pytest.mark.parametrize(("bits", "divisor"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)])
def test_the_divide_configuration(apics, bits, divisor):
    """SDM vol. 3A, figure 11-10."""
    apics.put(0x3E0, bits)
    apics.put(0x320, 0x10040)
    apics.put(0x380, 1000)
    apics.time.advance(100 * divisor)
    assert apics.get(0x390) == 900


def test_a_one_shot_ends_once_and_a_periodic_timer_goes_on(apics):
    apics.put(0x3E0, 0xB)
    apics.put(0x320, 0x40)
    apics.put(0x380, 500)
    apics.time.advance(499)
    assert apics.take() is None
    apics.time.advance(1)
    assert apics.take() == 0x40 and apics.get(0x390) == 0
    apics.put(0xB0, 0)
    apics.time.advance(10_000)
    assert apics.take() is None
    apics.put(0x320, 0x20041)
    apics.put(0x380, 500)
    for _ in range(3):
        apics.time.advance(500)
        assert apics.take() == 0x41
        apics.put(0xB0, 0)
    assert apics.get(0x390) == 500


def test_tsc_deadline(apics):
    """SDM vol. 3A, 11.5.4.1."""
    assert apics.lapic.write_msr(0x6E0, 700)
    assert apics.lapic.read_msr(0x6E0) == 0  # not in that mode
    apics.put(0x320, 0x40040)
    apics.lapic.write_msr(0x6E0, 700)
    assert apics.lapic.read_msr(0x6E0) == 700
    apics.put(0x380, 5)
    apics.time.advance(699)
    assert apics.take() is None
    apics.time.advance(1)
    assert apics.take() == 0x40 and apics.lapic.read_msr(0x6E0) == 0
    apics.put(0xB0, 0)
    apics.lapic.write_msr(0x6E0, 10)  # past: at once
    apics.time.advance(0)
    assert apics.take() == 0x40


def test_x2apic_registers_are_msrs_and_reserved_ones_fault(apics):
    lapic = apics.lapic
    assert lapic.read_msr(0x802) is None  # still an xAPIC
    assert lapic.write_msr(0x1B, 0xFEE00D00)
    assert lapic.mmio_base is None
    assert lapic.read_msr(0x80D) == 1  # logical x2APIC ID of APIC 0 (11.12.10.2)
    assert lapic.write_msr(0x83F, 0x61)  # self IPI
    assert lapic.write_msr(0x830, 1 << 32 | 0x71) and lapic.write_msr(0x830, 0x72)
    assert apics.take() == 0x72
    assert not lapic.write_msr(0x80B, 1)  # EOI takes 0 only
    assert lapic.write_msr(0x80B, 0)
    assert apics.take() == 0x61
    assert not lapic.write_msr(0x808, 1 << 32)
    assert lapic.read_msr(0x80E) is None and lapic.read_msr(0x831) is None
    assert not lapic.write_msr(0x1B, 0xFEE00900)  # x2APIC to xAPIC directly (11.12.5)
    assert lapic.write_msr(0x1B, 0xFEE00100) and not lapic.enabled


def test_the_base_moves_the_page_and_refuses_reserved_bits(apics):
    moved = []
    apics.lapic.on_base = lambda: moved.append(apics.lapic.mmio_base)
    assert apics.lapic.write_msr(0x1B, 0xE0000900)
    assert moved == [0xE0000000]
    assert not apics.lapic.write_msr(0x1B, 1 << 40 | 0x900)
    assert not apics.lapic.write_msr(0x1B, 0xFEE00500)


@pytest.mark.parametrize(("icr", "count"), [(0x4500, 0), (0x44500, 1), (0x8500, 0), (0xC4500, 0), (0x84500, 1)])
def test_init_reaches_this_cpu_when_it_is_meant(apics, icr, count):
    """Shorthands: 01 self, 10 all, 11 all but self; level de-assert does nothing."""
    apics.put(0x310, 1 << 24)
    apics.put(0x300, icr)
    assert apics.inits == count


def test_an_edge_at_a_masked_input_is_lost_and_one_at_an_open_input_sent_once(apics):
    apics.entry(5, 0x10050)
    apics.ioapic.set_irq(5, True)
    apics.entry(5, 0x50)
    assert apics.take() is None
    apics.ioapic.set_irq(5, False)
    apics.ioapic.set_irq(5, True)
    assert apics.take() == 0x50
    apics.put(0xB0, 0)
    assert apics.take() is None


def test_a_level_waits_for_eoi_and_for_its_mask(apics):
    apics.entry(10, 0x8060)
    apics.ioapic.set_irq(10, True)
    assert apics.entry_low(10) & 0x4000
    assert apics.take() == 0x60
    assert apics.take() is None
    apics.put(0xB0, 0)
    assert apics.take() == 0x60
    apics.ioapic.set_irq(10, False)
    assert apics.entry_low(10) & 0x4000
    apics.put(0xB0, 0)
    assert not apics.entry_low(10) & 0x4000 and apics.take() is None
    apics.entry(10, 0x18060)
    apics.ioapic.set_irq(10, True)
    assert apics.take() is None
    apics.entry(10, 0x8060)
    assert apics.take() == 0x60


def test_an_input_made_an_edge_and_a_level_again_waits_for_no_eoi(apics):
    """82093AA, 3.2.4: remote IRR has a meaning for levels only. Linux's __eoi_ioapic_pin ends a level this way, where
    the I/O APIC has no EOI register."""
    apics.entry(10, 0x8060)
    apics.ioapic.set_irq(10, True)
    assert apics.take() == 0x60 and apics.entry_low(10) & 0x4000
    apics.entry(10, 0x10070)
    assert apics.entry_low(10) == 0x10070
    apics.entry(10, 0x8070)
    assert apics.take() == 0x70  # the line is still high, and vector 60h is in service


def test_a_low_active_input_is_asserted_by_a_low_line(apics):
    apics.ioapic.set_irq(9, True)
    apics.entry(9, 0xA060)
    assert apics.take() is None
    apics.ioapic.set_irq(9, False)
    assert apics.take() == 0x60


@pytest.mark.parametrize(
    ("dfr", "ldr", "to", "hit"),
    [
        (0xF, 0x04, 0x06, True),
        (0xF, 0x04, 0x03, False),
        (0, 0x24, 0x26, True),
        (0, 0x24, 0x16, False),
        (0, 0x24, 0xFC, True),
    ],
)
def test_logical_destinations_flat_and_in_clusters(apics, dfr, ldr, to, hit):
    """SDM vol. 3A, 11.6.2.2."""
    apics.put(0xE0, dfr << 28 | 0x0FFFFFFF)
    apics.put(0xD0, ldr << 24)
    assert apics.lapic.addressed(Message(to, True, 0, 0x40)) is hit


def test_illegal_registers_and_vectors_are_in_esr_after_it_is_written(apics):
    apics.get(0x3F0)
    apics.put(0x300, SELF | 9)
    assert apics.get(0x280) == 0
    apics.put(0x280, 0)
    assert apics.get(0x280) == 0xA0
    apics.put(0x280, 0)
    assert apics.get(0x280) == 0


class Timers:
    """An HPET and what it did to lines."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.events: list[tuple[str, int, bool]] = []

        def isa(n):
            return lambda level: self.events.append(("isa", n, level))

        self.hpet = Hpet(self.time.clock, lambda n, level: self.events.append(("io", n, level)), (isa(0), isa(8)))

    def put(self, offset: int, value: int, size: int = 8) -> None:
        self.hpet.write(offset, value, size)


def test_the_hpet_counts_10_ns_while_it_is_enabled():
    timers = Timers()
    timers.put(0xF0, 5)
    timers.put(0x10, 1)
    timers.time.advance(1000)
    assert timers.hpet.read(0xF0, 8) == 105
    timers.put(0x10, 0)
    timers.time.advance(1000)
    assert timers.hpet.read(0xF0, 4) == 105
    assert timers.hpet.read(4, 4) == 10_000_000  # femtoseconds


def test_a_periodic_hpet_timer_adds_its_period_and_an_edge_each_time():
    """IA-PC HPET 1.0a, 2.3.9.2.2: SET_VALUE, comparator, then the period."""
    timers = Timers()
    timers.put(0x100, 20 << 9 | 0x4C)
    timers.put(0x108, 100)
    timers.put(0x108, 30)
    timers.put(0x10, 1)
    timers.time.advance(999)
    assert timers.events == []
    timers.time.advance(1)
    assert timers.events == [("io", 20, True)]
    timers.time.advance(300)
    assert timers.events[1:] == [("io", 20, False), ("io", 20, True)]
    assert timers.hpet.read(0x108, 8) == 160


def test_a_periodic_32_bit_hpet_timer_goes_on_where_the_counter_s_low_half_wraps():
    """IA-PC HPET 1.0a, 2.3.8: Tn_32MODE_CNF forces a 64-bit timer to the counter's lower 32 bits."""
    timers = Timers()
    timers.put(0xF0, 0x5_FFFFFFE0)
    timers.put(0x100, 20 << 9 | 0x14C)
    timers.put(0x108, 0xFFFFFFF0)
    timers.put(0x108, 0x30)  # does not divide 2^32: what counts the upper half has another phase
    timers.put(0x10, 1)
    for ticks, comparator in ((0x10, 0x20), (0x30, 0x50), (0x30, 0x80)):
        timers.events.clear()
        timers.time.advance(ticks * 10 - 1)
        assert timers.events == []
        timers.time.advance(1)
        assert timers.events[-1:] == [("io", 20, True)] and timers.hpet.read(0x108, 8) == comparator


def test_a_level_hpet_timer_holds_its_line_until_the_status_is_cleared():
    timers = Timers()
    timers.put(0x120, 21 << 9 | 0x06)
    timers.put(0x128, 10)
    timers.put(0x10, 1)
    timers.time.advance(100)
    assert timers.events == [("io", 21, True)] and timers.hpet.read(0x20, 4) == 2
    timers.put(0x20, 2)
    assert timers.events[1:] == [("io", 21, False)]


def test_legacy_replacement_takes_irq_0_and_8_from_the_8254_and_the_rtc():
    timers = Timers()
    pit = timers.hpet.displaced(0)
    pit(True)
    assert timers.events == [("isa", 0, True)]
    timers.put(0x10, 2)
    timers.events.clear()
    pit(False)
    pit(True)
    assert timers.events == []
    timers.put(0x10, 0)
    assert ("isa", 0, True) in timers.events


class Intr:
    """An 8259's INTR."""

    def __init__(self) -> None:
        self.level = False

    def pending_vector(self) -> int | None:
        return 0x20 if self.level else None

    def acknowledge(self) -> int:
        self.level = False
        return 0x20


@pytest.fixture
def wired(apics):
    """With an 8259 at LINT0, and what the pins of the CPU were told."""
    apics.told = []
    apics.lapic.on_nmi = lambda: apics.told.append("NMI")
    apics.lapic.on_smi = lambda: apics.told.append("SMI")
    apics.lapic.on_init = lambda: apics.told.append("INIT")
    apics.intr = apics.lapic.pic = Intr()

    def drive(level: bool) -> None:
        apics.intr.level = level
        apics.lapic.sample()

    apics.drive = drive
    return apics


@pytest.mark.parametrize(("mode", "name"), ((2, "SMI"), (4, "NMI"), (5, "INIT")))
def test_the_pins_of_the_cpu_are_reached_from_everywhere_also_of_an_apic_switched_off_by_software(wired, mode, name):
    """SDM vol. 3A, 11.4.7.2: it responds normally to INIT, NMI, SMI and SIPI messages."""
    wired.put(0xF0, 0xFF)
    wired.put(0x300, 1 << 14 | mode << 8)
    assert wired.told == [name]
    wired.entry(4, mode << 8)
    wired.ioapic.set_irq(4, True)
    assert wired.told == [name] * 2


def test_a_redirection_entry_of_nmi_is_an_edge_whatever_its_trigger_mode(wired):
    wired.entry(4, 1 << 15 | 4 << 8)
    for level in (True, True, False, True):
        wired.ioapic.set_irq(4, level)
    assert wired.told == ["NMI"] * 2 and not wired.entry_low(4) >> 14 & 1


@pytest.mark.parametrize(("mode", "name"), ((2, "SMI"), (4, "NMI"), (5, "INIT")))
def test_lint0_drives_pins_at_edges(wired, mode, name):
    wired.put(0x350, mode << 8)
    for level in (True, True, False, True):
        wired.drive(level)
    assert wired.told == [name] * 2
    wired.put(0x350, 1 << 16 | mode << 8)
    wired.drive(False)
    wired.drive(True)
    assert wired.told == [name] * 2
    assert wired.take() is None  # the 8259 itself is not handed through


def test_lint0_fixed_and_edge_is_a_vector_for_each_rise(wired):
    wired.put(0x350, 0x51)
    wired.drive(True)
    assert wired.take() == 0x51 and wired.take() is None
    wired.put(0xB0, 0)
    wired.lapic.sample()
    assert wired.take() is None
    wired.drive(False)
    wired.drive(True)
    assert wired.take() == 0x51


def test_lint0_fixed_and_level_asks_again_after_eoi_while_it_is_high(wired):
    """SDM vol. 3A, 11.5.1: the remote IRR flag is set when it is accepted, and reset by the EOI."""
    wired.put(0x350, 1 << 15 | 0x51)
    wired.drive(True)
    assert wired.get(0x350) >> 14 & 1 and wired.take() == 0x51
    wired.lapic.sample()
    assert wired.take() is None
    wired.put(0xB0, 0)
    assert not wired.get(0x350) >> 14 & 1
    wired.lapic.sample()
    assert wired.take() == 0x51
    wired.drive(False)
    wired.put(0xB0, 0)
    wired.lapic.sample()
    assert wired.take() is None and not wired.get(0x350) >> 14 & 1


def test_lint0_of_a_low_active_pin(wired):
    wired.drive(True)
    wired.put(0x350, 1 << 13 | 4 << 8)
    wired.drive(False)
    assert wired.told == ["NMI"]


@pytest.mark.parametrize(
    ("entry", "taken"), ((0x700, 0x20), (1 << 16 | 0x700, None), (1 << 13 | 0x700, None), (0x051, None))
)
def test_the_8259_is_taken_by_extint_of_input_0_where_lint0_is_masked(wired, entry, taken):
    """MP 1.4, table 5-2: INTIN0 is the 8259A's INTR, active high."""
    wired.lapic.io_extint = lambda: wired.ioapic.extint
    wired.put(0x350, 1 << 16 | 0x700)
    wired.drive(True)
    assert wired.take() is None
    wired.entry(0, entry)
    assert wired.take() == taken


def test_cr8_is_the_upper_half_of_the_tpr(apics):
    shown = []
    apics.lapic.on_task_priority = shown.append
    apics.put(0x80, 0x53)
    assert shown == [5]
    apics.lapic.set_task_priority(5)
    assert apics.get(0x80) == 0x53  # it is that already: the low half stays
    apics.lapic.set_task_priority(7)
    assert apics.get(0x80) == 0x70
    apics.put(0x300, SELF | 0x61)
    assert apics.take() is None
    apics.lapic.set_task_priority(0)
    assert apics.take() == 0x61


RESERVED = ((0x808, 0x100), (0x80F, 0x200), (0x80F, 0x1000), (0x828, 1), (0x80B, 1), (0x832, 1 << 12), (0x835, 1 << 14),
            (0x837, 1 << 8), (0x83E, 4), (0x83F, 0x100), (0x830, 1 << 12), (0x838, 1 << 32))  # fmt: skip
READ_ONLY = (0x802, 0x803, 0x80A, 0x80D, 0x810, 0x818, 0x820, 0x839)


@pytest.mark.parametrize(("number", "value"), (*RESERVED, *((number, 0) for number in READ_ONLY)))
def test_x2apic_refuses_reserved_bits_and_writes_of_what_is_read_only(apics, number, value):
    """SDM vol. 3A, 11.12.1.2 and table 11-6."""
    assert apics.lapic.write_msr(0x1B, 0xFEE00D00)
    before = apics.lapic.save()
    assert not apics.lapic.write_msr(number, value)
    assert apics.lapic.save() == before
