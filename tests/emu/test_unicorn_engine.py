"""Counting, stopping, breakpoints and watchpoints of the engine: each compared with stepping one by one."""

from __future__ import annotations

import sys
import threading

import pytest

from asm import assemble
from bare_cpu import CODE, RAM, ROM, BareCpu, bare_cpu, long_state
from emu.engine import Access, EngineError, Exit, ExitReason, Watch, WatchHit

SLICES = (1, 2, 3, 7, 1000)


def trace(cpu: BareCpu, limit: int = 100_000) -> list[int]:
    """The linear addresses executed, by single steps, until HLT."""
    addresses = []
    for _ in range(limit):
        at = cpu.engine.linear_pc
        exit = cpu.engine.run(1)
        if exit.executed:
            addresses.append(at)
        if exit.reason is ExitReason.HALT:
            return addresses
    raise AssertionError("no HLT")


LOOPS = {
    "arithmetic": "mov cx, 50\nl: inc ax\nadd bx, ax\npush bx\npop dx\nloop l\nhlt",
    "calls": "mov cx, 20\nl: call f\nloop l\nhlt\nf: inc ax\nret",
    "rep": "mov si, 0x2000\nmov di, 0x3000\nmov cx, 40\nrep movsb\nmov cx, 30\nmov di, 0x3000\nrep stosw\nhlt",
    "interrupts": "mov word [0x80], h\nmov word [0x82], 0\nmov cx, 9\nl: int 0x20\nloop l\nhlt\nh: inc ax\niret",
    "store in own block": "mov cx, 30\nl: inc byte [x+1]\nnop\nx: add al, 1\nloop l\nhlt",
    "store behind": "mov cx, 30\nl: add al, 1\nnop\ninc byte [l+1]\nnop\nloop l\nhlt",
    "store in other block": "mov cx, 30\nl: call f\ninc byte [f+1]\nloop l\nhlt\nf: add al, 1\nret",
    "rep over own block": "mov di, d\nmov cx, 200\nmov al, 0x90\nd: rep stosb\ntimes 198 inc bx\nhlt",
    "rep over next blocks": (
        "mov dx, 5\no: mov di, t\nmov si, u\nmov cx, 8\nrep movsb\ncall t\ndec dx\njnz o\nhlt\n"
        "t: times 8 nop\nret\nu: times 8 inc bx"
    ),
    "faults": (
        "mov word [0], h\nmov word [2], 0\nmov cx, 7\nl: xor bl, bl\ndiv bl\nloop l\nhlt\n"
        "h: add sp, 6\npush 0\npush 0\npush l2\niret\nl2: loop l\nhlt"
    ),
    "invalid opcodes": (
        "mov word [24], h\nmov word [26], 0\nmov cx, 7\nl: ud2\nloop l\nhlt\n"
        "h: push bp\nmov bp, sp\nadd word [bp+2], 2\npop bp\niret"
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_counts_and_results_do_not_depend_on_slices(name: str) -> None:
    results = []
    for size in SLICES:
        cpu = bare_cpu(LOOPS[name])
        exit = cpu.run(slice=size)
        assert exit.reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), cpu.faults))
    assert all(result == results[0] for result in results)
    cpu = bare_cpu(LOOPS[name])
    assert len(trace(cpu)) == results[0][0]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("nop\nnop\nhlt", 3),
        ("mov cx, 10\nl: loop l\nhlt", 12),
        # each iteration counts, and so does the check that finds CX = 0
        ("mov cx, 10\nmov di, 0x3000\nrep stosb\nhlt", 2 + 11 + 1),
        ("mov word [0], h\nmov word [2], 0\nxor bl, bl\ndiv bl\nh: hlt", 5),  # the faulting instruction counts
        ("mov cx, 5\nl: inc byte [x+1]\nx: add al, 1\nloop l\nhlt", 1 + 5 * 3 + 1),
    ],
)
def test_the_count_is_that_of_instructions_and_iterations(source: str, count: int) -> None:
    cpu = bare_cpu(source)
    assert cpu.engine.run(1000) == Exit(ExitReason.HALT, count)
    assert cpu.engine.retired == count


