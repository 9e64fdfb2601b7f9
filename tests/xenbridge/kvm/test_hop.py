"""A move between emulator and KVM by the packed state, against the same state as Python moves it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from ctypes import c_uint64
from dataclasses import dataclass
from typing import Any

import pytest

from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu, real_state
from emu.debugger import Debugger
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.packed import PART_DEBUG, PART_FPU
from emu.policies import policy_named
from emu.record import replace
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.vcpu import ExitCause
from emu.x86 import msrs as m
from emu.x86.state import CpuState
from emu.x86.vmentry import Broken, Rules
from native_cpu import KERNEL_GS_BASE, LSTAR, SYSENTER_EIP, Native, native_cpu, scrambled
from xenbridge.kvm import abi, hop
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.probe import make_kvm

SHADOW_AT = abi.AT_EVENTS + abi.VcpuEvents.interrupt_shadow.offset  #: in the page that KVM_RUN shares

pytestmark = pytest.mark.skipif(hop.LIBRARY is None, reason="the C library of xenbridge.kvm was not built")


@dataclass
class Pair:
    """An emulator and a vCPU that share a packed state; each over its own memory, and with the same CPU."""

    emulator: BareCpu
    native: Native

    def over(self) -> None:
        """To KVM."""
        engine = self.emulator.engine
        assert engine.packable() and self.native.cpu.take_over(engine.retired)

    def back(self) -> int:
        """To the emulator: the parts that changed."""
        parts = self.native.cpu.hand_over()
        assert parts is not None
        self.emulator.engine.unpack(parts)
        return parts


@pytest.fixture
def pair(backend: Backend) -> Iterator[Pair]:
    emulator, native = bare_cpu(model="max"), native_cpu(backend)
    packing = emulator.engine.packing()
    if packing is None or not native.cpu.share(packing, emulator.engine.state):
        pytest.skip("nothing can be shared here")
    yield Pair(emulator, native)
    native.cpu.close()


def test_a_state_with_an_xcr0_goes_the_other_way_and_one_without_finds_none_left(pair: Pair, backend: Backend) -> None:
    if Kind.REAL not in backend.runs:
        pytest.skip("real mode does not run on this host's KVM")
    engine, cpu = pair.emulator.engine, pair.native.cpu
    state = scrambled(Kind.REAL, random.Random(1))
    for _ in range(3):
        state.xcr0 = 3
        engine.load(state)
        assert not cpu.take_over(engine.retired)
        cpu.load(engine.state())
        assert cpu.check(engine.state()) == []
        state.xcr0 = 1
        engine.load(state)
        pair.over()
        assert cpu.check(engine.state()) == []
        cpu.load(replace(engine.state(), xcr0=3))
        engine.load(state)
        pair.over()
        pair.back()
        pair.over()
        assert cpu.check(engine.state()) == []


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_random_state_goes_over_and_back_to_the_bit(pair: Pair, backend: Backend, kind: Kind) -> None:
    if kind not in backend.runs:
        pytest.skip(f"{kind.value} does not run on this host's KVM")
    rng = random.Random(kind.value)
    engine = pair.emulator.engine
    for _ in range(50):
        engine.load(scrambled(kind, rng))
        before = engine.state()
        pair.over()
        assert pair.native.cpu.check(before) == []
        there = pair.native.cpu.state()
        there.a20, there.msrs = before.a20, {**there.msrs, m.TSC_ADJUST: before.msrs.get(m.TSC_ADJUST, 0)}
        before.msrs.setdefault(m.TSC_ADJUST, 0)
        assert there == before
        pair.back()
        after = engine.state()
        after.msrs.setdefault(m.TSC_ADJUST, 0)
        assert after == before


#: Where a state has values that are given to KVM only if they are not what it has, and others for them.
OTHERS: list[tuple[tuple[str | int, ...], int]] = [
    *((("dr", number), 0x4000) for number in range(4)), (("dr", 6), 0xFFFF0FF1), (("dr", 7), 0x402),
    (("fpu", "fcw"), 0x37C), (("fpu", "fsw"), 0x89), (("fpu", "ftw"), 0x7F), (("fpu", "fop"), 0x101),
    (("fpu", "fip"), 0x5001), (("fpu", "fdp"), 0x6001), (("fpu", "mxcsr"), 0x1F81),
    *((("fpu", "st", number), 3 << 62 | 0x3FFF << 64) for number in range(8)),
    *((("fpu", "xmm", number), 1 << 127) for number in range(8)),
    *((("msrs", number), 0x20) for number in (
        KERNEL_GS_BASE, LSTAR, SYSENTER_EIP, m.STAR, m.CSTAR, m.FMASK, m.SYSENTER_CS, m.SYSENTER_ESP)),
    *((("regs", number), 0x55) for number in range(8)),
    *(((name, "base"), 0x40) for name in ("es", "ds", "ss", "fs", "gs")),
    *(((name, "limit"), 0x50) for name in ("gdtr", "idtr")),
    (("cr2",), 0x1234), (("cr8",), 3), (("rflags",), 3), (("nmi_blocked",), True), (("shadow",), True),
]  # fmt: skip


def altered(state: CpuState) -> Iterator[tuple[str, CpuState]]:
    """`state` with each of OTHERS in turn, and nothing else changed."""
    for (*way, last), value in OTHERS:
        made: Any = state.copy()
        at = made
        for step in way:
            at = at[step] if isinstance(step, int) else getattr(at, step)
        if isinstance(last, int):
            at[last] = value
        else:
            setattr(at, last, value)
        assert made != state, (way, last)
        yield f"{way} {last}", made


def base_state() -> CpuState:
    state = real_state()
    state.fpu.st, state.fpu.ftw = [1 << 63 | 0x3FFF << 64] * 8, 0xFF
    state.fpu.fop, state.fpu.fip, state.fpu.fdp = 0x100, 0x5000, 0x6000
    state.fpu.fcw, state.fpu.fsw = 0x37E, 0x81  # an exception is pending: AMD's CPUs keep the pointers only then
    return state


def test_a_value_that_alone_has_changed_goes_over(pair: Pair) -> None:
    engine = pair.emulator.engine
    engine.load(base_state())
    base = engine.state()
    for name, state in altered(base):
        engine.load(base)
        pair.over()
        pair.back()
        engine.load(state)
        pair.over()
        assert pair.native.cpu.check(state) == [], name
        pair.back()


def test_a_value_that_alone_has_changed_is_given_by_python_too(native: Native) -> None:
    base = base_state()
    for name, state in altered(base):
        native.cpu.load(base)
        assert native.cpu.check(base) == [], name
        native.cpu.load(state)
        assert native.cpu.check(state) == [], name


def test_a_shadow_goes_over_as_what_can_have_made_it(pair: Pair) -> None:
    """MOV SS where IF is clear, else STI: the other would fail the entry of VT-x (SDM vol. 3C, 26.3.1.5)."""
    for rflags, kind in ((0x202, abi.SHADOW_STI), (2, abi.SHADOW_MOV_SS), (0x202, abi.SHADOW_STI)):
        pair.emulator.engine.load(replace(real_state(), shadow=True, rflags=rflags))
        pair.over()
        assert pair.native.cpu._cpu._map[SHADOW_AT] == kind
        pair.back()


def test_what_ran_natively_is_what_the_emulator_goes_on_from(pair: Pair) -> None:
    engine, cpu = pair.emulator.engine, pair.native.cpu
    source = "mov bx, 0x1234\nmov word [0x5000], 0x5678\nstd\nout 0x10, al\nmov cx, 1\nhlt"
    for memory in (pair.emulator.memory, pair.native.memory):
        memory.write(CODE, assemble(f"bits 16\n{source}", CODE))
    engine.load(real_state())
    pair.over()
    exit = cpu.enter(1000, None, skip_breakpoint=False)
    assert (exit.address, pair.native.ports) == (0x10, [(0x10, 1, 0)])
    pair.back()
    state = engine.state()
    assert (state.regs[3], state.regs[1], state.rflags & 0x400) == (0x1234, 0, 0x400)
    assert pair.native.memory.read(0x5000, 2) == b"\x78\x56"
    pair.emulator.run(1)
    assert engine.state().regs[1] == 1, "it goes on behind the OUT"


def test_an_input_is_completed_before_the_state_goes(pair: Pair) -> None:
    pair.native.on_in = lambda port, size: 0x77
    for memory in (pair.emulator.memory, pair.native.memory):
        memory.write(CODE, assemble("bits 16\nmov cx, 3\nmov di, 0x5000\ncld\nrep insb\nhlt", CODE))
    pair.emulator.engine.load(real_state())
    pair.over()
    pair.native.cpu.enter(1000, None, skip_breakpoint=False)
    pair.back()
    state = pair.emulator.engine.state()
    assert (state.regs[1], state.regs[7]) == (0, 0x5003)
    assert len(pair.native.ports) == 3 and pair.native.memory.read(0x5000, 3) == b"\x77" * 3


def test_only_what_changed_is_told(pair: Pair) -> None:
    for memory in (pair.emulator.memory, pair.native.memory):
        memory.write(CODE, assemble("bits 16\nfninit\nmov eax, 0x4000\nmov dr1, eax\nhlt", CODE))
    engine = pair.emulator.engine
    engine.load(real_state())
    engine.run(1)
    pair.over()
    assert pair.back() & (PART_FPU | PART_DEBUG) == 0
    pair.over()
    pair.native.cpu.enter(1000, None, skip_breakpoint=False)
    assert pair.back() & (PART_FPU | PART_DEBUG) == PART_DEBUG
    assert engine.state().dr[1] == 0x4000


def test_only_parts_that_differ_take_a_system_call(pair: Pair) -> None:
    engine, fast = pair.emulator.engine, pair.native.cpu._fast
    assert fast is not None
    engine.load(real_state())
    pair.over()
    pair.back()
    before = fast.hop.system_calls
    pair.over()
    assert fast.hop.system_calls == before, "all is as KVM has it"
    pair.back()
    state = engine.state()
    state.fpu.xmm[3] = 5
    state.msrs[m.STAR] = 7
    engine.load(state)
    before = fast.hop.system_calls
    pair.over()
    assert fast.hop.system_calls == before + 2
    assert pair.native.cpu.check(engine.state()) == []


def test_what_more_there_is_to_a_state_is_not_packed(pair: Pair) -> None:
    """A delivery that nobody has heard of is seen by C alone, an NMI by Python first."""
    engine, cpu = pair.emulator.engine, pair.native.cpu
    engine.load(real_state())
    engine._control.taken = 1
    before = cpu.live().rip
    assert engine.packable() and not cpu.take_over(engine.retired)
    engine._control.taken = 0
    engine.raise_nmi()
    assert not engine.packable()
    assert cpu.live().rip == before


def test_a_state_in_system_management_mode_is_not_packed(pair: Pair) -> None:
    """Nor behind runs like any other there, behind which Python is not asked whether it is packable."""
    engine, cpu = pair.emulator.engine, pair.native.cpu
    pair.emulator.memory.write(CODE, b"\x40" * 16)
    engine.load(replace(real_state(), smm=True))
    for _ in range(3):
        assert engine.run(2).executed == 2
        assert not cpu.take_over(engine.retired)
    assert not engine.odd and not engine.packable()


def test_what_is_beside_a_state_is_new_however_the_one_before_was_left(pair: Pair) -> None:
    """Where a hop out found nothing that is seldom met, it has made ready for the next hop in what others do then."""
    engine, cpu = pair.emulator.engine, pair.native.cpu

    def halted() -> None:
        cpu._live.halted = True

    def given() -> None:
        cpu.load(replace(cpu.state(), smbase=0x12000, cr8=4))

    def resumed() -> None:
        cpu.resume((CODE, 0, True))

    def masked() -> None:
        cpu.set_a20(False)

    def busy() -> None:
        cpu.set_task_priority(7)

    def ran() -> None:
        assert cpu.enter(1000, None, skip_breakpoint=False).address == 0x10

    ways: tuple[Callable[[], None], ...] = (lambda: None, ran, halted, given, resumed, cpu.raise_nmi, busy, masked)
    for memory in (pair.emulator.memory, pair.native.memory):
        memory.write(CODE, b"\x40" * 300 + b"\xe6\x10")  # inc ax; out 0x10, al
    chosen = random.Random(3)
    left_packed = set()
    for count in range(200):
        engine.load(replace(real_state(), rip=CODE + count))
        engine.set_retired(1000)
        engine.run(2)
        state = engine.state()
        assert not engine.odd and cpu.take_over(engine.retired)
        assert (cpu.retired, cpu.halted, cpu.resuming, cpu._priority) == (1002, False, None, 0)
        assert cpu._live.nmi_pending is False and cpu.live().smbase == state.smbase and cpu._packed
        assert cpu._vouched and cpu._fresh and cpu._tables_stale and not cpu._free
        assert cpu.state().a20 and cpu.check(state) == []
        chosen.choice(ways)()
        parts = cpu.hand_over()
        left_packed.add(parts is None)
        if parts is None:
            engine.load(cpu.state())
        else:
            engine.unpack(parts)
        if count % 3 == 0:  # a state that is not packed goes over, and back
            cpu.load(replace(real_state(), cr8=4))
            cpu.resume((CODE, 0, True))
    assert left_packed == {True, False}


def test_a_cpu_that_an_interrupt_has_woken_is_not_packed_as_halted(pair: Pair) -> None:
    engine, cpu, memory = pair.emulator.engine, pair.native.cpu, pair.emulator.memory
    memory.write(CODE, b"\x40" * 16)
    memory.write(0x20 * 4, CODE.to_bytes(2, "little") + b"\0\0")
    engine.load(replace(real_state(), rflags=0x202))
    pair.over()
    cpu._live.halted = True
    pair.back()
    assert engine.halted and engine.packable()
    engine.set_interrupt(0x20)
    engine.run(1)
    assert engine.take_interrupt() == 0x20
    while engine.odd:
        engine.run(1)
    pair.over()
    assert not cpu.halted and not cpu.state().halted


def test_more_pages_than_there_is_room_for_are_all_pages(pair: Pair) -> None:
    source = "bits 16\nmov byte [0x3000], 1\nmov byte [0x5000], 1\nout 0x10, al\nhlt"
    pair.native.memory.write(CODE, assemble(source, CODE))
    cpu, fast, told = pair.native.cpu, pair.native.cpu._fast, []
    assert fast is not None
    packing = cpu._packing

    def changed(pieces: int, count: int) -> None:
        words = (c_uint64 * (2 * count)).from_address(pieces)
        told.append(list(zip(words[::2], words[1::2], strict=True)))

    packing.host_changed = changed  # type: ignore[method-assign]
    for room in (hop.PIECES, 1):
        fast.hop.piece_count = room
        pair.emulator.engine.load(real_state())
        pair.over()
        assert cpu.enter(1000, None, skip_breakpoint=False).address == 0x10
        pair.back()
    few, everything = told
    start = cpu._accesses.regions[0].host_address
    assert {(start + 0x3000, 0x1000), (start + 0x5000, 0x1000)} <= set(few) and len(few) < 6
    assert everything == [(region.host_address, region.size) for region in cpu._accesses.regions]


def test_a_masked_a20_and_a_task_priority_go_over(pair: Pair) -> None:
    engine, cpu = pair.emulator.engine, pair.native.cpu
    for a20, cr8 in ((False, 5), (True, 0), (True, 15), (False, 0), (True, 3)):
        state = real_state()
        state.a20, state.cr8 = a20, cr8
        engine.load(state)
        pair.over()
        assert (cpu.state().a20, cpu.state().cr8, cpu._priority) == (a20, cr8, cr8)
        pair.back()
        assert (engine.state().a20, engine.state().cr8) == (a20, cr8)


def test_what_is_remembered_of_states_is_what_the_rules_say(pair: Pair) -> None:
    engine, cpu = pair.emulator.engine, pair.native.cpu
    cpu.rules = cpu.backend.rules()

    def states() -> Iterator[CpuState]:
        for kind in Kind:
            yield scrambled(kind, random.Random(kind.value))
        state = real_state()
        yield state
        state.nmi_pending = state.nmi_blocked = True
        yield state
        state.nmi_pending, state.dr[7] = False, 0x402
        yield state
        state.dr[7], state.cr4 = 0x400, 1 << 18
        yield state

    found = set()
    for state in states():
        engine.load(state)
        allowed = not cpu.refused(engine.state())
        assert [cpu.enterable(engine.live()) for _ in range(2)] == [allowed] * 2
        found.add(allowed)
    assert found == {True, False}


def test_a_state_that_python_has_given_goes_back_as_a_whole(pair: Pair) -> None:
    engine, cpu = pair.emulator.engine, pair.native.cpu
    engine.load(real_state())
    pair.over()
    state = cpu.state()
    state.regs[0], state.smbase = 0x1234, 0xA0000
    cpu.load(state)
    assert cpu.hand_over() is None
    assert (cpu.state().regs[0], cpu.state().smbase) == (0x1234, 0xA0000)


def test_what_is_not_packed_is_known_natively_too(pair: Pair) -> None:
    engine, cpu = pair.emulator.engine, pair.native.cpu
    state = real_state()
    state.smbase = 0x60000
    engine.load(state)
    assert engine.write_msr(0x277, 0x0606060606060606)
    pair.over()
    there = cpu.state()
    assert (there.smbase, there.msrs[0x277]) == (0x60000, 0x0606060606060606)
    assert cpu.live().smbase == 0x60000


def test_a_refused_value_of_an_msr_is_said(pair: Pair) -> None:
    engine, notices = pair.emulator.engine, []
    pair.native.cpu._notice = notices.append
    state = real_state()
    engine.load(state)
    engine._env.lstar = 1 << 60  # not canonical: WRMSR would not have taken it
    pair.over()
    said = "; ".join(notices)
    if not said:
        pytest.skip("this KVM takes an LSTAR that is not canonical")
    assert "0x1000000000000000" in said and "0xc0000082" in said
    assert pair.native.cpu.hand_over() is None
    assert pair.native.cpu.state().rip == state.rip


def test_a_kvm_that_vanishes_behind_an_exit_leaves_the_state_that_it_told_last(pair: Pair) -> None:
    pair.native.memory.write(CODE, assemble("bits 16\nmov bx, 7\nout 0x10, al\nhlt", CODE))
    pair.emulator.engine.load(real_state())
    said: list[str] = []
    cpu = pair.native.cpu
    cpu._notice = said.append
    pair.over()
    assert cpu.enter(1000, None, skip_breakpoint=False).address == 0x10
    gone = os.open("/dev/null", os.O_RDWR)
    os.dup2(gone, cpu._cpu.fd)
    os.close(gone)
    assert cpu.hand_over() is None
    assert cpu.state().regs[3] == 7
    assert len(said) == 1 and "KVM is gone: KVM_RUN failed" in said[0]


def test_a_state_that_was_found_enterable_vouches_for_no_later_one(pair: Pair) -> None:
    """The second time the segments are those that were looked at, and then the guest changes them."""
    code = "bits 16\nout 0x10, al\nmov ax, 0x1234\nmov ds, ax\nout 0x10, al\nhlt"
    pair.native.memory.write(CODE, assemble(code, CODE))
    engine, cpu = pair.emulator.engine, pair.native.cpu
    for _ in range(2):
        engine.load(real_state())
        pair.over()
        assert cpu.enter(1000, None, skip_breakpoint=False).cause is ExitCause.PIO
        pair.back()
    engine.load(real_state())
    pair.over()
    plain = cpu.rules
    cpu.rules = Rules("none", "refuses DS 1234h", lambda s: iter(
        [Broken("ds", "as asked for", "this test")] if s.ds.selector == 0x1234 else []))  # fmt: skip
    assert cpu.enter(1000, None, skip_breakpoint=False).cause is ExitCause.PIO
    assert cpu.enter(1000, None, skip_breakpoint=False).cause is ExitCause.PIO
    exit = cpu.enter(1000, None, skip_breakpoint=False)
    assert (exit.cause, exit.detail) == (ExitCause.ENTRY_FAILED, "as asked for (this test)")
    cpu.rules = plain


# -- in a machine


#: Writes code that it then runs, by turns in KVM and in the emulator: each makes the byte that the other executes.
SELF_MODIFYING = """
    mov bp, 200
