"""The UART against the PC16550D data sheet (National Semiconductor, June 1995); section numbers in the tests."""

from __future__ import annotations

import pytest

from emu.devices.uart16550 import Uart16550
from virtual_time import VirtualTime

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
BIT_NS = 1_000_000_000 / 115_200  #: at divisor 1
CHARACTER_NS = 10 * 16 * 1_000_000_000 // 1_843_200  #: 8N1 at divisor 1


class Bench(VirtualTime):
    def __init__(self, *, ier: int = 0, fcr: int = 0, mcr: int = 0x08) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.levels = [False]
        self.uart = Uart16550(self.clock, self._irq, self.sent.append)
        self.out(LCR, 0x03)
        self.out(FCR, fcr)
        self.out(MCR, mcr)
        self.out(IER, ier)

    def _irq(self, level: bool) -> None:
        if level != self.levels[-1]:
            self.levels.append(level)

    @property
    def irq(self) -> bool:
        return self.levels[-1]

    def out(self, offset: int, value: int) -> None:
        self.uart.write(offset, value, 1)

    def inb(self, offset: int) -> int:
        return self.uart.read(offset, 1)

    def arrive(self, data: bytes) -> None:
        self.uart.receive(data)
        self.characters(len(data))

    def characters(self, count: float) -> None:
        self.advance(int(count * self.uart.character_ns()))


def test_master_reset_values():
    # table III
    bench = Bench(ier=0x0F, fcr=0xC1, mcr=0x1F)
    bench.out(SCR, 0x5A)
    bench.uart.reset()
    assert [bench.inb(r) for r in (IER, IIR, LCR, MCR, LSR)] == [0, 0x01, 0, 0, 0x60]
    assert bench.inb(SCR) == 0x5A


def test_dlab_selects_the_divisor_latch():
    # 8.1, bit 7
    bench = Bench()
    bench.out(LCR, 0x83)
    bench.out(DLL, 0x34)
    bench.out(DLM, 0x12)
    assert (bench.inb(DLL), bench.inb(DLM)) == (0x34, 0x12)
    bench.out(LCR, 0x03)
    assert bench.inb(IER) == 0
    assert bench.uart.state.divisor == 0x1234


def test_high_bits_of_ier_and_mcr_read_zero():
    # 8.7, 8.8
    bench = Bench()
    bench.out(IER, 0xF5)
    bench.out(MCR, 0xFF)
    assert (bench.inb(IER), bench.inb(MCR)) == (0x05, 0x1F)


@pytest.mark.parametrize(
    ("lcr", "half_bits"),
    [(0x03, 20), (0x07, 22), (0x00, 14), (0x04, 15), (0x0B, 22), (0x06, 20)],
)
def test_character_time_follows_the_line_format(lcr, half_bits):
    # 8.1: 5 to 8 data bits, parity, 1, 1.5 (5 data bits) or 2 stop bits
    bench = Bench()
    bench.out(LCR, lcr)
    assert bench.uart.character_ns() == int(half_bits * BIT_NS / 2)


def test_divisor_sets_the_rate_and_zero_divides_by_three():
    bench = Bench()
    bench.uart.state.divisor = 12
    assert bench.uart.character_ns() == 12 * 10 * 16 * 1_000_000_000 // 1_843_200
    bench.uart.state.divisor = 0
    zero = bench.uart.character_ns()
    bench.uart.state.divisor = 3
    assert zero == bench.uart.character_ns()


def test_character_leaves_after_its_last_stop_bit():
    bench = Bench()
    bench.out(THR, 0x41)
    bench.advance(CHARACTER_NS - 1)
    assert bench.sent == []
    bench.advance(1)
    assert bench.sent == [0x41]


def test_temt_is_set_only_when_the_shift_register_is_empty_too():
    # 8.4, bits 5 and 6
    bench = Bench()
    bench.out(THR, 1)
    assert bench.inb(LSR) & 0x60 == 0x20
    bench.out(THR, 2)
    assert bench.inb(LSR) & 0x60 == 0
    bench.advance(CHARACTER_NS)
    assert bench.inb(LSR) & 0x60 == 0x20
    bench.advance(CHARACTER_NS)
    assert bench.inb(LSR) & 0x60 == 0x60


def test_short_words_send_only_their_bits():
    bench = Bench()
    bench.out(LCR, 0x00)
    bench.out(THR, 0xFF)
    bench.characters(1)
    assert bench.sent == [0x1F]


def test_back_to_back_characters_lose_no_time():
    bench = Bench(fcr=0x01)
    for value in range(16):
        bench.out(THR, value)
    bench.advance(16 * CHARACTER_NS)
    assert bench.sent == list(range(16))