@pytest.mark.parametrize("budget", [1, 2, 5, 100])
def test_a_jump_to_itself_spends_exactly_the_budget(budget: int) -> None:
    cpu = bare_cpu("jmp $")
    assert cpu.engine.run(budget) == Exit(ExitReason.BUDGET, budget)
    assert cpu.engine.linear_pc == CODE


def test_a_store_into_its_own_instruction_makes_progress_at_budget_1() -> None:
    # SDM vol. 3A, 8.1.3: self-modifying code runs as modified after a jump; the storing instruction itself completes.
    cpu = bare_cpu("mov byte [$+4], 7\nhlt")
    assert cpu.engine.run(1) == Exit(ExitReason.BUDGET, 1)
    assert cpu.engine.run(1) == Exit(ExitReason.HALT, 1)


def test_budget_0_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bare_cpu("nop").engine.run(0)


def test_port_accesses_carry_the_count_before_their_instruction() -> None:
    cpu = bare_cpu("nop\nin al, 0x60\nnop\nout 0x70, al\nhlt")
    cpu.on_in = lambda port, size: 0x5A
    cpu.run()
    assert cpu.ins == [(1, 0x60, 1)]
    assert cpu.outs == [(3, 0x70, 1, 0x5A)]


def test_port_values_have_the_width_of_the_access() -> None:
    cpu = bare_cpu(
        "mov eax, 0x12345678\nout 0x70, al\nout 0x70, ax\nout 0x70, eax\nin al, 0x60\nin ax, 0x60\nin eax, 0x60\nhlt"
    )
    cpu.on_in = lambda port, size: (1 << 8 * size) - 1
    cpu.run()
    assert [(size, value) for _, _, size, value in cpu.outs] == [(1, 0x78), (2, 0x5678), (4, 0x12345678)]
    assert [size for _, _, size in cpu.ins] == [1, 2, 4]
    assert cpu.engine.state().regs[0] == 0xFFFFFFFF


def test_a_stop_from_a_port_callback_comes_before_the_next_instruction() -> None:
    cpu = bare_cpu("nop\nout 0x70, al\ninc ax\nhlt")
    cpu.on_out = lambda *_: cpu.engine.request_stop()
    assert cpu.engine.run(100) == Exit(ExitReason.REQUEST, 2)
    assert cpu.engine.state().regs[0] == 0
    assert cpu.engine.run(100) == Exit(ExitReason.HALT, 2)


def test_rep_insw_stopped_in_the_middle_loses_and_doubles_nothing() -> None:
    cpu = bare_cpu("mov dx, 0x1f0\nmov di, 0x3000\nmov cx, 100\nrep insw\nhlt")
    words = iter(range(1, 1000))

    def read(_port: int, _size: int) -> int:
        cpu.engine.request_stop()
        return next(words)

    cpu.on_in = read
    while cpu.engine.run(1000).reason is not ExitReason.HALT:
        pass
    data = cpu.read(0x3000, 200)
    assert [int.from_bytes(data[i : i + 2], "little") for i in range(0, 200, 2)] == list(range(1, 101))
    assert next(words) == 101
    assert cpu.engine.retired == 3 + 101 + 1


def test_stops_from_another_thread_change_nothing_but_where_runs_end() -> None:
    source = "mov cx, 60000\nl: inc dword [0x3000]\nadd eax, [0x3000]\npush eax\npop edx\nloop l\nhlt"
    plain = bare_cpu(source)
    assert plain.run().reason is ExitReason.HALT
    cpu = bare_cpu(source)
    done = threading.Event()

    def pester() -> None:
        while not done.is_set():
            cpu.engine.request_stop()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=pester)
    thread.start()
    stops = 0
    try:
        while (exit := cpu.engine.run(1_000_000)).reason is not ExitReason.HALT:
            stops += exit.reason is ExitReason.REQUEST
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert stops
    assert (cpu.engine.retired, cpu.engine.state()) == (plain.engine.retired, plain.engine.state())
    assert cpu.memory.save() == plain.memory.save()


