"""The C helper under strain: tables and buffers that overflow, task switches out of a block, runs inside runs, many
engines in one process, one after another and in threads."""

from __future__ import annotations

import functools
import gc
import threading

import pytest

import emu.unicorn_engine
import emu.unicorn_parts
from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu
from emu.engine import EngineError, ExitReason
from emu.unicorn_engine import HELPER, UnicornEngine
from machines import reading_debugger, seabios_debugger
from reproducible import engine, resident, run_to

pytestmark = [
    pytest.mark.skipif(
        isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
    )
]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")


def outcome(cpu: BareCpu, size: int) -> tuple[object, ...]:
    exit = cpu.run(1_000_000, slice=size)
    return exit.reason, cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), cpu.faults


# -- task switches

#: A block of five instructions that ends by a switch to the task of selector 20h.
SWITCHING = """
    lgdt [tables]
    lidt [tables+6]
    mov ax, 0x18
    ltr ax
    jmp block
    block: inc ebx
    add ebx, 2
    inc esi
    nop
    jmp 0x20:0
    behind: inc edi
    hlt
    handler: mov ebp, esp
    hlt
    tables: dw 0x3f
    dd 0x20000
    dw 0x7ff
    dd 0x24000
"""
LABELS = {"its first instruction": 0, "its second": 1, "its third": 4, "its fourth": 5, "the switch": 6, "behind": 13}


def switching(eip: int, ds: int) -> BareCpu:
    """The new task goes on at `eip`, with the selector `ds`: 10h is data, 28h is not present."""
    cpu = bare_cpu(SWITCHING, 32)
    image = assemble(f"bits 32\n{SWITCHING}", CODE)
    entries = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF]
    entries += [0x67 | base << 16 | 0x89 << 40 for base in (0x21000 & 0xFFFFFF, 0x22000)]
    entries += [0x00CF13000000FFFF]
    cpu.write(0x20000, b"".join(entry.to_bytes(8, "little") for entry in entries))
    handler = CODE + image.index(b"\x89\xe5\xf4")
    cpu.write(0x24000, (handler & 0xFFFF | 8 << 16 | 0x8E00 << 32).to_bytes(8, "little") * 32)
    tss = bytearray(0x68)
    for offset, value in ((0x20, eip), (0x24, 2), (0x38, 0x7000)):
        tss[offset : offset + 4] = value.to_bytes(4, "little")
    for i, selector in enumerate((0x10, 8, 0x10, ds, 0x10, 0x10)):
        tss[0x48 + 4 * i] = selector
    cpu.write(0x22000, bytes(tss))
    return cpu


def block_at() -> int:
    return CODE + assemble(f"bits 32\n{SWITCHING}", CODE).index(b"\x43\x83\xc3\x02")


