"""A trace frame as a target: registers and memory come from it, and nothing of it can be changed."""

from __future__ import annotations

from collections.abc import Sequence

from stub.offers import offers
from stub.target import Description, HasMemory, HasRegisters, Register, TargetError
from stub.trace_target import Traces
from stub.tracing import Experiment, Frame

UNCHANGED = "a trace frame is looked at, which cannot be changed: `tfind none` goes back to the machine"


class ShownFrame:
    """`frame` of `target`. What was not collected cannot be known, but for where it was, and for what the client has
    called read-only."""

    def __init__(self, target: Traces, frame: Frame, experiment: Experiment) -> None:
        self._target, self._frame, self._experiment = target, frame, experiment

    def describe(self) -> Description:
        """Of the mode that the frame was collected in, where its registers say so."""
        if self._frame.registers is not None:
            return self._target.describe_snapshot(self._frame.registers)
        assert offers(self._target, HasRegisters)
        return self._target.describe()

    def read_registers(self, thread: int, registers: Sequence[Register]) -> Sequence[bytes | None]:
        """As HasRegisters."""
        return [self._read(register) for register in registers]

    def _read(self, register: Register) -> bytes | None:
        if self._frame.registers is None:
            return self._target.pc_at(self._frame.address, register)  # that much is known
        return self._target.snapshot_register(self._frame.registers, register)

    def write_register(self, thread: int, register: Register, data: bytes, row: bool = False) -> None:
        """Raises TargetError."""
        raise TargetError(UNCHANGED)

    def write_pc(self, thread: int, address: int) -> None:
        """Raises TargetError."""
        raise TargetError(UNCHANGED)

    def read_memory(self, address: int, length: int) -> bytes:
        """As HasMemory."""
        if not length or (found := self._frame.read(address, length)):
            return found if length else b""
        for start, end in self._experiment.read_only:
            if start <= address < end and offers(self._target, HasMemory):
                return self._target.read_memory(address, min(length, end - address))
        raise TargetError(f"{address:#x}: not collected in this trace frame")

    def write_memory(self, address: int, data: bytes) -> None:
        """Raises TargetError."""
        raise TargetError(UNCHANGED)
