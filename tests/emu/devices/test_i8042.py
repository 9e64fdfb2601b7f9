"""The 8042 against IBM's "Keyboard and Auxiliary Device Controller" (PS/2 Hardware Interface Technical Reference, 1990)
and the PC/AT Technical Reference; section names in the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.devices.i8042 import CONTROLLER_NS, FRAME_NS, I8042, PULSE_NS, TIMEOUT_NS
from emu.devices.keyboard import BAT_NS, Keyboard
from virtual_time import VirtualTime

OBF, IBF, SYS, A2, UNLOCKED, AUXB, TIMEOUT = 1, 2, 4, 8, 16, 32, 64


class Mouse:
    """An auxiliary device that gives back what it is sent."""

    def __init__(self) -> None:
        self.on_data: Callable[[], None] = lambda: None
        self.bytes: list[int] = []
        self.busy = False

    @property
    def ready(self) -> bool:
        return bool(self.bytes)

    def take(self) -> int:
        return self.bytes.pop(0)

    def receive(self, byte: int) -> None:
        self.bytes.append(byte ^ 0xFF)
        self.on_data()


class Bench(VirtualTime):
    def __init__(self, *, keyboard: bool = True, aux: Mouse | None = None) -> None:
        super().__init__()
        self.irq1: list[bool] = []
        self.irq12: list[bool] = []
        self.a20: list[bool] = []
        self.resets = 0
        self.keyboard = Keyboard(self.clock)
        self.kbc = I8042(
            self.clock, self._edge(self.irq1), self._edge(self.irq12), self._edge(self.a20), self._reset,
            self.keyboard if keyboard else None, aux,
        )  # fmt: skip
        self.advance(BAT_NS)

    def _edge(self, log: list[bool]) -> Callable[[bool], None]:
        def put(level: bool) -> None:
            if not log or log[-1] != level:
                log.append(level)

        return put

    def _reset(self) -> None:
        self.resets += 1

    @property
    def status(self) -> int:
        return self.kbc.command.read(0, 1)

    def command(self, value: int, *data: int) -> None:
        self.kbc.command.write(0, value, 1)
        self.advance(CONTROLLER_NS)
        for byte in data:
            self.data(byte)

    def data(self, value: int) -> None:
        self.kbc.data.write(0, value, 1)
        self.advance(CONTROLLER_NS)

    def get(self) -> int:
        assert self.status & OBF
        return self.kbc.data.read(0, 1)

    def ask(self, command: int) -> int:
        self.command(command)
        return self.get()

    def arrive(self) -> int:
        """The next byte a device sends."""
        while not self.status & OBF:
            assert self.step(), "nothing will arrive"
        return self.get()

    def enabled(self, command_byte: int = 0x01) -> Bench:
        """With the keyboard on, and its self-test's AAh taken."""
        self.command(0x60, command_byte & ~0x40)
        assert self.arrive() == 0xAA
        self.command(0x60, command_byte)
        self.irq1.clear()
        return self


def test_power_on_status_has_sys_clear_and_both_interfaces_inhibited():
    bench = Bench()
    assert bench.status == UNLOCKED
    assert bench.ask(0x20) == 0x30


def test_input_buffer_stays_full_until_the_controller_has_read_it():
    # "Controller status register": bit 1 is 1 while data is in the buffer and the controller has not read it
    bench = Bench()
    bench.kbc.command.write(0, 0xAA, 1)
    assert bench.status == UNLOCKED | IBF | A2
    bench.advance(CONTROLLER_NS - 1)
    assert bench.status & IBF
    bench.advance(1)
    assert bench.status & (IBF | OBF) == OBF


def test_a2_tells_whether_the_last_write_was_to_64h():
    bench = Bench()
    bench.command(0x60)
    assert bench.status & A2
    bench.data(0x30)
    assert not bench.status & A2


def test_byte_written_over_a_full_input_buffer_is_what_the_controller_reads():
    bench = Bench()
    bench.kbc.command.write(0, 0xAA, 1)
    bench.kbc.command.write(0, 0xAB, 1)
    bench.advance(CONTROLLER_NS)
    assert bench.get() == 0x00


