"""The two run loops agree: what the helper in C counts, stops and delivers at the beginnings of translated blocks is
what the gate before each instruction does. Each program runs under both, in one process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from asm import assemble
from bare_cpu import CODE, RAM, TABLES, BareCpu, bare_cpu, real_state
from emu.engine import Access, ExitReason, Watch
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.x86.state import CpuState

pytestmark = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)

SLICES = (1, 2, 3, 7, 13, 1000, 1_000_000)


@contextmanager
def loop(name: str) -> Iterator[None]:
    """Engines made in here have that run loop."""
    before = os.environ.get("V2E_ENGINE")
    os.environ["V2E_ENGINE"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["V2E_ENGINE"]
        else:
            os.environ["V2E_ENGINE"] = before


def make(name: str, source: str, bits: int) -> BareCpu:
    with loop(name):
        cpu = bare_cpu(source, bits)
    assert cpu.engine.run_loop == name
    return cpu


def outcome(cpu: BareCpu, size: int, limit: int = 2_000_000) -> tuple[object, ...]:
    exit = cpu.run(limit, slice=size)
    return exit.reason, cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), cpu.outs, cpu.ins, cpu.faults


def both_agree(source: str, bits: int, prepare: Callable[[BareCpu], None] = lambda cpu: None) -> tuple[object, ...]:
    """The outcome, after it was the same under both loops at every slice."""
    results = []
    for name, sizes in (("gate", (1_000_000,)), ("fast", SLICES)):
        for size in sizes:
            cpu = make(name, source, bits)
            prepare(cpu)
            results.append(outcome(cpu, size))
            cpu.engine.close()
    assert all(result == results[0] for result in results)
    assert results[0][0] is ExitReason.HALT
    return results[0]


# -- code that is written while it runs

ALIASES = """
    mov qword [0x102008], 0x83          ; linear 2 MiB on is physical 0 once more
    mov rax, cr3
    mov cr3, rax
"""

WRITTEN = {
    "an immediate in its own block": "mov ecx, 50\nl: inc byte [x+3]\nnop\nnop\nx: add r8, 1\ndec ecx\njnz l\nhlt",
    "an instruction behind": "mov ecx, 50\nl: add r8, 1\nnop\ninc byte [l+3]\nnop\ndec ecx\njnz l\nhlt",
    "another block": "mov ecx, 50\nl: call f\ninc byte [f+3]\ndec ecx\njnz l\nhlt\nf: add r8, 1\nret",
    "data beside code": (
        "mov ecx, 3000\nmov esi, d\nl: inc qword [rsi]\nadd r8, [rsi]\ndec ecx\njnz l\nhlt\nalign 16\nd: dq 0"
    ),
    "through an alias": (
        ALIASES + "mov ecx, 50\nl: call f\ninc byte [0x200000+f+3]\ndec ecx\njnz l\nhlt\nf: add r8, 1\nret"
    ),
    "through an alias used before": (
        ALIASES + "inc byte [0x200000+q]\nmov ecx, 50\nl: call f\ninc byte [0x200000+f+3]\ndec ecx\njnz l\nhlt\n"
        "q: db 0\nf: add r8, 1\nret"
    ),
    "copied, run, changed by an alias, run": ALIASES
    + """
        mov ebx, 20
        l: mov edi, 0x8000
        mov esi, f
        mov ecx, 16
        rep movsb
        mov eax, 0x8000
        call rax
        inc byte [f+3]
        mov byte [0x208003], 0x41
        mov eax, 0x8000
        call rax
        dec ebx
        jnz l
        hlt
        align 16
        f: add r8d, 1
        ret
        times 16 nop
    """,
    "a repeated store over itself": "mov edi, d\nmov ecx, 60\nmov al, 0x90\nd: rep stosb\ntimes 64 inc ebx\nhlt",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_code_runs_as_written(name: str) -> None:
    both_agree(WRITTEN[name], 64)


def test_a_host_write_is_executed_from_the_next_instruction_on_and_only_its_page_is_translated_again() -> None:
    cpu = make("fast", "mov ecx, 100\nl: call f\nloop l\nhlt\nalign 4096\nf: add r8, 1\nret", 64)
    cpu.engine.run(1 + 25 * 4)
    assert cpu.engine.statistics is not None
    before = cpu.engine.statistics.translations
    cpu.write(0x40_0000 - 0x10000, bytes(0x10000))  # no code there
    cpu.engine.run(4)
    assert cpu.engine.statistics.translations == before
    cpu.write(0x2003, b"\x07")
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[8] == 26 + 74 * 7
    assert before < cpu.engine.statistics.translations <= before + 3


def test_device_writes_of_code_from_a_callback_take_effect_behind_the_instruction() -> None:
    def prepare(cpu: BareCpu) -> None:
        values = iter(range(1, 100))
        cpu.on_out = lambda *_: cpu.write(cpu.read32(0x500) + 1, bytes((next(values),)))

    both_agree("mov dword [0x500], x\nmov cx, 30\nl: out 0x70, al\nx: add al, 0\nloop l\nhlt", 16, prepare)


# -- long 32-bit code, the FPU and SSE in blocks cut anywhere

NUMBERS = """
    mov ecx, 400
    fninit
    fld1
    fldpi
