"""The whole CPU state goes out of the engine and back in, in every mode and for random values, and loses nothing."""

from __future__ import annotations

import ctypes
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu, flat_state, long_state, real_state
from emu.engine import ExitReason
from emu.firmware.tour import rom as tour_rom
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.unicorn_copy import copy_state
from emu.unicorn_layout import Env, offset_of
from emu.unicorn_overlay import MSR_ARRAYS, MSR_FIELDS
from emu.x86.state import CR0_PE, EFER_LMA, EFER_LME, GENERAL, RFLAGS_VM, CpuState, Fpu, Segment, Table

RESET_MSRS = dict.fromkeys((*MSR_FIELDS, *MSR_ARRAYS), 0) | {0x277: 0x0007040600070406}


def test_a_new_engine_is_in_the_reset_state() -> None:
    # SDM vol. 3A, table 10-1
    cpu = bare_cpu(state=CpuState())
    expected = CpuState(msrs=RESET_MSRS)
    assert cpu.engine.state() == expected
    assert cpu.engine.linear_pc == 0xFFFFFFF0
    assert cpu.engine.retired == 0


@pytest.mark.parametrize("state", [real_state(), flat_state(), long_state()], ids=["real", "flat", "long"])
def test_a_loaded_state_is_the_state(state: CpuState) -> None:
    cpu = bare_cpu(state=state)
    state.msrs = RESET_MSRS
    assert cpu.engine.state() == state


def _integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


@st.composite
def segments(draw: st.DrawFn, kind: int, *, loaded: bool = False) -> Segment:
    """`kind` 0x10: code or data, 0: system; `loaded`: as a load leaves it."""
    usable = draw(st.booleans())
    access = draw(_integers(4)) | kind | draw(_integers(2)) << 5 | draw(_integers(4)) << 12
    access |= 0x80 if usable else 0x10000
    if loaded and usable:
        access |= 1  # a load marks it accessed (SDM vol. 3A, 3.4.5.1)
    return Segment(draw(_integers(16)), draw(_integers(64)), draw(_integers(32)), access)


@st.composite
def fpus(draw: st.DrawFn) -> Fpu:
    return Fpu(
        fcw=draw(_integers(12)) & ~0xC0 | 0x40,
        fsw=draw(_integers(16)),
        ftw=draw(_integers(8)),
        fop=draw(_integers(11)),
        fip=draw(_integers(64)),
        fcs=draw(_integers(16)),
        fdp=draw(_integers(64)),
        fds=draw(_integers(16)),
        mxcsr=draw(_integers(16)),
        st=draw(st.lists(_integers(80), min_size=8, max_size=8)),
        xmm=draw(st.lists(_integers(128), min_size=16, max_size=16)),
    )


@st.composite
def states(draw: st.DrawFn) -> CpuState:
    regs = st.lists(_integers(64), min_size=16, max_size=16)
    dr = draw(st.lists(_integers(64), min_size=4, max_size=4))
    tr = draw(segments(0))
    if tr.present and tr.type in (1, 9):
        tr.access |= 2  # no CPU has an available TSS loaded
    return CpuState(
        regs=draw(regs),
        rip=draw(_integers(64)),
        rflags=draw(_integers(22)) & 0x3F7FD5 | 2,
        **{name: draw(segments(0x10, loaded=name in ("cs", "ss"))) for name in ("es", "cs", "ss", "ds", "fs", "gs")},
        ldtr=draw(segments(0)),
        tr=tr,
        gdtr=Table(draw(_integers(64)), draw(_integers(16))),
        idtr=Table(draw(_integers(64)), draw(_integers(16))),
        cr0=draw(_integers(32)) | 0x10,
        cr2=draw(_integers(64)),
        cr3=draw(_integers(52)),
        cr4=draw(_integers(22)),
        cr8=draw(_integers(4)),
        dr=[*dr, 0, 0, draw(_integers(32)), draw(_integers(10)) & 0x3FF & ~0xFF | 0x400],
        efer=draw(_integers(12)),
        msrs={msr: draw(_integers(32)) for msr in (*MSR_FIELDS, *MSR_ARRAYS)},
        fpu=draw(fpus()),
        halted=draw(st.booleans()),
        shadow=draw(st.booleans()),
        nmi_blocked=draw(st.booleans()),
        a20=draw(st.booleans()),
    )


@pytest.fixture(scope="module")
def bare() -> BareCpu:
    return bare_cpu()


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(state=states())
def test_random_states_come_back_as_they_went_in(bare: BareCpu, state: CpuState) -> None:
    bare.engine.load(state)
    found = bare.engine.state()
    for field in dataclasses.fields(CpuState):
        assert getattr(found, field.name) == getattr(state, field.name), field.name


