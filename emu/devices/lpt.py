"""The PC's parallel port with a printer on it that puts every byte into a stream.

Sources: IBM PC/AT Technical Reference, "Serial/Parallel Adapter": data, status and control ports, -ACK drives the
interrupt; IEEE 1284-1994, 6.2 "Compatibility mode" (Centronics handshake: nStrobe, Busy, nAck; nInit), annex on the
register bits. Bit 5 of control turns the data lines round, as on PS/2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from emu.clock import Clock
from emu.views import DeviceView, FieldView

DATA, STATUS, CONTROL = range(3)
# status; bits 2-0 read 1
NOT_BUSY, NACK, PAPER_OUT, SELECTED, NERROR = 0x80, 0x40, 0x20, 0x10, 0x08
# control; bits 7-6 read 1
STROBE, AUTO_FEED, NINIT, SELECT_IN, IRQ_ENABLE, INPUT = (1 << i for i in range(6))

#: A byte into the printer's buffer, and the acknowledge pulse after it.
BUSY_NS = 5_000
ACK_NS = 5_000


@dataclass(slots=True)
class State:
    """`latched` is the byte that the printer is taking, None when it is not busy."""

    data: int = 0
    control: int = SELECT_IN | NINIT
    latched: int | None = None
    acknowledging: bool = False
    printed: int = 0


class ParallelPort:
    """Three ports. `irq` follows -ACK inverted while control bit 4 is set; `print` gets each byte when it is taken."""

    def __init__(
        self, clock: Clock, irq: Callable[[bool], None], print: Callable[[int], None], name: str = "lpt1"
    ) -> None:
        self._clock, self._irq, self._print, self.name = clock, irq, print, name
        self._timer = clock.timer(f"{name}.printer", self._due)
        self.state = State()

    def reset(self) -> None:
        self._timer.cancel()
        self.state = State()
        self._drive()

    def save(self) -> State:
        return copy.copy(self.state)

    def restore(self, state: State) -> None:
        """The timer is restored with the clock."""
        self.state = copy.copy(state)
        self._drive()

    def _drive(self) -> None:
        s = self.state
        self._irq(s.acknowledging and bool(s.control & IRQ_ENABLE))

    def peek(self, offset: int, size: int) -> int:
        s = self.state
        if offset == DATA:
            return 0xFF if s.control & INPUT else s.data  # the printer drives no data
        if offset == STATUS:
            busy = s.latched is not None or s.acknowledging or not s.control & NINIT
            return SELECTED | NERROR | 7 | (0 if busy else NOT_BUSY) | (0 if s.acknowledging else NACK)
        return s.control | 0xC0

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        s = self.state
        if offset == DATA:
            s.data = value & 0xFF
        elif offset == CONTROL:
            was, s.control = s.control, value & 0x3F
            if not s.control & NINIT:
                self._timer.cancel()
                s.latched, s.acknowledging = None, False
            elif s.control & STROBE and not was & STROBE and self.peek(STATUS, 1) & NOT_BUSY:
                s.latched = 0xFF if s.control & INPUT else s.data
                self._timer.arm(self._clock.now + BUSY_NS)
            self._drive()

    def _due(self, deadline: int) -> None:
        s = self.state
        if s.latched is not None:
            byte, s.latched, s.acknowledging = s.latched, None, True
            s.printed += 1
            self._print(byte)
            self._timer.arm(deadline + ACK_NS)
        else:
            s.acknowledging = False
        self._drive()

    def view(self) -> DeviceView:
        s = self.state
        status = self.peek(STATUS, 1)
        names = ((NOT_BUSY, "not busy"), (NACK, "-ACK high"), (SELECTED, "selected"), (NERROR, "no error"))
        control = ((STROBE, "strobe"), (AUTO_FEED, "auto feed"), (NINIT, "-INIT high"), (SELECT_IN, "select in"),
                   (IRQ_ENABLE, "interrupt"), (INPUT, "input"))  # fmt: skip
        return DeviceView(
            self.name,
            "parallel port, printer",
            "ports 378h-37Ah",
            (
                FieldView("data", s.data),
                FieldView("status", status, ", ".join(text for bit, text in names if status & bit)),
                FieldView("control", s.control, ", ".join(text for bit, text in control if s.control & bit)),
                FieldView("printed", s.printed, "bytes"),
            ),
        )
