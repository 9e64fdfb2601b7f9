"""The two run loops agree: what the helper in C counts, stops and delivers at the beginnings of translated blocks is
what the gate before each instruction does. Each program runs under both, in one process."""

from __future__ import annotations

import threading

import pytest

from bare_cpu import BareCpu
from emu.engine import ExitReason
from run_loops import FAULTING, both_agree, make, needs_helper, outcome

pytestmark = needs_helper


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


# -- determinism of the instruction set


@pytest.mark.parametrize("name", ["gate", "fast"])
def test_random_numbers_are_denied_and_an_invalid_opcode(name: str) -> None:
    cpu = make(name, "mov eax, 1\ncpuid\nrdrand eax\nhlt", 32)
    cpu.engine.run(2)
    assert not cpu.engine.state().regs[1] >> 30 & 1
    cpu.engine.run(1)
    assert [fault.vector for fault in cpu.faults][:1] == [6]


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
