"""The Intel 8042 as the PC/AT and PS/2 keyboard controller: ports 60h and 64h, A20 gate, CPU reset, translation.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" (October 1990):
status register, command byte, commands 20h-E0h, output port, timings; IBM PC/AT Technical Reference, "Keyboard
Controller": AC, C0, D0, D1, E0, F0-FF; Intel UPI-41/42 data sheet: DBBIN, DBBOUT, IBF, OBF, F1. DDh and DFh are of the
controllers of AT clones, whose manuals call them "disable/enable address line A20".
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.copied import copied
from emu.devices.i8042_registers import AUX_INT, AUX_OFF, INPUT_PORT, KBD_INT, KBD_OFF, SYS_FLAG, TRANSLATE, State, view
from emu.devices.keyboard_tables import KEYS, TRANSLATION
from emu.typed import Protocol
from emu.views import DeviceView

#: From a write until the controller's program has read its input buffer and acted: tens of instructions of 2.5 us.
CONTROLLER_NS = 20_000
#: One byte on the cable, 11 bits at 16.7 kHz (the manual allows 10 to 16.7 kHz), either way.
FRAME_NS = 660_000
#: A device that does not begin to clock a byte within 15 ms is not there ("transmit timeout").
TIMEOUT_NS = 15_000_000
#: F0h-FFh hold output port lines low for about 6 us.
PULSE_NS = 6_000
VERSION = ord("1")  #: A1h, firmware revision, an ASCII character
_DIGIT_CODES = [KEYS[c].set1 for c in "0123456789abcdef"]
_SPACE_CODE = KEYS["space"].set1


class Ps2Device(Protocol):
    """A keyboard or an auxiliary device at a PS/2 connector."""

    on_data: Callable[[], None]

    @property
    def ready(self) -> bool: ...
    @property
    def busy(self) -> bool: ...
    def take(self) -> int: ...
    def receive(self, byte: int) -> None: ...


class Face:
    """One port of the controller, as a bus device."""

    __slots__ = ("_device", "_offset")

    def __init__(self, device: I8042, offset: int) -> None:
        self._device, self._offset = device, offset

    def read(self, offset: int, size: int) -> int:
        return self._device.read(self._offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        self._device.write(self._offset, value, size)

    def peek(self, offset: int, size: int) -> int:
        return self._device.peek(self._offset, size)


class I8042:
    """Offset 0 is port 60h, offset 4 is port 64h; `data` and `command` are one-port faces of them.

    `irq1` and `irq12` are driven with the level of the output-buffer-full lines, `a20` with output port bit 1, `reset`
    is called when bit 0 goes low. `keyboard` and `aux` may be None: then nothing answers at that connector.
    """

    def __init__(
        self,
        clock: Clock,
        irq1: Callable[[bool], None],
        irq12: Callable[[bool], None],
        a20: Callable[[bool], None],
        reset: Callable[[], None],
        keyboard: Ps2Device | None,
        aux: Ps2Device | None = None,
    ) -> None:
        self._clock = clock
        self._irq1, self._irq12, self._a20, self._reset = irq1, irq12, a20, reset
        self._keyboard, self._aux = keyboard, aux
        self._input_timer = clock.timer("8042.input", self._input_due)
        self._send_timer = clock.timer("8042.send", self._send_due)
        self._receive_timer = clock.timer("8042.receive", self._receive_due)
        self._pulse_timer = clock.timer("8042.pulse", self._pulse_end)
        self.data, self.command = Face(self, 0), Face(self, 4)
        self.state = State()
        for device in (keyboard, aux):
            if device is not None:
                device.on_data = self._poll_devices
        self.reset()

    def reset(self) -> None:
        """Power-on: SYS clear, both interfaces inhibited until software enables them, A20 gate open."""
        for timer in (self._input_timer, self._send_timer, self._receive_timer, self._pulse_timer):
            timer.cancel()
        self.state = State()
        self.state.ram[0] = KBD_OFF | AUX_OFF
        self._drive_irqs()
        self._a20(True)

    def save(self) -> State:
        return copied(self.state)

    def restore(self, state: State) -> None:
        """Drives the interrupt lines to their saved levels. Timers come back with the clock, A20 with its gate."""
        self.state = copied(state)
        self._drive_irqs()

    # -- the ports

    def read(self, offset: int, size: int) -> int:
        if offset == 4:
            return self.state.status()
        s = self.state
        value = s.output
        if s.output_full:
            s.output_full = False
            self._drive_irqs()
            self._next_output()
        return value

    def peek(self, offset: int, size: int) -> int:
        return self.state.status() if offset == 4 else self.state.output

    def write(self, offset: int, value: int, size: int) -> None:
        """Software must see IBF clear first: a byte that the controller has not read yet is overwritten."""
        s = self.state
        s.input, s.input_full, s.a2 = value & 0xFF, True, offset == 4
        s.poll = None
        if s.sending is None:
            self._input_timer.arm(self._clock.now + CONTROLLER_NS)

    @property
    def resets_ahead(self) -> bool:
        """What was written, and it has not looked at yet, resets the CPU: a pulse of output port bit 0, or a byte for
        the output port without that bit."""
        s = self.state
        resets = s.input >= 0xF0 if s.a2 else s.argument == 0xD1
        return s.input_full and resets and not s.input & 1

    # -- the output buffer

    def _put(self, value: int, aux: bool = False) -> None:
        """Into the output buffer; what software has not read is overwritten."""
        s = self.state
        if s.output_full:
            s.output_full = False
            self._drive_irqs()  # each byte makes its own edge
        s.output, s.output_full, s.output_aux = value, True, aux
        self._drive_irqs()

    def _drive_irqs(self) -> None:
        s = self.state
        self._irq1(s.output_full and not s.output_aux and bool(s.ram[0] & KBD_INT))
        self._irq12(s.output_full and s.output_aux and bool(s.ram[0] & AUX_INT))

    def _answer(self, *values: int) -> None:
        s = self.state
        s.timeout = False
        s.pending = list(values[1:])
        self._put(values[0])

    def _next_output(self) -> None:
        s = self.state
        if s.pending:
            self._put(s.pending.pop(0))
        else:
            self._poll_devices()

    # -- bytes from the devices

    def _poll_devices(self) -> None:
        """Let a device that has a byte and may clock it in begin."""
        s = self.state
        if s.arriving is not None or s.output_full or s.pending or s.sending is not None:
            return
        if self._keyboard is not None and self._keyboard.ready and not s.ram[0] & KBD_OFF:
            s.arriving = "keyboard"
        elif self._aux is not None and self._aux.ready and not s.ram[0] & AUX_OFF:
            s.arriving = "aux"
        else:
            return
        self._receive_timer.arm(self._clock.now + FRAME_NS)

    def _receive_due(self, _deadline: int) -> None:
        s = self.state
        source, s.arriving = s.arriving, None
        device, off = (self._aux, AUX_OFF) if source == "aux" else (self._keyboard, KBD_OFF)
        if device is None or not device.ready or s.ram[0] & off or s.output_full or s.sending is not None:
            # inhibited in mid-frame: the device keeps the byte and sends it again later
            self._poll_devices()
            return
        byte = device.take()
        s.timeout = False
        if source == "aux":
            self._put(byte, aux=True)
        else:
            self._from_keyboard(byte)
        self._poll_devices()

    def _from_keyboard(self, byte: int) -> None:
        s = self.state
        if s.ram[0] & TRANSLATE:
            if byte == 0xF0:
                s.release = True
                return
            byte = TRANSLATION[byte] | (0x80 if s.release else 0)
            s.release = False
        if s.locked:
            self._match_password(byte)
        else:
            self._put(byte)

    def _match_password(self, byte: int) -> None:
        """With the password enabled nothing from the keyboard reaches the system until the password is typed."""
        s = self.state
        if byte & 0x80 or (byte and byte in (s.ram[0x16], s.ram[0x17])):
            return  # break codes, and the make codes that RAM 16h and 17h exempt
        s.matched = s.matched + 1 if byte == s.password[s.matched] else int(byte == s.password[0])
        if s.matched == len(s.password):
            s.locked, s.matched = False, 0
            if s.ram[0x14]:
                self._put(s.ram[0x14])

    # -- bytes to the devices

    def _send(self, byte: int, aux: bool) -> None:
        s = self.state
        s.sending = (byte, aux)
        s.ram[0] &= ~(AUX_OFF if aux else KBD_OFF)  # sending to a device enables its interface
        present = (self._aux if aux else self._keyboard) is not None
        self._send_timer.arm(self._clock.now + (FRAME_NS if present else TIMEOUT_NS))

    def _send_due(self, deadline: int) -> None:
        s = self.state
        assert s.sending is not None
        byte, aux = s.sending
        device = self._aux if aux else self._keyboard
        if device is not None and device.busy:
            self._send_timer.arm(deadline + FRAME_NS)
            return
        s.sending = None
        if device is None:
            s.timeout = True
            self._put(0xFE, aux=aux)
        else:
            device.receive(byte)
        if s.input_full:
            self._input_timer.arm(deadline + CONTROLLER_NS)
        self._poll_devices()

    # -- bytes from the system

    def _input_due(self, _deadline: int) -> None:
        s = self.state
        s.input_full = False
        if s.a2:
            s.argument = s.loading = None
            self._execute(s.input)
        else:
            self._data(s.input)
        if not s.output_full:
            self._next_output()

    def _data(self, byte: int) -> None:
        s = self.state
        if s.loading is not None:
            if byte:
                s.loading.append(byte)
            else:
                s.password, s.loading = s.loading, None
            return
        command, s.argument = s.argument, None
        if command is None:
            self._send(byte, aux=False)
        elif 0x60 <= command <= 0x7F:
            s.ram[command & 0x1F] = byte
            self._drive_irqs()
        elif command == 0xD1:
            self._write_output_port(byte)
        elif command == 0xD2:
            self._put(byte)
        elif command == 0xD3:
            self._put(byte, aux=True)
        else:
            self._send(byte, aux=True)

    def _execute(self, command: int) -> None:
        s = self.state
        if 0x20 <= command <= 0x3F:
            self._answer(s.ram[command & 0x1F])
        elif 0x60 <= command <= 0x7F or 0xD1 <= command <= 0xD4:
            s.argument = command
        elif command >= 0xF0:
            self._pulse(~command & 0x0F)
        elif (plain := _PLAIN.get(command)) is not None:
            plain(self)

    # -- output port

    def _write_output_port(self, value: int) -> None:
        """Bits 0 and 1; the other lines belong to the controller's program."""
        self._set_a20(bool(value & 2))
        if not value & 1:
            self._reset()

    def _set_a20(self, on: bool) -> None:
        self.state.a20 = on
        self._a20(on)

    def _pulse(self, bits: int) -> None:
        if bits & 2:
            self.state.pulse = bits
            self._a20(False)
            self._pulse_timer.arm(self._clock.now + PULSE_NS)
        if bits & 1:
            self._reset()

    def _pulse_end(self, _deadline: int) -> None:
        self.state.pulse = 0
        self._a20(self.state.a20)

    # -- commands without a data byte

    def _load_password(self) -> None:
        self.state.loading = []

    def _enable_password(self) -> None:
        s = self.state
        if s.password:
            s.locked, s.matched = True, 0
            if s.ram[0x13]:
                self._put(s.ram[0x13])

    def _self_test(self) -> None:
        self.state.ram[0] |= SYS_FLAG
        self._answer(0x55)

    def _dump(self) -> None:
        """AC: 16 bytes of RAM, the ports and the program status, each as the scan codes of two digits and a space."""
        s = self.state
        status_word = 0x08 | (0x20 if s.release else 0)  # bit 3 reads 1; F0, bit 5, remembers the break prefix
        codes: list[int] = []
        for byte in (*s.ram[:16], INPUT_PORT, s.output_port(), status_word):
            codes += (_DIGIT_CODES[byte >> 4], _DIGIT_CODES[byte & 15], _SPACE_CODE)
        self._answer(*codes)

    def _interface(self, bit: int, off: bool) -> None:
        s = self.state
        s.ram[0] = s.ram[0] | bit if off else s.ram[0] & ~bit

    def _poll_input(self, command: int) -> None:
        self.state.poll = command

    def _test_inputs(self) -> int:
        """T0 is the keyboard's clock, T1 the auxiliary device's; an inhibited interface holds its clock low."""
        command_byte = self.state.ram[0]
        return (0 if command_byte & KBD_OFF else 1) | (0 if command_byte & AUX_OFF else 2)

    def view(self) -> DeviceView:
        return view(self.state)


