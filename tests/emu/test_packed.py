"""The packed state, by the C helper, against the state as Python reads and writes it."""

from __future__ import annotations

import ctypes
import random

import pytest

from any_states import any_state
from bare_cpu import CODE, RAM, BareCpu, bare_cpu, long_state
from emu.engine import Exit, ExitReason
from emu.packed import PART_DEBUG, PART_FPU, PART_MSRS, PART_TSC, Packed, pack_state, unpack_state
from emu.unicorn_engine import UnicornEngine
from emu.x86 import msrs as m
from emu.x86.registers import MSRS, REGISTERS
from emu.x86.state import CR0_PE, EFER_LMA, EFER_LME, RFLAGS_VM, CpuState, Segment

ALL = PART_FPU | PART_DEBUG | PART_MSRS | PART_TSC


def packing(cpu: BareCpu) -> UnicornEngine:
    if cpu.engine.packing() is None:
        pytest.skip(f"the engine's loop here is {cpu.engine.run_loop}, which does not pack")
    return cpu.engine


@pytest.fixture(scope="module")
def two() -> tuple[BareCpu, BareCpu]:
    return bare_cpu(), bare_cpu()


@pytest.mark.parametrize("seed", range(50))
def test_python_packs_and_unpacks_a_state_without_loss(seed: int) -> None:
    state = any_state(seed)
    packed = Packed()
    pack_state(state, packed)
    assert unpack_state(packed, state) == state
    other = unpack_state(packed, CpuState(smbase=0x1000))
    assert (other.smbase, other.regs, other.fpu) == (0x1000, state.regs, state.fpu)


@pytest.mark.parametrize("seed", range(50))
def test_what_the_helper_packs_is_what_python_reads(two: tuple[BareCpu, BareCpu], seed: int) -> None:
    engine = packing(two[0])
    engine.load(any_state(seed))
    read = engine.state()
    expected = Packed()
    pack_state(read, expected)
    assert engine.pack()
    assert unpack_state(engine.packed, read) == read
    assert bytes(engine.packed) == bytes(expected)


@pytest.mark.parametrize("seed", range(50))
def test_a_look_is_what_python_reads_and_derives_and_changes_nothing(two: tuple[BareCpu, BareCpu], seed: int) -> None:
    engine = packing(two[0])
    state = any_state(seed)
    state.fpu.fop |= 0xF800  # bits that FOP does not have, as FXRSTOR may leave them there
    state.msrs[MSRS["pat"][0]] = m.PAT_RESET ^ 0x10001
    engine.load(state)
    engine.set_interrupt(0x40)
    read, control = engine.state(), bytes(engine._control)
    flat = engine.look()
    assert (engine.state(), bytes(engine._control)) == (read, control)
    seen = read.copy()
    seen.fpu.fop &= 0x7FF
    assert unpack_state(flat.cpu, read) == seen
    assert engine.live().brief() == read.brief()
    names = ("pc", "pat", "mode", "cpl", "ftag", "apic_base")
    derived = [REGISTERS[name].get(read) for name in names]
    assert [flat.linear_pc, flat.pat, flat.code_bits, flat.cpl, flat.tags, flat.apic_base] == derived


@pytest.mark.parametrize("seed", range(50))
def test_what_the_helper_unpacks_is_what_python_loads(two: tuple[BareCpu, BareCpu], seed: int) -> None:
    engine, other = packing(two[0]), two[1].engine
    before, after = any_state(1000 + seed), any_state(seed)
    # What only WRMSR changes, which is the emulator's, it keeps itself.
    after.efer = after.efer & ~1 | before.efer & 1
    after.msrs = {**before.msrs, **{n: v for n, v in after.msrs.items() if n != m.SYSENTER_CS}}
    for one in (engine, other):
        one.load(before)
    assert engine.pack()
    pack_state(after, engine.packed)
    engine.unpack(ALL)
    other.load(after)
    assert engine.state() == other.state()
    # What Unicorn derives from it, and has no place in a state.
    seen, wanted = engine._env, other._env
    for name in (
        "hflags",
        "hflags2",
        "cc_src",
        "cc_op",
        "df",
        "a20_mask",
        "old_exception",
        "error_code",
        "sysenter_cs",
    ):
        assert getattr(seen, name) == getattr(wanted, name), name
    for index in range(8):
        segments = engine._ov.segments()[index], other._ov.segments()[index]
        assert segments[0].flags == segments[1].flags
    assert (engine.halted, engine.interruptible()) == (other.halted, other.interruptible())


@pytest.mark.parametrize("part", [PART_FPU, PART_DEBUG, PART_MSRS])
def test_a_part_that_has_not_changed_is_not_touched(two: tuple[BareCpu, BareCpu], part: int) -> None:
    engine = packing(two[0])
    before, after = any_state(1), any_state(2)
    engine.load(before)
    read = engine.state()
    assert engine.pack()
    pack_state(after, engine.packed)
    engine.unpack(ALL & ~part)
    state = engine.state()
    same = {
        PART_FPU: state.fpu == read.fpu,
        PART_DEBUG: state.dr == read.dr,
        PART_MSRS: state.msrs[m.STAR] == read.msrs[m.STAR],
    }
    assert [kept for kept, is_same in same.items() if is_same] == [part]
    assert state.regs == after.regs


def test_there_is_more_than_is_packed_with_an_nmi_or_in_system_management_mode(two: tuple[BareCpu, BareCpu]) -> None:
    engine = packing(two[0])
    for change in ({"nmi_pending": True, "nmi_blocked": True}, {"smm": True}):
        state = CpuState()
        for name, value in change.items():
            setattr(state, name, value)
        engine.load(state)
        assert not engine.pack(), change
    engine.load(CpuState())
    assert engine.pack()


