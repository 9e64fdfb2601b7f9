"""What Unicorn leaves out of x87, SSE, VEX and paging, as docs/fidelity.md says: a failure asks for a better row."""

from __future__ import annotations

import pytest

import oracles
from bare_cpu import bare_cpu
from emu.debugger import Debugger
from emu.engine import ExitReason
from emu.machine import MachineConfig, build_machine

SSE = "mov eax, cr4\nor eax, 0x600\nmov cr4, eax\n"
#: Source -> what EAX has at HLT; the comment says what a CPU has (SDM vol. 1, 8.5, 10.2.3 and 11.5; vol. 3A, 6.15).
CASES = {
    "division by zero sets ZE": ("fninit\nfld1\nfldz\nfdivp\nfnstsw ax\nhlt", 0x3804),  # 3804h
    "inexact": ("fninit\nfld1\npush 3\nfidiv dword [esp]\nfnstsw ax\nhlt", 0x3800),  # 3820h
    "empty register": ("fninit\nfld st3\nfnstsw ax\nhlt", 0x3800),  # 3841h
    "full stack": ("fninit\n" + "fld1\n" * 9 + "fnstsw ax\nhlt", 0x3800),  # 3A41h
    "unmasked division by zero with NE clear": (  # waits for IRQ 13 at FWAIT
        "fninit\npush 0x37b\nfldcw [esp]\nfld1\nfldz\nfdivp\nfwait\nmov eax, 1\nhlt",
        1,
    ),
    "pi rounded down": (  # 2168C234h
        "fninit\npush 0x77f\nfldcw [esp]\nfldpi\nsub esp, 12\nfstp tword [esp]\nmov eax, [esp]\nhlt",
        0x2168C235,
    ),
    "flags of MXCSR": (  # 1F84h
        SSE + "xorps xmm0, xmm0\npush 0x3f800000\nmovss xmm1, [esp]\ndivss xmm1, xmm0\nstmxcsr [esp]\nmov eax, [esp]\n"
        "hlt",
        0x1F80,
    ),
    "unmasked division by zero": (  # #XM
        SSE + "push 0x1d80\nldmxcsr [esp]\nxorps xmm0, xmm0\npush 0x3f800000\nmovss xmm1, [esp]\ndivss xmm1, xmm0\nhlt",
        0x600,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_the_page_says(name: str) -> None:
    source, expected = CASES[name]
    cpu = bare_cpu(source, 32)
    assert (cpu.run().reason, cpu.faults) == (ExitReason.HALT, [])
    assert cpu.engine.state().regs[0] == expected


def test_shlx_asks_for_osfxsr() -> None:
    cpu = bare_cpu("shlx eax, ecx, edx\nhlt", 32)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert cpu.faults[0].vector == 6
    assert bare_cpu(SSE + "shlx eax, ecx, edx\nhlt", 32).run().reason is ExitReason.HALT


@pytest.mark.parametrize("instruction", ["movbe ax, [0x2000]", "crc32 eax, bx", "adcx eax, ebx"])
def test_so_do_others_with_an_operand_size_prefix(instruction: str) -> None:
    cpu = bare_cpu(f"{instruction}\nhlt", 32)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert cpu.faults[0].vector == 6


@pytest.mark.parametrize(
    "instruction", ["movbe eax, [0x2000]", "crc32 eax, ebx", "adcx eax, ebx", "andn eax, ebx, ecx"]
)
@pytest.mark.parametrize(("bit", "vector"), [(8, 7), (4, 6)])
def test_ts_and_em_are_taken_to_concern_them(instruction: str, bit: int, vector: int) -> None:
    """They concern none of these (SDM vol. 2A and 2B: their tables of exceptions)."""
    cpu = bare_cpu(f"{SSE}mov eax, cr0\nor eax, {bit}\nmov cr0, eax\n{instruction}\nhlt", 32)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert cpu.faults[0].vector == vector


@pytest.mark.parametrize("transfer", ["int", "call-gate"])
def test_in_long_mode_a_gate_that_stays_in_ring_3_pushes_as_the_supervisor(transfer: str) -> None:
    """The handler begins (#UD, vector 6); on a CPU the push is #PF with code 7 (SDM vol. 3A, 4.6)."""
    run = Debugger(
        build_machine(MachineConfig(memory=16 << 20, firmware=oracles.assemble_image("cpu_paging64", SAME_RING=1)))
    )
    run.set_limit(3_000_000)
    run.begin_continue()
    run.run()
    lines = dict(line.split(" ", 1) for line in run.machine.debugcon_text().splitlines() if " " in line)
    run.machine.close()
    assert lines[f"supervisor-{transfer}-same-ring"].startswith("06:-")
