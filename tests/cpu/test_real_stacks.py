"""Frames of real mode that the stack has no room for, and SYSRET there: our machine and Bochs say the same.

FLAGS, CS and IP are pushed as by three PUSHes: at an odd SP below 6 one of them would go over the end of the stack,
#SS, and so would the frame of that: the CPU shuts down (SDM vol. 2A, INT n; vol. 2B, PUSH; vol. 3A, 6.15, interrupt 8).
"""

from __future__ import annotations

import pytest

import oracles
from asm import assemble
from cpu.test_encodings import GP, UD, Trier
from emu.debugger import Debugger
from emu.engine import CheckLevel
from emu.machine import MachineConfig, build_machine
from emu.stops import StopKind
from emu.unicorn_helper import HELPER

#: What raises an event, as the last instructions of the program.
EVENTS = {
    "int": "int 0x40",
    "int3": "int3",
    "undefined": "ud2",
    "division": "xor cx, cx\ndiv cx",
    "step": "",
    "timer": "sti\njmp $",
}
PROGRAM = """
%include "guest.inc"
org 0
rom:
GUEST_SERVICES 16
start:
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        SETUP_PIC
        xor di, di
        mov cx, 0x80
.ivt:   mov word [di], handler
        mov word [di + 2], ROM >> 4
        add di, 4
        loop .ivt
%ifdef LIMIT
        o32 lgdt [cs:gdtr - rom]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, 8
        mov ss, bx
        and al, 0xFE
        mov cr0, eax
%endif
        mov al, 0xFE
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, 0x80
        out 0x40, al
        out 0x40, al
        mov al, '-'
        out 0xE9, al
        mov ax, 0x2000
        mov ss, ax
        mov sp, STACK_AT
EVENT
handler:
        mov bx, sp
        xor ax, ax
        mov ss, ax
        mov sp, 0xF00
        mov ax, bx
        call hex4_16
        mov al, 0
        jmp finish16
        align 8
gdt:    dq 0
        SEGMENT 0x20000, 0xFFF, 0x93, 0
gdtr:   dw $ - gdt - 1
        dd ROM + (gdt - rom)
RESET_VECTOR start
"""


def compare(event: str, at: int, defined: str = "") -> bool:
    """Whether the CPU shut down, here as under Bochs, where what was printed is the same too."""
    code = EVENTS[event]
    if event == "step":  # TF is set for the second instruction on a stack with room, and the first leaves it
        code = f"mov sp, 0x100\npushf\npop ax\nor ah, 1\npush ax\npopf\nmov sp, {at}\nnop"
    rom = assemble(f"{defined}%define STACK_AT {at}\n" + PROGRAM.replace("EVENT\n", code + "\n"))
    oracle = oracles.bochs(rom)
    run = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=rom, checks=CheckLevel.FULL)))
    run.set_limit(3_000_000)
    run.begin_continue()
    stop = run.run()
    printed = run.machine.debugcon_text()
    run.machine.close()
    theirs = oracle.debugcon.partition("(0).[")[0]  # behind it Bochs says where it shuts down
    assert (stop.kind is StopKind.SHUTDOWN, printed) == (oracle.shutdown, theirs), stop.text
    return oracle.shutdown


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_frame_at_the_end_of_the_stack(event: str, at: int) -> None:
    if event == "timer" and isinstance(HELPER, str):
        pytest.skip(HELPER)
    # a step's own frame is pushed behind the MOV that has made the stack such
    assert compare(event, at) is (at in (1, 3, 5))


@pytest.mark.parametrize("event", ["int", "undefined", "timer"])
@pytest.mark.parametrize(
    ("at", "room"), [(0x1000, True), (0x1002, False), (0x2000, False), (0x1001, False), (4, False)]
)
def test_a_frame_beyond_the_limit_of_a_smaller_stack(event: str, at: int, room: bool) -> None:
    if event == "timer" and isinstance(HELPER, str):
        pytest.skip(HELPER)
    assert compare(event, at, "%define LIMIT\n") is not room


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(("model", "vector"), [("max", UD), ("qemu64", UD), ("pentium3", UD)])
def test_sysret_of_real_mode(model: str, vector: int) -> None:
    """SDM vol. 2B, SYSRET: #UD; APM vol. 3: #GP(0) with EFER.SCE."""
    trier = Trier(16, model)
    assert trier.vector(b"\x0f\x07") == vector
    trier.start.efer |= 1
    assert trier.vector(b"\x0f\x07") == (GP if model == "qemu64" else UD)
