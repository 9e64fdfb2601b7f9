"""Why the CPU cannot deliver a vector: IDTR, the gate, the segment that it names (SDM vol. 3A, 6.10-6.12, 21.1.4)."""

from __future__ import annotations

from emu.x86.descriptors import (
    ACCESS_P,
    ReadLinear,
    descriptor_access,
    idt_entries,
    is_gate,
    parse_gate,
    read_descriptor,
)
from emu.x86.register_writes import RegisterError
from emu.x86.state import CR0_PE, EFER_LMA, CpuState

_TASK_GATE, _CODE = 5, 0x18  #: a gate's type; S = 1 and type bit 3 of a code segment


def undelivered(state: CpuState, vector: int, read_linear: ReadLinear) -> str:
    """What is wrong on the way to the handler of `vector`, in words; "" where tables and gate are in order, so that it
    is the handler's stack or pages."""
    table, long_mode = state.idtr, bool(state.efer & EFER_LMA)
    size = 4 if not state.cr0 & CR0_PE else 16 if long_mode else 8
    last = vector * size + size - 1
    what = "vector" if size == 4 else "gate for vector"
    if last > table.limit:
        return f"IDTR (base {table.base:#x}, limit {table.limit:#x}) has no {what} {vector:#04x}: that needs {last:#x}"
    address = table.base + vector * size & (0xFFFFFFFFFFFFFFFF if long_mode else 0xFFFFFFFF)
    raw = read_linear(address, size)
    if raw is None:
        return f"the {what} {vector:#04x} cannot be read at linear {address:#x}"
    if size == 4:
        return ""
    return _gate(state, vector, raw, read_linear, f"the IDT's entry for vector {vector:#04x} at linear {address:#x}")


def _gate(state: CpuState, vector: int, raw: bytes, read_linear: ReadLinear, entry: str) -> str:
    access = descriptor_access(raw)
    if not any(raw):
        return f"{entry} is null"
    # a call gate is a gate, but none that an IDT may hold
    if not is_gate(access) or access & 0xF in (4, 12):
        (view,) = idt_entries(raw, bool(state.efer & EFER_LMA))
        return f"{entry} is no gate of an IDT: {view.kind}"
    if not access & ACCESS_P:
        return f"{entry} is not present"
    if access & 0xF == _TASK_GATE:
        return ""
    gate = parse_gate(raw)
    try:
        segment = descriptor_access(read_descriptor(state, gate.selector, read_linear)[:8])
    except RegisterError as error:
        return f"{entry}: {error}"
    if segment & _CODE != _CODE:
        return f"{entry} names {gate.selector:#06x}, which is no code segment"
    if not segment & ACCESS_P:
        return f"{entry} names {gate.selector:#06x}, whose segment is not present"
    return ""