#: Commands without a data byte. Others (00h-1Fh, 40h-5Fh, 80h-A0h and so on) are no operations, as on the chip.
_PLAIN: dict[int, Callable[[I8042], None]] = {
    0xA1: lambda c: c._answer(VERSION),
    0xA4: lambda c: c._answer(0xFA if c.state.password else 0xF1),
    0xA5: I8042._load_password,
    0xA6: I8042._enable_password,
    0xA7: lambda c: c._interface(AUX_OFF, True),
    0xA8: lambda c: c._interface(AUX_OFF, False),
    0xA9: lambda c: c._answer(0),
    0xAA: I8042._self_test,
    0xAB: lambda c: c._answer(0),
    0xAC: I8042._dump,
    0xAD: lambda c: c._interface(KBD_OFF, True),
    0xAE: lambda c: c._interface(KBD_OFF, False),
    0xC0: lambda c: c._answer(INPUT_PORT),
    0xC1: lambda c: c._poll_input(0xC1),
    0xC2: lambda c: c._poll_input(0xC2),
    0xD0: lambda c: c._answer(c.state.output_port()),
    0xDD: lambda c: c._set_a20(False),
    0xDF: lambda c: c._set_a20(True),
    0xE0: lambda c: c._answer(c._test_inputs()),
}
