"""Notices a step that waits for a handler which does not come back, and tells of it, once a step.

The wait is measured in virtual time, so it is told at the same instruction of each run that is the same; a CPU that
sleeps in the handler, as the idle task of a scheduler does, retires next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emu.machine import Machine
from emu.typed import TYPE_CHECKING
from emu.views import LastingView

if TYPE_CHECKING:
    from emu.x86.descriptors import ReadLinear

#: Virtual ns that a handler may take before it is told of: 50 million instructions, of a tick a few thousand.
LONG = 500_000_000


class Lasting:
    """Of one debugger. `read` gives linear memory, None where there is none."""

    def __init__(self, machine: Machine, read: ReadLinear) -> None:
        self._machine, self._read = machine, read
        self._timer = machine.clock.timer("host.handler", self._due, host=True)
        self._timer.wakes = False
        self._fresh = True  # nothing has been told of this action
        self._began: tuple[int, int] = (0, 0)  # what had been retired, and virtual ns
        self._vector: int | None = None
        self._handler = self._back = ""
        self._told: list[Callable[[LastingView], None]] = []

    def add_listener(self, told: Callable[[LastingView], None]) -> None:
        """`told` is called on the machine's thread, in the midst of the run."""
        self._told.append(told)

    def remove_listener(self, told: Callable[[LastingView], None]) -> None:
        """Nothing happens where it is none."""
        if told in self._told:
            self._told.remove(told)

    def renew(self) -> None:
        """Another action begins."""
        self._fresh = True

    @contextmanager
    def wait(self) -> Iterator[None]:
        """An interrupt is about to be delivered, or the CPU sleeps until one is: within, its handler runs."""
        if not self._fresh:
            yield
            return
        machine = self._machine
        self._vector = machine.controller.pending_vector() if machine.interrupt_due else None
        self._handler = ""
        if self._vector is not None:
            from emu.x86.entrypoints import entry_point

            entry = entry_point(machine.cpu_state(), self._vector, self._read)
            self._handler = "" if entry is None else f"{entry[0]:04x}:{entry[1]:04x}"
        self._back = self._where()
        self._began = machine.executor.retired, machine.clock.now
        self._timer.arm(machine.clock.now + LONG)
        try:
            yield
        finally:
            self._timer.cancel()

    def _where(self) -> str:
        cs, ip = self._machine.executor.cs_ip
        return f"{cs:04x}:{ip:04x}"

    def _due(self, deadline: int) -> None:
        self._fresh = False
        machine, (retired, ns) = self._machine, self._began
        view = LastingView(
            self._vector, self._handler, self._back, self._where(), machine.executor.retired - retired,
            machine.clock.now - ns,
        )  # fmt: skip
        machine.journal.keep(machine.executor.retired, "handler", view.summary)
        for told in tuple(self._told):
            told(view)
