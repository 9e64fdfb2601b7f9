"""A guest that runs to its end, and which of its accesses to devices reached Python, past the helper's answers."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.stops import StopKind
from emu.unicorn_engine import UnicornEngine
from machines import debugger, rom


def run_reaching(
    monkeypatch: pytest.MonkeyPatch, loop: str, body: str, *, traced: bool = False, **config: object
) -> tuple[Debugger, list[int]]:
    """The machine behind `body`, which ends with a 0 at port F4h, and the ports and the addresses of device memory (of
    these the reads alone) whose accesses reached Python. `traced`: port accesses are traced, to nobody."""
    monkeypatch.setenv("V2E_ENGINE", loop)
    made = debugger(rom(body), **config)
    executor = made.machine.executor
    assert isinstance(executor, UnicornEngine)
    assert executor.run_loop == loop
    reached: list[int] = []

    def note(bus: object, name: str) -> None:
        access = getattr(bus, name)
        monkeypatch.setattr(bus, name, lambda place, *rest: reached.append(place) or access(place, *rest))

    note(made.machine.ports, "port_in")
    note(made.machine.ports, "port_out")
    note(made.machine.mmio, "mmio_read")
    if traced:
        made.machine.ports.trace = lambda port, size, value, is_write: None
    made.set_limit(10_000_000)
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    return made, reached
