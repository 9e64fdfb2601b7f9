"""Actions that make the guest run, as generators that ask the machine for pieces of it: steps of every kind, and on."""

from __future__ import annotations

from collections.abc import Generator

from emu.inspector import MAX_INSTRUCTION
from emu.lasting import Lasting
from emu.machine import Machine, MachineExit, MachineStop
from emu.meeting import Meeting
from emu.points import UNBOUNDED
from emu.record import dataclass
from emu.stops import Stop, StopKind
from emu.x86 import disasm
from emu.x86.modes import code_bits


@dataclass(frozen=True, slots=True)
class Request:
    """What an action asks of the machine: `budget` more instructions, stopping also at the linear addresses `at`."""

    budget: int = UNBOUNDED
    at: frozenset[int] = frozenset()
    skip: bool = False


#: Until something stops it; the same from where a breakpoint was met that did not.
_GO, _GO_ON = Request(), Request(skip=True)
Action = Generator[Request, MachineExit, Stop]
_Part = Generator[Request, MachineExit, "Stop | None"]


class Steps(Meeting):
    """See the module's head."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.step_whole_repeats = False  #: True: a step takes a repeated string instruction as a whole
        self.lasting = Lasting(machine, self._try_linear)
        self.step_into_interrupts = False  #: True: a step that meets an interrupt stops in its handler

    def _pass_interrupts(self) -> _Part:
        """Let interrupts that come before the next instruction run through their handlers."""
        machine = self.machine
        machine.service()
        while machine.interrupt_due or machine.executor.halted:
            if self.step_into_interrupts:
                self._owe()
                return None
            with self.lasting.wait():
                stop = yield from self._come_back()
            if stop is not None:
                return stop
            machine.service()
        return None

    def _come_back(self) -> _Part:
        """On until the handler of the interrupt that comes next has returned to where the guest stands."""
        here = self._here()
        while True:
            exit = yield Request(at=frozenset((here[0],)))
            if exit.reason is not MachineStop.BREAKPOINT or exit.exit is None:
                return self._classify(exit) or self._limit_stop()
            if self._here() == here:
                for point in self._passing:
                    point.owed = None
                return None
            stop = self._classify(exit)
            if stop is not None:
                return stop
            exit = yield Request(1, skip=True)  # the address was met on another stack: go on
            if (stop := self._classify(exit)) is not None:
                return stop

    def _at_once(self) -> MachineExit | None:
        """One instruction without a request, where nothing comes before it; None: it is for `_one`."""
        if self._unarmed:
            self._arm_watches()
        before = self.machine.executor.retired
        if self._followers or self._plain <= 0 or (exit := self.machine.step()) is None:
            return None
        if exit.reason is MachineStop.REQUEST and self.machine.executor.retired == before:
            return None  # somebody posts just now, and is served first
        self._plain -= 1
        return exit

    def _one(self) -> _Part:
        """One instruction; a Stop when something else came first."""
        if (exit := self._at_once()) is not None:
            return self._classify(exit)
        stop = yield from self._pass_interrupts()
        if stop is not None:
            return stop
        exit = yield Request(1, skip=True)
        return self._classify(exit)

    def _continue(self) -> Action:
        met = True  # what stands at the first instruction has been met, or the guest was not to stop there
        while True:
            exit = yield _GO_ON if met else _GO
            stop = self._classify(exit)
            if stop is not None:
                return stop
            met = exit.reason is MachineStop.BREAKPOINT

    def _whole(self) -> _Part:
        """One instruction, a repeated string instruction with all its iterations."""
        pc, sp = self._here()
        raw, bits = self._try_code(pc), code_bits(self.machine.cpu_state())
        stop = yield from self._one()
        if not disasm.is_rep_string(raw, bits):
            return stop
        after = pc + disasm.length(raw, bits)
        while stop is None and self._here() == (pc, sp):
            # Interrupts come between two iterations, and their handlers may use the instruction too.
            exit = yield Request(at=frozenset((after,)), skip=True)
            if exit.reason is MachineStop.BREAKPOINT and self._here() == (after, sp):
                return None
            stop = self._classify(exit)
            while stop is None and self._here()[1] != sp:
                exit = yield Request(at=frozenset((after, pc)), skip=self._here()[0] in (after, pc))
                stop = None if exit.reason is MachineStop.BREAKPOINT and self._here()[1] == sp else self._classify(exit)
        return stop

    def _step(self, count: int) -> Action:
        whole = self.step_whole_repeats
        for done in range(count):
            if not whole and (exit := self._at_once()) is not None:
                stop = self._classify(exit)
            else:
                stop = yield from self._whole() if whole else self._one()
            if stop is None and done < count - 1:
                stop = self._breakpoint_here()
            if stop is not None:
                return stop
        return self._stop_at(StopKind.STEP, "step")

    def _over(self) -> Action:
        state = self.machine.cpu_state()
        raw = self._try_code(state.linear_pc)
        bits = code_bits(state)
        if not disasm.is_call_like(raw, bits):
            stop = yield from self._one()
            return stop or self._stop_at(StopKind.STEP, "step")
        pc, sp = self._here()
        after = pc + disasm.length(raw, bits)
        # Deeper calls of a recursion come by with a lower stack pointer. INT 25h and 26h leave the flags behind.
        lowest = sp - bits // 8 if disasm.is_interrupt(raw, bits) else sp
        stop = yield from self._one()
        if stop is None and self._here()[0] == after:
            return self._stop_at(StopKind.STEP, "step")  # done, or a CALL of the next instruction to learn its address
        while stop is None:
            exit = yield Request(at=frozenset((after,)), skip=self._here()[0] == after)
            if exit.reason is MachineStop.BREAKPOINT and self._here()[0] == after and self._here()[1] >= lowest:
                return self._breakpoint_here() or self._stop_at(StopKind.STEP, "step")
            stop = self._classify(exit)
        return stop

    def _range(self, start: int, end: int) -> Action:
        whole = self.step_whole_repeats
        while True:
            if not whole and (exit := self._at_once()) is not None:
                stop = self._classify(exit)
            else:
                stop = yield from self._whole() if whole else self._one()
            if stop is None and not start <= self.machine.executor.linear_pc < end:
                stop = self._stop_at(StopKind.STEP, "step")
            stop = stop or self._breakpoint_here()
            if stop is not None:
                return stop

    def _to(self, address: int) -> Action:
        stop = yield from self._one()
        while stop is None and self.machine.executor.linear_pc != address:
            exit = yield Request(at=frozenset((address,)))
            stop = self._classify(exit)
        return stop or self._stop_at(StopKind.STEP, f"reached {address:#x}")

    def _try_code(self, linear: int) -> bytes:
        return self.read_linear(linear, self.readable(linear, MAX_INSTRUCTION))
