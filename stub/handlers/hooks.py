"""Conditions and commands of a breakpoint: agent expressions, read once and run at each hit."""

from __future__ import annotations

from collections.abc import Callable

from stub.agent import AgentError, Program, parse
from stub.handlers.base import Context
from stub.offers import offers
from stub.target import ConditionalPoints, PointHooks
from stub.trace_target import Traces
from stub.tracing import Experiment

#: What one hit may take, so that no client holds the guest up: programs, and bytes of memory that they load.
PROGRAMS = 100
LOADED = 1 << 16


class _World:
    """The target as agent expressions see it: `readers` has the registers that they name, by their numbers in the
    description that the client had when it sent them."""

    def __init__(
        self, target: ConditionalPoints, readers: dict[int, Callable[[], int]], printed: Callable[[str], None]
    ) -> None:
        self._glance, self.text, self._readers = target.glance, printed, readers
        self._experiment = target.experiment if offers(target, Traces) else None
        self.left = LOADED  #: bytes that this hit may load yet

    def load(self, address: int, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise AgentError(f"the expressions load more than {LOADED} bytes")
        return self._glance(address, size)

    def register(self, number: int) -> int:
        return self._readers[number]()

    def collect(self, address: int, length: int) -> None:
        raise AgentError("a breakpoint collects nothing: that is for tracepoints")

    def variable(self, number: int) -> int:
        return self._known().value(number)

    def set_variable(self, number: int, value: int) -> None:
        self._known().set_value(number, value)

    def collect_variable(self, number: int) -> None:
        self.collect(0, 0)

    def _known(self) -> Experiment:
        if self._experiment is None:
            raise AgentError("this target has no trace state variables")
        return self._experiment


def hooks_of(
    context: Context, target: ConditionalPoints, conditions: tuple[bytes, ...], commands: tuple[bytes, ...]
) -> PointHooks:
    """The hooks of a breakpoint. Raises TargetError for a program that is malformed or names no register."""
    if len(conditions) + len(commands) > PROGRAMS:
        raise AgentError(f"{len(conditions) + len(commands)} conditions and commands: at most {PROGRAMS} are run")
    registers = context.layout().registers
    tests, actions = tuple(map(parse, conditions)), tuple(map(parse, commands))
    for program in tests + actions:
        if unknown := sorted(number for number in program.registers if number >= len(registers)):
            raise AgentError(f"the expression names register {unknown[0]}; there are {len(registers)}")
    readers = {
        number: target.register_reader(registers[number]) for program in tests + actions for number in program.registers
    }
    world = _World(target, readers, context.printed)
    return PointHooks(
        (conditions, commands, registers),
        _any(tests, world) if tests else None,
        _all(actions, world) if actions else None,
    )


def _any(programs: tuple[Program, ...], world: _World) -> Callable[[], bool]:
    def holds() -> bool:
        world.left = LOADED
        return any(program.run(world) for program in programs)

    def one_holds() -> bool:
        world.left = LOADED
        return run(world) != 0

    run = programs[0].run
    return one_holds if len(programs) == 1 else holds


def _all(programs: tuple[Program, ...], world: _World) -> Callable[[], None]:
    def act() -> None:
        world.left = LOADED
        for program in programs:
            program.run(world)

    return act
