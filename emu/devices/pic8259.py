"""The two cascaded 8259A interrupt controllers of a PC, and the edge/level control registers of PCI machines.

Source: Intel 8259A Programmable Interrupt Controller data sheet, order number 231468 ("8259A" below), and for
4D0h/4D1h Intel 82371SB (PIIX3) data sheet 290550, section 2.5.3.2. Wiring: IBM PC/AT Technical Reference: the slave's
INT is the master's IR2, both see the same INTA.
"""

from __future__ import annotations

from emu.irq import IntrPin, Line
from emu.record import dataclass, field, replace
from emu.views import DeviceView, FieldView

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

#: What the data bus reads when no chip drives it.
_FLOATING = 0xFF
#: The master's input that the slave's INT is wired to.
CASCADE = 2


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
        if not requests or not s.ready or s.expects:
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

    def serve(self, n: int) -> None:
        """The INTA sequence for input `n`: into service, or straight out of it with automatic EOI."""
        s, bit = self.state, 1 << n
        s.edges &= ~bit
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
                inputs=s.inputs,
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


@dataclass(slots=True)
class State:
    """Both chips and the levels of every line handed out, by IRQ and in the order they were asked for. `raised` counts
    how often each IRQ has gone high, which no guest can see."""

    master: ChipState
    slave: ChipState
    lines: list[list[bool]] = field(default_factory=list)
    raised: list[int] = field(default_factory=lambda: [0] * 16)


class Pic8259Pair:
    """Master and slave. `master`, `slave` (two ports each) and `elcr` (two ports, PCI machines only) are their bus
    faces. Line changes and accesses first settle and at last update `pin`, as emu.irq asks."""

    def __init__(self, pin: IntrPin) -> None:
        self._pin = pin
        self._chips = (Chip(True), Chip(False))
        self._lines: list[list[Line]] = [[] for _ in range(16)]
        self._irq2 = False
        self.raised = [0] * 16  #: how often each IRQ has gone high since reset
        self.master = ChipPorts(self, 0)
        self.slave = ChipPorts(self, 1)
        self.elcr = EdgeLevelControl(self)

    def reset(self) -> None:
        """Power-on. The chips' registers are undefined until ICW1; here they request nothing. Inputs stay."""
        self._pin.settle()
        self.raised = [0] * 16
        for chip in self._chips:
            chip.state = ChipState(inputs=chip.state.inputs)
        self._changed()

    @property
    def chips(self) -> tuple[Chip, Chip]:
        """Master and slave, to look at."""
        return self._chips

    # -- lines -----------------------------------------------------------------------------------------------------

    def line(self, n: int) -> Line:
        """A new wire to IRQ `n` (0-15). Several wires to one IRQ are ORed, as shared level triggered lines are.

        Raises ValueError for other numbers."""
        if not 0 <= n < 16:
            raise ValueError(f"IRQ {n} does not exist: the two 8259A have 0 to 15")
        wires = self._lines[n]
        line = Line(lambda level: self.set_irq(n, any(wire.level for wire in wires)))
        wires.append(line)
        return line

    def set_irq(self, n: int, level: bool) -> None:
        """Drive IRQ `n` (0-15). IRQ 2 is ORed with the slave's INT, which owns that input in a PC."""
        self._pin.settle()
        was = self._irq2 if n == CASCADE else bool(self._chips[n >> 3].state.inputs >> (n & 7) & 1)
        self.raised[n] += level and not was
        if n == CASCADE:
            self._irq2 = level
        else:
            self._chips[n >> 3].set_input(n & 7, level)
        self._changed(n >= 8 or n == CASCADE)

    def _cascade(self) -> None:
        master, slave = self._chips
        master.set_input(CASCADE, self._irq2 or slave.request() is not None)

    def _changed(self, slave: bool = True) -> None:
        """Drive INT. What happens to the master alone (`slave` False) does not change the slave's."""
        if slave:
            self._cascade()
        self._pin.update()

    # -- INTR and INTA ---------------------------------------------------------------------------------------------

    def _cascaded(self, n: int) -> bool:
        """The master leaves the second INTA of input `n` to a slave."""
        master = self._chips[0]
        s = master.state
        return master.is_master and not s.icw1 & ICW1_SNGL and bool(s.icw3 >> n & 1)

    def _slave_vector(self, n: int) -> int:
        """What the data bus holds when the master puts `n` on the cascade lines: the slave answers to its own ID."""
        slave = self._chips[1]
        s = slave.state
        if slave.is_master or s.icw1 & ICW1_SNGL or s.icw3 & 7 != n or not s.ready:
            return _FLOATING
        request = slave.request()
        return slave.vector(7 if request is None else request)

    def pending_vector(self) -> int | None:
        """The vector an acknowledge would return now; None when INT of the master is low."""
        n = self._chips[0].request()
        if n is None:
            return None
        return self._slave_vector(n) if self._cascaded(n) else self._chips[0].vector(n)

    def acknowledge(self) -> int:
        """The INTA cycles. Without a request the answer is level 7 and nothing enters service (8259A, "Edge and Level
        Triggered Modes", default IR7), at the master as at a slave."""
        master, slave = self._chips
        n = master.request()
        if n is None:
            # A master whose slave sits on IR7 would pass even this on to it.
            return self._slave_vector(7) if self._cascaded(7) else master.vector(7)
        master.serve(n)
        if not self._cascaded(n):
            return master.vector(n)
        vector = self._slave_vector(n)
        request = slave.request()
        if vector != _FLOATING and request is not None:
            slave.serve(request)
        # The slave's INT falls with its acknowledge: a request left over there is a new edge for the master.
        master.set_input(CASCADE, self._irq2)
        self._cascade()
        return vector

    # -- what the bus faces use ------------------------------------------------------------------------------------

    def _read(self, index: int, offset: int) -> int:
        self._pin.settle()
        value = self._chips[index].read(offset)
        self._changed(bool(index))
        return value

    def _write(self, index: int, offset: int, value: int) -> None:
        self._pin.settle()
        self._chips[index].write(offset, value)
        self._changed(bool(index))

    def _look(self, index: int) -> Chip:
        """What the engine has delivered is caught up with first; nothing else changes."""
        self._pin.settle()
        return self._chips[index]

    def _write_elcr(self, index: int, value: int) -> None:
        self._pin.settle()
        self._chips[index].state.elcr = value
        self._changed()

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> State:
        self._pin.settle()
        master, slave = self._chips
        lines = [[wire.level for wire in wires] for wires in self._lines]
        return State(replace(master.state), replace(slave.state), lines, list(self.raised))

    def restore(self, state: State) -> None:
        """Also sets the lines' levels, without driving them. Raises ValueError if other lines were handed out."""
        if [len(wires) for wires in state.lines] != [len(wires) for wires in self._lines]:
            raise ValueError("the saved interrupt lines are not this machine's: restore into an equal machine")
        for chip, saved in zip(self._chips, (state.master, state.slave), strict=True):
            chip.state = replace(saved)
        self.raised = list(state.raised)
        for wires, levels in zip(self._lines, state.lines, strict=True):
            for wire, level in zip(wires, levels, strict=True):
                wire.level = level
        self._pin.update()

    def view(self) -> DeviceView:
        """Both chips; `master.view()` and `slave.view()` show one."""
        self._pin.settle()
        fields = [
            replace(f, name=f"{name} {f.name}")
            for name, chip, first in (("master", self._chips[0], 0), ("slave", self._chips[1], 8))
            for f in chip.fields(first)
        ]
        return DeviceView("pic", "Intel 8259A pair", "ports 20h-21h, A0h-A1h", tuple(fields))


