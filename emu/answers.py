"""The ports as the CPU reaches them: what a port gave is answered ahead where the next reads must give the same."""

from __future__ import annotations

import ctypes

from emu import layout
from emu.board import Board
from emu.bus import Ports
from emu.clock import NS_PER_INSTRUCTION, Clock
from emu.devices.pit8254 import instant_of, pulses_at
from emu.devices.uart16550_registers import LSR, LSR_ERRORS
from emu.engine import Executor
from emu.outputs import Outputs

COM1_LSR = layout.COM1 + LSR
#: Port B, RTC index (floating), keyboard status, port A, COM1's line status, fw_cfg's data, the VGA's status. A read
#: has no side effect but to advance fw_cfg's and to clear errors of the line, none at the second time, and what it
#: gives changes only by writes to ports, by reads of others that have effects, by timers and, that of port B and of
#: the VGA, with virtual time.
POLLED = frozenset(
    (
        layout.PORT_61, layout.RTC, layout.KBC_COMMAND, layout.SYSTEM_CONTROL_A, COM1_LSR, layout.FW_CFG + 1,
        layout.VGA_STATUS,
    )
)  # fmt: skip
#: Ports of the debug console. A write to one changes nothing that a port can tell.
CONSOLES = frozenset((layout.DEBUGCON_BOCHS, layout.DEBUGCON_SEABIOS))
CONSOLE_ROOM = 512  #: bytes of its text, or COM1's, that may be collected before the device is told
#: Status and data ports of ATA channels, and the channel's base. The alternate status has no side effect; the status
#: none when INTRQ is clear.
IDE_STATUS = 7
IDE_POLLED = {
    port: base
    for base, control in (
        (layout.IDE_PRIMARY, layout.IDE_PRIMARY_CONTROL),
        (layout.IDE_SECONDARY, layout.IDE_SECONDARY_CONTROL),
    )
    for port in (base, base + IDE_STATUS, control)
}
#: Bytes of a fw_cfg file that are offered at a time: a kernel has many, and each offer is a copy.
FW_CFG_AHEAD = 1 << 16
#: Sizes of accesses to the data port that move words: Executor.stream_input.
WORDS = 2 | 4


class CpuPorts:
    """The engine's `PortBus`. The devices behind it come later than the engine, by `attach`."""

    def __init__(self, ports: Ports, outputs: Outputs) -> None:
        self._ports, self._outputs = ports, outputs

    def attach(self, board: Board, clock: Clock, executor: Executor) -> None:
        """The devices are built: from now on the CPU may run."""
        self._board, self._clock, self._executor = board, clock, executor
        self._ports.on_watch = self._share_ports
        self._share_ports(self._ports.unwatched)

    def _share_ports(self, allowed: bool) -> None:
        self._executor.serve_ports(ctypes.addressof(self._board.shared_ports) if allowed else None)

    def port_in(self, port: int, size: int) -> int:
        value = self._ports.port_in(port, size)
        if self._ports.unwatched:
            if self._executor.answers_ahead:
                if port in POLLED and size == 1:
                    self._answer_ahead(port, value)
                elif port in IDE_POLLED:
                    self._answer_ide_ahead(port, size, value)
            elif port == layout.PORT_61 and size == 1 and self._board.keeper.hypervisor:
                self._answer_ahead(port, value)  # an access that ends nobody's run
        return value

    def _answer_ide_ahead(self, port: int, size: int, value: int) -> None:
        """Let the engine move data words, and answer polls of a status that stays until a timer's event."""
        base = IDE_POLLED[port]
        channel = self._board.channels[base]
        if port != base and size == 1 and not (port == base + IDE_STATUS and channel.acknowledged):
            self._executor.hold_input(port, value, None)
        self._offer_data(base)

    def _offer_data(self, base: int) -> None:
        """In a PIO data phase of the channel at `base` the engine may move all words of the block but the last."""
        channel = self._board.channels[base]
        if data := channel.readable():
            self._executor.stream_input(base, data, channel.taken, WORDS)
        elif room := channel.room():
            self._executor.stream_output(base, room, channel.written, WORDS)

    def _answer_ahead(self, port: int, value: int) -> None:
        """Let the engine answer the next reads of a port that firmware polls or copies from."""
        if port == layout.FW_CFG + 1:
            if self._board.fw_cfg is not None and (rest := self._board.fw_cfg.rest(FW_CFG_AHEAD)):
                self._executor.stream_input(port, rest, self._board.fw_cfg.skip)
        elif port == layout.PORT_61:
            keeper = self._board.keeper
            if not keeper.foreseen:
                return
            # Its pins change with the timer's clock pulses, but for those that only decrement.
            now = self._clock.now
            left = instant_of(pulses_at(now) + self._board.port61.quiet_pulses() + 1) - now
            self._hold(port, value, left, kept=keeper.hypervisor)
        elif port == layout.VGA_STATUS:
            self._hold(port, value, self._board.vga.steady())
        elif port != COM1_LSR or not value & LSR_ERRORS:
            self._executor.hold_input(port, value, None)

    def _hold(self, port: int, value: int, left: int, *, kept: bool = False) -> None:
        """The port, of a hypervisor's own device if `kept`, gives `value` for `left` ns more."""
        until = self._executor.retired - (-left // NS_PER_INSTRUCTION)
        self._executor.hold_input(port, value, until, kept=kept)

    def port_out(self, port: int, size: int, value: int) -> None:
        self._ports.port_out(port, size, value)
        if not self._executor.answers_ahead:
            return
        if port in CONSOLES and size == 1 and self._outputs.on_text is None and self._ports.unwatched:
            self._executor.stream_output(port, CONSOLE_ROOM, self._board.debugcon.written)
        if port in self._board.channels and self._ports.unwatched:
            self._offer_data(port)
        if port == layout.COM1 and size == 1 and self._ports.unwatched and self._board.com1.passes_on:
            self._offer_line()

    def _offer_line(self) -> None:
        """COM1 has sent a byte and would send more: these may be collected, and its status asked before each stays."""
        com1 = self._board.com1
        if self._outputs.on_text is None:
            self._executor.stream_output(layout.COM1, CONSOLE_ROOM, com1.written)
        if not (status := com1.peek(LSR, 1)) & LSR_ERRORS:
            self._executor.hold_input(COM1_LSR, status, None, answered=False)
