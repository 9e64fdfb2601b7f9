"""Writes to ports behind which nothing goes on as it would: the run ends, or the CPU is somewhere else.

A look ahead (`emu.loops`) writes to no device. What such a write is has to be known by its port and value.
"""

from __future__ import annotations

from emu import layout
from emu.devices.piix4_pm import PMCNTRL, SOFT_OFF, SUS_EN, SUS_TYP
from emu.devices.syscontrol import FAST_RESET, RESET_CPU_BIT, SYSTEM_RESET
from emu.machine import Machine

#: Commands of the keyboard controller: the next byte is for its output port; from F0h on, pulse bits of that which are
#: 0 in the command. Bit 0 is the CPU's reset (IBM PC/AT Technical Reference, "Keyboard controller commands").
_OUTPUT_PORT, _PULSE = 0xD1, 0xF0


class Endings:
    """What the writes of a look ahead would end. Registers hold what it has written itself."""

    def __init__(self, machine: Machine) -> None:
        board = machine.board
        kbc = board.kbc.save()
        command = kbc.input if kbc.input_full and kbc.a2 else kbc.argument
        self._output_port = command == _OUTPUT_PORT
        self._port92, self._control = board.port92.save().value, board.reset_control.save().value
        self._pm = None if board.chipset is None else board.chipset.pm

    def of(self, port: int, size: int, value: int) -> str:
        """What a write of `size` bytes to `port` does, in words; empty: nothing of the kind."""
        for n in range(size):
            if text := self._byte(port + n & 0xFFFF, value >> 8 * n & 0xFF, alone=size == 1):
                return text
        return ""

    def _byte(self, port: int, value: int, *, alone: bool) -> str:
        match port:
            case layout.DEBUG_EXIT:
                return f"ends the run with code {value}"
            case layout.SYSTEM_CONTROL_A:
                before, self._port92 = self._port92, value
                return "resets the CPU" if value & ~before & FAST_RESET else ""
            case layout.RESET_CONTROL if alone:
                before, self._control = self._control, value
                if not value & ~before & RESET_CPU_BIT:
                    return ""
                return "resets the system" if value & SYSTEM_RESET else "resets the CPU"
            case layout.KBC_COMMAND:
                self._output_port = value == _OUTPUT_PORT
                return "resets the CPU" if value >= _PULSE and not value & 1 else ""
            case layout.KBC_DATA:
                output_port, self._output_port = self._output_port, False
                return "resets the CPU" if output_port and not value & 1 else ""
        return self._chipset(port, value)

    def _chipset(self, port: int, value: int) -> str:
        pm = self._pm
        if pm is None:
            return ""
        if pm.pm_base is not None and port == pm.pm_base + PMCNTRL + 1:
            high = value << 8
            return "turns the power off" if high & SUS_EN and high & SUS_TYP == SOFT_OFF else ""
        if port == layout.APM_CONTROL and pm.asks_smi(value):
            return "enters system management mode"
        return ""
