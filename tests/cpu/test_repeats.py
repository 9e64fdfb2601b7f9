"""What an event behind an iteration of a repeated string instruction pushes, in both run loops.

The SDM (vol. 3B, 17.3.1.1): RF is 1 behind any iteration but the last, for interrupts and traps alike, and EIP is
that of the instruction then; behind the last one EIP is the next instruction's, and RF 0. Bochs, beside which
tests/cpu/test_checks.py runs the same image, agrees about EIP and pushes RF as 0.
"""

from __future__ import annotations

import functools
import re

import pytest

import oracles
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from machines import debugger, rom

FRAME = re.compile(r"([0-9A-F]{2}):-@0008\.([0-9A-F]{8})/f([0-9A-F]{8})")
RF = 1 << 16
#: Prefix of a check's name -> the vectors of its events: the timer's, or debug exceptions.
VECTORS = {"middle": {"20"}, "one": {"20"}, "none": {"20"}, "step": {"01"}, "watch": {"01"}}


@pytest.fixture(params=["fast", "gate"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gate":
        monkeypatch.setenv("V2E_ENGINE", "gate")
    return str(request.param)


@functools.cache
def events(_loop: str) -> dict[str, list[tuple[str, int, bool]]]:
    """Of each check: the vector, EIP less the instruction's address, and RF of each event."""
    session = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=oracles.assemble_image("cpu_repeat"))))
    session.set_limit(3_000_000)
    session.begin_continue()
    session.run()
    found = {}
    for line in session.machine.debugcon_text().splitlines():
        name, _, rest = line.partition(" @")
        if rest:
            at = int(rest[:8], 16)
            found[name] = [(v, int(eip, 16) - at, bool(int(f, 16) & RF)) for v, eip, f in FRAME.findall(rest)]
    session.machine.close()
    return found


def of(loop: str, prefix: str) -> dict[str, list[tuple[str, int, bool]]]:
    found = {name: frames for name, frames in events(loop).items() if name.startswith(prefix)}
    assert found
    assert all(frames and {v for v, _, _ in frames} == VECTORS[prefix] for frames in found.values()), found
    return found


def test_an_interrupt_between_two_iterations_pushes_rf_and_comes_back_to_the_instruction(loop: str) -> None:
    for name, frames in of(loop, "middle").items():
        assert [(eip, rf) for _, eip, rf in frames] == [(0, True)], name


@pytest.mark.parametrize("prefix", ["one", "none"])
def test_an_interrupt_behind_the_last_iteration_pushes_what_follows(loop: str, prefix: str) -> None:
    for name, frames in of(loop, prefix).items():
        ((_, eip, rf),) = frames
        assert 1 <= eip <= 3, name
        assert not rf, name


@pytest.mark.parametrize(
    ("name", "iterations"),
    [
        ("step-stosb-3", 3), ("step-stosb-1", 1), ("step-stosb-0", 1), ("step-movsd-2", 2), ("step-repe-cmpsb-3", 3),
        ("step-repe-scasb-3", 1), ("step-no-repeat", 1),
    ],
)  # fmt: skip
def test_a_single_step_pushes_rf_behind_each_iteration_but_the_last(loop: str, name: str, iterations: int) -> None:
    frames = of(loop, "step")[name]
    assert [rf for _, _, rf in frames[:iterations]] == [True] * (iterations - 1) + [False]
    assert [eip == 0 for _, eip, _ in frames[:iterations]] == [True] * (iterations - 1) + [False]
    assert not any(rf for _, _, rf in frames[iterations:])


@pytest.mark.parametrize(
    ("name", "middle"),
    [
        ("watch-first", True),
        ("watch-middle", True),
        ("watch-last", False),
        ("watch-only", False),
        ("watch-movsb", True),
    ],
)
def test_a_data_breakpoint_pushes_rf_behind_each_iteration_but_the_last(loop: str, name: str, middle: bool) -> None:
    ((_, eip, rf),) = of(loop, "watch")[name]
    assert (eip == 0, rf) == (middle, middle)


#: IRQ 0 is requested and masked; REP OUTS with a counter of {count} writes the mask 0FEh, by which it is taken. The
#: handler keeps the IP that it finds on its stack, less that of the instruction, and CX.
UNMASKS = """
    mov ss, ax
    mov es, ax
    mov sp, 0x7000
    mov word [8 * 4], handler
    mov word [8 * 4 + 2], 0xf000
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xff
    out 0x21, al
    mov al, 0x30
    out 0x43, al
    mov al, 20
    out 0x40, al
    mov al, 0
    out 0x40, al
    mov cx, 2000
    loop $
    mov dword [0x900], 0xfefefefe
    mov si, 0x900
    mov dx, 0x21
    mov cx, {count}
    cld
    sti
    nop
repeated: {outs}
    nop
    nop
    cli
    mov al, 0
    out 0xf4, al
    hlt
handler:
    mov bp, sp
    mov bx, [bp]
    sub bx, repeated
    mov [0x910], bx
    mov [0x912], cx
    mov al, 0xff
    out 0x21, al
    mov al, 0x20
    out 0x20, al
    iret
"""


@pytest.mark.parametrize("length", [None, 1, 13])
@pytest.mark.parametrize(
    ("outs", "count", "behind", "left"),
    [
        ("rep outsb", 1, 2, 0),
        ("rep outsb", 2, 0, 1),
        ("rep outsw", 1, 2, 0),
        ("a32 rep outsb", 1, 3, 0),
        ("outsb", 1, 1, 1),
    ],
)
def test_an_interrupt_that_an_iteration_unmasks_itself(
    outs: str, count: int, behind: int, left: int, length: int | None
) -> None:
    made = debugger(rom("movzx esi, ax\nmov ecx, esi\n" + UNMASKS.format(outs=outs, count=count)), slice=length)
    made.set_limit(1_000_000)
    made.begin_continue()
    made.run()
    found = made.machine.memory.read(0x910, 4)
    made.machine.close()
    assert (int.from_bytes(found[:2], "little"), int.from_bytes(found[2:], "little")) == (behind, left)
