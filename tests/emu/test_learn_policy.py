"""The policy learn on a machine: the same guest, cheaper than every fixed dwell where there are phases; replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.policies import WORKLOADS, Workload, curve, lines, policy_of
from bench.traces import Hindsight, Recorder, Run, hindsight, run
from emu.learning import prices_of
from emu.rental import Fixed, Touch, replay

EXACT = ("phased", "PIT polling", "serial output")


def workload(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


def recorded(name: str, folder: Path) -> tuple[Run, Recorder, Hindsight]:
    recorder = Recorder()
    native = run(workload(name).options(folder), "exit", "native", recorder)
    return native, recorder, hindsight(recorder, native.ledger, (0, 6, 100, 1218, 1 << 40))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_replay_costs_what_the_run_has_cost(name: str, tmp_path: Path) -> None:
    """The ledger of a run and the replay of the trace taken down under another policy know nothing of each other."""
    native, _, seen = recorded(name, tmp_path)
    prices = prices_of(native.ledger.costs)
    for dwell, cost in seen.curve:
        one = run(workload(name).options(tmp_path), "exit", policy_of(dwell))
        # the run's end is an exit and a hop in the replay, and its first steps are emulated before they are native
        assert one.ledger.cycles == pytest.approx(cost, abs=4 * prices.price), dwell


def test_on_phases_learn_is_cheaper_than_every_fixed_dwell_with_the_same_outcome(tmp_path: Path) -> None:
    native, _, seen = recorded("phased", tmp_path)
    learned = run(workload("phased").options(tmp_path), "exit", "learn")
    assert learned.fingerprint == native.fingerprint
    assert learned.ledger.cycles < 0.8 * min(cost for _, cost in seen.curve)
    assert learned.ledger.cycles < 1.05 * seen.clairvoyant


@pytest.mark.parametrize("name", ["PIT polling", "serial output"])
def test_where_nothing_changes_learn_is_near_the_best_fixed_dwell(name: str, tmp_path: Path) -> None:
    native, _, seen = recorded(name, tmp_path)
    learned = run(workload(name).options(tmp_path), "exit", "learn")
    assert learned.fingerprint == native.fingerprint
    assert learned.ledger.cycles <= 1.05 * seen.best_cost


def test_a_dwell_cuts_the_exits_of_a_loader_that_reads_by_pio_to_a_tenth(tmp_path: Path) -> None:
    options = workload("IDE PIO loader").options(tmp_path)
    native, dwell = (run(options, "exit", policy) for policy in ("native", "dwell:100"))
    assert native.fingerprint == dwell.fingerprint
    assert 10 * sum(dwell.ledger.exits.values()) <= sum(native.ledger.exits.values())


def test_accesses_that_the_emulator_answers_by_itself_are_caught_too(tmp_path: Path) -> None:
    """A screen filled by one REP STOSB, which no Python sees: the CPU is not handed over in the middle of it."""
    learned = run(workload("planar VGA fill").options(tmp_path), "exit", "dwell:50")
    assert sum(learned.ledger.exits.values()) == 0
    assert learned.ledger.caught >= 640 * 480 // 8


def test_slices_change_nothing_of_the_guest_and_little_of_the_cost(tmp_path: Path) -> None:
    """Accesses that the emulator answers by itself are told in heaps, which end where a slice does."""
    options = workload("serial output").options(tmp_path)
    whole, sliced = run(options, "exit", "learn"), run([*options, "--slice", "777"], "exit", "learn")
    assert sliced.fingerprint == whole.fingerprint
    assert sliced.ledger.cycles == pytest.approx(whole.ledger.cycles, rel=0.05)


def test_the_table_has_each_policy_and_the_clairvoyant(tmp_path: Path) -> None:
    native, _, seen = recorded("phased", tmp_path)
    learned = run(workload("phased").options(tmp_path), "exit", "learn")
    rows = lines(workload("phased"), seen, [native, learned])
    assert [row.split()[0] for row in rows[2:]] == ["native", "learn", "clairvoyant"]
    drawn = curve(workload("phased"), seen, [native, learned])
    assert dict(drawn.levels)["learn"] == learned.ledger.cycles / 1e6


def test_a_recorder_takes_down_exits_with_their_gaps(tmp_path: Path) -> None:
    _, recorder, _ = recorded("phased", tmp_path)
    gaps = [touch.gap for touch in recorder.trace]
    # IN, then MOV, 600 turns of DEC and JNZ, DEC BP, JNZ; of the first gap a part could not be native
    assert gaps.count(1 + 1 + 1200 + 2) == 4 * 399 - 1
    assert gaps.count(1 + 1 + 30_000 + 2) == 4 * 199
    assert replay([*recorder.trace, Touch(None, 1, True)], Fixed(1 << 40)).exits == 0
