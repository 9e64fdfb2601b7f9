"""Callers found by the gdb helper, against calls that were really made: an independent record while code is stepped."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from asm import assemble
from emu.catches import Catch, CatchKind
from emu.debugger import BreakKind, Debugger
from emu.subject import MemoryUnavailable
from emu.x86.state import CpuState
from machines import debugger, rom, seabios_debugger
from stub.gdb.cpu import Cpu, Segment
from stub.gdb.frames import Frames, How
from stub.gdb.memory import Memory, Results
from stub.gdb.steps import step_of
from stub.gdb.walk import BUDGET
from v86_monitor import BEHIND_FAR, BEHIND_NEAR, MONITOR, REFUSED

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
CALLS = {"call", "lcall", "int", "int1", "int3", "into"}


def cpu_of(state: CpuState) -> Cpu:
    segments = [
        Segment(s.selector, s.base, bool(s.access & 1 << 14), s.limit, s.access) for s in map(state.segment, SEGMENTS)
    ]
    protected = bool(state.cr0 & 1) and not state.rflags >> 17 & 1
    return Cpu(
        [r & 0xFFFFFFFF for r in state.regs[:8]], segments, state.rip, state.rflags, protected, state.cpl, state.cr0
    )


def frames_of(run: Debugger, memory: Memory | None = None) -> Frames:
    """With `memory` by it, and by what has been found before."""

    def read(linear: int, length: int) -> bytes | None:
        if memory is not None:
            return memory.read(linear, length)
        try:
            return run.read_linear(linear, length)
        except MemoryUnavailable:
            return None

    def load(selector: int) -> Segment | None:
        table = run.cpu().gdtr
        data = read(table.base + (selector & 0xFFF8), 8)
        if data is None or not selector & ~3 or (selector & 0xFFF8) + 7 > table.limit:
            return None
        value = int.from_bytes(data, "little")
        return Segment(selector, value >> 16 & 0xFFFFFF | value >> 32 & 0xFF000000, bool(value >> 54 & 1))

    if memory is not None:
        return Frames(read, load, memory.prefetch, Results(memory))
    return Frames(read, load)


def memory_of(run: Debugger) -> Memory:
    """The guest's, as the helper keeps it."""

    def fetch(linear: int, length: int) -> bytes | None:
        return run.read_linear(linear, length) if run.readable(linear, length) == length else None

    def gather(ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        asked[:] = [(linear, run.read_linear(linear, run.readable(linear, length))) for linear, length in ranges]
        return [data for _, data in asked]

    asked: list[tuple[int, bytes]] = []
    return Memory(fetch, gather, lambda: all(run.read_linear(linear, len(data)) == data for linear, data in asked))


@dataclass
class Count:
    """How often the caller was named, and what was wrong; `stayed`: steps that were told to stay in their frame."""

    right: int = 0
    silent: int = 0
    guessed: int = 0
    stayed: int = 0
    wrong: list[str] = None  # type: ignore[assignment]  # made below


def stack_of(state: CpuState) -> int:
    mask = 0xFFFFFFFF if state.ss.access & 1 << 14 else 0xFFFF
    return (state.ss.base + (state.regs[4] & mask)) & 0xFFFFFFFF


def judge(run: Debugger, done: Callable[[CpuState], bool], every: int = 1, limit: int = 20000) -> Count:
    """Step until `done`, asking for the caller at each `every`th instruction while a call is open. The record is of the
    calls executed: an entry is taken away when its return address is reached with the stack it was pushed from."""
    memory = memory_of(run)
    plain, frames, count = frames_of(run), frames_of(run, memory), Count(wrong=[])
    calls: list[tuple[int, int]] = []
    for number in range(limit):
        state = run.cpu()
        if done(state):
            return count
        if calls and number % every == 0:
            memory.forget()
            caller = frames.caller(cpu := cpu_of(state))
            if caller != (found := plain.search(cpu)):
                count.wrong.append(f"at {state.linear_pc:#x}: {caller}, not {found} as by all registers")
            if caller is None:
                count.silent += 1
            elif caller.cpu.pc == calls[-1][0]:
                count.right += 1
                count.guessed += caller.how is How.GUESS
            else:
                count.wrong.append(f"at {state.linear_pc:#x}: {caller.cpu.pc:#x} {caller.how}, not {calls[-1][0]:#x}")
        instruction, before = run.disassemble(state.linear_pc, 1)[0], list(calls)
        step = step_of(run.read_linear(state.linear_pc, len(instruction.raw)), bool(state.cs.access & 1 << 14))
        run.begin_step()
        run.run()
        after = run.cpu()
        behind = (state.linear_pc + len(instruction.raw), stack_of(state))
        if instruction.text.split()[0] in CALLS:
            calls.append(behind)
        elif calls and after.linear_pc == calls[-1][0]:
            calls.pop()
        mask = 0xFFFFFFFF if state.ss.access & 1 << 14 else 0xFFFF
        if step is not None and step.fits(after.linear_pc - state.linear_pc, after.regs[4] - state.regs[4], mask):
            count.stayed += 1
            segments = [(one.cs, one.ss, one.ds, one.es, one.fs, one.gs, one.cr0) for one in (state, after)]
            if calls != before or segments[0] != segments[1]:
                count.wrong.append(f"at {state.linear_pc:#x}: {instruction.text} does not stay in its frame")
    raise AssertionError(f"not done after {limit} instructions")


#: Every form of call: near and far, direct and indirect, o32, INT, with and without a frame, loops, stack arguments.
FORMS = rom(
    """
    mov ss, ax
    mov sp, 0x7000
    mov word [0x84], service
    mov word [0x86], cs
    call plain
    mov bx, plain
    call bx
    mov word [0x500], far_one
    mov word [0x502], cs
    call far [0x500]
    call 0xf000:far_one
    push 3
    push 4
    call framed
    add sp, 4
    push 5
    call pops
    call dword wide
    int 0x21
    pushf
    call far [0x84]
    call switched
    hlt
    """,
    """
    plain:
        push ax
        push es
        mov cx, 2
    .turn:
        push cx
        call leaf
        pop cx
        loop .turn
        test al, 1
        jz .other
        pop es
        pop ax
        ret
    .other:
        pop es
        pop ax
        ret
    leaf:
        inc ax
        ret
    far_one:
        pusha
        call leaf
        popa
        retf
    framed:
        push bp
        mov bp, sp
        sub sp, 20
        push si
        mov si, [bp+4]
        call leaf
        pop si
        mov sp, bp
        pop bp
        ret
    pops:
        enter 6, 0
        call leaf
        leave
        ret 2
    wide:
        push ebp
        mov ebp, esp
        sub esp, 8
        call dword wide_leaf
        o32 leave
        o32 ret
    wide_leaf:
        mov eax, [esp]
        o32 ret
    service:
        push ds
        push bx
        xor bx, bx
        mov ds, bx
        call leaf
        or word [bx], 1
        pop bx
        pop ds
        iret
    switched:                     ; a stack of its own, as a BIOS has
        mov ax, ss
        mov dx, 0x5000
        mov bx, sp
        mov ss, dx
        mov sp, 0x100
        push ax
        push bx
        call leaf
        pop bx
        pop ax
        mov ss, ax
        mov sp, bx
        ret
    """,
)


def test_the_caller_is_right_at_every_instruction_of_every_form_of_call() -> None:
    run = debugger(FORMS)
    count = judge(run, lambda state: state.halted)
    assert count.wrong == []
    assert (count.silent, count.guessed) == (0, 0)
    assert count.right > 100
    assert count.stayed > 50


#: A real-mode function that does its work in 32-bit protected mode on a flat stack, as a BIOS's drivers do.
SWITCHES = rom(
    """
    mov ss, ax
    mov sp, 0x7000
    o32 lgdt [cs:pointer]
    call outer
    hlt
    """,
    """
    align 8
    gdt:
        dq 0
        dw 0xffff, 0, 0x9a0f, 0x0000   ; 08: code16, base F0000h
        dw 0xffff, 0, 0x9200, 0x0000   ; 10: data16
        dw 0xffff, 0, 0x9a0f, 0x00cf   ; 18: code32, base F0000h
        dw 0xffff, 0, 0x9200, 0x00cf   ; 20: data32
    pointer:
        dw $-gdt-1
        dd 0xf0000+gdt
    outer:
        push bp
        call through
        pop bp
        ret
    through:
        mov bx, sp
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 0x18:.wide
    bits 32
    .wide:
        mov ax, 0x20
        mov ss, ax
        mov ds, ax
        movzx esp, bx
        call work
        jmp 0x08:.narrow
    bits 16
    .narrow:
        mov ax, 0x10
        mov ss, ax
        mov ds, ax
        mov eax, cr0
        and al, 0xfe
        mov cr0, eax
        jmp 0xf000:.real
    .real:
        xor ax, ax
        mov ss, ax
        mov ds, ax
        mov sp, bx
        ret
    bits 32
    work:
        push ecx
        call deep
        pop ecx
        ret
    deep:
        sub esp, 8
        nop
        add esp, 8
        ret
    bits 16
    """,
)


def test_the_caller_is_right_at_every_instruction_of_a_function_that_switches_modes() -> None:
    run = debugger(SWITCHES)
    count = judge(run, lambda state: state.halted)
    assert count.wrong == []
    assert (count.silent, count.guessed) == (0, 0)
    assert count.right > 30


def test_callers_of_a_handler_of_virtual_8086_code_are_16_bit_code_with_that_code_s_segments() -> None:
    run = debugger(assemble(MONITOR))
    run.add_catch(Catch(CatchKind.EXCEPTION, 13))
    run.begin_continue()
    run.run()
    frames, cpu = frames_of(run), cpu_of(run.cpu())
    assert cpu.protected and cpu.cpl == 0 and cpu.segments[1].big
    found = []
    while (caller := frames.caller(cpu)) is not None:
        cpu = caller.cpu
        found.append((cpu.ip, cpu.stack, caller.how))
        assert (cpu.protected, cpu.cpl) == (False, 3)
        # es, cs, ss, ds, fs, gs: what IRET popped, as the CPU has them in that mode (SDM vol. 3C, 26.3.1.2)
        selectors = (0x1000, 0xF000, 0x5000, 0x2000, 0x3000, 0x4000)
        assert cpu.segments == [Segment(n, n << 4, False, 0xFFFF, 0xF3) for n in selectors]
    assert found == [
        (REFUSED, 0x500F6, How.INTERRUPTED), (BEHIND_FAR, 0x500FC, How.WAY), (BEHIND_NEAR, 0x50100, How.WAY),
    ]  # fmt: skip
    # and what the CPU has when it really returns
    point = run.add_breakpoint(BreakKind.EXECUTE, 0xF0000 + REFUSED + 1)
    run.remove_breakpoint(run.breakpoint_list()[0].id)
    run.begin_continue()
    run.run()
    assert run.cpu().linear_pc == point.address
    returned = cpu_of(run.cpu())
    assert (returned.segments, returned.stack) == (cpu.segments, found[0][1])


@pytest.mark.parametrize(
    ("begin", "found"),
    [
        ("push bp\nmov bp, sp", True), ("push bp\ndb 0x8b, 0xec", True), ("push ebp\nmov ebp, esp", True),
        ("enter 6, 0", True), ("nop\nnop\nnop", False), ("push bp\nnop\nnop", False), ("push bp\nmov sp, bp", False),
        ("mov bp, sp\npush bp", False), ("push bp\nmov bp, [si]", False),
    ],
)  # fmt: skip
def test_a_frame_pointer_leads_only_to_calls_of_functions_that_make_one(begin: str, found: bool) -> None:
    """Rule 2 of docs/gdb.md: in a loop without end, so that the function's own code says nothing; SP is far from BP."""
    code = assemble(f"bits 16\norg 0x1000\ncall work\nhlt\ntimes 0x10 nop\nwork:\n{begin}\nagain: jmp again", 0x1000)
    memory = bytearray(0x10000)
    memory[0x1000 : 0x1000 + len(code)] = code
    memory[0x7000:0x7004] = bytes.fromhex("3412 0310")  # the caller's BP, and behind its CALL
    segments = [Segment(0, 0) for _ in range(6)]
    general = [0, 0, 0, 0, 0x4000, 0x7000, 0, 0]
    caller = Frames(lambda linear, length: bytes(memory[linear : linear + length]), lambda selector: None).caller(
        Cpu(general, segments, 0x1000 + len(code) - 2)
    )
    if found:
        assert caller is not None
        assert (caller.how, caller.cpu.ip, caller.cpu.general[5]) == (How.FRAME, 0x1003, 0x1234)
    else:
        assert caller is None


@pytest.mark.slow_variants(keep=8)
@pytest.mark.parametrize("seed", range(40))
def test_any_memory_and_any_registers_give_an_end(seed: int) -> None:
    """Bytes at random, half of them opcodes of returns, jumps, pushes and pops; some pages are no memory."""
    source = random.Random(seed)
    frequent = bytes.fromhex("c3cbcf5058565e74ebe8e9cd139c9d550089e5c9ff")
    memory = bytes(source.choice(frequent) if source.random() < 0.5 else source.randrange(256) for _ in range(1 << 16))
    reads = 0

    def read(linear: int, length: int) -> bytes | None:
        nonlocal reads
        reads += 1
        if linear + length > 0xC000 or linear >> 8 & 7 == 5:
            return None
        return memory[linear : linear + length]

    frames = Frames(read, lambda selector: Segment(selector, selector & 0xF000, bool(selector & 8)))
    for _ in range(10):
        reads = 0
        segments = [Segment(n, source.randrange(0x8000), source.random() < 0.3) for n in range(6)]
        cpu = Cpu([source.randrange(1 << 16) for _ in range(8)], segments, source.randrange(1 << 16), 2,
                  source.random() < 0.5, 0, 1)  # fmt: skip
        before = (list(cpu.general), list(cpu.segments), cpu.ip)
        for _ in range(20):
            caller = frames.caller(cpu)
            assert (cpu.general, cpu.segments, cpu.ip) == before
            if caller is None:
                break
            cpu = caller.cpu
            before = (list(cpu.general), list(cpu.segments), cpu.ip)
        assert reads < 20 * 5 * BUDGET


SECTOR = assemble(
    """
    bits 16
    org 0x7c00
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
    begin:
        call load
        call say
    done:
        hlt
        jmp done
    load:
        push bp
        mov bp, sp
        mov ax, 0x0201
        mov bx, 0x8000
        mov cx, 2
        mov dx, 0x80
        int 0x13
        pop bp
        ret
    say:
        mov ax, 0x0e41
        mov bx, 7
        int 0x10
        ret
        times 510-($-$$) db 0
        dw 0xaa55
    """
)


@pytest.mark.slow
def test_the_caller_is_never_wrong_in_seabios_disk_and_video_services() -> None:
    run = seabios_debugger(SECTOR)
    point = run.add_breakpoint(BreakKind.EXECUTE, 0x7C0B)
    run.begin_continue()
    run.run()
    run.remove_breakpoint(point.id)
    count = judge(run, lambda state: state.linear_pc == 0x7C11, every=3)
    assert count.wrong == []
    assert count.guessed + count.silent <= count.right // 50
    assert count.right > 1000
    assert count.stayed > 1000
