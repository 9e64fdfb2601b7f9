"""A saved machine is a value that shares what did not change with the one saved before it, and holds every byte.

The oracle is the memory itself: what `save` gives is compared with all of it, byte by byte."""

from __future__ import annotations

import gc
import pickle
import random
import sys
from ctypes import c_uint64, c_void_p
from dataclasses import fields

import pytest

from asm import assemble
from bare_cpu import RAM, TABLES, BareCpu, bare_cpu
from emu import layout
from emu.debugger import Debugger
from emu.engine import Access, ExitReason, Watch
from emu.machine import Machine
from emu.memory import PhysicalMemory
from emu.pages import PAGE, ZERO, Pages
from emu.unicorn_helper import HELPER, Helper
from machines import debugger, rom, seabios_debugger
from reproducible import resident, run_to

MIB = 1 << 20
both_loops = pytest.mark.usefixtures("run_loop")


def whole(memory: PhysicalMemory) -> Pages:
    """What is saved, after it was seen to be what the memory holds."""
    saved = memory.save()
    assert bytes(saved) == bytes(memory.view)
    return saved


def changed(before: Pages, after: Pages) -> list[int]:
    """Indexes of the pages that are not shared; none of them is equal."""
    indexes = list(after.unlike(before))
    assert all(before.page(i) != after.page(i) for i in indexes)
    return indexes


def marking(source: str, bits: int) -> BareCpu:
    cpu = bare_cpu(source, bits)
    cpu.memory.add_writer(cpu.engine.mark_writes)
    cpu.memory.save()
    return cpu


# -- every way in which a guest's page is written

STORES = {
    "one byte": ("mov byte [0x12345], 7\nhlt", [0x12]),
    "across two pages": ("mov dword [0x12ffe], 0x01020304\nhlt", [0x12, 0x13]),
    "read, then written": ("mov eax, [0x12000]\nmov ebx, [0x13000]\ninc dword [0x12000]\nhlt", [0x12]),
    "repeated": ("mov edi, 0x12000\nmov ecx, 3000\nmov al, 1\nrep stosd\nhlt", [0x12, 0x13, 0x14]),
    "locked": ("mov eax, 1\nlock xadd [0x12000], eax\nlock cmpxchg8b [0x13000]\nhlt", [0x12]),
    "the stack": ("mov esp, 0x13004\npush 5\npush 6\nhlt", [0x12, 0x13]),
    "FPU and SSE": (
        "fninit\nfldpi\nfnsave [0x12ff0]\nmovups [0x14ff8], xmm0\nor byte [0x14fff], 1\nhlt",
        [0x12, 0x13, 0x14],
    ),
    "its own code": ("mov ecx, 3\nl: inc byte [x+1]\nx: mov al, 0\nloop l\nhlt", [1]),
    "the same value": ("mov byte [0x12345], 0\nhlt", []),
    "read only": ("mov eax, [0x12345]\nhlt", []),
    "ROM": ("mov byte [0xf00000], 0\nhlt", []),
}


@pytest.mark.parametrize("name", STORES)
@both_loops
def test_a_page_the_guest_wrote_is_saved_and_no_other(name: str) -> None:
    source, pages = STORES[name]
    cpu = marking(source, 32)
    state = cpu.engine.state()
    state.cr4 |= 0x600
    cpu.engine.load(state)
    before = cpu.memory.save()
    assert cpu.run().reason is ExitReason.HALT
    assert changed(before, whole(cpu.memory)) == pages


@both_loops
def test_accessed_and_dirty_bits_of_page_tables_are_writes() -> None:
    cpu = marking("mov eax, [0x12000]\ninc dword [0x13000]\nhlt", 64)
    before = cpu.memory.save()
    cpu.engine.run(1)
    tables = [(TABLES >> 12) + i for i in range(4)]
    middle = whole(cpu.memory)
    assert changed(before, middle) == tables
    cpu.run()
    # The dirty bit of one entry, and the data.
    assert changed(middle, whole(cpu.memory)) == [0x13, tables[3]]


