"""IBM VGA with the Bochs VBE extensions: every register, with retrace timing from virtual time.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): general registers, sequencer, CRT
controller, graphics controller, attribute controller, video DAC; FreeVGA. Display memory is `emu.devices.vga_memory`,
what the screen shows `emu.screen` and `emu.picture`. It knows no bus: where its ports, its window and its frame buffer
stand is the machine's choice.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices import bochs_vbe
from emu.devices.copied import copied
from emu.devices.vga_memory import DisplayMemory
from emu.devices.vga_registers import (
    ATTRIBUTE_MASKS,
    CR3_EVRA,
    CR11_CLEAR_INT,
    CR11_PROTECT,
    CRTC_MASKS,
    GRAPHICS_MASKS,
    MISC_COLOUR,
    SEQUENCER_MASKS,
    State,
)
from emu.devices.vga_timing import Timing, timing
from emu.views import DeviceView

#: the first port of the range the adapter is mapped at; offsets count from it
FIRST_PORT = 0x3B4
FLOATING = 0xFF


class Vga:
    """Mapped from port 3B4h to 3DFh as one range; ports in it that the adapter does not decode read FFh.

    `memory` is told what the registers make of an access to it. The vertical retrace interrupt shows in input status 0
    only: its line is not connected, as on most adapters.
    """

    def __init__(self, clock: Clock, memory: DisplayMemory) -> None:
        self._clock, self.memory = clock, memory
        self._state = State()
        self.vbe = VbePorts(self)
        self._program()

    @property
    def state(self) -> State:
        """The registers, as they are now."""
        if self.memory.shared.dac_written:
            self._take_dac()
        return self._state

    def reset(self) -> None:
        """Power-on: registers zero, the screen off. IBM leaves most registers undefined here. Video memory keeps its
        contents."""
        self.restore(State())

    def save(self) -> State:
        self.state.latch = self.memory.shared.latch
        return _copy(self.state)

    def restore(self, state: State) -> None:
        self._state = _copy(state)
        shared = self.memory.shared
        shared.latch, shared.dac_written = state.latch, 0
        shared.dac[:] = [*state.dac]
        self._program()

    def _program(self) -> None:
        """Tell display memory the registers it works by."""
        s = self.state
        vbe = (s.vbe.registers[bochs_vbe.BANK], s.vbe.packed) if s.vbe.enabled else None
        self.memory.program(s.sequencer, s.graphics, s.misc if s.enabled else 0, vbe)
        self._give_dac()

    # -- decoding

    def _decode(self, offset: int) -> int:
        """The port, with 3Bxh folded onto 3Dxh where the misc output register puts the adapter; 0 if not decoded."""
        port = FIRST_PORT + offset
        s = self.state
        if not s.enabled:
            return port if port == 0x3C3 else 0
        if 0x3C0 <= port <= 0x3CF:
            return port
        colour = bool(s.misc & MISC_COLOUR)
        if port in (0x3B4, 0x3B5, 0x3BA) and not colour:
            return port + 0x20
        return port if port in (0x3D4, 0x3D5, 0x3DA) and colour else 0

    def read(self, offset: int, size: int) -> int:
        port = self._decode(offset)
        value = self._value(port)
        s = self.state
        if port == 0x3DA:
            s.attribute_data = False
        elif port == 0x3C9:
            s.dac_component += 1
            if s.dac_component == 3:
                s.dac_component = 0
                s.dac_read_index = s.dac_read_index + 1 & 0xFF
            self._give_dac()
        return value

    def peek(self, offset: int, size: int) -> int:
        return self._value(self._decode(offset))

    def _value(self, port: int) -> int:
        read = _READS.get(port)
        return FLOATING if read is None else read(self)

    def write(self, offset: int, value: int, size: int) -> None:
        write = _WRITES.get(self._decode(offset))
        if write is not None:
            write(self, value & 0xFF)

    # -- general registers

    def _input_status_0(self) -> int:
        """Bit 4: the monitor's sense line, 1 with a colour monitor; bit 7: a vertical retrace interrupt is pending."""
        s = self.state
        retraces = self.timing().retraces
        pending = bool(s.crtc[0x11] & CR11_CLEAR_INT) and retraces(self._clock.now) > retraces(s.interrupt_cleared)
        return 0x10 | (0x80 if pending else 0)

    def _input_status_1(self) -> int:
        return self.timing().status(self._clock.now)

    def steady(self) -> int:
        """For how many ns from now on input status 1 gives what it gives, and reading it again does nothing."""
        return self.timing().steady(self._clock.now)

    def timing(self) -> Timing:
        """Of the mode that is programmed; 70 Hz text while none is."""
        s = self.state
        return timing(s.crtc, s.sequencer[1], s.misc)

    def _write_misc(self, value: int) -> None:
        self.state.misc = value & 0xEF
        self._program()

    def _write_feature(self, value: int) -> None:
        self.state.feature = value & 0x0B

    # -- attribute controller

    def _write_attribute(self, value: int) -> None:
        s = self.state
        if not s.attribute_data:
            s.attribute_index = value & 0x3F
        elif (index := s.attribute_index & 0x1F) < len(s.attribute):
            s.attribute[index] = value & ATTRIBUTE_MASKS[index]
        s.attribute_data = not s.attribute_data

    # -- indexed groups

    def _write_sequencer(self, value: int) -> None:
        s = self.state
        if s.sequencer_index < len(s.sequencer):
            s.sequencer[s.sequencer_index] = value & SEQUENCER_MASKS[s.sequencer_index]
            self._program()

    def _write_graphics(self, value: int) -> None:
        s = self.state
        if s.graphics_index < len(s.graphics):
            s.graphics[s.graphics_index] = value & GRAPHICS_MASKS[s.graphics_index]
            self._program()

    def _read_crtc(self) -> int:
        s = self.state
        # with EVRA clear, 10h and 11h are the EGA's light pen registers, which a VGA lacks
        if s.crtc_index in (0x10, 0x11) and not s.crtc[3] & CR3_EVRA:
            return 0
        return _indexed(s.crtc, s.crtc_index)

    def _write_crtc(self, value: int) -> None:
        s = self.state
        index = s.crtc_index
        if index >= len(s.crtc):
            return
        if index < 7 and s.crtc[0x11] & CR11_PROTECT:
            return
        if index == 7 and s.crtc[0x11] & CR11_PROTECT:
            value = s.crtc[7] & ~0x10 | value & 0x10  # line compare bit 8 is not protected
        s.crtc[index] = value & CRTC_MASKS[index]
        if index == 0x11 and not value & CR11_CLEAR_INT:
            s.interrupt_cleared = self._clock.now

    # -- DAC: an engine takes writes to it, too (dac_written of emu/native/vga.c)

    def _give_dac(self) -> None:
        """What a write to the DAC depends on may have changed."""
        s, shared = self._state, self.memory.shared
        shared.dac_bits = _component_bits(s) if s.enabled else 0
        shared.dac_index, shared.dac_component, shared.dac_reading = s.dac_write_index, s.dac_component, s.dac_reading
        shared.dac_latch[:] = [*s.dac_latch]

    def _take_dac(self) -> None:
        s, shared = self._state, self.memory.shared
        s.dac_write_index, s.dac_component, s.dac_reading = (
            shared.dac_index, shared.dac_component, bool(shared.dac_reading)
        )  # fmt: skip
        s.dac_latch, s.dac = shared.dac_latch[:], shared.dac[:]
        shared.dac_written = 0

    def _dac_address(self, value: int, reading: bool) -> None:
        s = self.state
        s.dac_reading, s.dac_component = reading, 0
        if reading:
            s.dac_read_index = value
        else:
            s.dac_write_index = value
        self._give_dac()

    def _write_dac(self, value: int) -> None:
        """Three writes, red, green and blue, set one colour; the address then advances."""
        s = self.state
        s.dac_latch[s.dac_component] = value & _component_bits(s)
        s.dac_component += 1
        if s.dac_component == 3:
            colour = slice(3 * s.dac_write_index, 3 * s.dac_write_index + 3)
            s.dac[colour] = s.dac_latch
            self.memory.shared.dac[colour] = [*s.dac_latch]
            s.dac_component = 0
            s.dac_write_index = s.dac_write_index + 1 & 0xFF
        self._give_dac()

    # -- Bochs VBE

    def write_vbe(self, value: int) -> None:
        """The data port, 16 bits. Enabling a mode clears what it shows."""
        clear = bochs_vbe.write(self.state.vbe, value, self.memory.size)
        if clear:
            self.memory.memory[:clear] = bytes(clear)
            self.memory.written(0, clear)
        self._program()

    def view(self) -> DeviceView:
        from emu.devices.vga_view import view

        return view(self.save(), self.timing(), self.memory.size)


