"""Interrupt lines between devices, the interrupt controller and the CPU's INTR pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from emu.engine import Executor


class InterruptController(Protocol):
    """What drives INTR (the master 8259; later also a LAPIC)."""

    def pending_vector(self) -> int | None:
        """The vector an acknowledge would return now, without side effects; None when INTR is low."""

    def acknowledge(self) -> int:
        """The INTA cycles: returns the vector and moves the request into service."""


class IntrPin:
    """Couples a controller to an executor that takes interrupts by itself.

    The engine delivers the vector it was last given, on its own, in the middle of a run. The controller learns of it
    at the next `settle`, which must come before anything looks at the controller or changes it: the controller
    calls `settle()` first and `update()` last in every access and line change.
    """

    def __init__(self) -> None:
        self._controller: InterruptController | None = None
        self._executor: Executor | None = None
        self.on_delivery: Callable[[int], None] | None = None  #: told each vector delivered
        self.before_update: Callable[[], None] = lambda: None  #: told before INTR is driven anew

    def connect(self, controller: InterruptController, executor: Executor) -> None:
        self._controller, self._executor = controller, executor

    def settle(self) -> None:
        """Acknowledge at the controller what the engine has delivered since."""
        if self._executor is None or self._controller is None:
            return
        vector = self._executor.take_interrupt()
        if vector is not None:
            self._controller.acknowledge()
            if self.on_delivery is not None:
                self.on_delivery(vector)
            self.before_update()
            self._executor.set_interrupt(self._controller.pending_vector())

    def update(self) -> None:
        """Tell the engine what the controller asks for now."""
        if self._executor is not None and self._controller is not None:
            self.before_update()
            self._executor.set_interrupt(self._controller.pending_vector())


class Line:
    """A wire from a device to `sink(level)`. Setting the level it has does nothing."""

    __slots__ = ("_sink", "level")

    def __init__(self, sink: Callable[[bool], None]) -> None:
        self._sink = sink
        self.level = False

    def set(self, level: bool) -> None:
        if level != self.level:
            self.level = level
            self._sink(level)
