"""Lockstep names the very instruction behind which two CPUs part, whatever kind it is: x87, SSE, a repeated string
instruction in the midst of it, a far call, a switch of tasks. The CPU that is wrong is that of tests/wrong_cpu.py; the
address, found in the ROM by the instruction's bytes, is the oracle."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.debugger import Debugger
from emu.lockstep import LockstepMachine
from emu.machine import MachineConfig
from emu.replica import Replica
from emu.stops import StopKind
from emu.x86.state import CpuState
from machines import protected, rom
from wrong_cpu import wrong

RCX, RDX, RSP, RBP, RSI = 1, 2, 4, 5, 6
#: Rounds of each program, BP counts them down; the CPU is wrong in round WHEN.
ROUNDS, WHEN = 40, 17
REAL = f"mov ss, ax\nmov sp, 0x7000\nmov es, ax\nmov bp, {ROUNDS}\n"
END = "dec bp\njnz w\nmov al, 3\nout 0xf4, al\nhlt\n"


def in_round(change: Callable[[Replica, CpuState], None], when: int = WHEN) -> Callable[[Replica, CpuState], None]:
    def break_it(replica: Replica, state: CpuState) -> None:
        if state.regs[RBP] & 0xFFFF == when:
            change(replica, state)

    return break_it


def last_place(_: Replica, state: CpuState) -> None:
    state.fpu.st[0] ^= 1


def lane(_: Replica, state: CpuState) -> None:
    state.fpu.xmm[2] ^= 1 << 84


def at_iteration(_: Replica, state: CpuState) -> None:
    if state.regs[RCX] & 0xFFFF == 33:
        state.regs[RSI] ^= 2


def stored(replica: Replica, state: CpuState) -> None:
    if state.regs[RCX] & 0xFFFF == 33:
        replica.memory.write(0x9123, b"\x5a")


def return_address(replica: Replica, state: CpuState) -> None:
    """What the far call has pushed."""
    replica.memory.write((state.ss.base + state.regs[RSP]) & 0xFFFFF, b"\x11")


def hidden_limit(_: Replica, state: CpuState) -> None:
    state.ds.limit ^= 0x10


def other_task(_: Replica, state: CpuState) -> None:
    """What it loads from its TSS."""
    state.regs[RDX] ^= 0x4000


TSS = """
    dw 0xffff, 0, 0x9a0f, 0x00cf          ; 08: code32 at F0000h
    dw 0xffff, 0, 0x9200, 0x00cf          ; 10: data32, flat
    dw 0x0067, 0x8000, 0x8900, 0x0000     ; 18: a TSS at 8000h
    dw 0x0067, 0x8100, 0x8900, 0x0000     ; 20: a TSS at 8100h
"""
SWITCHES = (
    protected("dword 0x08:t32", TSS)
    + f"""
    bits 32
    t32:
        mov ax, 0x10
        mov ds, ax
        mov ss, ax
        mov es, ax
        mov esp, 0x7000
        mov ax, 0x18
        ltr ax
        mov dword [0x8100 + 0x20], other      ; EIP
        mov dword [0x8100 + 0x24], 2
        mov dword [0x8100 + 0x38], 0x6000     ; ESP
        mov dword [0x8100 + 0x3c], {WHEN}     ; EBP
        mov dword [0x8100 + 0x4c], 8          ; CS
        mov dword [0x8100 + 0x48], 0x10       ; ES
        mov dword [0x8100 + 0x50], 0x10       ; SS
        mov dword [0x8100 + 0x54], 0x10       ; DS
        mov ecx, 21
    w:
        jmp 0x20:0
        loop w
        mov al, 3
        out 0xf4, al
        hlt
    other:
        inc dword [0x9000]
        jmp 0x18:0
        jmp other
    bits 16
    """
)
#: The program, the bytes of its instruction, what the wrong CPU does behind it, and what is shown of the difference.
STREAMS = {
    "x87": (
        REAL + "fninit\nfldpi\nw: fld st0\nfaddp st1, st0\nfldl2e\nfstp qword [0x9000]\n" + END, b"\xde\xc1",
        in_round(last_place), "faddp", "fpu.st0",
    ),
    "SSE": (
        REAL + "mov eax, cr4\nor ax, 0x200\nmov cr4, eax\nxor ax, ax\nmov ds, ax\nw: movups xmm1, [0x9000]\n"
        "addps xmm2, xmm1\nmovups [0x9010], xmm1\n" + END, b"\x0f\x58\xd1", in_round(lane), "addps", "fpu.xmm2",
    ),
    "REP MOVSB, its index": (  # in the last round, as the next one would store all anew
        REAL + "mov ax, cs\nmov ds, ax\nw: mov si, 0\nmov di, 0x9000\nmov cx, 100\nrep movsb\n" + END, b"\xf3\xa4",
        in_round(at_iteration, 1), "rep movsb", "rsi",
    ),
    "REP MOVSB, what it has stored": (
        REAL + "w: mov si, 0x8000\nmov di, 0x9000\nmov cx, 100\nrep movsb\n" + END, b"\xf3\xa4",
        in_round(stored), "rep movsb", "memory 0x9123",
    ),
    "a far call": (
        REAL + "w: call 0xf000:f\n" + END + "f: inc dx\nretf\n", b"\x9a", in_round(return_address), "lcall",
        "memory 0x6ffc",
    ),
    "a segment's hidden limit": (
        REAL + "w: mov ax, 0x1234\nmov ds, ax\n" + END, b"\x8e\xd8\x4d", in_round(hidden_limit), "mov ds, ax",
        "ds.limit",
    ),
    "a switch of tasks": (SWITCHES, b"\xea\x00\x00\x00\x00\x20\x00", in_round(other_task), "ljmp", "rdx"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "code", "break_it", "text", "name"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("block", [500, 1_000_000])
def test_the_instruction_is_found(
    source: str, code: bytes, break_it: Callable[[Replica, CpuState], None], text: str, name: str, block: int
) -> None:
    image = rom(source)
    at = image.find(code)
    assert at > 0 and image.find(code, at + 1) < 0
    config = MachineConfig(memory=1 << 20, firmware=image, shadow=False)
    same = LockstepMachine(config, wrong(0xF0000 + at, lambda replica, state: None), block)
    run = Debugger(same)
    run.begin_continue()
    assert run.run().kind is StopKind.EXIT and same.divergence is None, "right, it parts nowhere"
    same.close()
    machine = LockstepMachine(config, wrong(0xF0000 + at, break_it), block)
    run = Debugger(machine)
    run.begin_continue()
    stop = run.run()
    found = machine.divergence
    assert stop.kind is StopKind.FAILURE and found is not None, stop.text
    assert found.linear == 0xF0000 + at
    assert found.instruction is not None and found.instruction.text.startswith(text)
    assert [d.name for d in found.differences if d.name.startswith(name)], found
    assert len(found.differences) == 1, found
    # the guest stands before it
    assert machine.executor.linear_pc == found.linear and machine.executor.retired == found.retired
    machine.close()
