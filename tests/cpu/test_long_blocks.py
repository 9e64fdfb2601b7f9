"""Many instructions of one kind in a row are executed: what Unicorn keeps of each does not outgrow its tables.

Of some, FADD among them, its translator keeps a temporary to the end of the block, and it has room for 512
(include/tcg/tcg.h of QEMU 5.0.1, TCG_MAX_TEMPS). Behind those it overwrites what it translates with, and the process
ends. The portable loop's hooks make blocks short enough by themselves, but for a few (docs/fidelity.md).
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, bare_cpu
from emu.engine import ExitReason
from run_loops import loop, needs_helper

DATA = 0x5000
OSFXSR = 0x200
BYTES = 0xF00  #: of a program, within a page: nothing but the number of instructions ends its blocks

INSTRUCTIONS = (
    *(
        "fadd st0, st1",
        "fsub st1, st0",
        "fmul dword [ebx]",
        "fcom st1",
        "fcomi st0, st1",
        "fcmovu st0, st1",
        "fxch st1",
    ),
    *("fld1", "fild word [ebx]", "fist dword [ebx]", "fnstsw ax", "ffree st1", "fdivr st0, st2", "fucomi st0, st1"),
    *("addps xmm0, xmm1", "pshufw mm0, mm1, 1", "pinsrw xmm0, [ebx], 1", "psrldq xmm0, 1", "cvtsi2ss xmm0, ecx"),
    *(
        "cmpxchg8b [ebx]",
        "xadd [ebx], eax",
        "lock bts dword [ebx], 3",
        "rcl eax, cl",
        "shld eax, ecx, 3",
        "bsf eax, ecx",
    ),
    *(
        "push eax",
        "pop eax",
        "pusha",
        "popa",
        "cmovc eax, ecx",
        "mul ecx",
        "aaa",
        "daa",
        "bt [ebx], ecx",
        "lahf",
        "sahf",
    ),
)

#: What Unicorn makes fewest operations of: of these 240 in a row outgrow its tables in the portable loop.
TOO_SHORT = ("fsub st1, st0", "fxch st1", "ffree st1")


def run_many(name: str, instruction: str) -> None:
    with loop(name):
        cpu = bare_cpu("", 32)
    assert cpu.engine.run_loop == name
    code = assemble(f"bits 32\n{instruction}", CODE)
    count = BYTES // len(code)
    cpu.write(CODE, code * count + b"\xf4")
    state = cpu.engine.state()
    state.regs[3], state.regs[4], state.cr4 = DATA, 0x100000, state.cr4 | OSFXSR
    state.fpu.fcw = 0x37F  # no exception of the x87 is unmasked, and its stack does overflow
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    assert (cpu.engine.retired, cpu.faults) == (count + 1, [])
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_a_page_of_one_instruction_is_executed_by_the_fast_loop(instruction: str) -> None:
    run_many("fast", instruction)


@pytest.mark.slow_variants(keep=8)
@pytest.mark.parametrize("instruction", [each for each in INSTRUCTIONS if each not in TOO_SHORT])
def test_a_page_of_one_instruction_is_executed_by_the_portable_loop(instruction: str) -> None:
    run_many("gate", instruction)
