"""The coprocessor's error: FERR#, IGNNE#, IRQ 13 and port F0h, by which an AT tells of x87 exceptions without NE.

Sources: Intel 82371SB (PIIX3) data sheet 290550, "Coprocessor Error Function": FERR# makes IRQ 13; a write of F0h
clears it and asserts IGNNE#, which stays so until FERR# is negated, and is not asserted without it. SDM vol. 1, 8.7.2.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass, replace
from emu.views import DeviceView, FieldView

#: What the CPU reads when it asserts FERR#: whether IGNNE# is asserted.
WAIT, IGNORE = 0x00, 0xFF
FLOATING = 0xFF


@dataclass(slots=True)
class CoprocessorState:
    """The two signals, and the request."""

    error: bool = False  #: FERR#
    ignored: bool = False  #: IGNNE#
    requested: bool = False  #: IRQ 13


class CoprocessorError:
    """The logic between the CPU and the interrupt controller. It is the device at port F0h, of which reads float."""

    def __init__(self, irq: Callable[[bool], None]) -> None:
        self._irq = irq
        self._state = CoprocessorState()
        self.cpu = CpuFace(self)

    def _request(self, level: bool) -> None:
        if self._state.requested != level:
            self._state.requested = level
            self._irq(level)

    def error(self) -> bool:
        """The CPU asserts FERR#; True: it may go on, as IGNNE# is asserted."""
        if not self._state.error:
            self._state.error = True
            self._request(True)
        return self._state.ignored

    def no_error(self) -> None:
        """The CPU negates it."""
        self._state.error = self._state.ignored = False
        self._request(False)

    def reset(self) -> None:
        """Power-on and system reset; the CPU has no exception then."""
        self.no_error()

    def read(self, offset: int, size: int) -> int:
        return FLOATING

    def peek(self, offset: int, size: int) -> int:
        return FLOATING

    def write(self, offset: int, value: int, size: int) -> None:
        """Whatever the value is."""
        self._state.ignored = self._state.error
        self._request(False)

    def save(self) -> CoprocessorState:
        return replace(self._state)

    def restore(self, state: CoprocessorState) -> None:
        """The line is the interrupt controller's to restore."""
        self._state = replace(state)

    def view(self) -> DeviceView:
        s = self._state
        fields = (FieldView("FERR#", s.error), FieldView("IGNNE#", s.ignored), FieldView("IRQ 13", s.requested))
        return DeviceView("coprocessor", "coprocessor error logic", "port F0h, IRQ 13", fields)


class CpuFace:
    """The CPU's side of it, as a port that no instruction reaches (emu.layout.FERR)."""

    def __init__(self, logic: CoprocessorError) -> None:
        self._logic = logic

    def read(self, offset: int, size: int) -> int:
        return IGNORE if self._logic.error() else WAIT

    def peek(self, offset: int, size: int) -> int:
        return IGNORE if self._logic.save().ignored else WAIT

    def write(self, offset: int, value: int, size: int) -> None:
        self._logic.no_error()