def _component_bits(state: State) -> int:
    return 0xFF if state.vbe.dac_8bit else 0x3F


def _copy(state: State) -> State:
    copy = copied(state)
    copy.vbe = copied(state.vbe)
    return copy


class VbePorts:
    """Mapped at 1CEh, four ports, 16 bits wide: the index at 1CEh, the data at 1CFh and, aligned, at 1D0h. Accesses of
    another width reach nothing."""

    def __init__(self, vga: Vga) -> None:
        self._vga = vga

    def read(self, offset: int, size: int) -> int:
        vbe = self._vga.state.vbe
        if size != 2 or offset > 2:
            return (1 << 8 * size) - 1
        return vbe.index if offset == 0 else bochs_vbe.read(vbe, self._vga.memory.size)

    peek = read

    def write(self, offset: int, value: int, size: int) -> None:
        if size != 2 or offset > 2:
            return
        if offset == 0:
            self._vga.state.vbe.index = value
        else:
            self._vga.write_vbe(value)


def _indexed(registers: list[int], index: int) -> int:
    return registers[index] if index < len(registers) else 0


def _set(name: str, mask: int = 0xFF) -> Callable[[Vga, int], None]:
    def write(vga: Vga, value: int) -> None:
        setattr(vga.state, name, value & mask)

    return write


