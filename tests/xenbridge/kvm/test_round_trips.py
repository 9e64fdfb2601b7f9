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
from native_cpu import Native, scrambled
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.probe import make_kvm


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


@pytest.mark.slow
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
