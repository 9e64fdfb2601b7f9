"""Delivery of an interrupt or exception in protected and virtual-8086 mode (SDM vol. 2A, INT n; vol. 3A, 6.12)."""

from __future__ import annotations

from emu.typed import Final
from emu.x86.core import (
    ESP,
    MASK32,
    RFLAGS_NT,
    RFLAGS_RF,
    VECTOR_GP,
    VECTOR_NP,
    VECTOR_SS,
    Core,
    CpuFault,
    Entry,
    null_segment,
)
from emu.x86.descriptors import Gate, parse_gate
from emu.x86.state import RFLAGS_IF, RFLAGS_TF, RFLAGS_VM, TASK_GATE
from emu.x86.tasks import Source, check_available, switch

CODE_IDT: Final = 2
INTERRUPT_GATES: Final = frozenset((6, 14))
TRAP_GATES: Final = frozenset((7, 15))


def deliver(core: Core, vector: int, error_code: int | None, *, software: bool) -> None:
    """Enter the handler of `vector`. `core.state.rip` is the address to be saved; `software`: INT n, INT3 or INTO,
    whose gate's DPL is asked."""
    state, ext = core.state, core.external
    code = vector * 8 | CODE_IDT
    if vector * 8 + 7 > state.idtr.limit:
        raise CpuFault(VECTOR_GP, code | ext)
    raw = core.read(state.idtr.base + vector * 8 & MASK32, 8).to_bytes(8, "little")
    kind = raw[5] & 0x1F
    if kind not in INTERRUPT_GATES | TRAP_GATES | {TASK_GATE}:
        raise CpuFault(VECTOR_GP, code | ext)
    gate = parse_gate(raw)
    if software and gate.access >> 5 & 3 < core.cpl:
        raise CpuFault(VECTOR_GP, code)
    if not gate.access & 0x80:
        raise CpuFault(VECTOR_NP, code | ext)
    if kind == TASK_GATE:
        switch(core, check_available(core, gate.selector), Source.EVENT, error_code)
    else:
        _through(core, gate, kind, error_code)


def _through(core: Core, gate: Gate, kind: int, error_code: int | None) -> None:
    state, ext = core.state, core.external
    size = 4 if kind & 8 else 2
    code = gate.selector & 0xFFFC | ext
    if not gate.selector & 0xFFFC:
        raise CpuFault(VECTOR_GP, ext)
    entry = core.entry(gate.selector)
    if entry is None or not entry.code or entry.dpl > core.cpl:
        raise CpuFault(VECTOR_GP, code)
    if not entry.present:
        raise CpuFault(VECTOR_NP, code)
    saved = [state.rflags & MASK32, state.cs.selector, state.rip]
    if error_code is not None:
        saved.append(error_code)
    if not entry.conforming and entry.dpl < core.cpl:
        _inwards(core, entry, gate, saved, size)
    else:
        if core.vm:
            raise CpuFault(VECTOR_GP, code)
        esp = state.regs[ESP]
        if not core.has_room(state.ss, esp, size * len(saved)):
            raise CpuFault(VECTOR_SS, ext)
        _check_target(core, entry, gate.offset)
        state.regs[ESP] = core.push_all(state.ss, esp, saved, size, user=core.cpl == 3)
        state.cs = core.load(entry, core.cpl)
    state.rip = gate.offset
    state.rflags &= ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (RFLAGS_IF if kind in INTERRUPT_GATES else 0))


def _check_target(core: Core, entry: Entry, offset: int) -> None:
    if offset > entry.descriptor.limit:
        raise CpuFault(VECTOR_GP, core.external)


def _inwards(core: Core, entry: Entry, gate: Gate, saved: list[int], size: int) -> None:
    """To the stack of an inner ring, from V86 mode with the data segments too."""
    state, ext = core.state, core.external
    if core.vm and entry.dpl:
        raise CpuFault(VECTOR_GP, gate.selector & 0xFFFC | ext)
    stack, esp = core.inner_stack(entry.dpl)
    frame = [state.ss.selector, state.regs[ESP], *saved]
    if core.vm:
        frame = [state.gs.selector, state.fs.selector, state.ds.selector, state.es.selector, *frame]
    if not core.has_room(stack, esp, size * len(frame)):
        raise CpuFault(VECTOR_SS, stack.selector & 0xFFFC | ext)
    _check_target(core, entry, gate.offset)
    esp = core.push_all(stack, esp, frame, size, user=False)
    state.regs[ESP] = esp if stack.big else esp & 0xFFFF
    if core.vm:
        for name in ("es", "ds", "fs", "gs"):
            setattr(state, name, null_segment())
    state.cs, state.ss = core.load(entry, entry.dpl), stack
    core.cpl, core.vm = entry.dpl, False