def test_a_stop_asked_for_between_runs_ends_the_next_one_at_once() -> None:
    cpu = bare_cpu("nop\nhlt")
    cpu.engine.request_stop()
    assert cpu.engine.run(5) == Exit(ExitReason.REQUEST, 0)
    assert cpu.engine.run(5) == Exit(ExitReason.HALT, 2)


def test_an_exception_in_a_callback_comes_out_of_run_and_the_run_is_exact() -> None:
    cpu = bare_cpu("nop\nout 0x70, al\ninc ax\nhlt")

    def fail(*_: int) -> None:
        raise KeyError("device")

    cpu.on_out = fail
    with pytest.raises(KeyError, match="device"):
        cpu.engine.run(100)
    assert cpu.engine.retired == 2
    assert cpu.engine.run(100) == Exit(ExitReason.HALT, 2)


def test_run_inside_a_callback_is_refused() -> None:
    cpu = bare_cpu("out 0x70, al\nhlt")
    cpu.on_out = lambda *_: cpu.engine.run(1) and None
    with pytest.raises(EngineError, match="callback"):
        cpu.engine.run(10)


def test_set_retired_continues_the_count() -> None:
    cpu = bare_cpu("nop\nin al, 0x60\nhlt")
    cpu.engine.set_retired(1000)
    cpu.run()
    assert cpu.ins == [(1001, 0x60, 1)]
    assert cpu.engine.retired == 1003


# -- breakpoints


@pytest.mark.parametrize("size", SLICES)
@pytest.mark.parametrize("name", ["calls", "store in own block", "interrupts"])
def test_breakpoints_stop_where_single_steps_pass(name: str, size: int) -> None:
    steps = trace(bare_cpu(LOOPS[name]))
    points = sorted(set(steps))[::2]
    expected = [(i, at) for i, at in enumerate(steps) if at in points]
    cpu = bare_cpu(LOOPS[name])
    cpu.engine.set_breakpoints(points)
    hits, skip = [], False
    while (exit := cpu.engine.run(size, skip_breakpoint=skip)).reason is not ExitReason.HALT:
        skip = exit.reason is ExitReason.BREAKPOINT
        if skip:
            hits.append((cpu.engine.retired, cpu.engine.linear_pc))
    assert hits == expected


def test_a_breakpoint_where_the_run_begins_is_reported_with_nothing_executed() -> None:
    cpu = bare_cpu("nop\nhlt")
    cpu.engine.set_breakpoints([CODE])
    for _ in range(2):
        assert cpu.engine.run(5) == Exit(ExitReason.BREAKPOINT, 0)
    assert cpu.engine.run(5, skip_breakpoint=True) == Exit(ExitReason.HALT, 2)


def test_a_jump_to_itself_meets_its_breakpoint_each_time() -> None:
    cpu = bare_cpu("jmp $")
    cpu.engine.set_breakpoints([CODE])
    for _ in range(3):
        assert cpu.engine.run(5, skip_breakpoint=True) == Exit(ExitReason.BREAKPOINT, 1)


@pytest.mark.parametrize("size", SLICES)
def test_a_repeated_string_instruction_meets_its_breakpoint_on_arrival_only(size: int) -> None:
    cpu = bare_cpu("mov bx, 3\no: mov di, 0x3000\nmov cx, 20\nr: cs rep stosb\ndec bx\njnz o\nhlt")
    at = CODE + 3 + 3 + 3
    cpu.engine.set_breakpoints([at])
    hits, skip = [], False
    while (exit := cpu.engine.run(size, skip_breakpoint=skip)).reason is not ExitReason.HALT:
        skip = exit.reason is ExitReason.BREAKPOINT
        if skip:
            hits.append((cpu.engine.retired, cpu.engine.state().regs[1]))
    assert hits == [(3, 20), (3 + 21 + 2 + 2, 20), (3 + 2 * (21 + 2 + 2), 20)]


