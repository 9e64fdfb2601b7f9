"""National Semiconductor PC16550D: the UART with FIFOs behind COM1.

Source: PC16550D data sheet (June 1995), section 8 "Registers" (8.1 LCR, 8.3 baud generator, 8.4 LSR, 8.5 FCR, 8.6 IIR,
8.7 IER, 8.8 MCR, 8.9 MSR, 8.10 SCR, 8.11 FIFO interrupt mode, 8.12 polled mode). OUT2 gates the interrupt request, as
the IBM PC/AT Serial/Parallel Adapter wires it. Clock: 1.8432 MHz.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.clock import Clock
from emu.views import DeviceView, FieldView

CLOCK_HZ = 1_843_200
FIFO_SIZE = 16

# interrupt enable register (IER)
IER_RDA, IER_THRE, IER_LINE, IER_MODEM = 0x01, 0x02, 0x04, 0x08
# interrupt identification register (IIR), highest priority first
IIR_LINE, IIR_RDA, IIR_TIMEOUT, IIR_THRE, IIR_MODEM, IIR_NONE = 0x06, 0x04, 0x0C, 0x02, 0x00, 0x01
IIR_FIFOS = 0xC0
# FIFO control register (FCR)
FCR_ENABLE, FCR_CLEAR_RX, FCR_CLEAR_TX, FCR_DMA, FCR_TRIGGER = 0x01, 0x02, 0x04, 0x08, 0xC0
TRIGGERS = (1, 4, 8, 14)
# line control register (LCR)
LCR_WORD, LCR_STOP, LCR_PARITY, LCR_EVEN, LCR_STICK, LCR_BREAK, LCR_DLAB = 0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
# modem control register (MCR)
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x01, 0x02, 0x04, 0x08, 0x10
# line status register (LSR)
LSR_DR, LSR_OE, LSR_PE, LSR_FE, LSR_BI, LSR_THRE, LSR_TEMT, LSR_FIFO_ERROR = (1 << i for i in range(8))
LSR_ERRORS = LSR_OE | LSR_PE | LSR_FE | LSR_BI
# modem status register (MSR)
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
MSR_TERI = 0x04

RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)


@dataclass(slots=True)
class State:
    """`rx` and `incoming` hold a character in bits 7-0 and its LSR error bits in bits 15-8. `rsr` is a received
    character that found the FIFO full. `tsr` is the character being shifted out. `errors` are LSR bits 1-4 as read.
    `modem` are the input lines as MSR bits 7-4, `delta` MSR bits 3-0. `incoming` is still on the far side's wire."""

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    divisor: int = 1
    rx: list[int] = field(default_factory=list)
    rsr: int | None = None
    tx: list[int] = field(default_factory=list)
    tsr: int | None = None
    thre: bool = True
    thre_interrupt: bool = False
    two_bytes: bool = False
    first_interrupt: bool = False
    timed_out: bool = False
    errors: int = 0
    modem: int = MSR_CTS | MSR_DSR | MSR_DCD
    delta: int = 0
    incoming: list[int] = field(default_factory=list)


