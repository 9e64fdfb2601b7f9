"""64-bit code with bases in ES, SS and DS: prefixes add none (SDM vol. 1, 3.4.2.1), and the registers keep theirs for
32-bit code, state and saves, in both loops and at every slice."""

from __future__ import annotations

import pytest

from bare_cpu import BareCpu
from emu.engine import ExitReason
from emu.x86.state import Segment
from run_loops import SLICES, make, needs_helper

pytestmark = needs_helper

BASES = {"es": 0x1008, "ss": 0x11008, "ds": 0x2008}
#: Loads a prefix may change, to 32-bit code, where a base counts, and back; DS is loaded anew in 64-bit code.
SOURCE = """
        mov ebx, 0x5000
        mov ecx, 40
again:  db 0x3e
        mov eax, [rbx]          ; DS
        db 0x26
        add eax, [rbx]          ; ES
        db 0x36
        add [rbx], eax          ; SS
        db 0x3e
        jmp [jumps]             ; NOTRACK
wrong:  hlt
right:  push 8
        push in_32
        o64 retf
bits 32
in_32:  add esi, [ebx]          ; with the base of DS
        add edi, [es:ebx]
        jmp 0x18:in_64
bits 64
in_64:  dec ecx
        jnz again
        mov eax, 0x10           ; flat
        mov ds, eax
        db 0x3e
        add esi, [rbx]
        push 8
        push last
        o64 retf
bits 32
last:   add esi, [ebx]
        add edi, [es:ebx]
        hlt
align 8
jumps:  dq right
"""


def started(name: str) -> BareCpu:
    cpu = make(name, SOURCE, 64)
    state = cpu.engine.state()
    for register, base in BASES.items():
        setattr(state, register, Segment(0x10, base, 0xFFFFFFFF, 0xC093))
    cpu.engine.load(state)
    for address, value in ((0x5000, 1), (0x5000 + BASES["es"], 1 << 8), (0x5000 + BASES["ds"], 1 << 16)):
        cpu.write(address, value.to_bytes(4, "little"))
    return cpu


def test_prefixes_add_no_base_and_the_registers_keep_theirs() -> None:
    results = []
    for name in ("gate", "fast"):
        for size in SLICES:
            cpu = started(name)
            exit = cpu.run(slice=size)
            assert exit.reason is ExitReason.HALT
            results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save()))
            cpu.engine.close()
    assert all(result == results[0] for result in results)
    state = results[0][1]
    value = 1
    for _ in range(40):  # EAX is twice what stands there, and is added to it
        value = value * 3 & 0xFFFFFFFF
    assert (state.es.base, state.ss.base, state.ds.base) == (BASES["es"], BASES["ss"], 0)
    assert state.regs[6] == (40 << 16) + 2 * value & 0xFFFFFFFF
    assert state.regs[7] == 41 << 8


@pytest.mark.parametrize("name", ["gate", "fast"])
def test_the_state_has_the_bases_behind_each_instruction(name: str) -> None:
    cpu = started(name)
    for _ in range(60):
        cpu.engine.run(1)
        state = cpu.engine.state()
        assert {register: getattr(state, register).base for register in BASES} == BASES
    cpu.engine.close()
