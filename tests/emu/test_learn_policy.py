"""The policy learn on a machine: the same guest, cheaper than every fixed dwell where there are phases; replays."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bench.policies import WORKLOADS, Workload, curve, lines, policy_of
from bench.traces import Hindsight, Recorder, Run, hindsight, run
from emu import learned
from emu.debugger import Debugger
from emu.learning import Learn, prices_of
from emu.machine import build_machine
from emu.rental import Fixed, Touch, replay
from repl.cli import run_parser
from repl.machine_options import machine_config

#: About the dwells that are best on the tour, with those that are when a dwell is taken for twice as long.
TOUR_DWELLS = (304, 609, 724, 1722, 3444, 5793, 6889, 8192)
TOUR_LENGTH = 87_680  #: instructions, of which it makes an end
EXACT = ("phased", "PIT polling", "serial output")


def workload(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


class Runs:
    """The runs of workloads by policy: none is made twice, as equal runs are equal to the byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.under = functools.cache(self._under)
        self.recorded = functools.cache(self._recorded)

    def options(self, name: str) -> list[str]:
        """The guest's, as words of `v2e run`."""
        return workload(name).options(self.folder)

    def _under(self, name: str, policy: str) -> Run:
        return run(self.options(name), "exit", policy)

    def _recorded(self, name: str) -> tuple[Run, Recorder, Hindsight]:
        recorder = Recorder()
        native = run(self.options(name), "exit", "native", recorder)
        return native, recorder, hindsight(recorder, native.ledger, (0, 6, 100, 1218, 1 << 40))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("workloads"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_replay_costs_what_the_run_has_cost(name: str, runs: Runs) -> None:
    """The ledger of a run and the replay of the trace taken down under another policy know nothing of each other."""
    native, _, seen = runs.recorded(name)
    prices = prices_of(native.ledger.costs)
    for dwell, cost in seen.curve:
        one = runs.under(name, policy_of(dwell))
        # the run's end is an exit and a hop in the replay, and its first steps are emulated before they are native
        assert one.ledger.cycles == pytest.approx(cost, abs=4 * prices.price), dwell


def test_on_phases_learn_is_cheaper_than_every_fixed_dwell_with_the_same_outcome(runs: Runs) -> None:
    native, _, seen = runs.recorded("phased")
    learned = runs.under("phased", "learn")
    assert learned.fingerprint == native.fingerprint
    assert learned.ledger.cycles < 0.8 * min(cost for _, cost in seen.curve)
    assert learned.ledger.cycles < 1.05 * seen.clairvoyant


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PIT polling", "serial output"])
def test_where_nothing_changes_learn_is_near_the_best_fixed_dwell(name: str, runs: Runs) -> None:
    native, _, seen = runs.recorded(name)
    learned = runs.under(name, "learn")
    assert learned.fingerprint == native.fingerprint
    assert learned.ledger.cycles <= 1.05 * seen.best_cost


def toured(load: Path | None = None, save: Path | None = None) -> float:
    """Cycles of the tour under learn, with what was learned loaded before, or saved behind it."""
    words = ["--hypervisor", "model", "--policy", "learn"]
    machine = build_machine(machine_config(run_parser().parse_args(words)))
    transitions = machine.transitions
    assert transitions is not None and isinstance(transitions.policy, Learn)
    if load is not None:
        assert learned.load(transitions.policy.learner, load)
    debugger = Debugger(machine)
    debugger.begin_continue()
    debugger.run()
    if save is not None:
        learned.save(transitions.policy.learner, save)
    cycles = transitions.ledger.cycles
    assert transitions.ledger.emulated + transitions.ledger.native == TOUR_LENGTH
    machine.close()
    return cycles


@pytest.mark.slow
def test_on_the_tour_learn_is_near_the_best_fixed_dwell_and_what_it_learned_is_of_use(
    runs: Runs, tmp_path: Path
) -> None:
    """87,680 instructions, of which the best fixed dwell needs two exits and a hop: nothing is to be lost by trying."""
    best = min(runs.under("tour", policy_of(dwell)).ledger.cycles for dwell in TOUR_DWELLS)
    fresh = toured(save=tmp_path / "learned.json")
    assert fresh == runs.under("tour", "learn").ledger.cycles <= 1.05 * best
    # An exit is 75,000 cycles: none more, and no hop.
    assert toured(load=tmp_path / "learned.json") <= min(1.05 * best, fresh + 30_000)


@pytest.mark.slow
def test_a_dwell_cuts_the_exits_of_a_loader_that_reads_by_pio_to_a_tenth(runs: Runs) -> None:
    native, dwell = (runs.under("IDE PIO loader", policy) for policy in ("native", "dwell:100"))
    assert native.fingerprint == dwell.fingerprint
    assert 10 * sum(dwell.ledger.exits.values()) <= sum(native.ledger.exits.values())


def test_accesses_that_the_emulator_answers_by_itself_are_caught_too(runs: Runs) -> None:
    """A screen filled by one REP STOSB, which no Python sees: the CPU is not handed over in the middle of it."""
    learned = runs.under("planar VGA fill", "dwell:50")
    assert sum(learned.ledger.exits.values()) == 0
    assert learned.ledger.caught >= 640 * 480 // 8


@pytest.mark.slow
def test_slices_change_nothing_of_the_guest_and_little_of_the_cost(runs: Runs) -> None:
    """Accesses that the emulator answers by itself are told in heaps, which end where a slice does."""
    whole = runs.under("serial output", "learn")
    sliced = run([*runs.options("serial output"), "--slice", "777"], "exit", "learn")
    assert sliced.fingerprint == whole.fingerprint
    assert sliced.ledger.cycles == pytest.approx(whole.ledger.cycles, rel=0.05)


def test_the_table_has_each_policy_and_the_clairvoyant(runs: Runs) -> None:
    native, _, seen = runs.recorded("phased")
    learned = runs.under("phased", "learn")
    rows = lines(workload("phased"), seen, [native, learned])
    assert [row.split()[0] for row in rows[2:]] == ["native", "learn", "clairvoyant"]
    drawn = curve(workload("phased"), seen, [native, learned])
    assert dict(drawn.levels)["learn"] == learned.ledger.cycles / 1e6


def test_a_recorder_takes_down_exits_with_their_gaps(runs: Runs) -> None:
    _, recorder, _ = runs.recorded("phased")
    gaps = [touch.gap for touch in recorder.trace]
    # IN, then MOV, 600 turns of DEC and JNZ, DEC BP, JNZ; of the first gap a part could not be native
    assert gaps.count(1 + 1 + 1200 + 2) == 4 * 399 - 1
    assert gaps.count(1 + 1 + 30_000 + 2) == 4 * 199
    assert replay([*recorder.trace, Touch(None, 1, True)], Fixed(1 << 40)).exits == 0