def test_five_hundred_breakpoints_and_their_removal_take_effect_in_translated_code() -> None:
    cpu = bare_cpu("l: " + "inc ax\n" * 500 + "jmp l")
    cpu.engine.run(2 * 501)
    cpu.engine.set_breakpoints(range(CODE, CODE + 500))
    for i in range(600):
        assert cpu.engine.run(10_000, skip_breakpoint=i > 0).reason is ExitReason.BREAKPOINT
        assert cpu.engine.retired == 2 * 501 + i + (i >= 500)
        assert cpu.engine.linear_pc == CODE + i % 500
    cpu.engine.set_breakpoints([CODE + 7])
    assert cpu.engine.run(10_000, skip_breakpoint=True).reason is ExitReason.BREAKPOINT
    assert cpu.engine.linear_pc == CODE + 7
    cpu.engine.set_breakpoints([])
    assert cpu.engine.run(10_000) == Exit(ExitReason.BUDGET, 10_000)


def test_breakpoints_are_linear_with_a_segment_base() -> None:
    cpu = bare_cpu("nop\nnop\nhlt")
    state = cpu.engine.state()
    state.cs.selector, state.cs.base, state.rip = 0x77, 0x900, 0x700
    cpu.engine.load(state)
    cpu.engine.set_breakpoints([CODE + 1])
    assert cpu.engine.run(9) == Exit(ExitReason.BREAKPOINT, 1)
    assert (cpu.engine.linear_pc, cpu.engine.state().rip) == (CODE + 1, 0x701)


# -- watchpoints


def watch_by_steps(source: str, bits: int, address: int, length: int) -> list[int]:
    """After which counts the bytes had changed, by comparing memory at each step."""
    cpu = bare_cpu(source, bits)
    hits = []
    while True:
        before = cpu.read(address, length)
        exit = cpu.engine.run(1)
        if cpu.read(address, length) != before:
            hits.append(cpu.engine.retired)
        if exit.reason is ExitReason.HALT:
            return hits


@pytest.mark.parametrize("size", SLICES)
@pytest.mark.parametrize("bits", [16, 64])
def test_write_watchpoints_report_after_the_writing_instruction(bits: int, size: int) -> None:
    source = "mov ecx, 9\nl: inc dword [0x3010]\nadd eax, [0x3010]\nnop\nmov [0x300e], eax\nloop l\nhlt"
    expected = watch_by_steps(source, bits, 0x3010, 4)
    assert len(expected) >= 9
    cpu = bare_cpu(source, bits)
    watch = Watch(0x3010, 4, Access.WRITE)
    cpu.engine.set_watchpoints([watch])
    hits = []
    while (exit := cpu.engine.run(size)).reason is not ExitReason.HALT:
        if exit.reason is ExitReason.WATCHPOINT:
            assert exit.hit is not None
            assert exit.hit.watch == watch
            hits.append(cpu.engine.retired)
    assert set(expected) <= set(hits)
    assert len(hits) == 18


def test_a_watch_hit_says_what_was_accessed() -> None:
    cpu = bare_cpu("mov dword [0x3000], 0x11223344\nmov ax, [0x3001]\nmov bl, [0x3004]\nmov byte [0x2fff], 9\nhlt")
    watch = Watch(0x3001, 2, Access.BOTH)
    cpu.engine.set_watchpoints([watch])
    wrote = WatchHit(watch, 0x3000, 4, 0x11223344, Access.WRITE)
    read = WatchHit(watch, 0x3001, 2, 0x2233, Access.READ)
    assert cpu.engine.run(99) == Exit(ExitReason.WATCHPOINT, 1, hit=wrote)
    assert cpu.engine.run(99) == Exit(ExitReason.WATCHPOINT, 1, hit=read)
    assert cpu.engine.run(99) == Exit(ExitReason.HALT, 3)


