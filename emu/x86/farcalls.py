"""Far CALL, JMP, RETF and IRET where they meet call gates, tasks and stacks with limits (SDM vol. 2A, 2B)."""

from __future__ import annotations

from typing import Final

from emu.x86.core import (
    ESP,
    MASK32,
    RFLAGS_NT,
    VECTOR_GP,
    VECTOR_NP,
    VECTOR_SS,
    Core,
    CpuFault,
    Entry,
    room,
)
from emu.x86.descriptors import parse_gate
from emu.x86.state import RFLAGS_VM
from emu.x86.tasks import AVAILABLE, BUSY, TASK_GATE, Source, check_available, switch, task_return

CALL_GATES: Final = frozenset((4, 12))


def transfer(core: Core, selector: int, source: Source) -> bool:
    """JMP or CALL to `selector`; `core.state.rip` is the next instruction. False, with nothing done, when it names
    neither a task, a task gate nor (CALL) a call gate."""
    entry = core.entry(selector) if selector & 0xFFFC else None
    kind = None if entry is None else entry.system_type
    if entry is None or kind is None:
        return False
    code = selector & 0xFFFC
    reachable = entry.dpl >= max(core.cpl, selector & 3)
    if kind in AVAILABLE | BUSY:
        if not reachable or selector & 4 or kind in BUSY:
            raise CpuFault(VECTOR_GP, code)
        if not entry.present:
            raise CpuFault(VECTOR_NP, code)
        switch(core, entry, source)
        return True
    if kind == TASK_GATE or (kind in CALL_GATES and source is Source.CALL):
        if not reachable:
            raise CpuFault(VECTOR_GP, code)
        if not entry.present:
            raise CpuFault(VECTOR_NP, code)
        if kind == TASK_GATE:
            switch(core, check_available(core, parse_gate(entry.raw).selector), source)
        else:
            _call_gate(core, entry)
        return True
    return False


def _call_gate(core: Core, through: Entry) -> None:
    state = core.state
    gate = parse_gate(through.raw)
    size = 4 if gate.access & 8 else 2
    code = gate.selector & 0xFFFC
    entry = core.entry(gate.selector) if code else None
    if entry is None or not entry.code or entry.dpl > core.cpl:
        raise CpuFault(VECTOR_GP, code)
    if not entry.present:
        raise CpuFault(VECTOR_NP, code)
    esp = state.regs[ESP]
    back = [state.cs.selector, state.rip]
    user = core.cpl == 3
    if entry.conforming or entry.dpl == core.cpl:
        if not core.has_room(state.ss, esp, 2 * size):
            raise CpuFault(VECTOR_SS)
        if gate.offset > entry.descriptor.limit:
            raise CpuFault(VECTOR_GP)
        state.regs[ESP] = core.push_all(state.ss, esp, back, size, user=user)
        state.cs = core.load(entry, core.cpl)
        state.rip = gate.offset
        return
    stack, inner = core.inner_stack(entry.dpl)
    if not core.has_room(stack, inner, size * (4 + gate.count)):
        raise CpuFault(VECTOR_SS, stack.selector & 0xFFFC)
    if gate.offset > entry.descriptor.limit:
        raise CpuFault(VECTOR_GP)
    mask = MASK32 if state.ss.big else 0xFFFF
    parameters = []
    for i in reversed(range(gate.count)):
        at = esp + i * size & mask
        if not room(state.ss, at, size):
            raise CpuFault(VECTOR_SS)
        parameters.append(core.read(state.ss.base + at & MASK32, size, user=user))
    frame = [state.ss.selector, esp, *parameters, *back]
    inner = core.push_all(stack, inner, frame, size, user=False)
    state.regs[ESP] = inner if stack.big else inner & 0xFFFF
    state.cs, state.ss = core.load(entry, entry.dpl), stack
    core.cpl = entry.dpl
    state.rip = gate.offset


def interrupt_return(core: Core, size: int) -> bool:
    """IRET: to another task; or the check of the whole frame, and False: the rest is as usual."""
    state = core.state
    if state.rflags & RFLAGS_NT:
        task_return(core)
        return True
    user = core.cpl == 3
    _frame(core, 3 * size)
    if size == 4 and core.cpl == 0 and _stacked(core, 8, 4, user) & RFLAGS_VM:
        _frame(core, 9 * size)
    elif _stacked(core, size, 2, user) & 3 > core.cpl:
        _frame(core, 5 * size)
    return False


def far_return(core: Core, size: int, parameters: int) -> bool:
    """RETF: the check of the whole frame. `parameters`: bytes to be dropped. Always False."""
    _frame(core, 2 * size)
    if _stacked(core, size, 2, core.cpl == 3) & 3 > core.cpl:
        _frame(core, 4 * size + parameters)
    return False


def _stacked(core: Core, offset: int, size: int, user: bool) -> int:
    ss = core.state.ss
    at = core.state.regs[ESP] + offset & (MASK32 if ss.big else 0xFFFF)
    return core.read(ss.base + at & MASK32, size, user=user)


def _frame(core: Core, length: int) -> None:
    ss = core.state.ss
    if not room(ss, core.state.regs[ESP] & (MASK32 if ss.big else 0xFFFF), length):
        raise CpuFault(VECTOR_SS)
