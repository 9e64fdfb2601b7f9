"""Where code, RAM and pages end in the fast loop: faults, devices in memory and loops across the edges."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, RAM, BareCpu
from emu.engine import ExitReason
from emu.x86.state import CpuState
from run_loops import SLICES, both_agree, make, needs_helper, outcome

pytestmark = needs_helper

PF, ZF = 1 << 2, 1 << 6


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


@pytest.mark.slow_variants
@pytest.mark.parametrize("beside", ["", "nop\nnop\nnop\n"], ids=["each", "one in four"])
def test_code_that_accesses_devices_all_the_time_is_translated_a_few_times_and_runs_alike(beside):
    # ADD [EAX], AL is two bytes of zeros: what a jump into memory that nobody has written executes.
    source = f"mov eax, {RAM:#x}\n" + ("add [eax], al\n" + beside) * 300 + "hlt"
    seen = {}
    for name, sizes in (("gate", (1_000_000,)), ("fast", SLICES)):
        for size in sizes:
            cpu = make(name, source, 32)
            assert cpu.run(slice=size).reason is ExitReason.HALT
            seen[name, size] = (cpu.mmio, cpu.engine.retired, cpu.engine.state())
            statistics = cpu.engine.statistics
            cpu.engine.close()
    assert all(found == seen["gate", 1_000_000] for found in seen.values())
    assert len(seen["gate", 1_000_000][0]) == 300 * 2
    # in the longest slice, each of the up to 1,200 instructions; translated to the end of its page: 50 times and more
    assert statistics is not None
    assert statistics.made < 8 * (1 + beside.count("nop")) * 300


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


@pytest.mark.parametrize(("bits", "name"), [(32, "cmpxchg8b"), (64, "cmpxchg8b"), (64, "cmpxchg16b")])
@pytest.mark.parametrize("equal", [True, False])
def test_cmpxchg8b_and_16b_change_zf_alone_wherever_a_run_begins(bits: int, name: str, equal: bool) -> None:
    # SDM vol. 2A. What ADD leaves for its lazy flags has TF, NT and more in it; OR makes those that are kept: PF.
    source = f"""
        mov esi, 0x12345fff
        xor eax, eax
        xor edx, edx
        mov edi, 0x7fffffff
        add edi, esi
        or edi, 3
        and edi, 3
        lock {name} [{0x3000 + 16 * (not equal):#x}]
        mov ebx, 1
        hlt"""
    result = both_agree(source, bits, lambda cpu: cpu.write(0x3010, b"\1"))
    state = result[2]
    assert isinstance(state, CpuState)
    assert state.rflags == 2 | PF | (ZF if equal else 0)


@pytest.mark.parametrize("name", ["fcomi", "fcomip", "fucomi", "fucomip"])
def test_fcomi_clears_of_sf_and_af(name: str) -> None:
    # SDM vol. 2A, FCOMI: whatever they were; ZF, PF and CF say that the two are equal.
    cpu = make("fast", f"fninit\nfld1\nfld1\nmov al, 0x7f\nadd al, 1\n{name} st0, st1\nhlt", 32)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().rflags == 2 | ZF
