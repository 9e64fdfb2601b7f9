"""System management mode as a machine has it: a latched SMI, the entry between two instructions, and RSM."""

from __future__ import annotations

from collections.abc import Callable

from emu.busmaster import BusMaster
from emu.engine import Executor
from emu.record import dataclass, replace
from emu.views import DeviceView, FieldView
from emu.x86.smm import AREA, AREA_SIZE, area_map, entered, resumed, saved


@dataclass(slots=True)
class State:
    """`pending`: an SMI has come that the CPU has not taken. One is kept while SMM runs (SDM vol. 3C, "System
    Management Interrupt")."""

    pending: bool = False


class SystemManagement:
    """`show(inside)` tells the chipset whether the CPU is in SMM, so that it sees SMRAM; it is in force on return."""

    def __init__(self, executor: Executor, memory: BusMaster, show: Callable[[bool], None], *, long_mode: bool) -> None:
        self._executor, self._memory, self._show = executor, memory, show
        self._map = area_map(long_mode)
        self._state = State()
        self._resume = False
        self._inside = False
        #: told what happened, in words
        self.told: Callable[[str], None] = lambda text: None
        executor.on_rsm(self._rsm)

    def smi(self) -> None:
        """The SMI# pin falls. Taken before the next instruction, or behind RSM."""
        self._state.pending = True
        self._executor.request_stop()

    def _rsm(self) -> None:
        self._resume = True

    @property
    def due(self) -> bool:
        """`service` will do something."""
        return self._resume or (self._state.pending and not self._inside)

    def service(self) -> str:
        """Between two instructions: enter or leave, as asked. A sentence when the CPU shuts down."""
        if self._resume:
            self._resume = False
            if sentence := self._leave():
                return sentence
        if self._state.pending and not self._inside:
            self._state.pending = False
            self._enter()
        return ""

    def _enter(self) -> None:
        state = self._executor.state()
        self._tell(True)
        self._memory.write(state.smbase + AREA, saved(state, self._map))
        self._executor.load(entered(state))
        self.told(f"SMI at {state.cs.selector:04x}:{state.rip:x}, SMBASE {state.smbase:#x}")

    def _leave(self) -> str:
        state = self._executor.state()
        after = resumed(state, self._memory.read(state.smbase + AREA, AREA_SIZE), self._map)
        if after is None:
            return f"RSM found a state at {state.smbase + AREA:#x} that no CPU can have"
        self._tell(False)
        self._executor.load(after)
        self.told(f"RSM to {after.cs.selector:04x}:{after.rip:x}, SMBASE {after.smbase:#x}")
        return ""

    def _tell(self, inside: bool) -> None:
        self._inside = inside
        self._show(inside)

    def loaded(self, inside: bool) -> None:
        """The CPU has been given another state."""
        self._resume = False
        self._tell(inside)

    # -- as a device of the machine

    def reset(self) -> None:
        self._state = State()

    def save(self) -> State:
        return replace(self._state)

    def restore(self, state: State) -> None:
        self._state = replace(state)

    def view(self) -> DeviceView:
        state = self._executor.state()
        return DeviceView(
            "smm",
            "system management mode",
            "SMI#",
            (
                FieldView("SMM", self._inside, "the CPU is in it" if self._inside else "the CPU is not in it"),
                FieldView("SMBASE", state.smbase, f"handler at {state.smbase + 0x8000:x}h"),
                FieldView("SMI", self._state.pending, "waits for RSM" if self._state.pending else "none waits"),
            ),
        )
