"""States go into KVM and come back whole, and hops in the middle of guests change nothing of what they do."""

from __future__ import annotations

import random

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.stops import StopKind
from emu.transitions import EntryRefused, NativeConfig
from emu.x86.state import CpuState, Segment
from native_cpu import Native
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.probe import make_kvm

ARITHMETIC = 0xCD5  #: flags that any state may have
KERNEL_GS_BASE, LSTAR, SYSENTER_EIP = 0xC0000102, 0xC0000082, 0x176


def scrambled(kind: Kind, rng: random.Random) -> CpuState:
    """A state of that kind with anything in whatever the kind leaves free."""
    state = programs.state_of(kind, programs.memory())
    wide = 64 if kind in (Kind.LONG, Kind.LONG_RING3) else 32
    state.regs = [rng.getrandbits(wide) for _ in range(16 if wide == 64 else 8)] + [0] * (0 if wide == 64 else 8)
    state.rip = rng.getrandbits(16)
    state.rflags |= rng.getrandbits(12) & ARITHMETIC
    state.cr2, state.cr8 = rng.getrandbits(32), rng.getrandbits(4)
    fpu = state.fpu
    fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop = 0x37F, rng.getrandbits(3) << 11, rng.getrandbits(8), rng.getrandbits(11)
    fpu.fip, fpu.fdp, fpu.mxcsr = rng.getrandbits(32), rng.getrandbits(32), 0x1F80 | rng.getrandbits(6)
    # Normal numbers: what an empty register holds is kept as well.
    fpu.st = [rng.getrandbits(63) | 1 << 63 | rng.randrange(1, 0x7FFF) << 64 for _ in range(8)]
    fpu.xmm = [rng.getrandbits(128) for _ in range(16)]
    state.dr = [*(rng.getrandbits(32) for _ in range(4)), 0, 0, 0xFFFF0FF0 | rng.getrandbits(4), 0x400]
    state.shadow, state.nmi_blocked = rng.random() < 0.5, rng.random() < 0.5
    state.msrs = {
        KERNEL_GS_BASE: rng.getrandbits(47), LSTAR: rng.getrandbits(47), SYSENTER_EIP: rng.getrandbits(47),
    }  # fmt: skip
    state.gdtr.base, state.idtr.limit = rng.getrandbits(32), rng.getrandbits(16)
    if kind in (Kind.REAL, Kind.BIG_REAL):
        for name in ("ds", "es", "fs", "gs"):
            selector = rng.getrandbits(16)
            big = kind is Kind.BIG_REAL
            setattr(
                state, name, Segment(selector, selector << 4, 0xFFFFFFFF if big else 0xFFFF, 0x8093 if big else 0x93)
            )
    else:
        state.fs.base, state.gs.base = rng.getrandbits(31), rng.getrandbits(31)
    return state


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_random_state_comes_back_to_the_bit(native: Native, backend: Backend, kind: Kind) -> None:
    if kind not in backend.runs:
        pytest.skip(f"{kind.value} does not run on this host's KVM")
    rng = random.Random(kind.value)
    for _ in range(100):
        state = scrambled(kind, rng)
        native.cpu.load(state)
        assert native.cpu.check(state) == []
        back = native.cpu.state()
        back.msrs = {number: value for number, value in back.msrs.items() if number in state.msrs}
        assert back == state


def test_what_is_not_as_given_is_said(native: Native) -> None:
    state = programs.state_of(Kind.REAL, programs.memory())
    native.cpu.load(state)
    other = state.copy()
    other.regs[0] = 0x1234
    other.ds.limit = 0x1FFFF
    said = native.cpu.check(other)
    assert len(said) == 2 and said[0].startswith("regs: ") and said[1].startswith("ds: ")


@pytest.mark.parametrize("seed", range(3))
def test_forced_hops_at_random_points_change_nothing_of_the_tour(backend: Backend, seed: int) -> None:
    rng = random.Random(seed)
    config = MachineConfig(firmware=tour_rom())
    config.native = NativeConfig(make_kvm(), policy_named("emulated", Costs()), Costs())
    made = Debugger(build_machine(config))
    transitions = made.machine.transitions
    assert transitions is not None
    there = 0
    for _ in range(100):
        # Some way emulated, then a few native steps, wherever the state can be entered.
        transitions.force(False)
        made.begin_step(rng.randrange(1, 1500))
        stop = made.run()
        if stop.kind is not StopKind.STEP:
            break
        try:
            transitions.force(True)
        except EntryRefused:
            continue
        there += 1
        for _ in range(rng.randrange(1, 4)):
            made.begin_step(1)
            stop = made.run()
        if stop.kind is not StopKind.STEP:
            break
    assert there > 10
    transitions.force(False)
    if stop.kind is StopKind.STEP:
        made.begin_continue()
        stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    plain = Debugger(build_machine(MachineConfig(firmware=tour_rom())))
    plain.begin_continue()
    plain.run()
    assert made.machine.serial_text() == plain.machine.serial_text()
    assert made.machine.screen() == plain.machine.screen()
    made.machine.close()
    plain.machine.close()