def test_a_watch_hit_on_the_last_instruction_of_the_budget_is_reported() -> None:
    cpu = bare_cpu("nop\nmov byte [0x3000], 1\nhlt")
    cpu.engine.set_watchpoints([Watch(0x3000, 1, Access.WRITE)])
    exit = cpu.engine.run(2)
    assert (exit.reason, exit.executed) == (ExitReason.WATCHPOINT, 2)


def test_each_iteration_of_a_string_instruction_hits() -> None:
    cpu = bare_cpu("mov di, 0x3000\nmov cx, 8\nmov al, 5\nrep stosb\nhlt")
    cpu.engine.set_watchpoints([Watch(0x3002, 3, Access.WRITE)])
    hits = []
    while (exit := cpu.engine.run(100)).hit is not None:
        hits.append((cpu.engine.retired, exit.hit.address, exit.hit.value))
    assert hits == [(3 + 3 + i, 0x3002 + i, 5) for i in range(3)]


def test_accesses_that_cross_into_a_watched_page_hit() -> None:
    cpu = bare_cpu("mov dword [0x2ffe], 0x44332211\nhlt")
    cpu.engine.set_watchpoints([Watch(0x3001, 1, Access.WRITE)])
    exit = cpu.engine.run(9)
    assert exit.reason is ExitReason.WATCHPOINT
    assert exit.hit is not None
    assert (exit.hit.address, exit.hit.size) == (0x2FFE, 4)


def test_an_exception_frame_pushed_on_a_watched_stack_hits() -> None:
    cpu = bare_cpu("mov word [0x80], h\nmov word [0x82], 0\nint 0x20\nh: hlt")
    cpu.engine.set_watchpoints([Watch(0x6FFA, 6, Access.WRITE)])
    exit = cpu.engine.run(9)
    assert (exit.reason, exit.executed) == (ExitReason.WATCHPOINT, 3)


def test_a_removed_watchpoint_hits_no_more() -> None:
    cpu = bare_cpu("l: inc byte [0x3000]\njmp l")
    cpu.engine.set_watchpoints([Watch(0x3000, 1, Access.WRITE)])
    assert cpu.engine.run(50).executed == 1
    cpu.engine.set_watchpoints([])
    assert cpu.engine.run(50) == Exit(ExitReason.BUDGET, 50)


PTE = 0x103000  #: of linear 0 in bare_cpu's page tables


def test_a_watchpoint_follows_its_linear_page_when_the_tables_change() -> None:
    cpu = bare_cpu(
        f"""
        mov byte [0x5000], 1           ; hits: linear 5000h is physical 5000h
        mov qword [{PTE + 8 * 5:#x}], 0x9003
        invlpg [0x5000]
        mov byte [0x9000], 2           ; physical 9000h by its own address: seen too, the bytes are the watched ones
        mov byte [0x6000], 3           ; another page
        mov qword [{PTE + 8 * 6:#x}], 0x5003
        invlpg [0x6000]
        mov byte [0x6000], 4           ; the old physical page: no longer watched
        mov byte [0x5000], 5           ; hits
        hlt
        """,
        64,
    )
    cpu.engine.set_watchpoints([Watch(0x5000, 1, Access.WRITE)])
    hits = []
    while (exit := cpu.engine.run(100)).hit is not None:
        hits.append((cpu.engine.retired, exit.hit.value))
    assert exit.reason is ExitReason.HALT
    assert hits == [(1, 1), (4, 2), (9, 5)]


def test_a_watchpoint_follows_cr3() -> None:
    cpu = bare_cpu("mov byte [0x5000], 1\nmov rax, 0x200000\nmov cr3, rax\nmov byte [0x5000], 2\nhlt", 64)
    tables = bytearray(cpu.read(0x100000, 0x5000))
    for i in (0, 0x1000, 0x2000, 0x2008):
        tables[i + 2] = 0x20  # the copy's own tables
    tables[0x3000 + 8 * 5 + 1] = 0x90  # linear 5000h -> 9000h
    cpu.write(0x200000, bytes(tables))
    cpu.engine.set_watchpoints([Watch(0x5000, 1, Access.WRITE)])
    hits = []
    while (exit := cpu.engine.run(100)).hit is not None:
        hits.append((cpu.engine.retired, exit.hit.value))
    assert hits == [(1, 1), (4, 2)]
    assert cpu.read(0x9000, 1) == b"\x02"


