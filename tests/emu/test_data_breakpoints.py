"""Data breakpoints of the guest's own where nothing is and behind loads of SS, and changes of the debug registers.

cpu_watch and cpu_watch64 have the rest beside Bochs (tests/cpu/test_checks.py).
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, TABLES
from emu.engine import ExitReason
from run_loops import SLICES, make, needs_helper

ABSENT = 0x5000
DR7_WRITE_8 = 0x90001  #: DR0 enabled, eight bytes, writes (SDM vol. 3B, 17.2.4)


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
@pytest.mark.parametrize("where", [ABSENT, 0x1000_0000_0000_0000])
def test_one_that_was_nowhere_is_forgotten_when_it_is_disabled(name: str, where: int) -> None:
    """DR0 may be written behind that: the run went on and on at the next instruction."""
    source = f"""
        mov rax, {where:#x}
        mov dr0, rax
        mov eax, {DR7_WRITE_8:#x}
        mov dr7, rax
        nop
        xor eax, eax
        mov dr7, rax
        mov eax, 0x3000
        mov dr0, rax
        mov [rax], eax
        mov ebx, {DR7_WRITE_8:#x}
        mov dr7, rbx
        mov [rax], eax
        hlt"""
    for size in SLICES:
        cpu = make(name, source, 64)
        cpu.write(TABLES + 0x3000 + 8 * (ABSENT >> 12), bytes(8))
        exit = cpu.run(slice=size)
        assert exit.reason is ExitReason.SHUTDOWN  # by #DB, as there is no handler
        assert [fault.vector for fault in cpu.faults[:1]] == [1]
        assert cpu.engine.state().dr[6] & 0xF == 1
        cpu.engine.close()


@needs_helper
def test_one_that_a_load_of_ss_meets_comes_behind_the_next_instruction_at_any_slice() -> None:
    """SDM vol. 3A, 6.8.3."""
    source = f"""
        mov word [0x3000], 0x10
        mov eax, 0x3000
        mov dr0, eax
        mov eax, {0x30001:#x}
        mov dr7, eax
        mov ss, [0x3000]
        mov esp, 0x6000
        here: nop
        hlt"""
    image = assemble(f"bits 32\n{source}\ndd here", CODE)
    found = []
    for size in SLICES:
        cpu = make("fast", source, 32)
        exit = cpu.run(slice=size)
        found.append((exit.reason, cpu.engine.retired, cpu.engine.state(), cpu.faults[:1]))
        assert [(fault.vector, fault.rip) for fault in cpu.faults[:1]] == [(1, int.from_bytes(image[-4:], "little"))]
        assert cpu.engine.state().regs[4] == 0x6000
        cpu.engine.close()
    assert all(result == found[0] for result in found)