def _enable(vga: Vga, value: int) -> None:
    """Video subsystem enable (3C3h): with bit 0 clear neither memory nor another port answers."""
    vga.state.enabled = bool(value & 1)
    vga._program()


_READS: dict[int, Callable[[Vga], int]] = {
    0x3C0: lambda v: v.state.attribute_index,
    0x3C1: lambda v: _indexed(v.state.attribute, v.state.attribute_index & 0x1F),
    0x3C2: Vga._input_status_0,
    0x3C3: lambda v: int(v.state.enabled),
    0x3C4: lambda v: v.state.sequencer_index,
    0x3C5: lambda v: _indexed(v.state.sequencer, v.state.sequencer_index),
    0x3C6: lambda v: v.state.dac_mask,
    0x3C7: lambda v: 3 if v.state.dac_reading else 0,
    0x3C8: lambda v: v.state.dac_write_index,
    0x3C9: lambda v: v.state.dac[3 * v.state.dac_read_index + v.state.dac_component],
    0x3CA: lambda v: v.state.feature,
    0x3CC: lambda v: v.state.misc,
    0x3CE: lambda v: v.state.graphics_index,
    0x3CF: lambda v: _indexed(v.state.graphics, v.state.graphics_index),
    0x3D4: lambda v: v.state.crtc_index,
    0x3D5: Vga._read_crtc,
    0x3DA: Vga._input_status_1,
}
_WRITES: dict[int, Callable[[Vga, int], None]] = {
    0x3C0: Vga._write_attribute,
    0x3C2: Vga._write_misc,
    0x3C3: _enable,
    0x3C4: _set("sequencer_index", 0x07),
    0x3C5: Vga._write_sequencer,
    0x3C6: _set("dac_mask"),
    0x3C7: lambda v, value: v._dac_address(value, True),
    0x3C8: lambda v, value: v._dac_address(value, False),
    0x3C9: Vga._write_dac,
    0x3CE: _set("graphics_index", 0x0F),
    0x3CF: Vga._write_graphics,
    0x3D4: _set("crtc_index", 0x1F),
    0x3D5: Vga._write_crtc,
    0x3DA: Vga._write_feature,
}