@pytest.mark.skipif(not isinstance(HELPER, Helper), reason=f"the portable loop has no marks: {HELPER}")
@pytest.mark.parametrize(
    ("name", "size"),
    [("x86_stw_phys", 2), ("x86_stl_phys", 4), ("x86_stl_phys_notdirty", 4), ("x86_stq_phys", 8)],
)
def test_what_the_cpu_stores_by_physical_address_across_two_pages_marks_both(name: str, size: int) -> None:
    """Page-table entries are aligned; SVM's and SMM's areas need not be. So the function is called as Unicorn would."""
    assert isinstance(HELPER, Helper)
    cpu = marking("hlt", 32)
    store = getattr(HELPER.library, f"{name}_x86_64")
    store.restype, store.argtypes = None, [c_void_p, c_uint64, c_uint64]
    for address, pages in ((0x12FFF, [0x12, 0x13]), (0x13000 - size, [0x12]), (0x13000, [0x13])):
        before = cpu.memory.save()
        value = int.from_bytes(bytes(b ^ 0x55 for b in cpu.read(address, size)), "little")
        store(cpu.engine._ov.cpu, address, value)
        assert cpu.read(address, size) == value.to_bytes(size, "little")
        assert changed(before, whole(cpu.memory)) == pages


@both_loops
def test_a_task_switch_and_descriptors_accessed_bits_are_writes() -> None:
    # LTR sets busy, a load of DS sets accessed: both in the GDT at page 0x20; the switch saves into the TSS at 0x21.
    source = """
        lgdt [table]
        mov ax, 0x18
        ltr ax
        jmp 0x20:0
        there: hlt
        table: dw 0x2f
        dd 0x20000
    """
    cpu = marking(source, 32)
    tss = {0x21000: 0, 0x22000: 1}
    entries = [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF]
    entries += [0x67 | (base & 0xFFFFFF) << 16 | 0x89 << 40 for base in tss]
    cpu.write(0x20000, b"".join(e.to_bytes(8, "little") for e in entries))
    image = assemble(f"bits 32\n{source}", 0x1000)
    new = bytearray(0x68)
    for offset, value in ((0x20, 0x1000 + image.index(b"\xf4")), (0x24, 2), (0x38, 0x7000)):
        new[offset : offset + 4] = value.to_bytes(4, "little")
    for i, selector in enumerate((0x10, 8, 0x10, 0x10, 0x10, 0x10)):
        new[0x48 + 4 * i] = selector
    cpu.write(0x22000, bytes(new))
    before = cpu.memory.save()
    assert cpu.run(100).reason is ExitReason.HALT, cpu.faults
    assert changed(before, whole(cpu.memory)) == [0x20, 0x21]


@both_loops
def test_a_page_is_noticed_anew_after_each_save_though_the_cpu_never_left_it() -> None:
    cpu = marking("l: inc dword [0x12000]\ninc dword [ebx*4+0x13000]\njmp l", 32)
    last = cpu.memory.save()
    for _ in range(50):
        cpu.engine.run(7)
        now = whole(cpu.memory)
        assert changed(last, now) == [0x12, 0x13]
        last = now


@both_loops
def test_writes_through_aliases_mark_the_page_that_is_there() -> None:
    cpu = marking("mov byte [0x112345], 7\nhlt", 32)
    cpu.engine.set_a20(False)
    before = cpu.memory.save()
    cpu.run()
    assert changed(before, whole(cpu.memory)) == [0x12]


@both_loops
def test_watched_pages_are_saved_too() -> None:
    cpu = marking("l: inc dword [0x12000]\nmov [0x13004], eax\ninc eax\njmp l", 32)
    cpu.engine.set_watchpoints([Watch(0x12000, 4, Access.WRITE)])
    for _ in range(20):
        before = cpu.memory.save()
        cpu.engine.run(4)
        cpu.engine.run(4)
        assert changed(before, whole(cpu.memory))[:1] == [0x12]