def test_self_test_answers_55h_and_sets_the_system_flag():
    bench = Bench()
    assert bench.ask(0xAA) == 0x55
    assert bench.status & SYS


def test_system_flag_follows_the_command_byte():
    bench = Bench()
    bench.command(0x60, 0x34)
    assert bench.status & SYS
    bench.command(0x60, 0x30)
    assert not bench.status & SYS


@pytest.mark.parametrize("address", [1, 0x10, 0x1F])
def test_internal_ram_is_read_and_written(address):
    bench = Bench()
    bench.command(0x60 + address, 0x5A)
    assert bench.ask(0x20 + address) == 0x5A


@pytest.mark.parametrize("test", [0xA9, 0xAB])
def test_interface_tests_find_no_error(test):
    assert Bench().ask(test) == 0


@pytest.mark.parametrize(("off", "on", "bit"), [(0xAD, 0xAE, 0x10), (0xA7, 0xA8, 0x20)])
def test_interface_commands_set_and_clear_command_byte_bits(off, on, bit):
    bench = Bench()
    bench.command(off)
    assert bench.ask(0x20) & bit
    bench.command(on)
    assert not bench.ask(0x20) & bit


def test_disabled_keyboard_keeps_its_bytes():
    bench = Bench().enabled()
    bench.command(0xAD)
    bench.keyboard.press("a")
    bench.advance(10 * FRAME_NS)
    assert not bench.status & OBF
    bench.command(0xAE)
    assert bench.arrive() == 0x1C


