"""What a target must offer for tracepoints; see `stub.target`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from stub.target import Description, PointHooks, Register
from stub.tracing import Experiment


@runtime_checkable
class Traces(Protocol):
    """Tracepoints: `QT` and `qT`. A snapshot is the target's own business: what all its registers were at that moment,
    whatever description they are asked for by."""

    experiment: Experiment  #: outlives connections

    def insert_tracepoint(self, address: int, hooks: PointHooks) -> int:
        """Have `hooks.act` done before each execution of the instruction at `address`, exactly once for each; the
        target never stops by it. Gives what `remove_tracepoint` takes. Raises TargetError."""

    def remove_tracepoint(self, id: int) -> None:
        """Also from within a hook."""

    def check_follow(self) -> None:
        """Raises TargetError where `follow` cannot be had."""

    def follow(self, told: Callable[[], bool]) -> None:
        """For a hook: have `told` called behind each instruction that is executed from here on, those of interrupts'
        handlers among them, until it gives False; once for each, however often it was asked for."""

    def place(self) -> int:
        """Where the next instruction is (linear), for a hook and for who follows."""

    def snapshot(self) -> object:
        """All registers as they are now, for a hook."""

    def describe_snapshot(self, snapshot: object) -> Description:
        """As `HasRegisters.describe` was at that moment."""

    def pc_at(self, address: int, register: Register) -> bytes | None:
        """What the register reads where execution is at this address, if it is the program counter and shows it."""

    def snapshot_register(self, snapshot: object, register: Register) -> bytes | None:
        """The register's value at that moment."""
