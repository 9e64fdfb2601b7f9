"""The two cascaded 8259A interrupt controllers of a PC, and the edge/level control registers of PCI machines. One chip
is in pic8259_chip.

Source: Intel 8259A Programmable Interrupt Controller data sheet, order number 231468 ("8259A" below), and for
4D0h/4D1h Intel 82371SB (PIIX3) data sheet 290550, "ELCR1", "ELCR2". Wiring: IBM PC/AT Technical Reference: the slave's
INT is the master's IR2, both see the same INTA.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.pic8259_chip import ICW1_SNGL, ICW4_AEOI, ICW4_SFNM, ICW4_UPM, Chip, ChipState
from emu.devices.shared_ports import SharedPorts
from emu.irq import IntrPin, Line
from emu.record import dataclass, field, replace
from emu.views import DeviceView, FieldView

#: What the data bus reads when no chip drives it.
_FLOATING = 0xFF
#: The master's input that the slave's INT is wired to.
CASCADE = 2


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

    def __init__(self, pin: IntrPin, shared: SharedPorts | None = None) -> None:
        """An engine may answer for the master in `shared`, where that drives the CPU's INTR."""
        self._pin, self._shared = pin, shared
        #: called before anybody looks: an engine may have passed edges of IRQ 0 (`emu.devices.ticks`)
        self.before: Callable[[], None] = lambda: None
        #: called where edges of IRQ 0 are not, or no longer, an engine's to pass
        self.unshared: Callable[[], None] = lambda: None
        self._chips = (Chip(True), Chip(False))
        self._lines: list[list[Line]] = [[] for _ in range(16)]
        self._irq2 = False
        self.raised = [0] * 16  #: how often each IRQ has gone high since reset
        self.master = ChipPorts(self, 0)
        self.slave = ChipPorts(self, 1)
        self.elcr = EdgeLevelControl(self)

    def reset(self) -> None:
        """Power-on. The chips' registers are undefined until ICW1; here they request nothing. Inputs stay."""
        self._settle()
        self.raised = [0] * 16
        for chip in self._chips:
            chip.state = ChipState(inputs=chip.state.inputs & ~chip.state.once)
        self._changed()

    def forget_edges(self) -> None:
        """All devices are built or reset: what their lines did meanwhile is no request."""
        self.reset()

    @property
    def chips(self) -> tuple[Chip, Chip]:
        """Master and slave, to look at."""
        self._settle()
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
        self._settle()
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
        self._share()
        self._pin.update()

    # -- what an engine may answer by itself -----------------------------------------------------------------------

    def _share(self) -> None:
        """Say how the master stands, if an engine may answer for it."""
        if (shared := self._shared) is None:
            return
        chip = self._chips[0]
        s = chip.state
        shared.pic_ready = ready = (
            s.ready and not s.expects and s.lowest == 7 and not (s.special_mask or s.poll)
            and not s.icw4 & (ICW4_AEOI | ICW4_SFNM)
        )  # fmt: skip
        shared.served = 0
        if ready:
            shared.imr, shared.isr, shared.requests, shared.levels = s.imr, s.isr, chip.irr, chip.level_triggered
            shared.slaves = 0 if s.icw1 & ICW1_SNGL else s.icw3
            shared.vectors = s.icw2 & 0xF8
        shared.edges_ready = edges = ready and s.icw4 & ICW4_UPM and not (chip.level_triggered | s.once) & 1
        if not edges:
            self.unshared()

    @property
    def tick(self) -> bool:
        """The level of IRQ 0."""
        return bool(self._chips[0].state.inputs & 1)

    def passed(self, acknowledged: int, level: bool, rises: int) -> None:
        """An engine has passed edges of IRQ 0, which is at `level` now and has gone high `rises` times, and before the
        last of them has acknowledged the master's inputs that are in the mask `acknowledged`."""
        chip, shared = self._chips[0], self._shared
        assert shared is not None, "it has passed them in what is shared"
        chip.served(acknowledged)
        s = chip.state
        s.imr, s.isr = shared.imr, shared.isr  # what was written meanwhile decides what the request leads to
        if not level:
            s.inputs &= ~1
            s.edges &= ~1
        elif rises:
            s.inputs |= 1
            s.edges = s.edges & ~1 | shared.requests & 1
        self.raised[0] += rises

    def _take_back(self) -> None:
        """Know what the engine has answered meanwhile."""
        self.before()
        if (shared := self._shared) is not None and shared.pic_ready:
            s = self._chips[0].state
            s.imr, s.isr = shared.imr, shared.isr
            self._chips[0].served(shared.served)

    def _settle(self) -> None:
        self._take_back()
        self._pin.settle()

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

    @property
    def deaf(self) -> bool:
        """No request can drive INT until the guest writes the IMR: the master masks all eight."""
        self._take_back()
        return self._chips[0].state.imr == 0xFF

    def holds_back(self, irq: int) -> bool:
        """IRQ `irq`, 0 to 15, cannot drive INT until the guest accesses the chips."""
        self._take_back()
        master, slave = self._chips
        return master.holds_back(irq) if irq < 8 else slave.holds_back(irq - 8) or master.holds_back(CASCADE)

    def pending_vector(self) -> int | None:
        """The vector an acknowledge would return now; None when INT of the master is low."""
        n = self._chips[0].request()
        if n is None:
            return None
        return self._slave_vector(n) if self._cascaded(n) else self._chips[0].vector(n)

    def last_for_now(self) -> bool:
        """See InterruptController. What is in service holds back everything below it, unless the acknowledge ends it
        (automatic EOI) or the slave's further requests pass (special fully nested mode)."""
        return not self._chips[0].state.icw4 & (ICW4_AEOI | ICW4_SFNM)

    def acknowledge(self) -> int:
        """The INTA cycles. Without a request the answer is level 7 and nothing enters service (8259A, "Edge and Level
        Triggered Modes", default IR7), at the master as at a slave."""
        if (shared := self._shared) is not None and shared.served:
            self._take_back()
            n = shared.served.bit_length() - 1
            shared.served = 0
            return self._chips[0].vector(n)
        self._take_back()
        vector = self._acknowledge()
        self._share()
        return vector

    def _acknowledge(self) -> int:
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
        self._settle()
        value = self._chips[index].read(offset)
        self._changed(bool(index))
        return value

    def _write(self, index: int, offset: int, value: int) -> None:
        self._settle()
        self._chips[index].write(offset, value)
        self._changed(bool(index))

    def _look(self, index: int) -> Chip:
        """What the engine has delivered is caught up with first; nothing else changes."""
        self._settle()
        return self._chips[index]

    def _write_elcr(self, index: int, value: int) -> None:
        self._settle()
        self._chips[index].state.elcr = value
        self._changed()

    # -- state -----------------------------------------------------------------------------------------------------

    def save(self) -> State:
        self._settle()
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
        self._share()
        self._pin.update()

    def view(self) -> DeviceView:
        """Both chips; `master.view()` and `slave.view()` show one."""
        self._settle()
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
