"""What the host writes is executed as written, through whatever address the guest fetches it, and leaves nothing
behind: device models, debuggers and other engines write code all the time."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import pytest

from asm import assemble
from bare_cpu import CODE, ROM, BareCpu, bare_cpu, flat_state
from emu.engine import ExitReason
from machines import debugger, rom
from reproducible import resident, run_to

both_loops = pytest.mark.usefixtures("run_loop")
MIB = 1 << 20
A20 = 1 << 20

#: Calls the subroutine at 3000h: MOV AL, imm8; RET. Then adds AL to EBX and goes round; 6 instructions a round.
CALLER = "l: mov edx, {address:#x}\ncall edx\nadd ebx, eax\njmp l"
ROUND = 6
FUNCTION = b"\xb0\x00\xc3"


def caller(address: int, prepare: Callable[[BareCpu], None] = lambda cpu: None) -> BareCpu:
    cpu = bare_cpu(CALLER.format(address=address), 32)
    prepare(cpu)
    return cpu


def returned(cpu: BareCpu) -> int:
    """What the subroutine gives in the next round."""
    cpu.engine.run(ROUND)
    return cpu.engine.state().regs[0] & 0xFF


def without_a20(cpu: BareCpu) -> None:
    cpu.engine.set_a20(False)


#: (where the host writes, where the guest calls, what to prepare)
PLACES: dict[str, tuple[int, int, Callable[[BareCpu], None]]] = {
    "at its address": (0x3000, 0x3000, lambda cpu: None),
    "across two pages": (0x3FFE, 0x3FFE, lambda cpu: None),
    "at an address the A20 gate folds": (0x3000, A20 + 0x3000, without_a20),
    "across two pages of a folded MiB": (2 * A20 + 0x2FFF, 3 * A20 + 0x2FFF, without_a20),
    "in ROM": (ROM + 0x100, ROM + 0x100, lambda cpu: None),
}


@both_loops
@pytest.mark.parametrize("place", PLACES)
def test_each_host_write_is_what_runs_next(place: str) -> None:
    written, called, prepare = PLACES[place]
    cpu = caller(called, prepare)
    cpu.write(written, FUNCTION)
    for value in range(1, 200):
        cpu.write(written + 1, bytes((value,)))
        assert returned(cpu) == value


@both_loops
@pytest.mark.slow
def test_100_000_small_writes_leave_no_stale_code_and_no_memory_behind() -> None:
    cpu = caller(0x3000)
    cpu.write(0x3000, FUNCTION)
    rng = random.Random(4)
    for turn in range(100_000):
        if turn == 20_000:
            gc.collect()
            before = resident()
        value = turn & 0xFF
        cpu.write(0x3001, bytes((value,)))
        cpu.write(0x10000 + rng.randrange(2 * MIB), b"data")
        if turn % 10 == 0:
            assert returned(cpu) == value
        if turn % 25_000 == 0:
            cpu.engine.set_a20(turn % 50_000 == 0)
    gc.collect()
    assert resident() - before < 8 * MIB


@pytest.mark.slow_variants
@both_loops
def test_writes_over_translated_code_everywhere_keep_within_the_translations_that_are_allowed() -> None:
    # 64 pages of code, each written and run again and again: what is dropped is used again in the end.
    cpu = bare_cpu("mov edx, 0x10000\nl: call edx\nadd edx, 0x1000\nand edx, 0x3ffff\nor edx, 0x10000\njmp l", 32)
    for page in range(0x10000, 0x40000, 0x1000):
        cpu.write(page, FUNCTION)
    for turn in range(400):
        if turn == 100:
            gc.collect()
            before = resident()
        for page in range(0x10000, 0x40000, 0x1000):
            cpu.write(page + 1, bytes((turn & 0xFF,)))
        cpu.engine.run(48 * 8)
    gc.collect()
    assert resident() - before < 40 * MIB  # Unicorn's buffer has 32 MiB, and fills


@both_loops
def test_a_guest_at_code_the_host_is_writing_sees_whole_instructions() -> None:
    # A callback writes the instruction behind the OUT that called it, through the folded address.
    source = f"mov ecx, 50\nl: out 0x70, al\nx: mov bl, 0\nadd esi, ebx\nloop l\nhlt\n; {A20:#x}"
    cpu = bare_cpu(source, 32)
    at = CODE + assemble(f"bits 32\n{source}", CODE).index(b"\xb3\x00")
    values = iter(range(1, 51))
    cpu.on_out = lambda *_: cpu.write(at + 1, bytes((next(values),)))
    state = flat_state()
    state.a20, state.rip = False, A20 + CODE
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[6] == sum(range(1, 51))


@both_loops
def test_guest_writes_through_the_folded_address_change_the_code() -> None:
    source = f"mov ecx, 50\nl: inc byte [{A20:#x}+x+1]\nx: mov bl, 0\nadd esi, ebx\nloop l\nhlt"
    cpu = bare_cpu(source, 32)
    without_a20(cpu)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[6] == sum(range(1, 51))


@both_loops
@pytest.mark.parametrize("shadow", [True, False])
def test_shadow_ram_runs_what_is_written_and_rom_what_it_held(shadow: bool) -> None:
    body = """
        mov ax, 0xf000
        mov ds, ax
        xor ax, ax
        mov cx, 40
        l: call f
        add bx, ax
        inc byte [cs:f+1]
        loop l
        k: jmp k
        f: mov al, 1
        ret
    """
    run = debugger(rom(body), shadow=shadow)
    run_to(run, 400)
    assert run.machine.cpu_state().regs[3] == (sum(range(1, 41)) if shadow else 40)


@both_loops
def test_a_restored_machine_runs_the_restored_code() -> None:
    cpu = bare_cpu(CALLER.format(address=0x3000), 32)
    cpu.write(0x3000, FUNCTION)
    states = []
    for value in range(1, 20):
        cpu.write(0x3001, bytes((value,)))
        assert returned(cpu) == value
        states.append((value, cpu.memory.save()))
    for value, memory in (*states, *reversed(states)):
        cpu.memory.restore(memory)
        assert returned(cpu) == value