@pytest.fixture(scope="module")
def others() -> tuple[BareCpu, BareCpu, BareCpu]:
    return bare_cpu(), bare_cpu(), bare_cpu()


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(before=states(), state=states())
def test_a_state_is_adopted_as_it_is_loaded(
    bare: BareCpu, others: tuple[BareCpu, BareCpu, BareCpu], before: CpuState, state: CpuState
) -> None:
    """What loading makes of it is the oracle, in the values of Unicorn's structure that follow from it too. The copy by
    Python, which the portable loop has, leaves the same bytes as the helper's."""
    adopting, loading, copying = others
    for cpu in others:
        cpu.engine.load(before)
    bare.engine.load(state)
    adopting.engine.adopt(bare.engine)
    loading.engine.load(bare.engine.state())
    assert adopting.engine.state() == loading.engine.state()
    assert adopting.engine.halted is loading.engine.halted
    copy_state(copying.engine._ov, bare.engine._ov)
    here, there = (ctypes.string_at(cpu.engine._ov.env_address, ctypes.sizeof(Env)) for cpu in (adopting, copying))
    ends = offset_of(Env, "error_code"), offset_of(Env, "mtrr_fixed")
    assert (here[: ends[0]], here[ends[1] :]) == (there[: ends[0]], there[ends[1] :])
    for name in ("v_tpr", "old_exception", "error_code", "exception_is_int"):
        assert getattr(copying.engine._env, name) == getattr(adopting.engine._env, name), name
    one, other = adopting.engine._env, loading.engine._env
    for name in ("hflags", "hflags2", "v_tpr", "a20_mask", "efer", "old_exception", "error_code", "sysenter_cs"):
        assert getattr(one, name) == getattr(other, name), name
    status = type(one)._status
    for at in range(status.offset, status.offset + status.size):  # what rounds, by the control words
        assert ctypes.string_at(ctypes.addressof(one) + at, 1) == ctypes.string_at(ctypes.addressof(other) + at, 1)


@pytest.mark.parametrize("transfer", ["jmp", "ret", "iret"])
def test_cs_is_accessed_whatever_has_loaded_it(transfer: str) -> None:
    """SDM vol. 3A, 3.4.5.1. The descriptor, 18h, lacks the bit."""
    cpu = bare_cpu(state=flat_state())
    cpu.write(0x600, bytes(24) + bytes.fromhex("ffff0000009acf00"))
    code = {
        "jmp": "jmp 0x18:there",
        "ret": "push 0x18\npush there\nretf",
        "iret": "pushfd\npush 0x18\npush there\niret",
    }[transfer]
    cpu.write(CODE, assemble(f"bits 32\norg {CODE}\n{code}\nthere: nop"))
    state = flat_state()
    state.gdtr = Table(0x600, 31)
    state.regs[4] = 0x7000
    cpu.engine.load(state)
    cpu.engine.run({"jmp": 1, "ret": 3, "iret": 4}[transfer])
    assert (cpu.engine.state().cs.selector, cpu.engine.state().cs.access) == (0x18, 0xC09B)
    assert cpu.engine.live().cs.access == 0xC09B


@pytest.mark.slow
def test_the_tour_through_every_mode_is_the_same_when_the_state_is_reloaded_all_the_way() -> None:
    plain = build_machine(MachineConfig(firmware=tour_rom(), memory=4 << 20))
    plain.run(50_000_000)
    reloaded = build_machine(MachineConfig(firmware=tour_rom(), memory=4 << 20))
    end = plain.executor.retired
    while reloaded.executor.retired < end:
        exit = reloaded.run(min(end, reloaded.executor.retired + 61))
        flags = reloaded.executor._env.hflags  # type: ignore[attr-defined]
        reloaded.executor.load(reloaded.executor.state())
        assert reloaded.executor._env.hflags == flags  # type: ignore[attr-defined]
        if exit.reason is not MachineStop.LIMIT:
            break
    assert exit.reason is MachineStop.EXIT, exit
    assert reloaded.fingerprint() == plain.fingerprint()
    assert reloaded.serial_text() == plain.serial_text()