class Uart16550:
    """`irq` is the interrupt request behind the OUT2 gate; `transmit` is told each character when its last stop bit
    has left; `receive` queues what the far side sends. Eight ports; every register is 8 bits wide.

    The far side is a null modem that holds CTS, DSR and DCD active; `set_modem` changes them.
    """

    def __init__(
        self, clock: Clock, irq: Callable[[bool], None], transmit: Callable[[int], None], name: str = "com1"
    ) -> None:
        self._clock, self._irq, self._transmit, self.name = clock, irq, transmit, name
        self._tx_timer = clock.timer(f"{name}.tx", self._sent)
        self._thre_timer = clock.timer(f"{name}.thre", self._thre_due)
        self._rx_timer = clock.timer(f"{name}.rx", self._arrived)
        self._timeout_timer = clock.timer(f"{name}.timeout", self._timeout_due)
        self.state = State()
        self.reset()

    def reset(self) -> None:
        """Master reset (data sheet, table III). Divisor latch and scratch register are not affected by it; at
        power-on they are undefined, here 1 and 0."""
        for timer in (self._tx_timer, self._thre_timer, self._rx_timer, self._timeout_timer):
            timer.cancel()
        old = self.state
        self.state = State(divisor=old.divisor, scr=old.scr, modem=old.modem)
        self._drive()

    def save(self) -> State:
        return copy.deepcopy(self.state)

    def restore(self, state: State) -> None:
        """Drives the interrupt line to its saved level; timers come back with the clock."""
        self.state = copy.deepcopy(state)
        self._drive()

    # -- times

    @property
    def _divisor(self) -> int:
        """The divisor in effect. The data sheet defines 1 to 65535; 0 divides by 3, as the manuals of compatible
        Super I/O chips (SMSC FDC37C66x, "Programmable baud rate generator") say."""
        return self.state.divisor or 3

    def _half_bits(self, count: int) -> int:
        """The time of `count` half bits, ns."""
        return count * self._divisor * 16 * 1_000_000_000 // (2 * CLOCK_HZ)

    def _stop_half_bits(self) -> int:
        lcr = self.state.lcr
        if not lcr & LCR_STOP:
            return 2
        return 3 if not lcr & LCR_WORD else 4  # one and a half with 5 data bits

    def character_ns(self) -> int:
        """Start, data, parity and stop bits at the programmed rate."""
        lcr = self.state.lcr
        data = 5 + (lcr & LCR_WORD)
        return self._half_bits(2 * (1 + data + bool(lcr & LCR_PARITY)) + self._stop_half_bits())

    def _mask(self) -> int:
        return (1 << 5 + (self.state.lcr & LCR_WORD)) - 1

    # -- registers

    def read(self, offset: int, size: int) -> int:
        s = self.state
        if offset == RBR_THR_DLL and not s.lcr & LCR_DLAB:
            return self._read_rbr()
        value = self.peek(offset, size)
        if offset == IIR_FCR:
            if value & 0x0F == IIR_THRE:
                s.thre_interrupt = False
                self._drive()
        elif offset == LSR:
            if s.errors:
                s.errors = 0
                if s.rx:
                    s.rx[0] &= 0xFF
                self._drive()
        elif offset == MSR and s.delta:
            s.delta = 0
            self._drive()
        return value

    def peek(self, offset: int, size: int) -> int:
        s = self.state
        if offset == RBR_THR_DLL:
            if s.lcr & LCR_DLAB:
                return s.divisor & 0xFF
            return s.rx[0] & 0xFF if s.rx else 0
        if offset == IER_DLM:
            return s.divisor >> 8 if s.lcr & LCR_DLAB else s.ier
        if offset == IIR_FCR:
            return self._source() | (IIR_FIFOS if s.fcr & FCR_ENABLE else 0)
        if offset == LCR:
            return s.lcr
        if offset == MCR:
            return s.mcr
        if offset == LSR:
            return self._line_status()
        if offset == MSR:
            return self._modem_lines() | s.delta
        return s.scr

    def write(self, offset: int, value: int, size: int) -> None:
        s = self.state
        value &= 0xFF
        if offset == RBR_THR_DLL:
            if s.lcr & LCR_DLAB:
                s.divisor = s.divisor & 0xFF00 | value
            else:
                self._write_thr(value)
        elif offset == IER_DLM:
            if s.lcr & LCR_DLAB:
                s.divisor = s.divisor & 0xFF | value << 8
            else:
                rising = value & ~s.ier
                s.ier = value & 0x0F
                if rising & IER_THRE and s.thre:
                    s.thre_interrupt = True  # enabling the interrupt with THR empty asks for data at once
                self._drive()
        elif offset == IIR_FCR:
            self._write_fcr(value)
        elif offset == LCR:
            s.lcr = value
            if value & LCR_BREAK and s.mcr & MCR_LOOP:
                self._received(LSR_BI << 8)
        elif offset == MCR:
            self._write_mcr(value & 0x1F)
        elif offset == SCR:
            s.scr = value
        # LSR and MSR are for reading; the data sheet reserves writes to factory test

    def _write_fcr(self, value: int) -> None:
        s = self.state
        if (value ^ s.fcr) & FCR_ENABLE:
            self._clear_rx()
            self._clear_tx()
            s.first_interrupt = True  # the first transmitter interrupt after changing FCR0 comes at once (8.11)
        if value & FCR_ENABLE:  # the other bits are programmed only together with bit 0
            if value & FCR_CLEAR_RX:
                self._clear_rx()
            if value & FCR_CLEAR_TX:
                self._clear_tx()
            s.fcr = value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER)
        else:
            s.fcr = 0
        self._drive()

    def _clear_rx(self) -> None:
        s = self.state
        s.rx.clear()
        s.rsr = None
        s.errors &= LSR_OE
        s.timed_out = False
        self._timeout_timer.cancel()

    def _clear_tx(self) -> None:
        """The shift register is not cleared."""
        s = self.state
        s.tx.clear()
        self._thre_timer.cancel()
        if not s.thre:
            self._empty()

    # -- interrupts

    def _source(self) -> int:
        s = self.state
        if s.ier & IER_LINE and s.errors:
            return IIR_LINE
        if s.ier & IER_RDA:
            if len(s.rx) >= (TRIGGERS[s.fcr >> 6] if s.fcr & FCR_ENABLE else 1):
                return IIR_RDA
            if s.timed_out:
                return IIR_TIMEOUT
        if s.ier & IER_THRE and s.thre_interrupt:
            return IIR_THRE
        return IIR_MODEM if s.ier & IER_MODEM and s.delta else IIR_NONE

    def _drive(self) -> None:
        """In loopback the OUT2 pin is forced inactive, and with it the gate."""
        enabled = self.state.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
        self._irq(enabled and self._source() != IIR_NONE)

    def _line_status(self) -> int:
        s = self.state
        value = s.errors | (LSR_DR if s.rx else 0) | (LSR_THRE if s.thre else 0)
        if s.thre and s.tsr is None:
            value |= LSR_TEMT
        if s.fcr & FCR_ENABLE and (s.errors & ~LSR_OE or any(entry >> 8 for entry in s.rx)):
            value |= LSR_FIFO_ERROR
        return value

    # -- transmitter

    def _write_thr(self, value: int) -> None:
        s = self.state
        fifo = bool(s.fcr & FCR_ENABLE)
        if not fifo:
            s.tx = [value]
        elif len(s.tx) < FIFO_SIZE:
            s.tx.append(value)
        s.two_bytes = s.two_bytes or len(s.tx) > 1
        s.thre = s.thre_interrupt = False
        self._drive()
        if s.tsr is None:
            self._shift(self._clock.now)

    def _shift(self, start: int) -> None:
        """The next character into the shift register; its first bit leaves at `start`."""
        s = self.state
        s.tsr = s.tx.pop(0) & self._mask()
        length = self.character_ns()
        self._tx_timer.arm(start + length)
        if s.tx:
            return
        if s.fcr & FCR_ENABLE and not s.two_bytes and not s.first_interrupt:
            # a lone byte in the FIFO: "empty" shows one character time less its last stop bit later (8.11)
            self._thre_timer.arm(start + length - self._half_bits(2))
        else:
            self._empty()

    def _empty(self) -> None:
        s = self.state
        s.thre = s.thre_interrupt = True
        s.two_bytes = s.first_interrupt = False
        self._drive()

    def _thre_due(self, _deadline: int) -> None:
        if not self.state.tx:
            self._empty()

    def _sent(self, deadline: int) -> None:
        s = self.state
        value, s.tsr = s.tsr, None
        assert value is not None
        if s.mcr & MCR_LOOP:
            if not s.lcr & LCR_BREAK:
                self._received(value)
        elif not s.lcr & LCR_BREAK:  # a broken line carries nothing
            self._transmit(value)
        if s.tx:
            self._shift(deadline)

    # -- receiver

    def receive(self, data: bytes) -> None:
        """The far side sends `data`, one character each character time, from now on."""
        self._queue(list(data))

    def receive_break(self) -> None:
        """The far side holds the line spacing for longer than a character."""
        self._queue([LSR_BI << 8])

    def receive_damaged(self, value: int, *, parity: bool = False, framing: bool = False) -> None:
        """The far side sends a character that arrives with a parity or framing error."""
        self._queue([value | (LSR_PE << 8 if parity else 0) | (LSR_FE << 8 if framing else 0)])

    def _queue(self, entries: list[int]) -> None:
        s = self.state
        s.incoming += entries
        if s.incoming and self._rx_timer.deadline is None and not s.mcr & MCR_LOOP:
            self._rx_timer.arm(self._clock.now + self.character_ns())

    def _arrived(self, deadline: int) -> None:
        s = self.state
        entry = s.incoming.pop(0)
        self._received(entry & (0xFF00 | self._mask()))
        if s.incoming:
            self._rx_timer.arm(deadline + self.character_ns())

    def _received(self, entry: int) -> None:
        """A character, with its error bits, is complete in the receiver shift register."""
        s = self.state
        if not s.fcr & FCR_ENABLE:
            if s.rx:
                s.errors |= LSR_OE
            s.rx = [entry]
            s.errors |= entry >> 8
        elif len(s.rx) < FIFO_SIZE:
            s.rx.append(entry)
            if len(s.rx) == 1:
                s.errors |= entry >> 8
        else:
            if s.rsr is not None:
                s.errors |= LSR_OE  # the character in the shift register is lost, the FIFO is not touched
            s.rsr = entry
        self._restart_timeout()
        self._drive()

    def _read_rbr(self) -> int:
        s = self.state
        if not s.rx:
            return 0
        value = s.rx.pop(0) & 0xFF
        if s.rsr is not None:
            s.rx.append(s.rsr)
            s.rsr = None
        if s.rx:
            s.errors |= s.rx[0] >> 8  # revealed when its character is at the top
        s.timed_out = False
        self._restart_timeout()
        self._drive()
        return value

    def _restart_timeout(self) -> None:
        s = self.state
        if s.fcr & FCR_ENABLE and s.rx and not s.timed_out:
            self._timeout_timer.arm(self._clock.now + 4 * self.character_ns())
        else:
            self._timeout_timer.cancel()

    def _timeout_due(self, _deadline: int) -> None:
        self.state.timed_out = True
        self._drive()

    # -- modem lines

    def _modem_lines(self) -> int:
        """In loopback RTS, DTR, OUT1 and OUT2 are the inputs CTS, DSR, RI and DCD (8.8)."""
        s = self.state
        if not s.mcr & MCR_LOOP:
            return s.modem
        mcr = s.mcr
        return (
            (MSR_CTS if mcr & MCR_RTS else 0)
            | (MSR_DSR if mcr & MCR_DTR else 0)
            | (MSR_RI if mcr & MCR_OUT1 else 0)
            | (MSR_DCD if mcr & MCR_OUT2 else 0)
        )

    def _lines_changed(self, before: int) -> None:
        """Sets the delta bits: any change of CTS, DSR and DCD, only the end of RI."""
        s = self.state
        now = self._modem_lines()
        changed = (now ^ before) >> 4
        s.delta |= changed & ~MSR_TERI
        if before & MSR_RI and not now & MSR_RI:
            s.delta |= MSR_TERI
        self._drive()

    def set_modem(self, *, cts: bool = True, dsr: bool = True, ri: bool = False, dcd: bool = True) -> None:
        """The far side's lines."""
        before = self._modem_lines()
        self.state.modem = (
            (MSR_CTS if cts else 0) | (MSR_DSR if dsr else 0) | (MSR_RI if ri else 0) | (MSR_DCD if dcd else 0)
        )
        self._lines_changed(before)

    def _write_mcr(self, value: int) -> None:
        s = self.state
        before, was_loop = self._modem_lines(), s.mcr & MCR_LOOP
        s.mcr = value
        if value & MCR_LOOP and not was_loop:
            self._rx_timer.cancel()  # SIN is disconnected: what the far side still has to send waits
        elif was_loop and not value & MCR_LOOP:
            self._queue([])
        self._lines_changed(before)

    def view(self) -> DeviceView:
        s = self.state
        lsr, msr, iir = self._line_status(), self._modem_lines() | s.delta, self.peek(IIR_FCR, 1)
        sources = {IIR_LINE: "receiver line status", IIR_RDA: "received data available",
                   IIR_TIMEOUT: "character timeout", IIR_THRE: "transmitter holding register empty",
                   IIR_MODEM: "modem status", IIR_NONE: "none pending"}  # fmt: skip
        parity = ("odd", "even", "mark", "space")[s.lcr >> 4 & 3] if s.lcr & LCR_PARITY else "no"
        rate = CLOCK_HZ // (16 * self._divisor)
        stop = self._stop_half_bits() / 2
        fifo = f"on, trigger {TRIGGERS[s.fcr >> 6]}" if s.fcr & FCR_ENABLE else "off"
        return DeviceView(
            self.name,
            "PC16550D UART",
            "8 ports",
            (
                FieldView("IER", s.ier, _bits(s.ier, "RDA THRE line modem")),
                FieldView("IIR", iir, sources[iir & 0x0F]),
                FieldView("FCR", s.fcr, fifo),
                FieldView("LCR", s.lcr, f"{5 + (s.lcr & LCR_WORD)} data, {parity} parity, {stop:g} stop"
                          + (", break" if s.lcr & LCR_BREAK else "") + (", DLAB" if s.lcr & LCR_DLAB else "")),
                FieldView("MCR", s.mcr, _bits(s.mcr, "DTR RTS OUT1 OUT2 loopback")),
                FieldView("LSR", lsr, _bits(lsr, "DR OE PE FE BI THRE TEMT FIFO-error")),
                FieldView("MSR", msr, _bits(msr, "DCTS DDSR TERI DDCD CTS DSR RI DCD")),
                FieldView("SCR", s.scr),
                FieldView("divisor", s.divisor, f"{rate} baud"),
                FieldView("receive FIFO", len(s.rx), bytes(entry & 0xFF for entry in s.rx).hex(" ")),
                FieldView("transmit FIFO", len(s.tx), "shifting" if s.tsr is not None else "line idle"),
                FieldView("still to arrive", len(s.incoming)),
            ),
        )  # fmt: skip


def _bits(value: int, names: str) -> str:
    return " ".join(name for i, name in enumerate(names.split()) if value >> i & 1)
