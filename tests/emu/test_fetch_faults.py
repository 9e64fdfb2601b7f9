"""A page fault of a fetch comes behind all that stands before it, with the data breakpoint that the last of it has met.

SDM vol. 3A, 6.5: exceptions are reported on an instruction boundary, as if one instruction were executed after
the other; table 6-2: traps of the previous instruction come before faults of fetching the next one.
"""

from __future__ import annotations

import pytest

from bare_cpu import TABLES, BareCpu
from run_loops import SLICES, make, needs_helper, outcome

ABSENT = 0x5000
DR7_WRITE_4 = 0xD0002  #: DR0 enabled, four bytes, writes


def towards(name: str, code: bytes, bits: int) -> BareCpu:
    """A CPU that executes `code` up to an absent page, in 64-bit code, and whose faults are recorded."""
    cpu = make(name, "", bits)
    cpu.write(TABLES + 0x3000 + 8 * (ABSENT >> 12), bytes(8))
    cpu.write(ABSENT - len(code), code)
    state = cpu.engine.state()
    state.rip = ABSENT - len(code)
    cpu.engine.load(state)
    return cpu


@needs_helper
@pytest.mark.parametrize("count", [1, 3, 40, 100])
def test_everything_before_the_page_has_been_executed(count: int) -> None:
    found = []
    for name, sizes in (("gate", (1, 1_000_000)), ("fast", SLICES)):
        for size in sizes:
            cpu = towards(name, b"\xff\xc0" * count, 64)  # inc eax
            found.append(outcome(cpu, size))
            fault = cpu.faults[0]
            assert (fault.vector, fault.rip, fault.cr2, fault.retired) == (14, ABSENT, ABSENT, count)
            assert cpu.engine.state().regs[0] == count
            cpu.engine.close()
    assert all(result == found[0] for result in found)


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
def test_an_instruction_on_both_pages_faults_where_it_begins(name: str) -> None:
    cpu = towards(name, b"\xff\xc0\xff\xc0\xb8\x01", 64)  # inc eax twice, and a part of mov eax, imm32
    cpu.run()
    assert (cpu.faults[0].rip, cpu.faults[0].cr2, cpu.faults[0].retired) == (ABSENT - 2, ABSENT, 2)
    assert cpu.engine.state().regs[0] == 2
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("name", ["fast", "gate"])
def test_a_data_breakpoint_comes_before_the_fault(name: str, size: int) -> None:
    cpu = towards(name, b"\x90\x89\x03", 64)  # nop; mov [rbx], eax
    state = cpu.engine.state()
    state.regs[3] = state.dr[0] = 0x3000
    state.dr[7] = DR7_WRITE_4
    cpu.engine.load(state)
    cpu.run(100, size)
    assert [(fault.vector, fault.rip) for fault in cpu.faults[:1]] == [(1, ABSENT)]
    assert cpu.engine.state().dr[6] & 0xF == 1
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
def test_a_data_breakpoint_of_an_instruction_that_faults_is_not_met(name: str) -> None:
    """POP of what is watched to an absent page (SDM vol. 3B, 17.3.1.2)."""
    cpu = towards(name, b"\x90" * 8 + b"\x8f\x03" + b"\x90" * 8, 64)  # pop [rbx]
    state = cpu.engine.state()
    state.regs[3] = ABSENT
    state.dr[0], state.dr[7] = state.regs[4], DR7_WRITE_4 | 3 << 16
    cpu.engine.load(state)
    cpu.run(100)
    assert cpu.faults[0].vector == 14
    assert all(fault.vector != 1 for fault in cpu.faults)
    assert not cpu.engine.state().dr[6] & 0xF
    cpu.engine.close()