@both_loops
def test_a_closed_machine_can_still_be_saved() -> None:
    run = debugger(rom("l: inc word [0x500]\njmp l"))
    run_to(run, 100)
    run.machine.close()
    others = [debugger(rom("hlt")) for _ in range(2)]
    run.machine.memory.write(0x600, b"x")
    assert whole(run.machine.memory).page(0)[0x600] == ord("x")
    assert others[0].fingerprint() == others[1].fingerprint()


@pytest.mark.parametrize("run_loop", [pytest.param("gate", marks=pytest.mark.slow), "fast"], indirect=True)
@both_loops
def test_random_stores_are_all_saved_at_random_instants() -> None:
    source = f"""
        mov ecx, 1
        l: imul ecx, ecx, 1664525
        add ecx, 1013904223
        mov ebx, ecx
        shr ebx, 10
        and ebx, {RAM // 2 - 1}
        add ebx, {RAM // 2}
        mov [ebx-3], ecx
        inc word [ebx-{MIB}+0x7ff]
        xor [ebx-{MIB}], ch
        jmp l
    """
    cpu = marking(source, 32)
    rng = random.Random(5)
    states = []
    for _ in range(60):
        cpu.engine.run(rng.choice((1, 2, 10, 500, 3000)))
        states.append((cpu.engine.retired, cpu.engine.state(), whole(cpu.memory)))
    for _ in range(40):
        retired, state, memory = rng.choice(states)
        cpu.memory.restore(memory)
        cpu.engine.load(state)
        assert whole(cpu.memory) is memory
        after = rng.choice([s for s in states if s[0] >= retired])
        if after[0] > retired:
            cpu.engine.run(after[0] - retired)
        assert cpu.engine.state() == after[1]
        assert whole(cpu.memory) == after[2]


# -- the value


def test_a_state_is_equal_to_its_copy_and_to_nothing_else() -> None:
    run = debugger(rom("mov word [0x500], 0x1234\nmov si, [0x500]\nl: inc word [0x502]\njmp l"))
    run_to(run, 100)
    state = run.save()
    copy = pickle.loads(pickle.dumps(state))
    assert copy == state
    run_to(run, 104)
    assert run.save() != state
    assert run.save().memory != state.memory
    other = debugger(rom("mov word [0x500], 0x1234\nmov si, [0x500]\nl: inc word [0x502]\njmp l"))
    other.restore(copy)
    run_to(other, 104)
    assert other.fingerprint() == run.fingerprint()


def test_pickled_states_share_pages_and_zeros_take_no_room() -> None:
    machine = debugger(rom("hlt"), memory=64 * MIB).machine
    states = []
    for i in range(5):
        machine.memory.write(0x10_0000 * (i + 1), b"x")
        states.append(machine.save().memory)
    data = pickle.dumps(states)
    assert len(data) < len(pickle.dumps(states[0])) + 4 * 2 * PAGE < MIB
    assert pickle.loads(data) == states
    assert pickle.loads(data)[0].page(0) is ZERO


@pytest.mark.parametrize("count", [1, 127, 128, 129, 400])
def test_pages_of_any_number_are_replaced_and_told_apart(count: int) -> None:
    pages = Pages.zeros(count)
    assert len(pages) == count * PAGE
    other = pages.replaced({count - 1: b"\1" * PAGE})
    assert list(other.unlike(pages)) == [count - 1]
    assert bytes(other) == bytes((count - 1) * PAGE) + b"\1" * PAGE
    assert other != pages and other == pages.replaced({count - 1: b"\1" * PAGE})
    assert pages.replaced({}) is pages


def test_a_state_of_a_machine_with_other_memory_is_refused_and_changes_nothing() -> None:
    small, large = (debugger(rom("hlt"), memory=size * MIB) for size in (1, 2))
    before = large.fingerprint()
    with pytest.raises(ValueError, match=r"the state holds \d+ bytes of memory, this machine has \d+"):
        large.restore(small.save())
    assert large.fingerprint() == before