@pytest.mark.parametrize("label", LABELS)
def test_a_fault_in_a_switch_counts_the_switch_wherever_the_new_task_is_to_begin(
    label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fault comes when EIP is the new task's already. Where that lies in the block left, it must not be taken for
    # the instruction that faulted.
    eip = block_at() + LABELS[label]
    results = []
    for name, sizes in (("gate", (1000,)), ("fast", (1, 2, 3, 7, 1000))):
        monkeypatch.setenv("V2E_ENGINE", name)
        for size in sizes:
            results.append(outcome(switching(eip, ds=0x28), size))
    assert all(result == results[0] for result in results)
    reason, retired, _, _, faults = results[0]
    assert reason is ExitReason.HALT
    assert [fault.vector for fault in faults] == [11]  # type: ignore[attr-defined]
    assert retired == 5 + 5 + 2


@pytest.mark.parametrize("label", LABELS)
def test_a_new_task_may_begin_in_the_block_that_switched_to_it(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eip = block_at() + LABELS[label]
    results = []
    for name, sizes in (("gate", (1000,)), ("fast", (1, 2, 3, 7, 1000))):
        monkeypatch.setenv("V2E_ENGINE", name)
        for size in sizes:
            results.append(outcome(switching(eip, ds=0x10), size))
    assert all(result == results[0] for result in results)
    assert results[0][0] is ExitReason.HALT


# -- runs inside runs


@pytest.mark.parametrize("port", ["in al, 0x60", "out 0x60, al"])
def test_a_run_inside_a_callback_is_refused_and_the_outer_one_stays_whole(port: str) -> None:
    cpu = bare_cpu(f"mov cx, 9\nl: inc bx\n{port}\ninc si\nloop l\nhlt", 16)

    def nested(*_: int) -> int:
        cpu.engine.run(1)
        return 0

    cpu.on_in = nested
    cpu.on_out = lambda *_: (nested(), None)[1]
    with pytest.raises(EngineError, match=r"run\(\) was called inside a callback of a run"):
        cpu.engine.run(1000)
    assert cpu.engine.retired == 3
    cpu.on_in, cpu.on_out = lambda *_: 0, lambda *_: None
    assert cpu.run().reason is ExitReason.HALT
    assert (cpu.engine.retired, cpu.engine.state().regs[3], cpu.engine.state().regs[6]) == (1 + 9 * 4 + 1, 9, 9)


def test_a_callback_may_run_another_engine() -> None:
    inner = bare_cpu("l: inc ax\njmp l", 16)
    outer = bare_cpu("mov cx, 200\nl: inc bx\nout 0x60, al\ninc dx\nloop l\nhlt", 16)
    outer.on_out = lambda *_: (inner.engine.run(7), None)[1]
    assert outer.run().reason is ExitReason.HALT
    assert (outer.engine.retired, inner.engine.retired) == (1 + 200 * 4 + 1, 200 * 7)


# -- tables and buffers that are too small

RETIRED = 3_000_000


@pytest.fixture(scope="module")
def plain() -> object:
    debugger = seabios_debugger(bytes(512))
    run_to(debugger, RETIRED)
    return debugger.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("slots", [30, 1000])
def test_seabios_runs_alike_with_a_table_of_few_translations(
    slots: int, plain: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(UnicornEngine, translations=slots)
    monkeypatch.setattr(emu.unicorn_engine, "UnicornEngine", small)
    debugger = seabios_debugger(bytes(512))
    run_to(debugger, RETIRED)
    statistics = engine(debugger.machine).statistics
    assert statistics is not None and statistics.flushes >= 3 and statistics.slots <= slots
    assert debugger.fingerprint() == plain


def test_seabios_runs_alike_with_a_buffer_that_fills(plain: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emu.unicorn_parts, "TRANSLATIONS_SIZE", 1 << 20)
    debugger = seabios_debugger(bytes(512))
    run_to(debugger, RETIRED)
    statistics = engine(debugger.machine).statistics
    assert statistics is not None and statistics.flushes >= 2
    assert debugger.fingerprint() == plain


# -- many engines


@pytest.mark.slow
def test_four_threads_boot_four_machines_alike() -> None:
    machines = [reading_debugger() for _ in range(4)]
    found: list[object] = [None] * 4

    def boot(number: int) -> None:
        debugger = machines[number]
        debugger.machine.config.slice = (None, 10_000, 777, 50_000)[number]
        run_to(debugger, RETIRED)
        found[number] = debugger.fingerprint()

    threads = [threading.Thread(target=boot, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is not None
    assert all(fingerprint == found[0] for fingerprint in found)


def test_engines_made_in_threads_while_others_run_are_apart() -> None:
    source = "mov ecx, 20000\nl: inc dword [0x3000]\nadd eax, [0x3000]\ndec ecx\njnz l\nhlt"
    found: list[tuple[int, int]] = []

    def make_and_run() -> None:
        for _ in range(10):
            cpu = bare_cpu(source, 32)
            cpu.run(1 << 30, 3000)
            found.append((cpu.engine.retired, cpu.engine.state().regs[0]))
            cpu.engine.close()

    threads = [threading.Thread(target=make_and_run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert set(found) == {(1 + 4 * 20000 + 1, 20000 * 20001 // 2)}


@pytest.mark.slow
def test_500_engines_made_and_gone_leave_no_memory_behind(request: pytest.FixtureRequest) -> None:
    gc.collect()
    gc.freeze()  # what all the tests have loaded is not looked through each time
    request.addfinalizer(gc.unfreeze)
    for number in range(500):
        if number == 100:
            gc.collect()
            before = resident()
        cpu = bare_cpu("mov ecx, 30\nl: inc dword [0x3000]\nloop l\nhlt", 32)
        assert cpu.run().reason is ExitReason.HALT
        if number % 2:
            cpu.engine.close()
        del cpu
        if number % 10 == 0:
            gc.collect()  # the others are dropped in circles
    gc.collect()
    assert resident() - before < 8 << 20
