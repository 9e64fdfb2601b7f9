"""EIP has 32 bits outside 64-bit code, also behind a jump beyond 4 GiB (SDM vol. 2A, Jcc: EIP + SignExtend(DEST))."""

from __future__ import annotations

import pytest

from bare_cpu import CODE, bare_cpu

WRAP = 0x10000


@pytest.mark.usefixtures("run_loop")
@pytest.mark.parametrize("jump", ["jc near", "jmp near", "call near"])
@pytest.mark.parametrize("executed", [2, 3])
def test_it_wraps_behind_a_jump(jump: str, executed: int) -> None:
    cpu = bare_cpu(f"stc\n{jump} $+{WRAP}", 32)
    state = cpu.engine.state()
    state.cs.base, state.rip = WRAP, CODE - WRAP & 0xFFFFFFFF
    cpu.engine.load(state)
    cpu.memory.write(CODE + 1 + WRAP, b"\x90\x90")
    cpu.engine.run(executed)
    after = cpu.engine.state()
    assert (after.rip, cpu.engine.linear_pc) == (CODE + executed - 1, CODE + executed - 1 + WRAP)
    assert cpu.engine.cs_ip[1] == after.rip == cpu.engine.live().rip
