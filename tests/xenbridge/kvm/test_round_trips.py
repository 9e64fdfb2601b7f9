"""States go into KVM and come back whole, and hops in the middle of guests change nothing of what they do."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.record import replace
from emu.stops import StopKind
from emu.transitions import EntryRefused, NativeConfig
from emu.x86.msrs import TSC_ADJUST
from emu.x86.statediff import differences
from memories import ram_differences
from native_cpu import Native, scrambled
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Backend, Kind, kind_of
from xenbridge.kvm.probe import make_kvm


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_random_state_comes_back_to_the_bit(native: Native, backend: Backend, kind: Kind) -> None:
    if kind not in backend.runs:
        pytest.skip(f"{kind.value} does not run on this host's KVM")
    rng = random.Random(kind.value)
    for _ in range(100):
        state = scrambled(kind, rng)
        state.xcr0 = rng.choice((1, 3))
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


#: In which the tour spends more than a moment, and which can be forced where they run.
TOURED = frozenset((Kind.REAL, Kind.BIG_REAL, Kind.COMPATIBILITY, Kind.LONG))
TIME = {f"msr {TSC_ADJUST:#x}"}  #: what of a state KVM has of its own where the TSC cannot be set


def forced(seed: int) -> tuple[Debugger, Counter[Kind]]:
    """The tour with trips to KVM at random points, a few single steps each, wherever the state can be entered; how many
    in each kind of state. Steps are counted, and take the guest 10 ns each, as emulated instructions do; what the host
    takes for them is left out."""
    rng, config = random.Random(seed), MachineConfig(firmware=tour_rom())
    config.native = NativeConfig(make_kvm(), policy_named("emulated", Costs()), Costs())
    made = Debugger(build_machine(config))
    transitions = made.machine.transitions
    assert transitions is not None
    transitions.spent = lambda ns: None
    trips: Counter[Kind] = Counter()
    while True:
        transitions.force(False)
        made.begin_step(rng.randrange(1, 300))
        if made.run().kind is not StopKind.STEP:
            return made, trips
        before = made.machine.executor.state()
        try:
            transitions.force(True)
        except EntryRefused:
            continue
        assert {name for name, *_ in differences(before, made.machine.executor.state())} <= TIME
        trips[kind_of(before)] += 1
        for _ in range(rng.randrange(1, 4)):
            made.begin_step(1)
            if made.run().kind is not StopKind.STEP:
                return made, trips


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_forced_trips_at_random_points_change_nothing_of_the_tour(backend: Backend, seed: int) -> None:
    """Of its screen, its output, its memory, and the state of each device, the counts of its timers among them."""
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode, where half of the tour's states are that can be forced")
    made, trips = forced(seed)
    stop = made.last_stop
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert trips.total() >= 100 and trips.keys() >= TOURED & backend.runs, trips
    plain = Debugger(build_machine(MachineConfig(firmware=tour_rom())))
    plain.begin_continue()
    plain.run()
    one, two = plain.machine, made.machine
    assert one.serial_text() == two.serial_text() and one.screen() == two.screen()
    assert ram_differences(one, two) == []
    devices, others = dict(one.save().devices), dict(two.save().devices)
    # An instant in the midst: KVM does several iterations of a REP in a step, which counts as one instruction.
    cleared = [states["vga"].interrupt_cleared for states in (devices, others)]
    assert abs(cleared[0] - cleared[1]) <= 10 * abs(one.executor.retired - two.executor.retired) + 1000
    others["vga"] = replace(others["vga"], interrupt_cleared=cleared[0])
    assert [name for name, state in devices.items() if others[name] != state] == []
    assert {name for name, *_ in differences(one.executor.state(), two.executor.state())} <= TIME
    two.close()
    one.close()
