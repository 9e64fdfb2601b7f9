"""Costs that are measured on this host, and the policy `learn` under kvm, which goes by them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.learning import Learn
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.record import replace
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from repl.cli import main
from xenbridge.kvm import probe
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.calibration import MOST, host_ghz, measured_costs
from xenbridge.kvm.probe import host_costs, make_kvm


@pytest.fixture
def costs(backend: Backend) -> Costs:
    if Kind.REAL not in backend.runs:
        pytest.skip("real mode, in which costs are taken, does not run on this host's KVM")
    found = host_costs(MODELS[DEFAULT_MODEL])
    assert found is not None
    return found


def test_what_is_measured_has_the_sizes_that_such_things_have(costs: Costs, backend: Backend) -> None:
    # An exit is no less than the way to the process and back, which the probe has timed by another loop.
    ns = {name: getattr(costs, name) / host_ghz() for name in ("exit", "hop", "emulated", "native")}
    assert ns["exit"] > 1_000 and ns["hop"] > 1_000, ns
    assert ns["exit"] < 10_000_000 and ns["hop"] < 10_000_000, ns
    assert 0.2 < ns["emulated"] < 500, ns
    assert costs.exit > 20 * costs.emulated, "else there were nothing to decide"
    assert all(0 < getattr(costs, name) <= MOST for name in ns)


def test_without_real_mode_there_is_nothing_to_measure(backend: Backend) -> None:
    assert measured_costs(replace(backend, runs=backend.runs - {Kind.REAL}), MODELS["max"]) is None


def test_the_hosts_clock_is_read_where_it_is_told(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\ncpu MHz\t\t: 2394.500\ncpu MHz\t\t: 800.000\n")
    assert host_ghz(str(told)) == 2.3945
    told.write_text("processor\t: 0\ncpu MHz\t\t: unknown\n")
    assert host_ghz(str(told)) == 1.0
    assert host_ghz(str(tmp_path / "none")) == 1.0


def test_a_run_under_kvm_is_accounted_for_with_them(costs: Costs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--hypervisor", "kvm", "-c", "ledger"]) == 0
    rows = dict(re.findall(r"^(.+?) +\d+ +(\d+) +\d+$", capsys.readouterr().out, re.MULTILINE))
    assert rows["exits"] == str(costs.exit) and rows["hops to native"] == str(costs.hop)
    assert main(["run", "--hypervisor", "model", "-c", "ledger"]) == 0
    rows = dict(re.findall(r"^(.+?) +\d+ +(\d+) +\d+$", capsys.readouterr().out, re.MULTILINE))
    assert rows["exits"] == str(Costs().exit), "the model's are those of the V2E page"
    assert main(["run", "--hypervisor", "model", "--costs", "measured", "-c", "ledger"]) == 0
    rows = dict(re.findall(r"^(.+?) +\d+ +(\d+) +\d+$", capsys.readouterr().out, re.MULTILINE))
    assert rows["exits"] == str(costs.exit)


def test_the_doctor_tells_them(costs: Costs, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert f"an exit {costs.exit} cycles, a hop {costs.hop}" in capsys.readouterr().out


def test_costs_that_cannot_be_measured_are_refused_only_when_asked_for(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "host_costs", lambda model: None)
    assert main(["run", "--hypervisor", "model", "--costs", "measured", "-c", "ledger"]) == 2
    assert "--costs measured: real mode" in capsys.readouterr().err
    assert main(["run", "--hypervisor", "kvm", "-c", "ledger"]) == 0
    assert str(Costs().exit) in capsys.readouterr().out


def run_tour(costs: Costs) -> tuple[Debugger, Learn]:
    config = MachineConfig(firmware=tour_rom())
    policy = policy_named("learn", costs)
    assert isinstance(policy, Learn)
    config.native = NativeConfig(make_kvm(), policy, costs)
    made = Debugger(build_machine(config))
    made.machine.native_limit = 60_000_000_000
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    return made, policy


@pytest.mark.slow
def test_learn_runs_the_tour_within_its_promise(costs: Costs) -> None:
    """With this host's costs, and with an instruction that is dear in the emulator, so that it goes native."""
    plain = Debugger(build_machine(MachineConfig(firmware=tour_rom())))
    plain.begin_continue()
    plain.run()
    for prices in (costs, Costs(exit=75_000, hop=1_000, emulated=300, native=1)):
        made, policy = run_tour(prices)
        assert (made.machine.screen(), made.machine.serial_text()) == (
            plain.machine.screen(), plain.machine.serial_text(),
        )  # fmt: skip
        learner = policy.learner
        assert bool(learner.sites) is policy.enters, "it has learned of exits, where it pays to be native at all"
        assert learner.account.credit >= 0, "no more was paid than is promised"
        made.machine.close()
    plain.machine.close()