def test_an_interrupt_that_nobody_has_heard_of_is_not_packed_away() -> None:
    cpu = bare_cpu("sti\nnop\nnop\njmp $")
    engine = packing(cpu)
    cpu.write(4 * 0x20, CODE.to_bytes(4, "little"))
    engine.set_interrupt(0x20)
    engine.run(10)
    assert not engine.pack()
    assert engine.take_interrupt() == 0x20
    assert engine.pack()


def test_packing_lowers_intr_and_unpacking_goes_on_to_the_instruction() -> None:
    cpu = bare_cpu("sti\nl: inc eax\njmp l", 16)
    engine = packing(cpu)
    engine.run(3)
    engine.set_interrupt(0x20)
    assert engine.pack()
    state = engine.state()
    engine.unpack(0)
    assert engine.state() == state
    assert engine.run(4).executed == 4 and engine.take_interrupt() is None
    assert engine.state().regs[0] & 0xFFFF == 3


def test_a_cpu_that_another_one_has_halted_waits_and_is_woken_once() -> None:
    """HLT's end, which an interrupt brings, lies on the other side of the move."""
    cpu = bare_cpu("sti\nl: inc ax\njmp l")
    engine = packing(cpu)
    cpu.write(4 * 0x20, (CODE + 0x100).to_bytes(4, "little"))
    cpu.write(CODE + 0x100, b"\xcf")  # iret
    engine.run(4)
    before = engine.state()
    assert engine.pack()
    engine.packed.halted = True
    engine.unpack(0)
    waits = engine.run(16)
    assert (waits.reason, waits.executed, engine.state().regs) == (ExitReason.HALT, 0, before.regs)
    engine.set_interrupt(0x20)
    delivered = engine.run(16)
    assert (delivered.reason, engine.take_interrupt(), engine.halted) == (ExitReason.REQUEST, 0x20, False)
    engine.set_interrupt(None)
    assert engine.run(17) == Exit(ExitReason.BUDGET, 17)
    assert engine.run(16) == Exit(ExitReason.BUDGET, 16)


def test_what_another_cpu_has_written_is_executed() -> None:
    cpu = bare_cpu("l: inc ax\njmp l")
    engine = packing(cpu)
    region = cpu.memory.regions[0]
    marks = (ctypes.c_uint8 * (cpu.memory.size // 4096))()
    engine.mark_writes(region.host_address, len(marks), ctypes.addressof(marks))
    engine.run(100)
    assert engine.pack()
    ctypes.memmove(region.host_address + CODE, b"\x48", 1)  # dec ax; nobody has told the engine
    pieces = (ctypes.c_uint64 * 2)(region.host_address + CODE // 4096 * 4096, 4096)
    engine.host_changed(ctypes.addressof(pieces), 1)
    engine.unpack(0)
    engine.run(100)
    assert engine.state().regs[0] & 0xFFFF == 0


def test_page_tables_written_meanwhile_take_effect() -> None:
    cpu = bare_cpu("mov al, [0x200000]\nmov bl, al\nmov al, [0x200000]\nhlt", 64)
    state = long_state(cpu.memory)
    cpu.engine.load(state)
    engine = packing(cpu)
    cpu.write(0x200000, b"\x11")
    cpu.write(0x201000, b"\x22")
    engine.run(2)
    assert engine.pack()
    entry = 0x103000 + 8 * (0x200000 >> 12)
    ctypes.memmove(cpu.memory.regions[0].host_address + entry, (0x201003).to_bytes(8, "little"), 8)
    engine.unpack(0)
    cpu.run()
    regs = engine.state().regs
    assert (regs[3] & 0xFF, regs[0] & 0xFF) == (0x11, 0x22)


def test_a20_masked_by_another_cpu_is_masked_here() -> None:
    cpu = bare_cpu("mov ax, 0xffff\nmov ds, ax\nmov bl, [0x10]\nmov cl, [0x10]\nhlt")
    engine = packing(cpu)
    cpu.write(0, b"\x11")
    cpu.write(0x100000, b"\x22")
    engine.run(3)
    assert engine.pack() and engine.packed.a20 == 1
    engine.packed.a20 = 0
    engine.unpack(0)
    cpu.run()
    regs = engine.state().regs
    assert (regs[3] & 0xFF, regs[1] & 0xFF) == (0x22, 0x11)


def test_modes_of_a_packed_state_are_those_of_a_loaded_one(two: tuple[BareCpu, BareCpu]) -> None:
    """hflags decide how Unicorn decodes: every combination of what it derives them from."""
    engine, other = packing(two[0]), two[1].engine
    rng = random.Random(7)
    for cr0 in (0x10, 0x10 | CR0_PE, 0x1E | CR0_PE):
        for efer in (0, EFER_LME | EFER_LMA):
            for vm in (0, RFLAGS_VM):
                for cs in (0x9B, 0x409B, 0x209B):
                    for base in (0, 0x1000):
                        state = any_state(rng.getrandbits(30))
                        state.cr0, state.efer, state.rflags = cr0, efer, 2 | vm
                        state.cs = Segment(8, 0, 0xFFFFF, cs)
                        state.ds.base = state.es.base = 0
                        state.ss = Segment(0x13, base, 0xFFFFF, rng.choice((0x93, 0xF3, 0x40F3)))
                        for one in (engine, other):
                            one.load(CpuState())
                        assert engine.pack()
                        pack_state(state, engine.packed)
                        engine.unpack(ALL)
                        other.load(state)
                        assert engine._env.hflags == other._env.hflags, state
    assert RAM