def test_transmit_fifo_holds_sixteen_besides_the_shift_register():
    bench = Bench(fcr=0x01)
    for value in range(20):
        bench.out(THR, value)
    bench.characters(20)
    assert bench.sent == list(range(17))


def test_enabling_the_thre_interrupt_with_thr_empty_raises_it_at_once():
    # 8.7, bit 1; 8.6
    bench = Bench()
    bench.out(IER, 0x02)
    assert (bench.irq, bench.inb(IIR) & 0x0F) == (True, 0x02)


def test_reading_iir_clears_the_thre_interrupt_it_reports():
    bench = Bench(ier=0x02)
    assert bench.inb(IIR) == 0x02
    assert (bench.irq, bench.inb(IIR)) == (False, 0x01)


def test_reading_iir_keeps_a_thre_interrupt_behind_a_higher_source():
    bench = Bench(ier=0x03)
    bench.arrive(b"x")
    assert bench.inb(IIR) == 0x04
    bench.inb(RBR)
    assert bench.inb(IIR) == 0x02


def test_writing_thr_makes_a_new_edge_for_each_character():
    bench = Bench(ier=0x02)
    bench.levels.clear()
    bench.levels.append(True)
    bench.out(THR, 1)
    assert bench.levels == [True, False, True]


def test_lone_byte_in_the_fifo_delays_the_empty_indication():
    # 8.11 B: one character time minus the last stop bit
    bench = Bench(fcr=0x01)
    bench.out(THR, 0)
    bench.out(THR, 1)
    bench.characters(5)  # the first interrupt after the change of FCR0 is behind us
    bench.out(THR, 2)
    assert not bench.inb(LSR) & 0x20
    bench.advance(int(9 * BIT_NS) - 2)
    assert not bench.inb(LSR) & 0x20
    bench.advance(4)
    assert bench.inb(LSR) & 0x20


def test_first_transmitter_interrupt_after_enabling_the_fifo_is_immediate():
    # 8.11
    bench = Bench(ier=0x02, fcr=0x01)
    bench.inb(IIR)
    bench.out(THR, 1)
    assert bench.irq


def test_two_bytes_together_in_the_fifo_are_not_delayed():
    bench = Bench(fcr=0x01)
    bench.out(THR, 0)
    bench.characters(5)
    for value in (1, 2, 3):
        bench.out(THR, value)
    bench.advance(2 * CHARACTER_NS)
    assert bench.inb(LSR) & 0x60 == 0x20


def test_received_data_sets_dr_until_read():
    bench = Bench(ier=0x01)
    bench.uart.receive(b"A")
    bench.advance(CHARACTER_NS - 1)
    assert not bench.inb(LSR) & 1
    bench.advance(1)
    assert (bench.inb(LSR) & 1, bench.irq, bench.inb(IIR)) == (1, True, 0x04)
    assert bench.inb(RBR) == 0x41
    assert (bench.inb(LSR) & 1, bench.irq) == (0, False)


def test_received_data_is_paced_at_the_baud_rate():
    bench = Bench(fcr=0x01)
    bench.uart.receive(b"abc")
    bench.advance(2 * CHARACTER_NS)
    assert len(bench.uart.state.rx) == 2


def test_overrun_without_fifo_replaces_the_character():
    # 8.4, bit 1
    bench = Bench()
    bench.arrive(b"AB")
    assert bench.inb(LSR) & 0x03 == 0x03
    assert bench.inb(LSR) & 0x02 == 0
    assert bench.inb(RBR) == 0x42


def test_overrun_with_fifo_loses_the_character_in_the_shift_register():
    # 8.4, bit 1: "after the FIFO is full and the next character has been completely received", which never gets into it
    bench = Bench(fcr=0x01)
    bench.arrive(bytes(range(16)))
    assert not bench.inb(LSR) & 0x02
    bench.arrive(b"\x63")
    assert bench.inb(LSR) & 0x02
    assert [bench.inb(RBR) for _ in range(16)] == [*range(16)]
    assert not bench.inb(LSR) & 0x01


def test_the_receiver_buffer_holds_its_character_until_the_next_comes():
    bench = Bench()
    bench.arrive(b"A")
    assert [bench.inb(RBR) for _ in range(2)] == [0x41, 0x41]
    assert not bench.inb(LSR) & 0x01


