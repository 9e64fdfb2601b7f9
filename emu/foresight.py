"""Looking ahead: what the guest's next instructions would do, carried out and taken back.

The instructions really run, on the machine itself, with its buses sealed: the first access to a port or to a device's
memory ends the look ahead before it has any effect, since what it would answer cannot be known without asking. Then the
machine is what it was. Interrupts, which come from devices, do not come.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.engine import ExitReason
from emu.inspector import PHYSICAL_BITS
from emu.machine import Machine
from emu.record import dataclass
from emu.x86 import paging
from emu.x86.disasm import MAX_INSTRUCTION
from emu.x86.state import CpuState

#: Instructions looked at. A switch between modes takes some ten.
REACH = 64
#: What a look ahead may change of a state that decides whether it can be entered.
NAMED = ("cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr", "gdtr", "idtr", "cr0", "cr3", "cr4", "efer", "rflags")


@dataclass(frozen=True, slots=True)
class Foreseen:
    """After the instruction that `before` starts, the `ahead`th from here (0: the next), the CPU would be in `state`.
    `code` begins with the instruction's bytes."""

    ahead: int
    code: bytes
    before: CpuState
    state: CpuState

    def loads(self) -> tuple[str, ...]:
        """The registers of `NAMED` that the instruction changes, RFLAGS only where nothing else does."""
        changed = [name for name in NAMED if getattr(self.before, name) != getattr(self.state, name)]
        return tuple(name for name in changed if name != "rflags") or tuple(changed)


def foresee(machine: Machine, wanted: Callable[[CpuState], bool], reach: int = REACH) -> Foreseen | None:
    """The first of the next `reach` instructions after which the CPU's state is `wanted`; None where none is seen, or
    where a hypervisor has devices whose state cannot be put back behind the look ahead."""
    if not machine.keeper.restorable:
        return None
    executor = machine.executor
    saved, events = machine.save(), tuple(machine.journal)
    touched: list[None] = []

    def end() -> None:
        touched.append(None)
        executor.request_stop()

    machine.seal(end)
    try:
        executor.set_interrupt(None)
        before = executor.state()
        for ahead in range(reach):
            code = _code(machine, before)
            # Each is "the first instruction", so that no breakpoint ends the look ahead.
            exit = executor.run(1, skip_breakpoint=True)
            if exit.reason is ExitReason.REQUEST and not touched:
                # asked for before the look ahead: the machine's own `run` asks in each round whether it was meant so
                exit = executor.run(1, skip_breakpoint=True)
            if touched or exit.reason not in (ExitReason.BUDGET, ExitReason.WATCHPOINT, ExitReason.EVENT):
                return None
            after = executor.state()
            if wanted(after):
                return Foreseen(ahead, code, before, after)
            before = after
        return None
    finally:
        machine.seal(None)
        machine.look_back(saved)
        machine.journal.put(events)


def _physical(machine: Machine, address: int, length: int) -> bytes | None:
    return machine.read_physical(address, length) if machine.readable_physical(address, length) == length else None


def _code(machine: Machine, state: CpuState) -> bytes:
    """The bytes of the next instruction, and what follows it, up to the end of memory."""
    linear, code = state.linear_pc, bytearray()
    while len(code) < MAX_INSTRUCTION:
        at = linear + len(code)
        physical = paging.translate(state, lambda a, n: _physical(machine, a, n), at, PHYSICAL_BITS)
        count = min(0x1000 - at % 0x1000, MAX_INSTRUCTION - len(code))
        if physical is None or not (count := machine.readable_physical(physical, count)):
            break
        code += machine.read_physical(physical, count)
    return bytes(code)
