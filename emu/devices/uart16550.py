"""National Semiconductor PC16550D: the UART with FIFOs behind COM1.

Source: PC16550D data sheet (June 1995), section 8 "Registers" (8.1 LCR, 8.3 baud generator, 8.4 LSR, 8.5 FCR, 8.6 IIR,
8.7 IER, 8.8 MCR, 8.9 MSR, 8.10 SCR, 8.11 FIFO interrupt mode, 8.12 polled mode). OUT2 gates the interrupt request, as
the IBM PC/AT Serial/Parallel Adapter wires it. Clock: 1.8432 MHz.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.copied import copied
from emu.devices.uart16550_registers import (
    FCR_CLEAR_RX,
    FCR_CLEAR_TX,
    FCR_DMA,
    FCR_ENABLE,
    FCR_TRIGGER,
    FIFO_SIZE,
    IER_DLM,
    IER_LINE,
    IER_MODEM,
    IER_RDA,
    IER_THRE,
    IIR_FCR,
    IIR_FIFOS,
    IIR_LINE,
    IIR_MODEM,
    IIR_NONE,
    IIR_RDA,
    IIR_THRE,
    IIR_TIMEOUT,
    LCR,
    LCR_BREAK,
    LCR_DLAB,
    LSR,
    LSR_BI,
    LSR_DR,
    LSR_FE,
    LSR_FIFO_ERROR,
    LSR_OE,
    LSR_PE,
    LSR_TEMT,
    LSR_THRE,
    MCR,
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT1,
    MCR_OUT2,
    MCR_RTS,
    MSR,
    MSR_CTS,
    MSR_DCD,
    MSR_DSR,
    MSR_RI,
    MSR_TERI,
    RBR_THR_DLL,
    SCR,
    TRIGGERS,
    State,
    view,
)
from emu.views import DeviceView


class Uart16550:
    """`irq` is the interrupt request behind the OUT2 gate; `transmit` is told each character when its last stop bit
    has left; `receive` queues what the far side sends. Eight ports; every register is 8 bits wide.

    The far side is a null modem that holds CTS, DSR and DCD active; `set_modem` changes them.
    """

    def __init__(
        self, clock: Clock, irq: Callable[[bool], None], transmit: Callable[[int], None], name: str = "com1"
    ) -> None:
        self._clock, self._irq, self._transmit, self.name = clock, irq, transmit, name
        #: told what `transmit` would be told one by one, where many characters are known at once
        self.transmit_all: Callable[[bytes], None] | None = None
        self._driven: bool | None = None  # the level of its interrupt line, if that is known
        #: characters leave as soon as they are written, whatever rate is programmed, as if the line had no end
        self.immediate = False
        self._tx_timer = clock.timer(f"{name}.tx", self._sent)
        self._thre_timer = clock.timer(f"{name}.thre", self._thre_due)
        self._rx_timer = clock.timer(f"{name}.rx", self._arrived)
        self._timeout_timer = clock.timer(f"{name}.timeout", self._timeout_due)
        self.state = State()
        self.reset()

    def power_on(self) -> None:
        """As built; who holds the modem's lines goes on."""
        self.state = State(modem=self.state.modem)
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
        return copied(self.state)

    def restore(self, state: State) -> None:
        """Drives the interrupt line to its saved level; timers come back with the clock."""
        self.state, self._driven = copied(state), None
        self._drive()

    def character_ns(self) -> int:
        """Start, data, parity and stop bits at the programmed rate."""
        return self.state.character_ns()

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
            if s.rx:
                return s.rx[0] & 0xFF
            return 0 if s.fcr & FCR_ENABLE else s.rbr
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
        level = enabled and self._source() != IIR_NONE
        if level is not self._driven:
            self._driven = level
            self._irq(level)

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

    @property
    def passes_on(self) -> bool:
        """What is written to THR leaves at once and changes nothing else: neither a register nor the interrupt line."""
        s = self.state
        idle = self.immediate and s.thre and s.thre_interrupt and s.tsr is None
        return idle and not (s.lcr & (LCR_DLAB | LCR_BREAK) or s.mcr & MCR_LOOP or s.ier & IER_THRE)

    def written(self, data: bytes) -> None:
        """Bytes that were written to THR while `passes_on`."""
        if self.transmit_all is not None and len(data) > 1:
            # Each leaves the registers as the one before it found them, so the last one tells them all.
            mask = self.state.mask()
            self.transmit_all(bytes([value & mask for value in data[:-1]]))
            data = data[-1:]
        for value in data:
            self._write_thr(value)

    def _shift(self, start: int) -> None:
        """The next character into the shift register; its first bit leaves at `start`."""
        s = self.state
        s.tsr = s.tx.pop(0) & self.state.mask()
        if self.immediate:
            if not s.tx:
                self._empty()
            self._sent(start)
            return
        length = self.character_ns()
        self._tx_timer.arm(start + length)
        if s.tx:
            return
        if s.fcr & FCR_ENABLE and not s.two_bytes and not s.first_interrupt:
            # a lone byte in the FIFO: "empty" shows one character time less its last stop bit later (8.11)
            self._thre_timer.arm(start + length - s.half_bits_ns(2))
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
        self._received(entry & (0xFF00 | self.state.mask()))
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
            s.errors |= LSR_OE  # it is lost in the shift register: "not transferred to the FIFO" (8.4)
        self._restart_timeout()
        self._drive()

    def _read_rbr(self) -> int:
        s = self.state
        if not s.rx:
            return self.peek(RBR_THR_DLL, 1)
        value = s.rx.pop(0) & 0xFF
        if not s.fcr & FCR_ENABLE:
            s.rbr = value
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
        return view(self.state, self.name, self.peek(IIR_FCR, 1), self._line_status(), self.peek(MSR, 1))
