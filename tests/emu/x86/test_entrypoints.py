"""Where handlers begin: entries made by hand from the SDM's figures, vol. 3A, 6-2 (gates), 6-8 (IA-32e), 21-2 (IVT)."""

from __future__ import annotations

import pytest

from emu.x86.entrypoints import entry_point
from emu.x86.state import CR0_PE, EFER_LMA, CpuState

BASE = 0x1000
INTERRUPT_GATE_32 = bytes.fromhex("7856 0800 008e 3412")  # 0008:12345678, P, DPL 0, type 14
TRAP_GATE_16 = bytes.fromhex("7856 1000 0087 0000")  # 0010:5678, type 7
TASK_GATE = bytes.fromhex("0000 1800 0085 0000")
CALL_GATE = bytes.fromhex("7856 0800 008c 3412")
GATE_64 = bytes.fromhex("7856 0800 008e 3412 efcdab89 00000000")


def cpu(cr0: int = 0, efer: int = 0, limit: int = 0xFFF) -> CpuState:
    state = CpuState(cr0=cr0, efer=efer)
    state.idtr.base, state.idtr.limit = BASE, limit
    return state


def entry(state: CpuState, vector: int, raw: bytes) -> tuple[int, int] | None:
    def read(linear: int, length: int) -> bytes | None:
        size = len(raw)
        return raw[:length] if linear == BASE + vector * size else None

    return entry_point(state, vector, read)


def test_a_real_mode_vector_is_offset_then_segment() -> None:
    assert entry(cpu(), 8, bytes.fromhex("a5fe00f0")) == (0xF000, 0xFEA5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(INTERRUPT_GATE_32, (8, 0x12345678)), (TRAP_GATE_16, (0x10, 0x5678)), (TASK_GATE, None), (CALL_GATE, None),
     (bytes(8), None)],
    ids=["interrupt32", "trap16", "task", "call", "null"],
)  # fmt: skip
def test_gates_of_protected_mode(raw: bytes, expected: tuple[int, int] | None) -> None:
    assert entry(cpu(CR0_PE), 0x20, raw) == expected


def test_a_gate_of_ia_32e_mode_has_an_offset_of_64_bits() -> None:
    assert entry(cpu(CR0_PE, EFER_LMA), 0x20, GATE_64) == (8, 0x89ABCDEF12345678)


def test_what_the_table_does_not_have_is_nowhere() -> None:
    assert entry(cpu(limit=8 * 4 + 2), 8, bytes.fromhex("a5fe00f0")) is None
    assert entry_point(cpu(), 8, lambda linear, length: None) is None