l:  fadd st1, st0
    fmul st0, st1
    fsqrt
    cvtsi2sd xmm0, ecx
    sqrtsd xmm1, xmm0
    addsd xmm2, xmm1
    mulsd xmm3, xmm2
    movapd xmm4, xmm2
    paddd xmm5, xmm4
    fist dword [0x5000]
    movsd [0x5010+ecx*8], xmm2
    imul eax, ecx, 12345
    add [0x5100], eax
    rcl ebx, 3
    adc edx, [0x5100]
    bsf esi, eax
    setc [0x5200+ecx]
    lock xadd [0x5104], edx
    cmpxchg [0x5108], ecx
    pushfd
    pop edi
    xor [0x510c], edi
    dec ecx
    jnz l
    hlt
"""


def with_sse(cpu: BareCpu) -> None:
    state = cpu.engine.state()
    state.cr4 |= 0x600
    cpu.engine.load(state)


def test_floating_point_and_flags_survive_cuts_anywhere() -> None:
    result = both_agree(NUMBERS, 32, with_sse)
    assert result[1] == 4 + 400 * 24 + 1


def test_a_long_32_bit_program_agrees() -> None:
    source = """
        mov esi, 0x10000
        mov ecx, 4096
        fill: imul eax, ecx, 1664525
        add eax, 1013904223
        mov [esi+ecx*4-4], eax
        loop fill
        mov ecx, 12
        pass: mov edi, 4095
        inner: mov eax, [esi+edi*4-4]
        mov edx, [esi+edi*4]
        cmp eax, edx
        jbe sorted
        mov [esi+edi*4], eax
        mov [esi+edi*4-4], edx
        sorted: dec edi
        jnz inner
        call sum
        loop pass
        hlt
        sum: push ecx
        xor ecx, ecx
        s: add ebx, [esi+ecx*4]
        rol ebx, 1
        inc ecx
        cmp ecx, 512
        jb s
        pop ecx
        ret
    """
    results = []
    for name, size in (("gate", 1 << 30), ("fast", 1 << 30), ("fast", 1237), ("fast", 12345)):
        results.append(outcome(make(name, source, 32), size, 1 << 30))
    assert all(result == results[0] for result in results)


# -- exceptions in the middle of blocks; REP

FAULTING = """
    mov word [0], h
    mov word [2], 0
    mov word [0x18], h
    mov word [0x1a], 0
    mov cx, 60
l:  inc ax
    add bx, ax
    xor dl, dl
    test cl, 3
    jz d
    db 0x0f, 0x0b
    jmp n
d:  nop
    div dl
n:  inc si
    loop l
    hlt
h:  push bp
    mov bp, sp
    add word [bp+2], 2
    pop bp
    inc di
    iret
