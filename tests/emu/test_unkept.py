"""What Unicorn leaves out of x87, MMX and VEX, as docs/fidelity.md says: a failure asks for a better row."""

from __future__ import annotations

import pytest

from bare_cpu import bare_cpu
from emu.engine import ExitReason
from run_loops import loop

SSE = "mov eax, cr4\nor eax, 0x600\nmov cr4, eax\n"


def test_an_unmasked_x87_exception_with_ne_clear_is_lost_in_the_portable_loop() -> None:
    """A CPU waits for IRQ 13 at FWAIT (SDM vol. 1, 8.7.2)."""
    with loop("gate"):
        cpu = bare_cpu("fninit\npush 0x37b\nfldcw [esp]\nfld1\nfldz\nfdivp\nfwait\nmov eax, 1\nhlt", 32)
        assert (cpu.run().reason, cpu.faults) == (ExitReason.HALT, [])
        assert cpu.engine.state().regs[0] == 1


def test_mmx_leaves_what_is_above_its_registers_in_the_portable_loop() -> None:
    """A CPU has FFFFh there behind each write (SDM vol. 1, 9.2 and 9.5)."""
    with loop("gate"):
        cpu = bare_cpu("fninit\nfldz\npaddb mm7, mm6\nhlt", 32)
        assert cpu.run().reason is ExitReason.HALT
        assert cpu.engine.state().fpu.st[7] >> 64 == 0


def test_shlx_asks_for_osfxsr_in_the_portable_loop() -> None:
    with loop("gate"):
        cpu = bare_cpu("shlx eax, ecx, edx\nhlt", 32)
        assert cpu.run().reason is ExitReason.SHUTDOWN
        assert cpu.faults[0].vector == 6
        assert bare_cpu(SSE + "shlx eax, ecx, edx\nhlt", 32).run().reason is ExitReason.HALT


@pytest.mark.parametrize("instruction", ["movbe ax, [0x2000]", "crc32 eax, bx"])
def test_so_do_others_with_an_operand_size_prefix(instruction: str) -> None:
    with loop("gate"):
        cpu = bare_cpu(f"{instruction}\nhlt", 32)
        assert cpu.run().reason is ExitReason.SHUTDOWN
        assert cpu.faults[0].vector == 6


@pytest.mark.parametrize("instruction", ["movbe eax, [0x2000]", "crc32 eax, ebx", "andn eax, ebx, ecx"])
@pytest.mark.parametrize(("bit", "vector"), [(8, 7), (4, 6)])
def test_ts_and_em_are_taken_to_concern_them(instruction: str, bit: int, vector: int) -> None:
    """They concern none of these (SDM vol. 2A and 2B: their tables of exceptions)."""
    with loop("gate"):
        cpu = bare_cpu(f"{SSE}mov eax, cr0\nor eax, {bit}\nmov cr0, eax\n{instruction}\nhlt", 32)
        assert cpu.run().reason is ExitReason.SHUTDOWN
        assert cpu.faults[0].vector == vector
