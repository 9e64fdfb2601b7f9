"""One 8259A: initialisation and operation command words, requests, priorities, acknowledge.

Source: Intel 8259A Programmable Interrupt Controller data sheet, order number 231468 ("8259A" below).
"""

from __future__ import annotations

from emu.record import dataclass
from emu.views import FieldView

#: ICW1 (8259A, figure 7); D4 = 1 tells it from OCW2 and OCW3.
ICW1_IC4 = 0x01  #: ICW4 will follow
ICW1_SNGL = 0x02  #: single: no ICW3
ICW1_ADI = 0x04  #: MCS-80/85 call address interval: 1: 4 bytes, 0: 8 bytes
ICW1_LTIM = 0x08  #: level triggered mode
ICW1 = 0x10
#: ICW4
ICW4_UPM = 0x01  #: 8086/8088 mode, else MCS-80/85 mode
ICW4_AEOI = 0x02  #: automatic end of interrupt
ICW4_MS = 0x04  #: in buffered mode: 1 master, 0 slave
ICW4_BUF = 0x08  #: buffered mode
ICW4_SFNM = 0x10  #: special fully nested mode
#: OCW3, told from OCW2 by D3 = 1
OCW3 = 0x08
OCW3_RIS = 0x01
OCW3_RR = 0x02
OCW3_P = 0x04
OCW3_SMM = 0x20
OCW3_ESMM = 0x40


@dataclass(slots=True)
class ChipState:
    """One 8259A. Bit n of a mask belongs to IRn."""

    inputs: int = 0  #: levels of IR0-IR7
    edges: int = 0  #: edge sense latches: rose and has not fallen or been acknowledged since
    isr: int = 0
    imr: int = 0xFF
    icw1: int = 0
    icw2: int = 0
    icw3: int = 0
    icw4: int = 0
    expects: int = 0  #: the ICW that the next write to the odd address is: 2, 3, 4; 0: none, that write is OCW1
    ready: bool = False  #: an initialisation sequence has been completed
    lowest: int = 7  #: the input with the lowest priority
    read_isr: bool = False  #: the even address reads ISR, else IRR
    poll: bool = False  #: the next read is a poll
    special_mask: bool = False
    rotate_aeoi: bool = False  #: rotate in automatic EOI mode
    once: int = 0  #: inputs that are high for one acknowledge only: requests put back, whose lines have fallen
    elcr: int = 0  #: PIIX3 edge/level control: inputs that are level triggered