"""


def test_faults_in_the_middle_of_blocks_count_alike() -> None:
    result = both_agree(FAULTING, 16)
    assert len(result[6]) == 60  # type: ignore[arg-type]


def test_repeated_input_in_any_slice_takes_each_word_once() -> None:
    def prepare(cpu: BareCpu) -> None:
        words = iter(range(1, 5000))
        cpu.on_in = lambda port, size: next(words)

    source = (
        "mov bx, 4\no: nop\nmov dx, 0x1f0\nmov di, 0x3000\nmov cx, 100\nrep insw\nadd ax, [0x3002]\ndec bx\njnz o\nhlt"
    )
    result = both_agree(source, 16, prepare)
    assert len(result[5]) == 400  # type: ignore[arg-type]


def test_ports_in_the_middle_of_code_see_the_exact_count_whatever_was_translated_before() -> None:
    source = (
        "mov cx, 30\nl: inc ax\nnop\nout 0x70, al\nnop\nin al, 0x71\nadd bx, ax\nrdtsc\nadd si, ax\nout 0x72, ax\n"
        "loop l\nhlt"
    )

    def prepare(cpu: BareCpu) -> None:
        cpu.on_in = lambda port, size: cpu.engine.retired & 0xFF

    both_agree(source, 16, prepare)


def test_the_time_stamp_is_that_of_the_instruction() -> None:
    source = "mov cx, 20\nl: nop\nnop\nrdtsc\npush eax\nadd bx, ax\nrdtsc\npush eax\nloop l\nhlt"
    results = []
    for name, size in (("gate", 1000), ("fast", 1000), ("fast", 3)):
        cpu = make(name, source, 16)
        engine = cpu.engine
        engine._timestamp = lambda engine=engine: engine.retired * 10  # type: ignore[misc]
        assert cpu.run(slice=size).reason is ExitReason.HALT
        results.append((engine.retired, engine.state().regs, cpu.memory.save()))
    assert results[0] == results[1] == results[2]


# -- interrupts


def test_an_interrupt_that_waits_for_if_comes_at_the_same_instruction_at_any_slice() -> None:
    source = """
        mov word [0x80], h
        mov word [0x82], 0
        mov cx, 200
    l:  out 0x70, al            ; raises INTR
        nop
        sti
        call f
        cli
        inc ax
        pushf
        or word [esp], 0x200
        popf
        mov bx, ax
        cli
        loop l
        hlt
    f:  ret
    h:  push bp
        mov bp, sp
        mov dx, [bp+2]
        add di, dx
        pop bp
        out 0x71, al
        iret
    """

    def prepare(cpu: BareCpu) -> None:
        def out(port: int, _size: int, _value: int) -> None:
            cpu.engine.take_interrupt()
            cpu.engine.set_interrupt(0x20 if port == 0x70 else None)

        cpu.on_out = out

    both_agree(source, 16, prepare)


# -- breakpoints and watchpoints against single steps

WATCHED = """
    mov ecx, 5000
l:  inc rax
    add rbx, rax
b:  xor rdx, rbx
    mov [0x5000], rdx
    inc qword [0x5008]
    add rsi, 3
    dec ecx
    jnz l
    hlt
