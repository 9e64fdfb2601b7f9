"""Runs in which no instruction retires end, in a sentence. A guest that lets interrupts in for one instruction at a
time gets them, wherever its runs stop."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import bare_cpu
from emu.debugger import Debugger
from emu.engine import ExitReason
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.standstill import Standstill
from emu.stops import BreakKind, Condition, StopKind
from emu.unicorn_watch import Watchpoints
from machines import debugger, protected, rom

#: COM1 asks for IRQ 4 as long as it can take a byte; level triggered, ended automatically, through a gate of type TYPE.
FLAT = "dq 0x00cf9b000000ffff\ndq 0x00cf93000000ffff"
STORM = """
bits 32
code32:
    mov ax, 16
    mov ds, ax
    mov ss, ax
    mov esp, 0x80000
    mov edi, 0x1000+8*0x2c
    mov eax, 0xf0000+handler
    mov [edi], ax
    mov word [edi+2], 8
    mov word [edi+4], {type:#x}
    shr eax, 16
    mov [edi+6], ax
    lidt [0xf0000+idtr]
    mov al, 0x19
    out 0x20, al
    mov al, 0x28
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 3
    out 0x21, al
    mov al, 0xef
    out 0x21, al
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    sti
w:  inc dword [0x500]
    jmp w
handler:
    inc dword [0x504]
    iret
idtr:
    dw 0x7ff
    dd 0x1000
"""
INTERRUPT_GATE, TRAP_GATE = 0x8E00, 0x8F00
FEW = 3_000  #: the bound for these tests: the stack has room for more


def storm(type: int, most: int = FEW, **config: object) -> Debugger:
    made = debugger(rom(protected("dword 8:0xf0000+code32", FLAT), STORM.format(type=type)), **config)
    made.machine.standstill = Standstill(most)
    return made


@pytest.mark.parametrize("loop", ["fast", "gate"])
@pytest.mark.parametrize("slice", [None, 1, 7])
def test_interrupts_without_an_instruction_between_them_end_the_run(
    monkeypatch: pytest.MonkeyPatch, slice: int | None, loop: str
) -> None:
    monkeypatch.setenv("V2E_ENGINE", loop)
    made = storm(TRAP_GATE, slice=slice)
    made.set_limit(100_000)
    made.begin_continue()
    stop = made.run()
    assert stop.kind is StopKind.DEADLOCK
    assert stop.text.startswith(
        f"{FEW} interrupts were delivered one behind the other, with not one instruction between them at 0008:"
    )
    assert made.machine.memory.read(0x504, 4) == bytes(4), "the handler has not executed its first instruction"
    pushed = 0x80000 - made.machine.cpu_state().regs[4]
    assert pushed == 12 * FEW


def test_replays_of_it_are_not_added_up() -> None:
    machine = storm(TRAP_GATE).machine
    machine.run(30)
    before = machine.save()
    for _ in range(3):
        machine.restore(before)
        assert machine.run(100_000).reason is MachineStop.STANDSTILL
        assert 0x80000 - machine.cpu_state().regs[4] == 12 * FEW


def test_a_replay_of_half_of_it_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the same instant is come to again the count is of the last time."""
    machine = storm(TRAP_GATE, 2 * FEW).machine
    machine.run(30)
    before = machine.save()
    calls, run = 0, machine.executor.run

    def asked(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == FEW:
            machine.request_stop()
        return run(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(machine.executor, "run", asked)
    assert machine.run(100_000).reason is MachineStop.REQUEST
    machine.restore(before)
    assert machine.run(100_000).reason is MachineStop.STANDSTILL
    assert 0x80000 - machine.cpu_state().regs[4] == 2 * 12 * FEW


def test_it_may_be_let_on_and_ends_again() -> None:
    made = storm(TRAP_GATE)
    for count in (1, 2):
        assert made.machine.run(100_000).reason is MachineStop.STANDSTILL
        assert 0x80000 - made.machine.cpu_state().regs[4] == 12 * FEW * count


def test_stops_from_outside_do_not_change_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = storm(TRAP_GATE)
    machine, calls = made.machine, 0
    run = machine.executor.run

    def asked(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            machine.request_stop()
        return run(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(machine.executor, "run", asked)
    requests = 0
    while (exit := machine.run(100_000)).reason is MachineStop.REQUEST:
        requests += 1
    assert requests > FEW // 4
    assert exit.reason is MachineStop.STANDSTILL
    assert 0x80000 - made.machine.cpu_state().regs[4] == 12 * FEW


#: All of the stack, at which each run ends.
STACK = (BreakKind.WRITE, 0x60000, 0x20000)


@pytest.mark.parametrize("slice", [None, 1, 7])
def test_it_ends_as_it_does_unwatched_where_the_stack_is_watched(slice: int | None) -> None:
    """What stops at a watchpoint is not stopped for a device, though nothing has retired."""
    made = storm(TRAP_GATE, slice=slice)
    point = made.add_breakpoint(*STACK, condition=Condition("never", lambda: False))
    made.begin_continue()
    stop = made.run()
    assert stop.kind is StopKind.DEADLOCK
    assert stop.text.startswith(f"{FEW} interrupts were delivered one behind the other")
    assert 0x80000 - made.machine.cpu_state().regs[4] == 12 * FEW
    assert point.hits == 0
    assert made.evaluated >= FEW


def test_a_handler_that_has_interrupts_off_gets_on() -> None:
    made = storm(INTERRUPT_GATE, 2)
    assert made.machine.run(20_000).reason is MachineStop.LIMIT
    assert int.from_bytes(made.machine.memory.read(0x504, 4), "little") > 5_000


def test_runs_for_a_device_without_end_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that asks for the run's end in each, of which the machine makes nothing."""
    machine = debugger(rom("l: inc ax\njmp l")).machine
    machine.run(10)
    machine.standstill = Standstill(FEW)
    service = machine.service

    def asking() -> None:
        service()
        machine.executor.request_stop()

    monkeypatch.setattr(machine, "service", asking)
    exit = machine.run(1000)
    assert exit.reason is MachineStop.STANDSTILL
    assert exit.detail == f"{FEW} runs one behind the other have retired no instruction, the last: request"
    assert machine.executor.retired == 10


def test_an_engine_that_is_entered_without_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchpoint's place is stale again however often it is translated."""
    cpu = bare_cpu("mov eax, 0x403\nmov dr7, eax\nl: inc ax\njmp l")
    monkeypatch.setattr(Watchpoints, "translate", lambda watch: None)
    exit = cpu.engine.run(1000)
    assert exit.executed == 2
    assert exit.reason is ExitReason.FAILURE
    assert "entered 1000 times" in exit.detail


#: Boot sector: IRQ 8 and 12 are let in for one instruction at a time, until both have come.
WINDOW = """
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov byte [0x520], 0
    mov word [0x1c0], h8
    mov [0x1c2], ax
    mov word [0x1d0], h12
    mov [0x1d2], ax
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 8
    out 0x21, al
    mov al, 0x70
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xfb
    out 0x21, al
    mov al, 0xee
    out 0xa1, al
l:  sti
    nop
    cli
    cmp byte [0x520], 2
    jb l
    mov al, 7
    out 0xf4, al
    hlt
h8: push ax
    mov al, 0x70
    jmp c
h12: push ax
    mov al, 0x74
c:  push bx
    inc byte [0x520]
    movzx bx, byte [0x520]
    mov [bx+0x520], al
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop bx
    pop ax
    iret
"""
BEGINS = 28  #: instructions before the loop
ROUND = 5  #: in the loop


def window(slice: int | None) -> Machine:
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom("hlt"), shadow=False, slice=slice))
    machine.memory.write(0x7C00, assemble(WINDOW, 0x7C00))
    state = machine.cpu_state()
    state.cs.selector = state.cs.base = 0
    state.rip = 0x7C00
    machine.load_cpu(state)
    return machine


def through(machine: Machine, first: tuple[int, int], second: tuple[int, int]) -> tuple[object, ...]:
    """What comes of it where an IRQ rises behind so many instructions, and another one behind so many."""
    for at, irq in sorted((first, second)):
        assert machine.run(at).reason is MachineStop.LIMIT
        assert machine.executor.retired == at
        machine.board.pic.set_irq(irq, True)
    exit = machine.run(machine.executor.retired + 500)
    return exit.reason, exit.code, machine.executor.retired, machine.memory.read(0x520, 3)


@pytest.mark.parametrize("loop", ["fast", "gate"])
def test_a_window_of_one_instruction_lets_interrupts_in_wherever_runs_stop(
    monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setenv("V2E_ENGINE", loop)
    machines = {slice: window(slice) for slice in (None, 1, 2, 3, 4, 5, 7, 11, 50)}
    starts = {slice: machine.save() for slice, machine in machines.items()}
    for at in range(BEGINS, BEGINS + 2 * ROUND):
        for behind in (0, 1, 2, 3, 4, 5, 8, 13):
            seen = []
            for slice, machine in machines.items():
                machine.restore(starts[slice])
                seen.append(through(machine, (at, 8), (at + behind, 12)))
            assert seen == [seen[0]] * len(seen), (at, behind)
            assert seen[0][:2] == (MachineStop.EXIT, 7), (at, behind)
            assert seen[0][3][0] == 2, (at, behind)