@pytest.mark.parametrize("size", SLICES)
def test_a_table_write_on_the_last_instruction_of_a_slice_is_not_forgotten(size: int) -> None:
    cpu = bare_cpu(f"mov qword [{PTE + 8 * 5:#x}], 0x9003\ninvlpg [0x5000]\nmov byte [0x5000], 1\nhlt", 64)
    cpu.engine.set_watchpoints([Watch(0x5000, 1, Access.WRITE)])
    exit = cpu.run(slice=size)
    assert (exit.reason, cpu.engine.retired) == (ExitReason.WATCHPOINT, 3)


def test_a_watchpoint_on_an_unmapped_page_begins_with_its_mapping() -> None:
    cpu = bare_cpu(
        f"mov qword [{PTE + 8 * 5:#x}], 0x5003\nmov byte [0x5000], 2\nhlt",
        64,
    )
    cpu.write(PTE + 8 * 5, bytes(8))
    cpu.engine.set_watchpoints([Watch(0x5000, 1, Access.WRITE)])
    exit = cpu.engine.run(100)
    assert (exit.reason, exit.executed) == (ExitReason.WATCHPOINT, 2)


# -- memory


def test_rom_keeps_its_bytes_and_its_writer_goes_on() -> None:
    cpu = bare_cpu(f"mov rdi, {ROM}\nmov dword [rdi], 5\nmov eax, [rdi]\ninc byte [rdi+8]\nhlt", 64)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[0] == int.from_bytes(b"ROM!", "little")
    assert cpu.read(ROM, 16) == b"ROM!" * 4


def test_code_in_rom_runs_and_survives_stores_into_itself() -> None:
    cpu = bare_cpu(f"mov rax, {ROM + 0x100}\ncall rax\nhlt", 64)
    cpu.write(ROM + 0x100, assemble("bits 64\nmov byte [rel x+2], 9\nx: add rbx, 1\nret", ROM + 0x100))
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[3] == 1


def test_holes_reach_mmio_with_their_physical_address() -> None:
    cpu = bare_cpu(f"mov eax, [{RAM:#x}]\nmov [{RAM + 0x1234:#x}], ax\nmov bl, [0xfee00030]\nhlt", 32)
    cpu.on_mmio_read = lambda address, size: address & (1 << 8 * size) - 1
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.mmio == [(0, RAM, 4, None), (1, RAM + 0x1234, 2, RAM & 0xFFFF), (2, 0xFEE00030, 1, None)]
    assert cpu.engine.state().regs[0] == RAM


def test_a_stop_from_an_mmio_callback_does_not_repeat_the_access() -> None:
    cpu = bare_cpu(f"mov esi, {RAM:#x}\nmov edi, 0x3000\nmov ecx, 16\nrep movsd\ninc dword [{RAM:#x}]\nhlt", 32)
    numbers = iter(range(100))

    def read(_address: int, _size: int) -> int:
        cpu.engine.request_stop()
        return next(numbers)

    cpu.on_mmio_read = read
    while cpu.engine.run(1000).reason is not ExitReason.HALT:
        pass
    assert [cpu.read32(0x3000 + 4 * i) for i in range(16)] == list(range(16))
    assert [value for _, _, _, value in cpu.mmio if value is not None] == [17]
    assert next(numbers) == 17