"""
PASS = 8  #: instructions of one pass


def test_5000_breakpoint_stops_come_where_single_steps_pass() -> None:
    cpu = make("fast", WATCHED, 64)
    at = CODE + assemble(f"bits 64\n{WATCHED}").index(b"\x48\x31\xda")
    cpu.engine.set_breakpoints([at])
    counts, skip = [], False
    while (exit := cpu.engine.run(1 << 30, skip_breakpoint=skip)).reason is ExitReason.BREAKPOINT:
        assert cpu.engine.linear_pc == at
        counts.append(cpu.engine.retired)
        skip = True
    assert exit.reason is ExitReason.HALT
    assert counts == [1 + 2 + PASS * i for i in range(5000)]
    steps = make("fast", WATCHED, 64)
    passed = []
    for _ in range(1 + PASS * 300):
        if steps.engine.linear_pc == at:
            passed.append(steps.engine.retired)
        steps.engine.run(1)
    assert passed == counts[:300]


def test_5000_watchpoint_stops_come_behind_the_writing_instruction() -> None:
    cpu = make("fast", WATCHED, 64)
    cpu.engine.set_watchpoints([Watch(0x5008, 8, Access.WRITE)])
    hits = []
    while (exit := cpu.engine.run(1 << 30)).hit is not None:
        hits.append((cpu.engine.retired, exit.hit.value))
    assert exit.reason is ExitReason.HALT
    assert hits == [(1 + 5 + PASS * i, i + 1) for i in range(5000)]


def test_a_watched_unaligned_access_that_faults_halfway_leaves_the_watch_alive() -> None:
    # Unicorn switches memory hooks off while it takes an unaligned access apart.
    source = """
        mov rax, [0x6ffc]
        mov byte [0x5000], 7
        hlt
        handler: add rsp, 8
        add qword [rsp], 8
        iretq
    """
    cpu = make("fast", f"lidt [idtr]\n{source}\nidtr: dw 0xfff\ndq 0x2000\ndd handler", 64)
    image = cpu.read(CODE, 0x80)
    handler = int.from_bytes(image[image.index(b"\xff\x0f\x00\x20") + 10 :][:4], "little")
    cpu.write(0x2000 + 14 * 16, (handler & 0xFFFF | 0x18 << 16 | 0x8E00 << 32).to_bytes(8, "little"))
    cpu.write(0x103000 + 8 * 7, bytes(8))  # the second page is absent
    cpu.engine.set_watchpoints([Watch(0x5000, 1, Access.WRITE)])
    assert cpu.engine.run(1000).hit is not None


def test_thousands_of_breakpoints_cut_blocks_and_none_is_missed() -> None:
    source = "l: " + "inc ax\n" * 3000 + "jmp l"
    cpu = make("fast", source, 32)
    cpu.engine.run(3001)
    rng = random.Random(3)
    points = sorted(rng.sample(range(CODE + 2, CODE + 6000, 2), 1500))
    cpu.engine.set_breakpoints(points)
    for i, point in enumerate(points + points[:20]):
        assert cpu.engine.run(1 << 20, skip_breakpoint=i > 0).reason is ExitReason.BREAKPOINT
        assert cpu.engine.linear_pc == point


# -- stops from a thread, flushes, engines beside each other


def test_5000_asynchronous_stops_change_nothing() -> None:
    # The stops come from another process, which shares the page that request_stop writes to: no lock of this process
    # paces them.
    source = "l: inc dword [0x3000]\nadd eax, [0x3000]\npush eax\npop edx\njmp l"
    cpu = make("fast", source, 32)
    at = type(cpu.engine._control).stop.offset
    child = os.fork()
    if not child:
        while True:
            cpu.engine._page[at] = 1
            time.sleep(2e-5)
    try:
        for _ in range(5000):
            assert cpu.engine.run(1 << 40).reason is ExitReason.REQUEST
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    fast = make("fast", source, 32)
    total = cpu.engine.retired
    assert fast.engine.run(total).executed == total
    assert (fast.engine.state(), fast.memory.save()) == (cpu.engine.state(), cpu.memory.save())


def test_a_full_table_of_translations_is_emptied_and_nothing_changes() -> None:
    source = "mov cx, 3\no:\n" + "jmp $+2\ninc ax\n" * 300 + "dec cx\njnz near o\nhlt"
    expected = outcome(make("gate", source, 16), 1 << 20)
    cpu = bare_cpu(source, 16)
    memory = cpu.memory
    cpu.engine.close()
    with loop("fast"):
        cpu.engine = UnicornEngine(memory.regions, cpu, cpu, timestamp=lambda: 0, translations=50)
    memory.on_write[:] = [cpu.engine.memory_changed]
    cpu.engine.on_fault(cpu.faults.append)
    cpu.engine.load(real_state())
    cpu.engine.set_breakpoints([0x4])  # somewhere else
    assert outcome(cpu, 1 << 20) == expected
    assert cpu.engine.statistics is not None
    assert cpu.engine.statistics.flushes >= 10


@pytest.mark.parametrize("every", [1, 3, 17])
def test_flushes_between_slices_change_nothing(every: int) -> None:
    source = (
        "mov cx, 300\nl: call f\nadd bx, ax\npush bx\npop dx\nloop l\nhlt\nf: inc ax\ninc byte [f+6]\nmov si, 1\nret"
    )
    expected = outcome(make("gate", source, 16), 1 << 20)
    cpu = make("fast", source, 16)
    turn = 0
    while cpu.engine.run(11).reason is not ExitReason.HALT:
        turn += 1
        if turn % every == 0:
            cpu.engine._loop.flush()
    assert (cpu.engine.retired, cpu.engine.state(), cpu.memory.save()) == (expected[1], expected[2], expected[3])


def test_fast_and_gate_engines_run_side_by_side() -> None:
    source = "mov cx, 500\nl: call f\nloop l\nhlt\nf: inc ax\nin al, 0x60\nret"
    cpus = [make(name, source, 16) for name in ("fast", "gate", "fast", "gate")]
    live = list(cpus)
    while live:
        live = [cpu for cpu in live if cpu.engine.run(37).reason is not ExitReason.HALT]
    results = [(cpu.engine.retired, cpu.engine.state(), cpu.ins) for cpu in cpus]
    assert all(result == results[0] for result in results)
    cpus[0].engine.close()
    with loop("fast"):
        again = bare_cpu(source, 16)
    assert again.run().reason is ExitReason.HALT
    assert again.engine.state() == results[0][1]


def test_two_threads_run_two_engines() -> None:
    source = "mov ecx, 300000\nl: inc dword [0x3000]\nadd eax, [0x3000]\ndec ecx\njnz l\nhlt"
    cpus = [make("fast", source, 32) for _ in range(2)]
    threads = [threading.Thread(target=cpu.run, args=(1 << 30, 5000)) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cpu.engine.retired for cpu in cpus] == [1 + 4 * 300000 + 1] * 2
    assert cpus[0].engine.state() == cpus[1].engine.state()


def test_states_saved_anywhere_and_loaded_into_another_engine_go_on_alike() -> None:
    expected = outcome(make("gate", FAULTING, 16), 1 << 20)
    rng = random.Random(11)
    cpu = make("fast", FAULTING, 16)
    while True:
        exit = cpu.engine.run(rng.randint(1, 30))
        if exit.reason is ExitReason.HALT:
            break
        other = make(rng.choice(("fast", "gate")), "nop", 16)
        other.memory.restore(cpu.memory.save())
        other.engine.load(cpu.engine.state())
        other.engine.set_retired(cpu.engine.retired)
        other.faults = cpu.faults
        other.engine.on_fault(other.faults.append)
        cpu.engine.close()
        cpu = other
    assert (cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), cpu.faults) == (*expected[1:4], expected[6])


def test_code_at_the_end_of_a_page_faults_where_the_next_page_begins() -> None:
    # The last bytes of page 7 run; page 8 is absent: the fault is the fetch's, and it counts as one instruction.
    source = f"""
        lidt [idtr]
        mov rax, 0x7ff6
        jmp rax
        handler: add rsp, 8
        or dword [{0x103000 + 8 * 8:#x}], 3
        invlpg [0x8000]
        iretq
        idtr: dw 0xfff
        dq 0x2000
        dd handler
    """

    def prepare(cpu: BareCpu) -> None:
        code = assemble("bits 64\ninc rbx\ninc rcx\nadd rdx, 0x1234567\ninc rsi\nhlt")
        cpu.write(0x7FF6, code)  # the ADD lies across the boundary
        cpu.write(0x103000 + 8 * 8, (0x8000).to_bytes(8, "little"))
        image = cpu.read(CODE, 0x80)
        handler = int.from_bytes(image[image.index(b"\xff\x0f\x00\x20") + 10 :][:4], "little")
        cpu.write(0x2000 + 14 * 16, (handler & 0xFFFF | 0x18 << 16 | 0x8E00 << 32).to_bytes(8, "little"))

    # The gate's blocks cross pages, so there the fault comes where its block begins.
    results = []
    for size in SLICES:
        cpu = make("fast", source, 64)
        prepare(cpu)
        results.append(outcome(cpu, size))
    assert all(result == results[0] for result in results)
    [fault] = cpu.faults
    assert (fault.vector, fault.cr2, fault.linear, fault.retired) == (14, 0x8000, 0x7FFC, 5)


def test_ram_ends_where_mmio_begins() -> None:
    source = f"mov ecx, 20\nl: inc dword [{RAM:#x}]\nmov eax, [{RAM + 8:#x}]\nadd [0x5000], eax\nloop l\nhlt"

    def prepare(cpu: BareCpu) -> None:
        cpu.on_mmio_read = lambda address, size: cpu.engine.retired

    both_agree(source, 32, prepare)


def test_devices_in_memory_are_accessed_at_their_instruction_whatever_block_went_before():
    # IN, the REP STOSB and the jumps make blocks of one instruction, some on purpose; the ADD and the loads stand in
    # the middle of longer ones.
    source = f"""
        mov edi, {RAM:#x}
        mov edx, 6
        l: in al, 0x55
        nop
        add dword [{RAM:#x}], eax
        mov ecx, 3
        rep stosb
        sub edi, 3
        jmp near m
        m: mov ebx, [edi + 4]
        dec edx
        jnz l
        hlt
    """
    seen = {}
    for name, sizes in (("gate", (1_000_000,)), ("fast", SLICES)):
        for size in sizes:
            cpu = make(name, source, 32)
            assert cpu.run(slice=size).reason is ExitReason.HALT
            seen[name, size] = (cpu.mmio, cpu.ins, cpu.engine.retired, cpu.engine.state())
            cpu.engine.close()
    assert all(found == seen["gate", 1_000_000] for found in seen.values())
    assert len(seen["gate", 1_000_000][0]) == 6 * (2 + 3 + 1)


def test_blocks_hold_all_instructions_that_fit_before_the_end_of_a_page():
    # A loop of 12 instructions whose last byte is the last but two of page 2, behind a jump there.
    body = assemble("bits 32\nl: " + "inc eax\n" * 10 + "dec ecx\njnz l")
    cpu = make("fast", f"mov ecx, 1000\nmov edx, {0x3000 - 2 - len(body):#x}\njmp edx", 32)
    cpu.write(0x3000 - 2 - len(body), body + b"\x90\xf4")
    before = cpu.engine.statistics
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.retired == 3 + 12 * 1000 + 2
    after = cpu.engine.statistics
    assert before is not None and after is not None
    # the beginning (again once the class of its segments is known), the loop, the rest of its page
    assert after.translations - before.translations <= 4
    cpu.engine.close()


@pytest.mark.parametrize("beyond", range(1, 6))
def test_a_loop_across_the_end_of_a_page_runs_alike(beyond):
    # An ADD of 6 bytes ends so many bytes into the next page, and the loop changes the last one.
    last = 0x3000 - 1 + beyond
    body = assemble(f"bits 32\nl: inc eax\nadd ebx, 0x1234567\nxor esi, ebx\ninc byte [{last}]\ndec ecx\njnz l\nhlt")
    start = last - 6

    def prepare(cpu: BareCpu) -> None:
        cpu.write(start, body)

    both_agree(f"mov ecx, 30\nmov edx, {start:#x}\njmp edx", 32, prepare)


# -- answers ahead of Python


def polling(count: int) -> str:
    return f"mov cx, {count}\nl: in al, 0x61\nadd bl, al\nadc bh, 0\nloop l\nout 0x80, al\nin al, 0x61\nadd si, ax\nhlt"


@pytest.mark.parametrize("size", SLICES)
def test_a_held_answer_ends_at_its_count_and_with_any_other_access(size: int) -> None:
    def prepare(cpu: BareCpu) -> None:
        level = [0]

        def read(port: int, _size: int) -> int:
            now = cpu.engine.retired
            value = now // 20 + level[0] & 0xFF
            cpu.engine.hold_input(port, value, (now // 20 + 1) * 20)
            return value

        cpu.on_in = read
        cpu.on_out = lambda *_: level.__setitem__(0, 100)

    results = []
    for name, length in (("gate", 1000), ("fast", size)):
        cpu = make(name, polling(100), 16)
        prepare(cpu)
        assert cpu.run(slice=length).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save()))
        asked = len(cpu.ins)
    assert results[0] == results[1]
    if size > 100:
        assert asked < 40


@pytest.mark.parametrize("size", SLICES)
def test_a_stream_is_read_once_and_what_was_taken_is_told_before_anything_else(size: int) -> None:
    source = "mov cx, 50\nmov di, 0x3000\nmov dx, 0x511\nrep insb\nout 0x80, al\nmov cx, 30\nrep insb\nhlt"
    data = bytes(range(1, 200))
    told: list[int] = []
    at = [0]

    def skip(count: int) -> None:
        at[0] += count

    def read(port: int, _size: int) -> int:
        value = data[at[0]]
        at[0] += 1
        cpu.engine.stream_input(port, data[at[0] :], skip)
        return value

    cpu = make("fast", source, 16)
    cpu.on_in = read
    cpu.on_out = lambda *_: told.append(at[0])
    while cpu.engine.run(size).reason is not ExitReason.HALT:
        assert cpu.read(0x3000, at[0]) == data[: at[0]]
    assert cpu.read(0x3000, 80) == data[:80]
    assert (told, at) == ([50], [80])


#: What the Fifo gives.
FIFO_BYTES = bytes(i * 7 & 0xFF for i in range(3 * 4096))
#: 600 bytes to port 402h, one to E9h, five to 402h, a read; then the same bytes again.
PRINTING = (
    "mov bp, 2\nagain: mov dx, 0x402\nmov cx, 600\nl: out dx, al\ninc al\nloop l\nout 0xe9, al\n"
    "times 5 out dx, al\nin al, 0x80\nadd bl, al\ndec bp\njnz again\nhlt"
)


@pytest.mark.parametrize("size", SLICES)
def test_collected_output_is_told_in_order_before_anything_else(size: int) -> None:
    def story(name: str, length: int) -> tuple[list[tuple[int, int]], CpuState, int]:
        seen: list[tuple[int, int]] = []
        asked = [0]
        cpu = make(name, PRINTING, 16)

        def write(port: int, _size: int, value: int) -> None:
            asked[0] += 1
            seen.append((port, value))
            if port == 0x402:
                cpu.engine.stream_output(port, 512, lambda data: seen.extend((0x402, byte) for byte in data))

        def read(port: int, _size: int) -> int:
            seen.append((port, -1))
            return len(seen) & 0xFF  # what the guest gets depends on what was told before

        cpu.on_out, cpu.on_in = write, read
        at = 0
        while cpu.engine.run(length).reason is not ExitReason.HALT:
            assert cpu.engine.retired > at
            at = cpu.engine.retired
        return seen, cpu.engine.state(), asked[0]

    seen, state, _ = story("gate", 1000)
    found, found_state, asked = story("fast", size)
    assert (found, found_state) == (seen, state)
    assert len(seen) == 2 * (600 + 1 + 5 + 1)
    if size > 10_000:
        assert asked == 2 * (2 + 1 + 1)  # 512 are kept at a time


def test_words_are_not_collected() -> None:
    cpu = make("fast", "mov dx, 0x402\nout dx, al\nout dx, ax\nout dx, al\nhlt", 16)
    seen: list[object] = []

    def write(port: int, size: int, value: int) -> None:
        seen.append(size)
        if size == 1:
            cpu.engine.stream_output(port, 512, seen.append)

    cpu.on_out = write
    assert cpu.engine.run(100).reason is ExitReason.HALT
    assert seen == [1, 2, 1]


class Fifo:
    """A device on port 1F0h that streams both ways by words and double-words, but for the last of `events` bytes each
    way; `log` has the positions at which other ports were accessed."""

    def __init__(self, cpu: BareCpu, events: int) -> None:
        self.cpu, self.events, self.got, self.at = cpu, events, bytearray(), 0
        self.asked = 0
        self.log: list[tuple[int, int, int]] = []
        cpu.on_in, cpu.on_out = self.read, self.write

    def _offer_input(self) -> None:
        left = self.events - self.at % self.events - 2
        self.cpu.engine.stream_input(0x1F0, FIFO_BYTES[self.at : self.at + left], self._taken, 2 | 4)

    def _taken(self, count: int) -> None:
        self.at += count

    def read(self, port: int, size: int) -> int:
        if port != 0x1F0:
            self.log.append((self.cpu.engine.retired, self.at, len(self.got)))
            return 0
        self.asked += 1
        value = int.from_bytes(FIFO_BYTES[self.at : self.at + size], "little")
        self.at += size
        self._offer_input()
        return value

    def write(self, port: int, size: int, value: int) -> None:
        if port != 0x1F0:
            self.log.append((self.cpu.engine.retired, self.at, len(self.got)))
            return
        self.asked += 1
        self.got += value.to_bytes(4, "little")[:size]
        room = self.events - len(self.got) % self.events - 2
        self.cpu.engine.stream_output(0x1F0, room, self.got.extend, 2 | 4)


STREAMING = """
    mov dx, 0x1f0
    mov di, 0x3000
    mov cx, 200
    rep insw
    out 0x80, al
    mov cx, 77
    rep insd
    in al, dx
    stosb
    in ax, dx
    in al, 0x60
    mov cx, 300
    rep insd
    mov si, 0x3000
    mov cx, 201
    rep outsw
    in al, 0x60
    mov cx, 99
    rep outsd
    out dx, al
    out dx, eax
    mov cx, 250
    rep outsd
    out dx, ax
    in ax, dx
    out dx, ax
    hlt
"""


@pytest.mark.parametrize("size", SLICES)
@pytest.mark.parametrize("events", [8, 64, 512, 4096])
def test_streams_of_words_both_ways_are_told_before_anything_else(size: int, events: int) -> None:
    results, asked = [], []
    for name, length in (("gate", 1000), ("fast", size)):
        cpu = make(name, STREAMING, 16)
        fifo = Fifo(cpu, events)
        assert cpu.run(slice=length).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), fifo.log, fifo.at, fifo.got))
        asked.append(fifo.asked)
    assert results[0] == results[1]
    assert asked[0] > 1100
    if size > 1000 and events > 100:
        assert asked[1] < 50


def test_a_word_whose_destination_faults_stays_with_the_device() -> None:
    results = []
    for name in ("gate", "fast"):
        cpu = make(name, "mov dx, 0x1f0\nmov edi, 0x4ff0\nmov ecx, 20\nrep insw\nhlt", 64)
        cpu.write(TABLES + 0x3000 + 8 * 5, bytes(8))  # page 5000h is not present, and there are no handlers
        fifo = Fifo(cpu, 512)
        assert cpu.run().reason is ExitReason.SHUTDOWN
        assert cpu.read(0x4FF0, 16) == FIFO_BYTES[:16]
        results.append((fifo.at, cpu.engine.retired, [(fault.vector, fault.cr2) for fault in cpu.faults]))
    assert results[0] == results[1]
    assert (results[1][0], results[1][2][0]) == (16, (14, 0x5000))


def test_a_word_beyond_the_segments_limit_stays_with_the_device() -> None:
    cpu = make("fast", "mov dx, 0x1f0\nmov di, 0x3000\nmov cx, 20\nrep insw\nhlt", 16)
    cpu.write(13 * 4, (0x2000).to_bytes(4, "little"))
    cpu.write(0x2000, b"\xf4")
    state = cpu.engine.state()
    state.es = replace(state.es, limit=0x3007)
    cpu.engine.load(state)
    fifo = Fifo(cpu, 512)
    assert cpu.run().reason is ExitReason.HALT
    assert (fifo.at, cpu.engine.state().regs[1], [fault.vector for fault in cpu.faults]) == (8, 16, [13])


# -- determinism of the instruction set


@pytest.mark.parametrize("name", ["gate", "fast"])
def test_random_numbers_are_denied_and_an_invalid_opcode(name: str) -> None:
    cpu = make(name, "mov eax, 1\ncpuid\nrdrand eax\nhlt", 32)
    cpu.engine.run(2)
    assert not cpu.engine.state().regs[1] >> 30 & 1
    cpu.engine.run(1)
    assert [fault.vector for fault in cpu.faults][:1] == [6]


# -- loading


def fresh(code: str, **environment: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **{k: v for k, v in os.environ.items() if k != "V2E_ENGINE"},
            "PYTHONPATH": ":".join(sys.path),
            **environment,
        },
    )
    return done.stdout.strip()


SHOW = "from bare_cpu import bare_cpu; c = bare_cpu('hlt'); c.run(); print(c.engine.run_loop, c.engine.notice)"


def test_the_fast_loop_is_used_where_it_can_be() -> None:
    assert fresh(SHOW) == "fast"


def test_the_environment_asks_for_the_gate_and_nobody_is_told() -> None:
    assert fresh(SHOW, V2E_ENGINE="gate") == "gate"


def test_unicorn_loaded_first_is_noticed_and_said() -> None:
    assert fresh(f"import unicorn; {SHOW}") == (
        "gate the engine runs without its C helper, slower: unicorn was imported before emu.unicorn_engine; "
        "import that first"
    )


def test_a_helper_built_from_other_sources_is_refused() -> None:
    code = f"import emu.native as n; n.sources_checksum = lambda: 1; {SHOW}"
    assert "the helper was built from other sources than this package's; install it again" in fresh(code)


def test_another_build_of_unicorn_is_refused() -> None:
    code = f"import emu.unicorn_helper as f; f.BUILD_ID = b'another'; {SHOW}"
    assert "is not the library in PyPI's wheel" in fresh(code)


def test_another_layout_of_unicorn_is_refused() -> None:
    code = f"import emu.unicorn_layout as l; l.CPU_CAN_DO_IO += 8; {SHOW}"
    assert fresh(code).startswith("gate the engine runs without its C helper, slower: Unicorn 2.1.4 keeps can_do_io")


# -- the check at the beginning of a block


def test_chained_blocks_pass_their_check_without_leaving_translated_code():
    cpu = make("fast", "mov ecx, 100000\nl: add eax, ebx\nxor ebx, eax\ndec ecx\njnz l\nhlt", 32)
    assert cpu.run(10_000_000).reason is ExitReason.HALT
    assert cpu.engine.retired == 1 + 4 * 100_000 + 1
    statistics = cpu.engine.statistics
    assert statistics is not None
    assert statistics.slow < 100
    cpu.engine.close()


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_a_port_access_in_a_chained_block_is_seen_at_its_instruction(bits):
    source = "mov ecx, 20\nl: nop\njmp x\nx: in al, 0x55\nnop\nout 0x56, al\ndec ecx\njnz l\nhlt"
    seen: dict[str, list[tuple[int, int]]] = {}
    for name in ("gate", "fast"):
        cpu = make(name, source, bits)
        places = seen[name] = []

        def note(cpu: BareCpu = cpu, places: list[tuple[int, int]] = places) -> int:
            places.append((cpu.engine.retired, cpu.engine.linear_pc))
            return 0

        cpu.on_in = lambda port, size, note=note: note()
        cpu.on_out = lambda port, size, value, note=note: note()
        assert cpu.run().reason is ExitReason.HALT
        cpu.engine.close()
    assert seen["fast"] == seen["gate"]
    assert len(seen["fast"]) == 40


def test_a_stop_asked_for_in_a_chain_of_blocks_comes_at_the_next_one():
    cpu = make("fast", "l: inc eax\njmp m\nm: jmp l", 32)
    timer = threading.Timer(0.05, cpu.engine.request_stop)
    timer.start()
    exit = cpu.engine.run(1 << 40)
    timer.join()
    assert exit.reason is ExitReason.REQUEST
    assert 0 < exit.executed < 1 << 40
    assert cpu.engine.state().regs[0] == (exit.executed + 2) // 3 % (1 << 32)
    cpu.engine.close()
