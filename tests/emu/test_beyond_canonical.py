"""Near branches of 64-bit code to addresses that are not canonical: its fault comes before whatever comes behind one.

SDM vol. 2A, CALL, Jcc, JMP, LOOP; vol. 2B, RET: the branch itself is #GP(0), before any effect of it. cpu_branch64 has
the same beside Bochs (tests/cpu/test_checks.py); here are runs that end, snapshots and events at that very boundary.
"""

from __future__ import annotations

import pytest

from bare_cpu import BareCpu
from emu.engine import ExitReason
from run_loops import SLICES, make, needs_helper, outcome

EDGE = 1 << 47
#: Handlers of #GP, NMI and an interrupt at 20h, which halt; RSI is beyond canonical addresses.
PROGRAM = f"""
    jmp start
gp: mov r8, 13
    hlt
event: mov r9, 1
    hlt
start:
    lea rax, [rel gp]
    mov word [0x2000 + 13 * 16], ax
    mov dword [0x2000 + 13 * 16 + 2], 0x8e000018
    lea rax, [rel event]
    mov word [0x2000 + 2 * 16], ax
    mov dword [0x2000 + 2 * 16 + 2], 0x8e000018
    mov word [0x2000 + 32 * 16], ax
    mov dword [0x2000 + 32 * 16 + 2], 0x8e000018
    lidt [rel table]
    jmp go
table: dw 0xfff
    dq 0x2000
go: mov rsi, {EDGE:#x}
    mov [0x3000], rsi
    sti
    nop
"""
#: What stands behind it, and how much of the stack it has used before the branch.
BRANCHES = {
    "jmp": ("jmp rsi", 0), "jmp-memory": ("jmp [0x3000]", 0), "call": ("call rsi", 0), "ret": ("push rsi\nret", 8),
    "ret-8": ("push rsi\nret 8", 8), "behind-sti": ("cli\nsti\njmp rsi", 0),
}  # fmt: skip
#: RIP, CS, RFLAGS, RSP and SS, and the error code.
FRAME = 6 * 8


def before_the_fault(name: str, branch: str) -> BareCpu:
    """The CPU behind as many instructions as the branch is the last of."""
    cpu = make(name, PROGRAM + BRANCHES[branch][0], 64)
    count = make(name, PROGRAM + BRANCHES[branch][0], 64)
    assert count.run().reason is ExitReason.HALT
    length = count.engine.retired - 2  # without the handler's
    count.engine.close()
    assert cpu.engine.run(length).executed == length
    return cpu


def pushed(cpu: BareCpu) -> tuple[int, int]:
    """The instruction at the pushed RIP, two bytes of it, and the pushed RSP."""
    state = cpu.engine.state()
    rip, rsp = (int.from_bytes(cpu.read(state.regs[4] + at, 8), "little") for at in (8, 32))
    return int.from_bytes(cpu.read(rip, 2), "big"), rsp


CODES = {"jmp": 0xFFE6, "jmp-memory": 0xFF24, "call": 0xFFD6, "ret": 0xC300, "ret-8": 0xC208, "behind-sti": 0xFFE6}


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_run_that_ends_with_the_branch_is_at_the_handler(name: str, branch: str) -> None:
    cpu = before_the_fault(name, branch)
    state = cpu.engine.state()
    assert cpu.read(state.rip, 2) == b"\x41\xb8"  # mov r8d, 13
    assert state.regs[4] == (0x7000 - BRANCHES[branch][1] & ~15) - FRAME
    assert pushed(cpu) == (CODES[branch], 0x7000 - BRANCHES[branch][1])
    assert [(fault.vector, fault.code) for fault in cpu.faults] == [(13, 0)]
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_what_comes_there_finds_the_handler(name: str, branch: str) -> None:
    """An NMI, a snapshot that is loaded, an interrupt: none of them saves an address that is not canonical."""
    for event in ("nmi", "load", "interrupt"):
        cpu = before_the_fault(name, branch)
        if event == "nmi":
            cpu.engine.raise_nmi()
        elif event == "load":
            cpu.engine.load(cpu.engine.state())
        else:
            cpu.engine.set_interrupt(0x20)
        assert cpu.run().reason is ExitReason.HALT
        state = cpu.engine.state()
        assert (state.regs[9], state.regs[8]) == ((1, 0) if event == "nmi" else (0, 13)), event
        rip = int.from_bytes(cpu.read(state.regs[4] + (0 if event == "nmi" else 8), 8), "little")
        assert rip < EDGE, event
        assert len(cpu.faults) == 1, event
        cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("branch", BRANCHES)
def test_slices_and_loops_tell_no_difference(branch: str) -> None:
    found = []
    for name, sizes in (("gate", (1, 1_000_000)), ("fast", SLICES)):
        for size in sizes:
            cpu = make(name, PROGRAM + BRANCHES[branch][0], 64)
            found.append(outcome(cpu, size))
            cpu.engine.close()
    assert all(result == found[0] for result in found)


@needs_helper
@pytest.mark.parametrize("name", ["fast", "gate"])
def test_an_address_that_the_host_has_set_faults_where_it_is(name: str) -> None:
    """No branch has led there: it is the fetch that faults, and counts."""
    cpu = before_the_fault(name, "jmp")
    state = cpu.engine.state()
    state.rip = EDGE
    cpu.engine.load(state)
    before = cpu.engine.retired
    cpu.engine.run(1)
    assert cpu.engine.retired == before + 1
    assert (cpu.faults[-1].rip, cpu.faults[-1].retired) == (EDGE, before)
    cpu.engine.close()
