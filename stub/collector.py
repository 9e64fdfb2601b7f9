"""What happens at a hit of a tracepoint: its condition, its actions, a frame; and behind each step that follows it. On
the target's thread; never a stop.

What one hit may take is bounded, since it holds the guest up: agent expressions by their own limits, and by bytes of
memory looked at. An expression that cannot be evaluated ends the trace, with the reason, as gdbserver does it; memory
that is not there is not collected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stub.agent import AgentError, Meter, Program, parse
from stub.target import ConditionalPoints, Description, PointHooks, TargetError
from stub.trace_messages import CollectMemory, CollectRegisters, Evaluate, TraceAction
from stub.trace_target import Traces
from stub.tracing import Experiment, Frame, Tracepoint, frame_size

#: Bytes of memory that one hit may load and collect.
COLLECTED = 1 << 20
#: Steps of its condition and actions together.
HIT_STEPS = 100_000
PIECES = 1000  #: that are not adjacent
_PAGE = 0x1000
_MASK = (1 << 64) - 1


class _Target(ConditionalPoints, Traces, Protocol):
    """What a collector needs."""


class _Hit:
    """One hit: the target as agent expressions see it, and what they collect."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._left = COLLECTED
        self.meter = Meter(HIT_STEPS)
        self.registers: object | None = None
        self.memory: list[tuple[int, bytes]] = []
        self.variables: list[tuple[int, int]] = []

    def _spend(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise AgentError(f"one hit collects more than {COLLECTED} bytes")

    def register(self, number: int) -> int:
        return self._collector.readers[number]()

    def load(self, address: int, size: int) -> bytes:
        self._spend(size)
        return self._collector.target.glance(address, size)

    def text(self, text: str) -> None:
        raise AgentError("a tracepoint prints nothing: that is for breakpoints")

    def collect(self, address: int, length: int) -> None:
        """As much of it as there is."""
        self._spend(length)
        end = address + length
        while address < end:
            count = min(end - address, _PAGE - address % _PAGE)
            try:
                data = self._collector.target.glance(address, count)
            except TargetError:
                return
            self._add(address, data)
            address += count

    def _add(self, address: int, data: bytes) -> None:
        if self.memory and self.memory[-1][0] + len(self.memory[-1][1]) == address:
            start, before = self.memory.pop()
            address, data = start, before + data
        self.memory.append((address, data))
        if len(self.memory) > PIECES:
            raise AgentError(f"one hit collects more than {PIECES} pieces of memory")

    def variable(self, number: int) -> int:
        return self._collector.experiment.value(number)

    def set_variable(self, number: int, value: int) -> None:
        self._collector.experiment.set_value(number, value)

    def collect_variable(self, number: int) -> None:
        self._spend(8)
        self.variables.append((number, self.variable(number)))


_Action = Callable[[_Hit], None]


class Collector:
    """Of one tracepoint, while it is installed; `layout` is what its client numbers registers by."""

    def __init__(self, target: _Target, experiment: Experiment, point: Tracepoint, layout: Description) -> None:
        """Raises TargetError for an expression that is malformed or names no register."""
        self.target, self.experiment, self._point = target, experiment, point
        self._size = sum(register.size for register in layout.registers)
        self._layout = layout
        self.readers: dict[int, Callable[[], int]] = {}
        self._condition = self._program(point.condition) if point.condition else None
        self._actions = tuple(map(self._action, point.actions))
        self._step_actions = tuple(map(self._action, point.step_actions))
        self._left = 0  # steps to be collected yet
        self._emptied = 0  # the buffer's, when they began
        self._removals = point.removals  # when it was inserted

    def hooks(self) -> PointHooks:
        """For the target's breakpoint, about to be inserted. The target may remove it later than it is told."""
        self._removals = self._point.removals
        return PointHooks(self, None, self.hit)

    def _program(self, code: bytes) -> Program:
        program = parse(code)
        for number in program.registers:
            self._reader(number)
        return program

    def _reader(self, number: int) -> Callable[[], int]:
        registers = self._layout.registers
        if number >= len(registers):
            raise AgentError(f"the tracepoint names register {number}; there are {len(registers)}")
        if number not in self.readers:
            self.readers[number] = self.target.register_reader(registers[number])
        return self.readers[number]

    def _action(self, action: TraceAction) -> _Action:
        match action:
            case CollectRegisters():
                return self._snapshot
            case CollectMemory(register, offset, length):
                base = None if register is None else self._reader(register)
                return lambda hit: hit.collect((offset + (base() if base is not None else 0)) & _MASK, length)
            case Evaluate(code):
                program = self._program(code)
                return lambda hit: _run(program, hit)

    def _snapshot(self, hit: _Hit) -> None:
        """All registers, whichever were asked for: a frame then can be shown as any description has them."""
        if hit.registers is None:
            hit.registers = self.target.snapshot()

    def hit(self) -> None:
        """The guest is about to execute the instruction."""
        experiment, point = self.experiment, self._point
        if point.removals != self._removals:
            return  # it is a removed one's, of this trace or one before
        if not experiment.running or not point.enabled or (point.passes and point.hits >= point.passes):
            return  # in the last case the steps of the last hit are still to come
        hit = _Hit(self)
        try:
            if self._condition is not None and not self._condition.run(hit, hit.meter):
                return
            point.hits += 1
        except TargetError as error:
            experiment.stop("terror", str(error), point.number)
            return
        if not self._collect(hit, self._actions, point.address):
            return
        if point.steps:
            self._left, self._emptied = point.steps, experiment.buffer.emptied
            self.target.follow(self._step)
        else:
            self._count()

    def _step(self) -> bool:
        """An instruction behind a hit has been executed: is another one to be followed? A hit within the steps of the
        one before begins them anew, so that each is collected once."""
        experiment = self.experiment
        if not experiment.running or experiment.buffer.emptied != self._emptied:
            return False
        self._left -= 1
        if not self._collect(_Hit(self), self._step_actions, self.target.place()):
            return False
        if not self._left:
            self._count()
        return self._left > 0

    def _collect(self, hit: _Hit, actions: tuple[_Action, ...], address: int) -> bool:
        """Make a frame. False where that has ended the trace."""
        experiment, point = self.experiment, self._point
        try:
            for action in actions:
                action(hit)
        except TargetError as error:
            experiment.stop("terror", str(error), point.number)
            return False
        size = frame_size(0 if hit.registers is None else self._size, hit.memory, len(hit.variables))
        frame = Frame(point.number, address, hit.registers, tuple(hit.memory), tuple(hit.variables), size)
        if not experiment.buffer.add(frame):
            experiment.stop("tfull")
            return False
        point.usage += size
        return True

    def _count(self) -> None:
        """A hit is collected with all its steps."""
        point = self._point
        if point.passes and point.hits >= point.passes:
            self.experiment.stop("tpasscount", culprit=point.number)


def _run(program: Program, hit: _Hit) -> None:
    program.run(hit, hit.meter)
