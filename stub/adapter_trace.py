"""Registers and tracepoints of a debugger: breakpoints that never stop, and copies of the CPU's state to read from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from emu.debugger import BreakKind, Debugger, DebuggerError
from emu.record import dataclass
from emu.worker import Worker, WorkerClosed
from emu.x86.modes import code_bits
from emu.x86.state import CpuState
from stub.registers import X86Register, describe
from stub.target import Description, PointHooks, Register, TargetError
from stub.tracing import Experiment

OWNER = "gdb"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The CPU at a moment, whether a hypervisor executed it, and the instructions retired."""

    state: CpuState
    native: bool
    retired: int


class TracingTarget:
    """The part of DebuggerTarget that implements `stub.trace_target.Traces`."""

    experiment: Experiment
    pc_is_offset: bool
    _debugger: Debugger
    _worker: Worker
    _descriptions: dict[int, Description]

    def _value(
        self, state: CpuState, register: Register, native: bool | None = None, retired: int | None = None
    ) -> bytes:
        """`native` and `retired`: who executed then, and how much; None: ask."""
        assert isinstance(register, X86Register)
        if register.is_engine:
            value = int(self._debugger.steering.native if native is None else native)
        elif register.is_count:
            value = (self._debugger.retired or 0) if retired is None else retired
        elif register.is_pc:
            value = (state.rip if self.pc_is_offset else state.linear_pc) & (1 << register.bits) - 1
        else:
            value = register.read(state)
        return value.to_bytes(register.bits // 8, "little")

    def microseconds(self) -> int:
        """Virtual time since power-on."""
        return self._debugger.machine.clock.now // 1000

    def insert_tracepoint(self, address: int, hooks: PointHooks) -> int:
        try:
            point = self._debugger.add_breakpoint(
                BreakKind.EXECUTE, address, owner=OWNER, spec=f"trace {address:#x}", action=hooks.act, passes=True
            )
        except DebuggerError as error:
            raise TargetError(str(error)) from None
        return point.id

    def remove_tracepoint(self, id: int) -> None:
        def remove() -> None:
            with contextlib.suppress(DebuggerError):  # the prompt may have deleted it
                self._debugger.remove_breakpoint(id)

        # Between two instructions, as a hook runs while the debugger goes through its breakpoints.
        with contextlib.suppress(WorkerClosed):
            self._worker.post(remove)

    def check_follow(self) -> None:
        try:
            self._debugger.check_follow()
        except DebuggerError as error:
            raise TargetError(str(error)) from None

    def follow(self, told: Callable[[], bool]) -> None:
        self._debugger.follow(told)

    def place(self) -> int:
        return self._debugger.live_cpu().linear_pc

    def describe_bits(self, bits: int) -> Description:
        """The registers while code is so wide, made once."""
        if bits not in self._descriptions:
            self._descriptions[bits] = describe(bits, native=self._debugger.steering.possible)
        return self._descriptions[bits]

    def snapshot(self) -> object:
        # Not `Machine.cpu_state`: that lets devices catch up, which is for the run to do at its own instants.
        executor = self._debugger.machine.executor
        return _Snapshot(executor.state(), self._debugger.steering.native, executor.retired)

    def describe_snapshot(self, snapshot: object) -> Description:
        assert isinstance(snapshot, _Snapshot)
        return self.describe_bits(code_bits(snapshot.state))

    def pc_at(self, address: int, register: Register) -> bytes | None:
        assert isinstance(register, X86Register)
        if not register.is_pc or self.pc_is_offset:
            return None
        return (address & (1 << register.bits) - 1).to_bytes(register.bits // 8, "little")

    def snapshot_register(self, snapshot: object, register: Register) -> bytes | None:
        assert isinstance(snapshot, _Snapshot)
        return self._value(snapshot.state, register, snapshot.native, snapshot.retired)