def test_device_and_rom_accesses_do_not_depend_on_slices() -> None:
    source = f"""
        mov ebx, {RAM:#x}
        mov ecx, [ebx]
        mov [ebx+4], ecx
        inc word [ebx+8]
        mov dword [{ROM:#x}], 1
        rdtsc
        mov [0x3000], eax
        mov dx, 0x1f0
        mov edi, 0x3010
        mov ecx, 5
        rep insd
        mov esi, 0x3010
        mov ecx, 5
        rep outsw
        mov esi, {RAM:#x}
        mov ecx, 3
        rep movsb
        fld tword [{ROM:#x}]
        movups xmm0, [{ROM:#x}]
        movups [0x3100], xmm0
        hlt
    """
    results = []
    for size in SLICES:
        cpu = bare_cpu(source, 32)
        state = cpu.engine.state()
        state.cr4 |= 1 << 9
        cpu.engine.load(state)
        cpu.on_in = lambda port, size: port * 3
        cpu.on_mmio_read = lambda address, size: address & (1 << 8 * size) - 1
        assert cpu.run(slice=size).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.ins, cpu.outs, cpu.mmio, cpu.engine.state(), cpu.memory.save()))
    assert all(result == results[0] for result in results)
    assert [len(results[0][i]) for i in (1, 2, 3)] == [5, 5, 7]


def test_memory_changed_by_the_host_is_executed_as_it_is_now() -> None:
    cpu = bare_cpu("l: add al, 1\njmp l")
    cpu.engine.run(10)
    cpu.write(CODE + 1, b"\x10")
    cpu.engine.run(10)
    assert cpu.engine.state().regs[0] & 0xFF == 5 + 5 * 0x10


def test_memory_changed_in_a_callback_counts_from_the_next_instruction() -> None:
    cpu = bare_cpu("l: out 0x70, al\nadd al, 1\nhlt")
    at = CODE + 2 + 1
    cpu.on_out = lambda *_: cpu.write(at, b"\x33")
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[0] == 0x33
    assert cpu.engine.retired == 3


def test_a20_masks_bit_20_at_once_when_switched_in_a_callback() -> None:
    cpu = bare_cpu("out 0x92, al\nmov eax, [0x103000]\nout 0x92, al\nmov ebx, [0x103000]\nhlt", 32)
    cpu.write(0x3000, b"low!")
    cpu.write(0x103000, b"high")
    states = iter((False, True))
    cpu.on_out = lambda *_: cpu.engine.set_a20(next(states))
    assert cpu.run().reason is ExitReason.HALT
    state = cpu.engine.state()
    assert (state.regs[0].to_bytes(4, "little"), state.regs[3].to_bytes(4, "little")) == (b"low!", b"high")


def test_code_fetches_follow_the_a20_gate() -> None:
    cpu = bare_cpu("out 0x92, al\njmp 0x103000", 32)
    cpu.write(0x3000, b"\xb0\x11\xf4")  # mov al, 11h; hlt
    cpu.write(0x103000, b"\xb0\x22\xf4")
    cpu.on_out = lambda *_: cpu.engine.set_a20(False)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[0] & 0xFF == 0x11


def test_rdtsc_and_rdtscp_read_the_injected_time() -> None:
    cpu = bare_cpu("rdtsc\nmov esi, eax\nmov edi, edx\nrdtscp\nhlt", 32)
    cpu.time = 0x11223344_55667788
    assert cpu.run().reason is ExitReason.HALT
    regs = cpu.engine.state().regs
    assert (regs[6], regs[7], regs[0], regs[2]) == (0x55667788, 0x11223344, 0x55667788, 0x11223344)


def test_two_engines_beside_each_other_do_not_mix() -> None:
    one, two = bare_cpu("l: inc ax\njmp l"), bare_cpu("l: dec ax\njmp l")
    for _ in range(5):
        one.engine.run(20)
        two.engine.run(40)
    assert (one.engine.state().regs[0], two.engine.state().regs[0]) == (50, 0x10000 - 100)
    two.engine.close()
    one.engine.run(20)
    assert one.engine.state().regs[0] == 60


def test_long_state_is_the_state_that_was_loaded() -> None:
    cpu = bare_cpu("hlt", 64)
    assert cpu.engine.state().cr3 == long_state().cr3
