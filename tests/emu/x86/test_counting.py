"""A loop that only counts may be carried to its last round: what comes of it is what executing all its rounds gives."""

from __future__ import annotations

import pytest

from emu.loops import read_linear
from emu.machine import Machine, MachineStop
from emu.x86.counting import Count, counting
from emu.x86.modes import code_bits
from emu.x86.rounds import Step
from emu.x86.state import CpuState
from emu.x86.statediff import differences
from machines import debugger, rom

#: nasm text of one instruction and a loop behind it, which begins at `d`, and the instructions of a round.
LOOPS = {
    "loop": ("mov cx, 300\nd: loop d", 1),
    "loop by ECX": ("mov ecx, 300\nd: nop\na32 loop d", 2),
    "dec": ("mov ecx, 0x12340105\nd: dec cx\njnz d", 2),
    "a wide dec": ("mov esi, 1000\nd: in al, 0x80\ndec esi\njnz d", 3),
    "a byte": ("mov dx, 0x3344\nd: mov ax, 5\ndec dl\njnz d", 3),
    "inc": ("mov di, -700\nd: nop\njmp e\ne: inc di\njnz d", 4),
    "one within": ("mov bx, 50\nd: mov cx, 3\ne: loop e\ndec bx\njnz d", 6),
}
#: Loops that do more, so that the rounds before the last matter.
OTHERS = {
    "two that count": ("mov cx, 300\nd: inc ax\nloop d", 2),
    "memory": ("mov cx, 300\nd: inc word [0x500]\nloop d", 2),
    "a sum": ("mov cx, 300\nd: add ax, cx\nloop d", 2),
    "a move": ("mov cx, 300\nd: mov bx, ax\nmov ax, cx\nloop d", 3),
    "a poll": ("mov cx, 300\nd: in al, 0x64\ntest al, 1\njnz o\nloop d\no: nop", 4),
    "the counter written": ("mov cx, 300\nd: mov cl, 9\nloop d", 2),
    "the high byte": ("mov bx, 0x3344\nd: dec bh\njnz d", 2),
}
#: Instructions before the loop: the reset vector's jump, three of the ROM's own, and the source's one.
BEFORE = 5


def third_round(source: str, length: int) -> tuple[Machine, list[Step]]:
    """The machine that has gone through three rounds of the loop, and the steps of the last of them."""
    machine = debugger(rom(source + "\nhlt")).machine
    machine.run(BEFORE + 2 * length)
    steps = []
    for _ in range(length):
        state = machine.executor.state()
        steps.append(Step(state.linear_pc, read_linear(machine, state, state.linear_pc, 15), code_bits(state), state))
        machine.run(machine.executor.retired + 1)
    assert machine.executor.linear_pc == steps[0].linear
    return machine, steps


def seen(source: str, length: int, *, carry: bool) -> tuple[Count | None, CpuState]:
    """What `counting` says of the loop, and the state in which the guest halts; with `carry` its rounds but for the
    first two, the one looked at, and the last are left out."""
    machine, steps = third_round(source, length)
    executor = machine.executor
    count = counting(steps)
    if carry and count is not None:
        state = executor.state()
        assert count.near_its_end(state)
        executor.load(state)
    begun = executor.retired
    assert machine.run(1_000_000).reason is MachineStop.DEADLOCK
    assert not carry or count is None or executor.retired <= begun + length + 1
    return count, executor.state()


@pytest.mark.parametrize(("source", "length"), LOOPS.values(), ids=LOOPS)
def test_the_last_round_leaves_what_all_rounds_do(source: str, length: int) -> None:
    count, short = seen(source, length, carry=True)
    assert count is not None
    _, full = seen(source, length, carry=False)
    assert list(differences(short, full)) == []


@pytest.mark.parametrize(("source", "length"), OTHERS.values(), ids=OTHERS)
def test_a_loop_that_does_more_is_not_carried(source: str, length: int) -> None:
    assert counting(third_round(source, length)[1]) is None