class ChipPorts:
    """The two ports of one chip: A0 = 0 and A0 = 1."""

    def __init__(self, pair: Pic8259Pair, index: int) -> None:
        self._pair = pair
        self._index = index

    def read(self, offset: int, size: int) -> int:
        return self._pair._read(self._index, offset)

    def peek(self, offset: int, size: int) -> int:
        """What `read` would return; a poll is not acknowledged."""
        return self._pair._look(self._index).peek(offset)

    def write(self, offset: int, value: int, size: int) -> None:
        self._pair._write(self._index, offset, value)

    def view(self) -> DeviceView:
        name, where = (("master", "ports 20h-21h"), ("slave", "ports A0h-A1h"))[self._index]
        return DeviceView(f"pic {name}", "Intel 8259A", where, self._pair._look(self._index).fields(8 * self._index))


class EdgeLevelControl:
    """4D0h (IRQ 0-7) and 4D1h (IRQ 8-15): 1 makes an input level triggered. IRQ 0, 1, 2, 8 and 13 stay edge
    triggered."""

    _WRITABLE = (0xF8, 0xDE)

    def __init__(self, pair: Pic8259Pair) -> None:
        self._pair = pair

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """A read has no side effects."""
        return self._pair._look(offset).state.elcr

    def write(self, offset: int, value: int, size: int) -> None:
        self._pair._write_elcr(offset, value & self._WRITABLE[offset])

    def view(self) -> DeviceView:
        fields = tuple(FieldView(f"ELCR{i + 1}", self.peek(i, 1)) for i in range(2))
        return DeviceView("elcr", "82371SB edge/level control", "ports 4D0h-4D1h", fields)
