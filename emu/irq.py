"""Interrupt lines between devices, the interrupt controller and the CPU's INTR pin."""

from __future__ import annotations

from collections.abc import Callable

from emu.typed import Protocol


class InterruptController(Protocol):
    """What drives INTR (the master 8259; later also a LAPIC)."""

    def pending_vector(self) -> int | None:
        """The vector an acknowledge would return now, without side effects; None when INTR is low."""

    def last_for_now(self) -> bool:
        """An acknowledge now would leave INTR low until the controller is accessed or a line changes."""

    def acknowledge(self) -> int:
        """The INTA cycles: returns the vector and moves the request into service."""


class IntrSink(Protocol):
    """What INTR leads to: a CPU, or who takes interrupts in its place. See emu.engine.Cpu."""

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None: ...
    def take_interrupt(self) -> int | None: ...


class IntrPin:
    """Couples a controller to an executor that takes interrupts by itself.

    The engine delivers the vector it was last given, on its own, in the middle of a run. The controller learns of it
    at the next `settle`, which must come before anything looks at the controller or changes it: the controller
    calls `settle()` first and `update()` last in every access and line change. Where nobody waits for the delivery and
    nothing can come of it, the run goes on behind it.
    """

    def __init__(self) -> None:
        self._controller: InterruptController | None = None
        self._executor: IntrSink | None = None
        self.on_delivery: Callable[[int], None] | None = None  #: told each vector delivered
        self.before_settle: Callable[[], None] = lambda: None  #: what came before the engine's last delivery
        self.before_update: Callable[[], None] = lambda: None  #: told before INTR is driven anew
        #: says whether nobody is to be told of a delivery at its instant, as it surely leaves INTR low; None: never
        self.may_go_on: Callable[[], bool] | None = None

    def connect(self, controller: InterruptController, executor: IntrSink) -> None:
        self._controller, self._executor = controller, executor

    def settle(self) -> None:
        """Acknowledge at the controller what the engine has delivered since."""
        if self._executor is None or self._controller is None:
            return
        self.before_settle()
        vector = self._executor.take_interrupt()
        if vector is not None:
            self._controller.acknowledge()
            if self.on_delivery is not None:
                self.on_delivery(vector)
            self._drive(self._executor, self._controller)

    def update(self) -> None:
        """Tell the engine what the controller asks for now."""
        if self._executor is not None and self._controller is not None:
            self._drive(self._executor, self._controller)

    def _drive(self, executor: IntrSink, controller: InterruptController) -> None:
        self.before_update()
        vector = controller.pending_vector()
        if vector is not None and self.may_go_on is not None and self.may_go_on():
            executor.set_interrupt(vector, last=True)
        else:
            executor.set_interrupt(vector)


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
