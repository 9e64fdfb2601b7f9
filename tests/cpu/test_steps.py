"""PAUSE ends as any other instruction does: with a single-step trap, without RF, and with the shadow before it over.

SDM vol. 3B, 17.3.1.4 (single steps) and 17.3.1.1 (RF); vol. 3A, 6.8.1 (STI). Bochs has its say in test_checks.py, by
cpu_debug.
"""

from __future__ import annotations

import pytest

from bare_cpu import CODE, BareCpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER
from run_loops import both_agree, make

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

HANDLER = 0x1100
#: Of real mode: vector 1 counts in BX; DX is 1 more than IP of the last.
STEPS = """
        mov word [4], handler
        mov word [6], 0
        mov cx, 5
        xor bx, bx
        push word 0x102
        popf
turn:   dec cx
        rep nop
        jnz turn
        rep nop
        push word 2
        popf
        nop
        hlt
        times 0x100-($-$$) nop
handler:
        inc bx
        pop dx
        push dx
        iret
"""


def test_each_pause_of_a_loop_is_stepped_over_in_both_run_loops_and_at_every_slice() -> None:
    state = both_agree(STEPS, 16)[2]
    # three instructions a turn; PAUSE, PUSH, and POPF, which ends it, behind them
    assert (state.regs[3], state.regs[1]) == (3 * 5 + 3, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fast", "gate"])
def test_pause_is_one_instruction_and_one_trap_to_a_debugger_that_steps(name: str) -> None:
    """Each run of one instruction ends behind it, at the handler's first where it trapped."""
    cpu = make(name, STEPS, 16)
    trail = []
    for _ in range(60):
        before = cpu.engine.linear_pc
        exit = cpu.engine.run(1)
        if exit.reason is ExitReason.HALT:
            break
        assert (exit.reason, exit.executed) == (ExitReason.BUDGET, 1)
        trail.append((before, cpu.engine.linear_pc))
    pauses = [there for here, there in trail if cpu.read(here, 2) == b"\xf3\x90"]
    assert len(pauses) >= 3
    assert set(pauses) == {HANDLER}


def interrupted_behind(source: str) -> int:
    """The address that an interrupt pushes which has waited from the beginning on."""
    cpu: BareCpu = make("fast", f"mov word [0x80], handler\nmov word [0x82], 0\n{source}\nhandler: pop ax\nhlt", 16)
    cpu.engine.set_interrupt(0x20)
    for _ in range(10):
        exit = cpu.engine.run(20)
        if exit.reason is ExitReason.REQUEST:
            cpu.engine.set_interrupt(None)
        elif exit.reason is ExitReason.HALT:
            break
    return cpu.engine.state().regs[0] & 0xFFFF


@pytest.mark.parametrize("instruction", ["pause", "nop"])
def test_the_shadow_of_sti_ends_behind_pause(instruction: str) -> None:
    source = f"cli\nsti\n{instruction}\nhere: nop\nnop\nhlt"
    behind = CODE + 6 + 6 + 2 + (2 if instruction == "pause" else 1)
    assert interrupted_behind(source) == behind
