"""Breakpoints, watchpoints, requests to stop and flushes in the fast loop: thousands of them change nothing."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from asm import assemble
from bare_cpu import CODE, bare_cpu, real_state
from emu.engine import Access, ExitReason, Watch
from emu.unicorn_engine import UnicornEngine
from run_loops import FAULTING, loop, make, needs_helper, outcome

pytestmark = needs_helper


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
