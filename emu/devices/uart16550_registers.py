"""The PC16550D's registers: their bits, the UART's state, and how a front end shows them."""

from __future__ import annotations

from emu.record import dataclass, field
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

#: Where the two of an AT stand.
_PORTS = {"com1": "ports 3F8h-3FFh, IRQ 4", "com2": "ports 2F8h-2FFh, IRQ 3"}

RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)


@dataclass(slots=True)
class State:
    """`rx` and `incoming` hold a character in bits 7-0 and its LSR error bits in bits 15-8. `rbr` is the character last
    read without FIFOs, which the receiver buffer still holds. `tsr` is the character being shifted out. `errors` are
    LSR bits 1-4 as read. `modem` are the input lines as MSR bits 7-4, `delta` MSR bits 3-0. `incoming` is still on
    the far side's wire."""

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    divisor: int = 1
    rx: list[int] = field(default_factory=list)
    rbr: int = 0
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

    # -- times

    @property
    def rate_divisor(self) -> int:
        """The divisor in effect. The data sheet defines 1 to 65535; 0 divides by 3, as the manuals of compatible
        Super I/O chips (SMSC FDC37C66x, "Programmable baud rate generator") say."""
        return self.divisor or 3

    def half_bits_ns(self, count: int) -> int:
        """The time of `count` half bits, ns."""
        return count * self.rate_divisor * 16 * 1_000_000_000 // (2 * CLOCK_HZ)

    def stop_half_bits(self) -> int:
        """One or two stop bits, one and a half with 5 data bits."""
        if not self.lcr & LCR_STOP:
            return 2
        return 4 if self.lcr & LCR_WORD else 3

    def character_ns(self) -> int:
        """Start, data, parity and stop bits at the programmed rate."""
        data = 5 + (self.lcr & LCR_WORD)
        return self.half_bits_ns(2 * (1 + data + bool(self.lcr & LCR_PARITY)) + self.stop_half_bits())

    def mask(self) -> int:
        """The data bits of a character."""
        return (1 << 5 + (self.lcr & LCR_WORD)) - 1


def view(s: State, name: str, iir: int, lsr: int, msr: int) -> DeviceView:
    """`iir`, `lsr` and `msr` as a read would give them."""
    sources = {IIR_LINE: "receiver line status", IIR_RDA: "received data available",
               IIR_TIMEOUT: "character timeout", IIR_THRE: "transmitter holding register empty",
               IIR_MODEM: "modem status", IIR_NONE: "none pending"}  # fmt: skip
    parity = ("odd", "even", "mark", "space")[s.lcr >> 4 & 3] if s.lcr & LCR_PARITY else "no"
    rate = CLOCK_HZ // (16 * s.rate_divisor)
    stop = s.stop_half_bits() / 2
    fifo = f"on, trigger {TRIGGERS[s.fcr >> 6]}" if s.fcr & FCR_ENABLE else "off"
    return DeviceView(
        name,
        "PC16550D UART",
        _PORTS.get(name, "8 ports"),
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
