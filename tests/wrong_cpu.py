"""A CPU that does one instruction wrongly: an emulator whose state is changed behind that at one address, for tests of
what finds it."""

from __future__ import annotations

from collections.abc import Callable

from emu.engine import Exit, ExitReason
from emu.machine import MachineConfig
from emu.replica import MakeExecutor, Replica
from emu.seconds import Second
from emu.unicorn_engine import UnicornEngine
from emu.x86.state import CpuState


class Wrong(UnicornEngine):
    """An emulator that changes its state by `break_it` behind the instruction at linear `address`."""

    address = -1
    break_it: Callable[[Replica, CpuState], None]
    replica: Replica

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        if self.address < 0:
            return super().run(budget, skip_breakpoint=skip_breakpoint)
        self.set_breakpoints((self.address,))
        start = self.retired
        exit = super().run(budget, skip_breakpoint=skip_breakpoint)
        if exit.reason is not ExitReason.BREAKPOINT:
            return exit
        exit = super().run(1, skip_breakpoint=True)
        if exit.executed:
            state = self.state()
            type(self).break_it(self.replica, state)
            super().load(state)
        return Exit(ExitReason.REQUEST, self.retired - start)


def wrong(address: int, break_it: Callable[[Replica, CpuState], None]) -> Second:
    def prepared(config: MachineConfig) -> MakeExecutor:
        def make(replica: Replica) -> UnicornEngine:
            engine = Wrong(replica.memory.regions, replica, replica, timestamp=replica.timestamp)
            Wrong.break_it = staticmethod(break_it)
            engine.address, engine.replica = address, replica
            return engine

        return make

    return Second("wrong", prepared)
