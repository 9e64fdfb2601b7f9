"""The policy learn learns nothing where the CPU cannot be native whatever is decided, and says so of such a site."""

from __future__ import annotations

import pytest

from any_states import any_state
from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.learning import Learn
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from emu.vcpu import MakeVcpu, Place, Site
from emu.x86.modes import Mode, mode_of
from emu.x86.state import CR0_PE, EFER_LMA, RFLAGS_VM, CpuState
from emu.x86.vmentry import RULES, SVM, VTX, VTX2006, Rules
from machines import pc, rom
from xenbridge.kvm.absent import AbsentVcpu
from xenbridge.kvm.backend import EVERYWHERE, KINDS_OF, Backend, Kind, kind_of
from xenbridge.model import make_model

ENOUGH = 200_000  #: instructions, more than the tour has
POLL = "w: out 0x70, al\njmp w"
LINEAR_POLL = 0xF0005  #: of the OUT


def native(make: MakeVcpu) -> NativeConfig:
    return NativeConfig(make, policy_named("learn", Costs()), Costs())


def toured(make: MakeVcpu) -> Debugger:
    machine = build_machine(MachineConfig(firmware=tour_rom(), shadow=False, native=native(make)))
    machine.run(ENOUGH)
    return Debugger(machine)


def learn_of(machine: Machine) -> Learn:
    assert machine.transitions is not None and isinstance(machine.transitions.policy, Learn)
    return machine.transitions.policy


def modes(sites: object) -> set[Mode]:
    return {site.mode for site in sites if isinstance(site, Site)}  # type: ignore[attr-defined]


def test_big_real_mode_is_not_learned_where_real_mode_runs_as_virtual_8086() -> None:
    run = toured(make_model(VTX2006))
    policy = learn_of(run.machine)
    assert Mode.BIG_REAL not in modes(policy.learner.sites) and Mode.REAL in modes(policy.learner.sites)
    assert modes(policy.barred) == {Mode.BIG_REAL}
    first, second = run.steering.explain("(big real)")[0]
    assert "nothing was learned: big real mode is not entered" in first and "SDM 3C 26.3.1.2" in first
    assert "nobody has a choice there" in second
    assert any("not learned at" in line and "big real mode" in line for line in policy.sites())
    run.machine.close()


@pytest.mark.parametrize("rules", [VTX, SVM], ids=["vtx", "svm"])
def test_it_is_learned_where_it_can_be_native(rules: Rules) -> None:
    run = toured(make_model(rules))
    policy = learn_of(run.machine)
    assert Mode.BIG_REAL in modes(policy.learner.sites) and not policy.barred
    assert all("not learned" not in line for lines in run.steering.explain("(big real)") for line in lines)
    run.machine.close()


def polling() -> Debugger:
    config = MachineConfig(firmware=rom(POLL), memory=1 << 20, shadow=False, native=native(make_model(VTX2006)))
    return Debugger(build_machine(config))


def test_what_is_forbidden_is_not_learned_as_long_as_it_is() -> None:
    run = polling()
    policy = learn_of(run.machine)
    run.machine.run(2000)
    (site,) = policy.learner.sites
    learned = policy.learner.sites[site].gaps
    assert learned > 500 and isinstance(site, Site) and site.pc == LINEAR_POLL
    run.steering.forbid([(LINEAR_POLL, LINEAR_POLL)], [])
    run.machine.run(4000)
    assert policy.learner.sites[site].gaps == learned + 1  # the gap that had begun
    assert policy.barred[site] == (1000, "0xf0005-0xf0005 is forbidden")
    told = run.steering.explain("0x70")
    assert told[0][1].startswith("of no use at present") and told[0][1].endswith("0xf0005-0xf0005 is forbidden")
    assert told[1][0].startswith("pio 0x70 at 0xf0005 (real): 1000 accesses met the emulator, and nothing was learned")
    run.steering.allow_all()
    run.machine.run(6000)
    assert policy.learner.sites[site].gaps > learned + 500
    assert "of no use" not in "".join(run.steering.explain("0x70")[0])
    run.machine.close()


def test_nothing_is_learned_in_system_management_mode() -> None:
    """Its handler, at 3000h:8000h, is OUT 70h, AL twice and RSM."""
    handler = "mov ax, 0x3000\nmov es, ax\nmov dword [es:0x8000], 0x70e670e6\nmov word [es:0x8004], 0xaa0f\nw: jmp w"
    machine = pc(rom(handler), native=native(make_model(VTX2006)))
    machine.run(1000)
    assert machine.board.chipset is not None
    machine.board.chipset.smm.smi()
    machine.run(2000)
    assert not machine.cpu_state().smm
    policy = learn_of(machine)
    assert {site.pc: met for site, met in policy.barred.items()} == dict.fromkeys(
        (0x38000, 0x38002), (1, "system management mode is the emulator's")
    )
    assert not policy.learner.sites
    machine.close()


def test_nothing_is_learned_by_a_kvm_that_cannot_be_had() -> None:
    def absent(place: Place) -> AbsentVcpu:
        return AbsentVcpu(place, "KVM is away")

    run = toured(absent)
    policy = learn_of(run.machine)
    assert not policy.learner.sites and len(modes(policy.barred)) > 3
    assert "nothing was learned: KVM is away" in run.steering.explain("0x3f8")[0][0]
    run.machine.close()


def states() -> list[CpuState]:
    """Anything in everything, in each of the modes many times."""
    found = []
    for seed in range(3000):
        state = any_state(seed)
        if seed % 3 == 0:
            state.cr0 &= ~CR0_PE
        if seed % 5 == 0:
            state.rflags |= RFLAGS_VM
        if state.efer & EFER_LMA and state.cr0 & CR0_PE:
            state.rflags &= ~RFLAGS_VM  # IA-32e mode has no virtual-8086 mode (SDM vol. 3A, 20.2)
        if seed % 2 == 0:
            for name in ("es", "cs", "ss", "ds", "fs", "gs"):
                segment = state.segment(name)
                segment.limit, segment.access = 0xFFFF, 0x93
        if seed % 7 == 0:
            state.cs.access |= 0x4000
        found.append(state)
    assert {mode_of(state) for state in found} == set(Mode)
    return found


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_no_state_of_a_mode_that_rules_never_enter_is_entered(rules: Rules) -> None:
    assert all(rules.broken(state) for state in states() if mode_of(state) in rules.never)


def test_the_kinds_of_a_mode_s_states_are_those_that_kvm_is_asked_about() -> None:
    assert all(kind_of(state) in KINDS_OF[mode_of(state)] for state in states())


def test_a_kvm_never_enters_the_modes_of_which_no_kind_runs() -> None:
    runs = frozenset(Kind) - {Kind.V86, Kind.COMPATIBILITY, Kind.COMPATIBILITY_RING3, Kind.BIG_REAL, Kind.PAE}
    rules = Backend(("kvm_any",), runs, EVERYWHERE, EVERYWHERE, True, True, True, True, 1000, ()).rules()
    # paging of one kind is missing, so that protected mode without paging is not safe; with it, it is
    assert set(rules.never) == {Mode.V86, Mode.COMPAT32, Mode.COMPAT16}
    assert all(rules.broken(state) for state in states() if mode_of(state) in rules.never)