@pytest.mark.parametrize(("fcr", "trigger"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_trigger_level_raises_and_falling_below_clears(fcr, trigger):
    # 8.5, bits 6-7; 8.11 A
    bench = Bench(ier=0x01, fcr=fcr)
    bench.uart.receive(bytes(trigger))
    bench.advance(trigger * CHARACTER_NS - 10)
    assert not bench.irq
    bench.advance(20)
    assert bench.inb(IIR) == 0xC4
    bench.inb(RBR)
    assert not bench.irq


def test_character_timeout_after_four_character_times():
    # 8.11
    bench = Bench(ier=0x01, fcr=0xC1)
    bench.arrive(b"xy")
    bench.advance(4 * CHARACTER_NS - 1)
    assert not bench.irq
    bench.advance(1)
    assert (bench.irq, bench.inb(IIR)) == (True, 0xCC)


def test_no_character_timeout_without_the_fifos():
    bench = Bench(ier=0x01)
    bench.arrive(b"x")
    bench.characters(5)
    assert bench.inb(IIR) == 0x04


def test_reading_a_character_clears_and_restarts_the_timeout():
    bench = Bench(ier=0x01, fcr=0xC1)
    bench.arrive(b"xy")
    bench.characters(4)
    bench.inb(RBR)
    assert not bench.irq
    bench.characters(4)
    assert bench.inb(IIR) == 0xCC


def test_new_character_restarts_the_timeout():
    bench = Bench(ier=0x01, fcr=0xC1)
    bench.arrive(b"x")
    bench.characters(3)
    bench.arrive(b"y")
    bench.characters(3)
    assert not bench.irq
    bench.characters(1)
    assert bench.irq


def test_line_status_has_the_highest_priority_and_reading_lsr_clears_it():
    # 8.6, table IV
    bench = Bench(ier=0x05)
    bench.uart.receive_damaged(0x41, parity=True)
    bench.characters(1)
    assert bench.inb(IIR) == 0x06
    assert bench.inb(LSR) & 0x04
    assert bench.inb(IIR) == 0x04


def test_errors_show_when_their_character_reaches_the_top():
    # 8.4: bits 2-4 and 7
    bench = Bench(fcr=0x01)
    bench.uart.receive(b"A")
    bench.uart.receive_damaged(0x42, framing=True)
    bench.characters(2)
    assert bench.inb(LSR) & 0x88 == 0x80
    bench.inb(RBR)
    assert bench.inb(LSR) & 0x8E == 0x88
    assert bench.inb(LSR) & 0x8E == 0


def test_break_is_one_zero_character_with_bi():
    bench = Bench(ier=0x04)
    bench.uart.receive_break()
    bench.characters(1)
    assert (bench.irq, bench.inb(LSR) & 0x11, bench.inb(RBR)) == (True, 0x11, 0)


def test_changing_fcr0_clears_both_fifos():
    # 8.5, bit 0
    bench = Bench(fcr=0x01)
    bench.arrive(b"abc")
    bench.out(FCR, 0x00)
    assert not bench.inb(LSR) & 1


def test_fifo_reset_bits_clear_themselves_and_leave_the_shift_register():
    # 8.5, bits 1 and 2
    bench = Bench(fcr=0x01)
    bench.arrive(b"abc")
    for value in (1, 2, 3):
        bench.out(THR, value)
    bench.out(FCR, 0x07)
    assert bench.inb(LSR) & 0x61 == 0x20
    bench.characters(4)
    assert bench.sent == [1]
    assert bench.uart.state.fcr == 0x01


def test_other_fcr_bits_need_bit_0():
    # 8.5, bit 0: must be a 1 when other FCR bits are written or they will not be programmed
    bench = Bench()
    bench.out(FCR, 0xC0)
    assert bench.uart.state.fcr == 0
    assert bench.inb(IIR) & 0xC0 == 0


def test_iir_shows_enabled_fifos():
    assert Bench(fcr=0x01).inb(IIR) == 0xC1


def test_modem_deltas_show_changes_until_read():
    # 8.9
    bench = Bench(ier=0x08)
    assert bench.inb(MSR) == 0xB0
    bench.uart.set_modem(cts=False, dcd=False)
    assert (bench.irq, bench.inb(IIR)) == (True, 0x00)
    assert bench.inb(MSR) == 0x29
    assert (bench.irq, bench.inb(MSR)) == (False, 0x20)


def test_ring_sets_teri_only_at_its_end():
    bench = Bench()
    bench.uart.set_modem(ri=True)
    assert bench.inb(MSR) == 0xF0
    bench.uart.set_modem()
    assert bench.inb(MSR) & 0x44 == 0x04


def test_loopback_returns_what_is_sent():
    # 8.8, bit 4
    bench = Bench(mcr=0x10)
    bench.out(THR, 0x55)
    bench.characters(1)
    assert (bench.sent, bench.inb(RBR)) == ([], 0x55)


def test_loopback_turns_modem_outputs_into_inputs():
    bench = Bench(mcr=0x10)
    bench.inb(MSR)
    bench.out(MCR, 0x1A)
    assert bench.inb(MSR) == 0x90 | 0x09
    bench.out(MCR, 0x15)
    assert bench.inb(MSR) & 0xF0 == 0x60


def test_loopback_makes_the_far_side_wait():
    bench = Bench()
    bench.uart.receive(b"x")
    bench.out(MCR, 0x18)
    bench.characters(3)
    assert not bench.inb(LSR) & 1
    bench.out(MCR, 0x08)
    bench.characters(1)
    assert bench.inb(RBR) == ord("x")


def test_break_holds_the_line():
    # 8.1, bit 6: affects only SOUT
    bench = Bench()
    bench.out(LCR, 0x43)
    bench.out(THR, 0x41)
    bench.characters(1)
    assert (bench.sent, bench.inb(LSR) & 0x60) == ([], 0x60)


def test_break_in_loopback_is_received():
    bench = Bench(mcr=0x10)
    bench.out(LCR, 0x43)
    assert bench.inb(LSR) & 0x11 == 0x11


@pytest.mark.parametrize("mcr", [0x00, 0x18])
def test_out2_gates_the_interrupt(mcr):
    # IBM PC/AT Serial/Parallel Adapter; in loopback the OUT2 pin is inactive (8.8)
    bench = Bench(ier=0x02, mcr=mcr)
    assert (bench.irq, bench.inb(IIR)) == (False, 0x02)


def test_scratch_register_holds_data():
    bench = Bench()
    bench.out(SCR, 0xA5)
    assert bench.inb(SCR) == 0xA5


def test_lsr_and_msr_ignore_writes():
    bench = Bench()
    bench.out(LSR, 0)
    bench.out(MSR, 0)
    assert (bench.inb(LSR), bench.inb(MSR)) == (0x60, 0xB0)


def test_peek_has_no_side_effects():
    bench = Bench(ier=0x07, fcr=0x01)
    bench.uart.receive_damaged(0x41, parity=True)
    bench.characters(1)
    before = bench.uart.save()
    for offset in range(8):
        bench.uart.peek(offset, 1)
    assert bench.uart.save() == before
    assert (bench.uart.peek(RBR, 1), bench.uart.peek(IIR, 1)) == (0x41, 0xC6)


def test_saved_state_continues_in_mid_character():
    bench = Bench(ier=0x01, fcr=0x01)
    bench.out(THR, 0x41)
    bench.out(THR, 0x42)
    bench.uart.receive(b"xyz")
    bench.advance(CHARACTER_NS * 3 // 2)
    saved, clock = bench.uart.save(), bench.clock.save()
    other = Bench()
    other.uart.restore(saved)
    other.clock.restore(clock)
    assert other.irq
    for each in (bench, other):
        each.sent.clear()
        each.characters(5)
    assert (other.sent, other.uart.save()) == (bench.sent, bench.uart.save())
    assert bytes(entry for entry in other.uart.state.rx) == b"xyz"


def test_view_says_what_the_registers_mean():
    fields = {field.name: field for field in Bench(ier=0x02).uart.view().fields}
    assert fields["LCR"].text == "8 data, no parity, 1 stop"
    assert fields["IIR"].text == "transmitter holding register empty"
    assert fields["divisor"].text == "115200 baud"


@pytest.mark.parametrize("fcr", [0, 0x01, 0xC9])
@pytest.mark.parametrize("lcr", [0x00, 0x03, 0x1B])
@pytest.mark.parametrize("data", [b"", b"\xff", b"a message\xe9 on the line"])
def test_many_characters_at_once_are_as_one_by_one(fcr: int, lcr: int, data: bytes):
    one, many = Bench(fcr=fcr), Bench(fcr=fcr)
    pieces: list[bytes] = []
    many.uart.transmit_all = lambda piece: (pieces.append(piece), many.sent.extend(piece))[0]
    for bench in (one, many):
        bench.uart.immediate = True
        bench.out(LCR, lcr)
        assert bench.uart.passes_on is False  # its interrupt has not been pending yet
        bench.out(THR, 0x41)
        assert bench.uart.passes_on
    for value in data:
        one.out(THR, value)
    many.uart.written(data)
    assert many.sent == one.sent
    assert many.uart.save() == one.uart.save()
    assert many.levels == one.levels
    assert len(pieces) == (len(data) > 1)
