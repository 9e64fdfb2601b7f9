"""Many instructions of one kind in a row are executed: what Unicorn keeps of each does not outgrow its tables.

Of some, FADD among them, its translator keeps a temporary to the end of the block, and it has room for 512
(include/tcg/tcg.h of QEMU 5.0.1, TCG_MAX_TEMPS). Behind those it overwrites what it translates with, and the process
ends. The portable loop has blocks of at most 64 instructions.
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, GDT, bare_cpu
from emu.engine import ExitReason
from emu.x86.state import Table
from run_loops import loop, make, needs_helper, run_without_the_helper

DATA = 0x5000
IDT, HANDLER, DIRECTORY = 0xA000, 0xB000, 0xD000
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

#: What Unicorn makes fewest operations of: of these 240 in a row outgrow its tables.
SHORT = ("fsub st1, st0", "fxch st1", "ffree st1")


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
@pytest.mark.parametrize("instruction", [*SHORT, *(each for each in INSTRUCTIONS if each not in SHORT)])
def test_a_page_of_one_instruction_is_executed_by_the_portable_loop(instruction: str) -> None:
    run_many("gate", instruction)


@pytest.mark.parametrize("event", ["ud2", "jmp 0x90000000", "int 3", "push 2\npush 8\npush 0x90000000\niretd"])
@pytest.mark.parametrize("name", [pytest.param("fast", marks=needs_helper), "gate"])
def test_a_handler_may_begin_with_many(name: str, event: str) -> None:
    """Of an instruction that cannot be fetched as well, before which nothing of the loop was asked."""
    cpu = make(name, event, 32)
    for vector in (3, 6, 13, 14):
        cpu.write(IDT + 8 * vector, (HANDLER | 8 << 16 | 0x8E00 << 32).to_bytes(8, "little"))
    cpu.write(HANDLER, b"\xd9\xc9" * 1500 + b"\xf4")
    state = cpu.engine.state()
    state.idtr, state.gdtr = Table(IDT, 0x3FF), Table(GDT, 0x3F)
    state.regs[4] = 0x8000
    cpu.write(DIRECTORY, b"".join((n << 22 | 0x83).to_bytes(4, "little") for n in range(4)) + bytes(4080))
    state.cr3, state.cr4, state.cr0 = DIRECTORY, state.cr4 | 0x10, state.cr0 | 1 << 31
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.retired >= 1501
    cpu.engine.close()


@needs_helper
def test_nothing_of_this_needs_the_helper_to_be_loaded() -> None:
    assert " passed" in run_without_the_helper(__file__, "handler or fxch or ffree or fsub or fadd or pusha")