def test_byte_disabled_in_mid_frame_is_sent_again():
    bench = Bench().enabled()
    bench.keyboard.press("a")
    bench.advance(FRAME_NS // 2)
    bench.command(0xAD)
    bench.advance(10 * FRAME_NS)
    bench.command(0xAE)
    assert bench.arrive() == 0x1C


def test_keyboard_byte_takes_a_frame_time_and_raises_irq1_until_read():
    bench = Bench().enabled()
    bench.keyboard.press("a")
    bench.advance(FRAME_NS - 1)
    assert not bench.status & OBF
    bench.advance(1)
    assert (bench.status & OBF, bench.irq1) == (OBF, [True])
    bench.get()
    assert bench.irq1 == [True, False]


def test_second_byte_waits_behind_a_full_output_buffer():
    bench = Bench().enabled()
    bench.keyboard.press("left")
    bench.advance(20 * FRAME_NS)
    assert (bench.get(), bench.irq1) == (0xE0, [True, False])
    assert bench.arrive() == 0x6B


def test_irq1_needs_the_enable_bit():
    bench = Bench().enabled(0x00)
    bench.keyboard.press("a")
    bench.advance(FRAME_NS)
    assert bench.status & OBF
    assert bench.irq1 in ([], [False])


def test_data_read_twice_gives_the_same_byte():
    # UPI-41: DBBOUT keeps its contents; reading only clears OBF
    bench = Bench()
    assert bench.ask(0xAA) == 0x55
    assert not bench.status & OBF
    assert bench.kbc.data.read(0, 1) == 0x55


def test_peek_leaves_the_buffer_full():
    bench = Bench()
    bench.command(0xAA)
    assert (bench.kbc.data.peek(0, 1), bench.status & OBF) == (0x55, OBF)


def test_translation_makes_set_1_of_set_2():
    # "Controller command byte": bit 6, IBM keyboard translate mode
    bench = Bench().enabled(0x41)
    bench.keyboard.press("a")
    assert bench.arrive() == 0x1E
    bench.keyboard.release("a")
    assert bench.arrive() == 0x9E


def test_translation_swallows_the_break_prefix_behind_e0():
    bench = Bench().enabled(0x41)
    bench.keyboard.press("left")
    bench.keyboard.release("left")
    assert [bench.arrive() for _ in range(4)] == [0xE0, 0x4B, 0xE0, 0xCB]


def test_translation_changes_the_keyboards_id_too():
    # AB 83 becomes AB 41, as software that asks with translation on knows
    bench = Bench().enabled(0x41)
    bench.data(0xF2)
    assert [bench.arrive() for _ in range(3)] == [0xFA, 0xAB, 0x41]


def test_byte_to_the_keyboard_enables_its_interface():
    bench = Bench().enabled()
    bench.command(0xAD)
    bench.data(0xEE)
    assert bench.arrive() == 0xEE
    assert not bench.ask(0x20) & 0x10


def test_next_input_waits_while_a_byte_is_sent():
    bench = Bench().enabled()
    bench.data(0xEE)
    bench.kbc.data.write(0, 0xF2, 1)
    bench.advance(CONTROLLER_NS)
    assert bench.status & IBF
    assert [bench.arrive() for _ in range(2)] == [0xEE, 0xFA]


def test_output_port_reports_and_drives_a20():
    # D0/D1, "Output port": bit 1 gates A20, bit 0 resets when low
    bench = Bench()
    assert bench.ask(0xD0) & 3 == 3
    bench.command(0xD1, 0xDD)
    assert bench.a20[-1] is False
    assert bench.ask(0xD0) & 3 == 1
    bench.command(0xD1, 0xDF)
    assert (bench.a20[-1], bench.resets) == (True, 0)


def test_output_port_shows_the_interrupt_lines():
    bench = Bench(aux=Mouse())
    bench.command(0xD2, 0x12)
    assert bench.kbc.state.output_port() & 0x30 == 0x10
    bench.get()
    bench.command(0xD3, 0x12)
    assert bench.kbc.state.output_port() & 0x30 == 0x20


def test_dd_and_df_switch_a20():
    bench = Bench()
    bench.command(0xDD)
    assert bench.a20[-1] is False
    bench.command(0xDF)
    assert bench.a20[-1] is True


@pytest.mark.parametrize("how", ["fe", "d1"])
def test_reset_line_low_resets_the_processor(how):
    bench = Bench()
    if how == "fe":
        bench.command(0xFE)
    else:
        bench.command(0xD1, 0xFE & ~1)
    assert bench.resets == 1


def test_pulse_with_all_bits_set_does_nothing():
    bench = Bench()
    bench.command(0xFF)
    assert (bench.resets, bench.a20[-1]) == (0, True)


def test_pulse_of_bit_1_closes_a20_for_six_microseconds():
    bench = Bench()
    bench.command(0xFD)
    assert (bench.a20[-1], bench.resets) == (False, 0)
    bench.advance(PULSE_NS)
    assert bench.a20[-1] is True


def test_d2_writes_as_if_the_keyboard_had_sent_it():
    bench = Bench().enabled()
    bench.command(0xD2, 0x77)
    assert (bench.status & (OBF | AUXB), bench.irq1) == (OBF, [True])
    assert bench.get() == 0x77


def test_d3_writes_as_if_the_auxiliary_device_had_sent_it():
    bench = Bench()
    bench.command(0x60, 0x32)
    bench.command(0xD3, 0x77)
    assert (bench.status & (OBF | AUXB), bench.irq12[-1]) == (OBF | AUXB, True)
    assert (bench.get(), bench.irq12[-1]) == (0x77, False)


def test_d4_reaches_the_auxiliary_device_and_its_answer_is_marked():
    mouse = Mouse()
    bench = Bench(aux=mouse)
    bench.command(0x60, 0x32)
    bench.command(0xD4, 0xF4)
    while not bench.status & OBF:
        assert bench.step()
    assert (bench.status & AUXB, bench.irq12[-1], bench.get()) == (AUXB, True, 0x0B)


def test_no_auxiliary_device_is_a_timeout_with_feh():
    # "Controller status register": bit 6, general timeout; the controller answers FEh
    bench = Bench()
    bench.command(0xD4, 0xF4)
    bench.advance(TIMEOUT_NS - 1)
    assert not bench.status & OBF
    bench.advance(1)
    assert bench.status & (TIMEOUT | AUXB | OBF) == TIMEOUT | AUXB | OBF
    assert bench.get() == 0xFE


def test_timeout_ends_with_the_next_answer():
    bench = Bench(keyboard=False)
    bench.data(0xF4)
    bench.advance(TIMEOUT_NS)
    assert (bench.get(), bench.status & TIMEOUT) == (0xFE, TIMEOUT)
    bench.ask(0xAA)
    assert not bench.status & TIMEOUT


def test_input_port_has_the_lock_open_and_can_be_polled():
    # C0; C1 and C2 show its halves in status bits 7-4 until the next write
    bench = Bench()
    port = bench.ask(0xC0)
    assert port & 0x80
    bench.command(0xC1)
    assert bench.status >> 4 == port & 15
    bench.command(0xC2)
    assert bench.status >> 4 == port >> 4
    bench.command(0xAD)
    assert bench.status >> 4 == 1


def test_test_inputs_are_the_clock_lines():
    bench = Bench()
    assert bench.ask(0xE0) == 0
    bench.command(0xAE)
    assert bench.ask(0xE0) == 1


def test_diagnostic_dump_is_57_scan_codes_of_digits():
    # PC/AT, AC: 16 bytes of RAM, input port, output port, program status word
    bench = Bench()
    bench.command(0x61, 0xA7)
    codes = [bench.ask(0xAC)]
    while bench.status & OBF:
        codes.append(bench.get())
    assert len(codes) == 19 * 3
    assert codes[3:6] == [0x1E, 0x08, 0x39]  # a, 7, space


def test_password_holds_keys_back_until_it_is_typed():
    # "Keyboard password": A4, A5, A6; RAM 13h and 14h tell the system, 16h names a make code to ignore
    bench = Bench().enabled(0x41)
    assert bench.ask(0xA4) == 0xF1
    bench.command(0xA5, 0x1E, 0x30, 0x00)
    assert bench.ask(0xA4) == 0xFA
    bench.command(0x73, 0x01)
    bench.command(0x74, 0x02)
    bench.command(0x76, 0x2A)
    bench.command(0xA6)
    assert bench.get() == 0x01
    for key in ("x", "a", "shift"):
        bench.keyboard.press(key)
        bench.keyboard.release(key)
    bench.advance(20 * FRAME_NS)
    assert not bench.status & OBF
    bench.keyboard.press("b")
    assert bench.arrive() == 0x02
    bench.keyboard.press("c")
    assert bench.arrive() == 0x2E


def test_password_command_without_one_does_nothing():
    bench = Bench().enabled()
    bench.command(0xA6)
    bench.keyboard.press("a")
    assert bench.arrive() == 0x1C


def test_undefined_commands_answer_nothing():
    bench = Bench()
    for command in (0x00, 0x5F, 0x99, 0xBB):
        bench.command(command)
        assert bench.status & (OBF | IBF) == 0


def test_saved_state_continues_in_mid_transfer():
    bench = Bench().enabled(0x41)
    bench.keyboard.press("a")
    bench.advance(FRAME_NS // 3)
    saved = bench.kbc.save(), bench.keyboard.save(), bench.clock.save()
    assert bench.arrive() == 0x1E
    other = Bench()
    other.kbc.restore(saved[0])
    other.keyboard.restore(saved[1])
    other.clock.restore(saved[2])
    assert (other.kbc.save(), other.keyboard.save()) == saved[:2]
    assert other.arrive() == 0x1E


def test_restore_raises_the_line_of_an_unread_byte():
    bench = Bench().enabled()
    bench.command(0xD2, 0x11)
    other = Bench()
    other.irq1.clear()
    other.kbc.restore(bench.kbc.save())
    assert other.irq1 == [True]


def test_view_says_what_the_registers_mean():
    bench = Bench()
    bench.command(0xAA)
    fields = {field.name: field for field in bench.kbc.view().fields}
    assert fields["status"].text == "OBF SYS A2 unlocked"
    assert fields["command byte"].text == "SYS KBD disabled AUX disabled"