again:
    inc byte [cs:operand]
    out 0x80, al
    db 0x05
operand: dw 0
    dec bp
    jnz again
    mov [0x5000], ax
    mov dx, 0xf4
    xor ax, ax
    out dx, al
    hlt
"""


def machine(source: str, policy: str) -> Machine:
    code = assemble(f"bits 16\norg 0x7c00\n{source}", 0x7C00)
    # At the reset vector: copy the code to 7C00h and go there.
    start = "bits 16\nxor ax, ax\nmov es, ax\nmov ds, ax\nmov ss, ax\nmov sp, 0x7000\nmov si, 0xe000\nmov di, 0x7c00\n"
    start += f"mov cx, {len(code)}\ncld\ncs rep movsb\nxor ax, ax\njmp 0:0x7c00"
    rom = bytearray(0x10000)
    rom[0xE000 : 0xE000 + len(code)] = code
    begin = assemble(start, 0)
    rom[0xF000 : 0xF000 + len(begin)] = begin
    rom[0xFFF0:0xFFF3] = b"\xe9" + (0xF000 - 0xFFF3 & 0xFFFF).to_bytes(2, "little")
    config = MachineConfig(firmware=bytes(rom), memory=4 << 20, shadow=False)
    if policy != "none":
        config.native = NativeConfig(make_kvm(), policy_named(policy, Costs()), Costs())
    return build_machine(config)


@pytest.mark.parametrize("policy", ["native", "dwell:1", "dwell:2", "dwell:3"])
def test_code_that_either_writes_is_what_the_other_executes(backend: Backend, policy: str) -> None:
    sums = []
    for each in ("none", policy):
        made = Debugger(machine(SELF_MODIFYING, each))
        made.begin_continue()
        stop = made.run()
        assert stop.kind is StopKind.EXIT, stop.text
        sums.append(made.machine.memory.read(0x5000, 2))
        if (transitions := made.machine.transitions) is not None:
            assert transitions.ledger.hops_in >= (1 if policy == "native" else 25)
        made.machine.close()
    assert sums[0] == sums[1]