MODES = {
    "real": real_state(),
    "protected": flat_state(),
    "16-bit protected": dataclasses.replace(
        flat_state(), cs=Segment(0x20, 0x100, 0xFFFF, 0x9B), rip=CODE - 0x100, ss=Segment(0x28, 0x200, 0xFFFF, 0x93)
    ),
    "big real": dataclasses.replace(real_state(), ds=Segment(0, 0, 0xFFFFFFFF, 0x93)),
    "ring 3": dataclasses.replace(
        flat_state(),
        cs=Segment(0x3B, 0, 0xFFFFFFFF, 0xC0FB),
        **{name: Segment(0x43, 0, 0xFFFFFFFF, 0xC0F3) for name in ("ss", "ds", "es", "fs", "gs")},
    ),
    "V86": dataclasses.replace(
        flat_state(),
        rflags=RFLAGS_VM | 0x3002,
        cs=Segment(0x100, 0x1000, 0xFFFF, 0xF3),
        rip=CODE - 0x1000,
        **{name: Segment(0x40, 0x400, 0xFFFF, 0xF3) for name in ("ss", "ds", "es", "fs", "gs")},
    ),
    "long": long_state(),
    "compatibility": dataclasses.replace(long_state(), cs=Segment(8, 0, 0xFFFFFFFF, 0xC09B)),
}


@pytest.mark.parametrize("name", MODES)
def test_each_mode_decodes_pushes_and_privileges_as_its_state_says(name: str) -> None:
    state = MODES[name].copy()
    cpu = bare_cpu(state=CpuState())
    long_state(cpu.memory)  # the tables and the GDT
    # inc ax / inc eax / REX prefix: 40; then push rAX: 50; nop
    cpu.write(CODE, b"\x40\x90\x50\x90")
    state.regs[0], state.regs[4] = 0xFFFF_FFFF_FFFF, 0x7000
    cpu.engine.load(state)
    cpu.engine.run(3 if name != "long" else 2)
    found = cpu.engine.state()
    wide = {"long": 8, "protected": 4, "ring 3": 4, "compatibility": 4}.get(name, 2)
    assert 0x7000 - found.regs[4] == wide
    rax = {8: 0xFFFF_FFFF_FFFF, 4: 0, 2: 0xFFFF_FFFF_0000}[wide]
    assert found.regs[0] == rax
    assert found.cpl == state.cpl
    assert found.linear_pc == CODE + 3


def test_flags_computed_lazily_come_out_right() -> None:
    cpu = bare_cpu("mov al, 0x7f\nadd al, 1\nstd\nsti\nnop\nhlt")
    assert cpu.engine.run(5).reason is ExitReason.BUDGET
    # OF AF SF from the addition, DF, IF
    assert cpu.engine.state().rflags == 0x800 | 0x10 | 0x80 | 0x400 | 0x200 | 2


def test_the_x87_stack_is_read_from_its_top() -> None:
    cpu = bare_cpu("fninit\nfld1\nfldz\nfldpi\nhlt")
    cpu.run()
    fpu = cpu.engine.state().fpu
    one, pi = 0x3FFF_8000000000000000, 0x4000_C90FDAA22168C235
    assert fpu.st[:3] == [pi, 0, one]
    assert (fpu.fsw >> 11 & 7, fpu.ftw) == (5, 0b11100000)


def test_cr8_is_what_was_written() -> None:
    cpu = bare_cpu("mov eax, 5\nmov cr8, rax\nxor eax, eax\nmov rbx, cr8\nhlt", 64)
    assert cpu.run().reason is ExitReason.HALT
    state = cpu.engine.state()
    assert (state.cr8, state.regs[3]) == (5, 5)


def test_msrs_the_guest_writes_are_in_the_state() -> None:
    cpu = bare_cpu("mov ecx, 0xc0000082\nmov eax, 0x11\nmov edx, 0x22\nwrmsr\nmov ecx, 0x277\nrdmsr\nhlt", 64)
    assert cpu.run().reason is ExitReason.HALT
    state = cpu.engine.state()
    assert state.msrs[0xC0000082] == 0x22_00000011
    assert (state.regs[0], state.regs[2]) == (0x00070406, 0x00070406)


def test_general_registers_are_in_encoding_order() -> None:
    source = "\n".join(f"mov {name}, {i + 1:#x}" for i, name in enumerate(GENERAL)) + "\nhlt"
    cpu = bare_cpu(source, 64)
    cpu.run()
    assert cpu.engine.state().regs == list(range(1, 17))


def test_unreal_limits_and_modes_are_kept() -> None:
    state = real_state()
    state.ds = Segment(0, 0, 0xFFFFFFFF, 0x8F93)
    assert not state.cr0 & CR0_PE
    cpu = bare_cpu("mov esi, 0x200000\nmov eax, [esi]\nhlt", state=state)
    cpu.write(0x200000, b"big!")
    cpu.run()
    assert cpu.engine.state().regs[0].to_bytes(4, "little") == b"big!"
    assert cpu.engine.state().ds.limit == 0xFFFFFFFF


def test_efer_of_a_loaded_state_decides_long_mode() -> None:
    state = long_state()
    assert state.efer == EFER_LME | EFER_LMA
    cpu = bare_cpu("mov r15, 1\nhlt", 64)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().long64