def test_what_a_window_wrote_is_saved() -> None:
    run = debugger(rom("hlt"))
    before = run.save()
    run.machine.memory.window(layout.VGA_FRAME_BUFFER)[5] = 7
    now = whole(run.machine.memory)
    [page] = changed(before.memory, now)
    assert bytes(now)[page * PAGE + 5] == 7


def test_reset_begins_from_zeros_and_content() -> None:
    run = debugger(rom("mov byte [0x500], 1\nl: jmp l"))
    before = whole(run.machine.memory)
    run_to(run, 50)
    assert whole(run.machine.memory) != before
    run.reset()
    assert whole(run.machine.memory) == before


def test_a_state_of_a_device_shares_nothing_that_can_change() -> None:
    run = seabios_debugger(bytes(512))
    run_to(run, 3_000_000)
    for name, device in run.machine.board.device_table.items():
        state = device.save()
        for part in [state, *[drive for drive in getattr(state, "drives", ()) if drive is not None]]:
            ours = {id(value) for value in changeable(part)}
            again = device.save()
            for other in [again, *[drive for drive in getattr(again, "drives", ()) if drive is not None]]:
                assert ours.isdisjoint(id(value) for value in changeable(other)), name


def changeable(state: object) -> list[object]:
    """The containers in it, which hold no others."""
    values = [getattr(state, field.name) for field in fields(state)]  # type: ignore[arg-type]
    return [value for value in values if isinstance(value, list | dict | bytearray)]


def test_a_state_stays_what_it_was_while_the_machine_goes_on() -> None:
    run = seabios_debugger(bytes(510) + b"\x55\xaa")
    kept = []
    for retired in (100_000, 400_000, 900_000, 3_000_000, 6_900_000):
        run_to(run, retired)
        state = run.save()
        kept.append((state, pickle.dumps(state)))
    for state, _ in reversed(kept):
        run.restore(state)
        run_to(run, state.retired + 50_000)
    assert all(pickle.loads(data) == state for state, data in kept)


# -- what it costs


def test_memory_that_nobody_wrote_is_shared_whole() -> None:
    machine = debugger(rom("hlt"), memory=64 * MIB).machine
    assert machine.save().memory is machine.save().memory


def idle(memory: int) -> Debugger:
    """Halted with interrupts off."""
    run = debugger(rom("l: hlt\njmp l"), memory=memory)
    run.set_limit(1000)
    run.begin_continue()
    run.run()
    return run


@pytest.mark.slow
def test_a_hundred_thousand_checkpoints_of_an_idle_machine_cost_little() -> None:
    machine: Machine = idle(64 * MIB).machine
    kept = [machine.save() for _ in range(100)]
    gc.collect()
    before = resident()
    kept += [machine.save() for _ in range(5000)]
    gc.collect()
    assert (resident() - before) / 5000 < 2048  # bytes a checkpoint: 100,000 are below 200 MB
    assert sys.getsizeof(kept) < MIB
    assert all(state == kept[0] for state in kept)


@pytest.mark.slow
@both_loops
def test_writing_and_saving_for_ever_keeps_only_what_is_held() -> None:
    run = debugger(rom("mov ax, 0x1000\nmov es, ax\nl: inc word [es:di]\nadd di, 4\njmp l"), memory=4 * MIB)
    for i in range(300):
        if i == 100:
            gc.collect()
            before = resident()
        run_to(run, (i + 1) * 30_000)
        state = run.save()
        if i % 7 == 0:
            run.restore(state)
    gc.collect()
    assert resident() - before < 4 * MIB


@pytest.mark.slow
def test_all_of_seabios_boot_is_saved_exactly_at_hundreds_of_instants() -> None:
    run = seabios_debugger(bytes(510) + b"\x55\xaa", memory=2 * MIB)
    rng = random.Random(2)
    for retired in sorted(rng.sample(range(1, 7_000_000), 300)):
        run_to(run, retired)
        whole(run.machine.memory)
