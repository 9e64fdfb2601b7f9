"""Where the handler of a vector begins: what the IVT or the IDT says (SDM vol. 3A, 6.10, 6.11, 6.14.1 and 21.1.4)."""

from __future__ import annotations

from emu.x86.descriptors import ReadLinear, descriptor_access, is_gate, parse_gate
from emu.x86.state import CR0_PE, EFER_LMA, CpuState

_TASK_GATE = 5


def entry_point(state: CpuState, vector: int, read_linear: ReadLinear) -> tuple[int, int] | None:
    """Selector and offset of the first instruction of the handler; None where the table does not say: it is too short
    or cannot be read, the entry is no gate, or one to a task."""
    long_mode = bool(state.efer & EFER_LMA)
    size = 4 if not state.cr0 & CR0_PE else 16 if long_mode else 8
    if vector * size + size - 1 > state.idtr.limit:
        return None
    raw = read_linear(state.idtr.base + vector * size & (0xFFFFFFFFFFFFFFFF if long_mode else 0xFFFFFFFF), size)
    if raw is None:
        return None
    if size == 4:
        return int.from_bytes(raw[2:], "little"), int.from_bytes(raw[:2], "little")
    access = descriptor_access(raw)
    if not is_gate(access) or access & 0xF in (4, 12, _TASK_GATE):
        return None  # a call gate is none that an IDT may hold
    gate = parse_gate(raw)
    return gate.selector, gate.offset