class Chip:
    """One 8259A without its bus buffers: `spen` is its SP/EN# pin, True for a master."""

    def __init__(self, spen: bool) -> None:
        self.spen = spen
        self.state = ChipState()

    # -- inputs, priorities, acknowledge -----------------------------------------------------------------------------

    @property
    def level_triggered(self) -> int:
        """Mask of level triggered inputs."""
        return 0xFF if self.state.icw1 & ICW1_LTIM else self.state.elcr

    @property
    def irr(self) -> int:
        """A request lasts while its input is high; in edge mode only until it is acknowledged (8259A, figure 9)."""
        level = self.level_triggered
        return self.state.inputs & (level | self.state.edges)

    @property
    def is_master(self) -> bool:
        """In buffered mode SP/EN# is an output, and ICW4 says what the chip is."""
        icw4 = self.state.icw4
        return bool(icw4 & ICW4_MS) if icw4 & ICW4_BUF else self.spen

    def set_input(self, n: int, level: bool) -> None:
        s, bit = self.state, 1 << n
        if level:
            s.edges |= bit & ~s.inputs
            s.inputs |= bit
            s.once &= ~bit
        else:
            s.edges &= ~bit
            s.inputs &= ~bit

    def _by_priority(self) -> list[int]:
        first = self.state.lowest + 1
        return [(first + i) & 7 for i in range(8)]

    def request(self) -> int | None:
        """The input that an acknowledge would serve now; None: INT is low."""
        s = self.state
        # `irr`, which costs as much again as all of this: it is asked with each change of a line
        requests = s.inputs & (s.edges | (0xFF if s.icw1 & ICW1_LTIM else s.elcr)) & ~s.imr
        return self._first(requests) if requests else None

    def holds_back(self, n: int) -> bool:
        """Input `n` cannot drive INT until the chip is written: it is masked, or what is in service is not below it."""
        return bool(self.state.imr >> n & 1) or self._first(1 << n) is None

    def _first(self, requests: int) -> int | None:
        """Which of `requests`, a bit each, an acknowledge would serve."""
        s = self.state
        if not s.ready or s.expects:
            return None
        # In special mask mode a masked level in service holds nothing back.
        blocking = s.isr & ~s.imr if s.special_mask else s.isr
        # In special fully nested mode a slave in service does not lock out its own further requests.
        nested = s.icw3 if s.icw4 & ICW4_SFNM and self.is_master and not s.icw1 & ICW1_SNGL else 0
        for n in self._by_priority():
            bit = 1 << n
            if requests & bit and (not blocking & bit or nested & bit):
                return n
            if blocking & bit:
                return None
        return None

    def served(self, bits: int) -> None:
        """`bits` have been acknowledged: what was requested once is no level that goes on."""
        s = self.state
        s.edges &= ~bits
        s.inputs &= ~(bits & s.once)
        s.once &= ~bits

    def serve(self, n: int) -> None:
        """The INTA sequence for input `n`: into service, or straight out of it with automatic EOI."""
        s, bit = self.state, 1 << n
        self.served(bit)
        if not s.icw4 & ICW4_AEOI:
            s.isr |= bit
        elif s.rotate_aeoi:
            s.lowest = n

    def vector(self, n: int) -> int:
        """What the chip releases for input `n`: in 8086 mode T7-T3 and the level. In MCS-80/85 mode the CPU takes the
        second byte, the low half of the call address (8259A, "Interrupt Sequence", "Content of Second Interrupt
        Vector Byte")."""
        s = self.state
        if s.icw4 & ICW4_UPM:
            return s.icw2 & 0xF8 | n
        return s.icw1 & 0xE0 | n << 2 if s.icw1 & ICW1_ADI else s.icw1 & 0xC0 | n << 3

    # -- the bus -------------------------------------------------------------------------------------------------------

    def peek(self, offset: int) -> int:
        s = self.state
        if s.poll:
            n = self.request()
            return 0 if n is None else 0x80 | n
        if offset:
            return s.imr
        return s.isr if s.read_isr else self.irr

    def read(self, offset: int) -> int:
        """A poll is an acknowledge (8259A, "Poll Command")."""
        value = self.peek(offset)
        if self.state.poll:
            self.state.poll = False
            if value & 0x80:
                self.serve(value & 7)
        return value

    def write(self, offset: int, value: int) -> None:
        s = self.state
        if offset:
            self._write_odd(value)
        elif value & ICW1:
            # 8259A, "Initialization Command Words", a-f; the in-service register is cleared as well.
            self.state = ChipState(
                inputs=s.inputs & ~s.once,
                imr=0,
                icw1=value,
                icw2=s.icw2,
                icw3=0 if self.spen else 7,
                expects=2,
                ready=s.ready,
                elcr=s.elcr,
            )
        elif value & OCW3:
            if value & OCW3_ESMM:
                s.special_mask = bool(value & OCW3_SMM)
            if value & OCW3_RR:
                s.read_isr = bool(value & OCW3_RIS)
            if value & OCW3_P:
                s.poll = True
        else:
            self._ocw2(value >> 5, value & 7)

    def _write_odd(self, value: int) -> None:
        s = self.state
        step = s.expects
        if step == 0:
            s.imr = value
            return
        if step == 2:
            s.icw2 = value
        elif step == 3:
            s.icw3 = value
        else:
            s.icw4 = value
        if step < 3 and not s.icw1 & ICW1_SNGL:
            s.expects = 3
        elif step < 4 and s.icw1 & ICW1_IC4:
            s.expects = 4
        else:
            s.expects = 0
            s.ready = True

    def _ocw2(self, command: int, level: int) -> None:
        """8259A, figure 8. `command`: R SL EOI."""
        s = self.state
        if command in (0, 4):
            s.rotate_aeoi = command == 4
        elif command in (1, 5):  # non-specific: the highest in service; in special mask mode not the masked ones
            in_service = s.isr & ~s.imr if s.special_mask else s.isr
            for n in self._by_priority():
                if in_service >> n & 1:
                    s.isr &= ~(1 << n)
                    if command == 5:
                        s.lowest = n
                    break
        elif command in (3, 7):
            s.isr &= ~(1 << level)
            if command == 7:
                s.lowest = level
        elif command == 6:
            s.lowest = level

    def fields(self, first_irq: int) -> tuple[FieldView, ...]:
        """The registers decoded; IR0 is IRQ `first_irq`."""
        s = self.state

        def irqs(mask: int) -> str:
            return "IRQ " + " ".join(str(first_irq + n) for n in range(8) if mask >> n & 1) if mask else "none"

        modes = [
            "ready" if s.ready and not s.expects else f"expects ICW{s.expects}" if s.expects else "not initialised",
            "8086" if s.icw4 & ICW4_UPM else "MCS-80/85",
            "single" if s.icw1 & ICW1_SNGL else "cascade",
            "master" if self.is_master else "slave",
        ]
        flags = {
            "buffered": s.icw4 & ICW4_BUF,
            "automatic EOI": s.icw4 & ICW4_AEOI,
            "rotate in automatic EOI": s.rotate_aeoi,
            "special fully nested": s.icw4 & ICW4_SFNM,
            "special mask": s.special_mask,
            "poll": s.poll,
        }
        modes += [name for name, value in flags.items() if value]
        request = self.request()
        return (
            FieldView("IRR", self.irr, f"requested: {irqs(self.irr)}"),
            FieldView("ISR", s.isr, f"in service: {irqs(s.isr)}"),
            FieldView("IMR", s.imr, f"masked: {irqs(s.imr)}"),
            FieldView("inputs", s.inputs, f"high: {irqs(s.inputs)}"),
            FieldView("level", self.level_triggered, f"level triggered: {irqs(self.level_triggered)}"),
            FieldView("INT", request is not None, "low" if request is None else f"high for IRQ {first_irq + request}"),
            FieldView("base", self.vector(0), "vector of IR0"),
            FieldView("ICW3", s.icw3, f"slaves: {irqs(s.icw3)}" if self.is_master else f"slave ID {s.icw3 & 7}"),
            FieldView("lowest", s.lowest, f"priority order starts at IR{(s.lowest + 1) & 7}"),
            FieldView("mode", ", ".join(modes), f"reads {'ISR' if s.read_isr else 'IRR'}"),
        )
