"""Far CALL, JMP, RETF and IRET where they meet call gates, tasks and stacks with limits (SDM vol. 2A, 2B)."""

from __future__ import annotations

from emu.typed import Final
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
from emu.x86.state import RFLAGS_VM, TASK_GATE
from emu.x86.tasks import AVAILABLE, BUSY, Source, check_available, switch, task_return

CALL_GATES: Final = frozenset((4, 12))


def transfer(core: Core, selector: int, source: Source, offset: int = 0, size: int = 4) -> bool:
    """JMP or CALL to `selector` and `offset`; `core.state.rip` is the next instruction, `size` the operand's in bytes.
    False, with nothing done, when it names neither a task nor a gate, and the offset is not all that is wrong."""
    entry = core.entry(selector) if selector & 0xFFFC else None
    if entry is None:
        return False
    kind = entry.system_type
    if kind is None:
        _direct(core, entry, offset, 0 if source is Source.JUMP else 2 * size)
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
    if kind == TASK_GATE or kind in CALL_GATES:
        if not reachable:
            raise CpuFault(VECTOR_GP, code)
        if not entry.present:
            raise CpuFault(VECTOR_NP, code)
        if kind == TASK_GATE:
            switch(core, check_available(core, parse_gate(entry.raw).selector), source)
        elif source is Source.CALL:
            _call_gate(core, entry)
        else:
            _jump_gate(core, entry)
        return True
    return False


def _direct(core: Core, entry: Entry, offset: int, pushed: int) -> None:
    """JMP or CALL to a code segment: raise what a frame or an offset beyond its segment raises, unless something else
    is wrong earlier (SDM vol. 2A, JMP, CALL: CONFORMING-CODE-SEGMENT, NONCONFORMING-CODE-SEGMENT). The frame has
    `pushed` bytes."""
    same_ring = entry.selector & 3 <= core.cpl and entry.dpl == core.cpl
    allowed = entry.dpl <= core.cpl if entry.conforming else same_ring
    if not (entry.code and allowed and entry.present):
        return
    if pushed and not core.has_room(core.state.ss, core.state.regs[ESP], pushed):
        raise CpuFault(VECTOR_SS)
    if offset > entry.descriptor.limit:
        raise CpuFault(VECTOR_GP)


def _jump_gate(core: Core, through: Entry) -> None:
    """JMP through a call gate, which stays in its ring (SDM vol. 2A, JMP, CALL-GATE)."""
    gate = parse_gate(through.raw)
    code = gate.selector & 0xFFFC
    entry = core.entry(gate.selector) if code else None
    if entry is None or not entry.code or (entry.dpl > core.cpl if entry.conforming else entry.dpl != core.cpl):
        raise CpuFault(VECTOR_GP, code)
    if not entry.present:
        raise CpuFault(VECTOR_NP, code)
    if gate.offset > entry.descriptor.limit:
        raise CpuFault(VECTOR_GP)
    core.state.cs = core.load(entry, core.cpl)
    core.state.rip = gate.offset


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
    else:
        if _outwards(core, size, user):
            _frame(core, 5 * size)
        _return_address(core, size, 3 * size)
    return False


def far_return(core: Core, size: int, parameters: int) -> bool:
    """RETF: the check of the whole frame. `parameters`: bytes to be dropped. Always False."""
    _frame(core, 2 * size)
    if _outwards(core, size, core.cpl == 3):
        _frame(core, 4 * size + parameters)
    _return_address(core, size, 2 * size + parameters)
    return False


def _returned_to(core: Core, selector: int) -> Entry | None:
    """The code segment that a return leads to; None when something is wrong about it."""
    entry = core.entry(selector) if selector & 0xFFFC else None
    rpl = selector & 3
    if entry is None or not entry.code or not entry.present or rpl < core.cpl:
        return None
    return None if (entry.dpl > rpl if entry.conforming else entry.dpl != rpl) else entry


def _outwards(core: Core, size: int, user: bool) -> bool:
    """A return to an outer ring, whose code segment is looked at before the second half of the frame (SDM vol. 2B, RET;
    vol. 2A, IRET). What is wrong about it is for the engine to say."""
    selector = _stacked(core, size, 2, user)
    return selector & 3 > core.cpl and _returned_to(core, selector) is not None


def _return_address(core: Core, size: int, outer: int) -> None:
    """Raise #GP(0) when the offset on the stack is beyond its code segment and nothing is wrong that is looked at
    earlier: that segment, and of a return outwards SS, which is `outer` bytes and an ESP up the stack (SDM vol. 2B,
    RET; vol. 2A, IRET)."""
    user = core.cpl == 3
    selector = _stacked(core, size, 2, user)
    entry, rpl = _returned_to(core, selector), selector & 3
    if entry is None:
        return
    if rpl > core.cpl:
        stack_selector = _stacked(core, outer + size, 2, user)
        stack = core.entry(stack_selector) if stack_selector & 0xFFFC else None
        if stack is None or stack_selector & 3 != rpl or stack.dpl != rpl or not (stack.writable and stack.present):
            return
    if _stacked(core, 0, size, user) > entry.descriptor.limit:
        raise CpuFault(VECTOR_GP)


def _stacked(core: Core, offset: int, size: int, user: bool) -> int:
    ss = core.state.ss
    at = core.state.regs[ESP] + offset & (MASK32 if ss.big else 0xFFFF)
    return core.read(ss.base + at & MASK32, size, user=user)


def _frame(core: Core, length: int) -> None:
    ss = core.state.ss
    if not room(ss, core.state.regs[ESP] & (MASK32 if ss.big else 0xFFFF), length):
        raise CpuFault(VECTOR_SS)
