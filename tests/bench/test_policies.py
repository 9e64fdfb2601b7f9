"""The bench of policies: each workload of the suite is a row of its tables and of the docs', and ends where it is meant
to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import loaders, policies
from bench.assets import AssetMissing
from bench.policies import SUMMARY, WORKLOADS, Workload, beside, cheapest, dwell_of, lines, measure, summary
from bench.traces import Recorder, hindsight, run
from emu.ledger import Costs, Ledger
from emu.rental import Touch
from repl.harness import MissingTool

DOCS = Path(__file__).resolve().parents[2] / "docs" / "policies.md"
#: What the cost of `learn` is measured on, by a word of its workloads' names.
SUITE = {
    "tour": 1, "NTLDR-like": 1, "SYSLINUX": 2, "GRUB": 1, "memtest86+": 1, "iPXE": 1, "Linux 686": 1, "Linux amd64": 1,
}  # fmt: skip
AIM = 1.05


def workload(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


def rows() -> dict[str, list[str]]:
    """The cells of the docs' table of all workloads behind their names."""
    text = DOCS.read_text().splitlines()
    begin = text.index("| " + " | ".join(SUMMARY) + " |") + 2
    found = {}
    for line in text[begin:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found[name] = cells
    return found


@pytest.mark.parametrize(("word", "count"), SUITE.items())
def test_each_boot_of_the_suite_is_a_workload(word: str, count: int) -> None:
    assert sum(word in one.name for one in WORKLOADS) == count


def test_the_docs_have_each_workload_as_it_is_run_and_learn_within_its_aim() -> None:
    table = rows()
    assert list(table) == [one.name for one in WORKLOADS]
    for one in WORKLOADS:
        cells = dict(zip(SUMMARY[1:], table[one.name], strict=True))
        assert cells["run"] == one.length, one.name
        ratio = float(cells["learn / best"])
        assert ratio <= AIM, one.name
        learned, best = (float(cells[column].split()[0].replace(",", "")) for column in ("learn", "best fixed N"))
        assert ratio == pytest.approx(learned / best, abs=0.012), one.name


@pytest.mark.slow
def test_the_docs_say_of_the_tour_what_it_costs() -> None:
    cells = dict(zip(SUMMARY[1:], rows()["tour"], strict=True))
    options = workload("tour").options(Path())
    for policy in ("native", "dwell:100", "emulated", "learn"):
        cycles = run(options, "exit", policy).ledger.cycles
        assert float(cells[policy]) == pytest.approx(cycles / 1e6, abs=0.0501 if cycles >= 1e7 else 0.00501), policy


@pytest.mark.slow
def test_a_run_whose_exits_are_taken_down_costs_what_a_native_one_does() -> None:
    options = workload("tour").options(Path())
    recorded = run(options, "exit", "native", Recorder())
    native = run(options, "exit", "native")
    assert recorded.fingerprint == native.fingerprint
    assert recorded.ledger.cycles == native.ledger.cycles
    assert recorded.ledger.exits == native.ledger.exits


@pytest.mark.slow
def test_a_part_of_a_workload_is_so_many_instructions_of_it(tmp_path: Path) -> None:
    part = dataclasses.replace(workload("tour"), name="part", first=20_000)
    assert part.length == "first 0.02 million instructions"
    seen, runs = measure(part, tmp_path)
    for one in runs:
        assert one.ledger.emulated + one.ledger.native == 20_000, one.policy
    assert lines(part, seen, runs)[0].startswith("part (first 0.02 million instructions): ")


@pytest.mark.slow
def test_the_cheapest_dwell_has_been_run_with_half_and_twice_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Begun from 304, which is too short a one for the tour, it goes on to longer ones."""
    fixed = cheapest(measure(workload("tour"), tmp_path)[1])
    monkeypatch.setattr(policies, "hindsight", lambda *given: dataclasses.replace(hindsight(*given), best=304))
    _, runs = measure(workload("tour"), tmp_path)
    tried = [one.policy for one in runs]
    best = cheapest(runs)
    assert set(beside(best)) <= set(tried)
    assert best.ledger.cycles <= 1.1 * fixed.ledger.cycles
    assert tried[0] == "native" and tried[-2:] == ["emulated", "learn"]
    dwells = [dwell for dwell in map(dwell_of, tried) if dwell is not None]
    assert dwells == sorted(dwells) and len(dwells) > 4


def test_a_workload_that_ends_elsewhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="long ends with"):
        measure(dataclasses.replace(workload("tour"), name="long", first=10_000_000), tmp_path)


@pytest.mark.slow
def test_the_summary_has_a_row_for_each_workload(tmp_path: Path) -> None:
    part = dataclasses.replace(workload("tour"), name="part", first=20_000)
    seen, runs = measure(part, tmp_path)
    header, rule, row = summary([(part, seen, runs)])
    assert header.split(" | ")[1:] == [*SUMMARY[1:-1], SUMMARY[-1] + " |"]
    assert re.fullmatch(r"(\|---)+\|", rule)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    costs = {one.policy: one.ledger.cycles for one in runs}
    best = min(cost for policy, cost in costs.items() if policy != "learn")
    assert cells[0] == "part" and cells[8] == f"{costs['learn'] / best:.3f}"
    assert float(cells[5].split()[0]) == pytest.approx(best / 1e6, abs=0.05)


@pytest.mark.parametrize("build", [loaders.prompt_floppy, loaders.ipxe_floppy, loaders.core_disk])
def test_a_loaders_image_is_the_same_to_the_byte_each_time(build: Callable[[Path], Path], tmp_path: Path) -> None:
    try:
        first, second = (build(tmp_path / name).read_bytes() for name in ("first", "second"))
    except (AssetMissing, MissingTool) as missing:
        pytest.skip(str(missing))
    assert first == second
    assert first[510:512] == b"\x55\xaa"


def test_a_program_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingTool, match=r"mformat is not installed \(Debian: apt-get install mtools\)"):
        loaders.made("mformat", "mtools")


def test_what_comes_behind_the_last_touch_is_paid_by_all() -> None:
    recorder = Recorder()
    recorder.trace, recorder.held = [Touch("site", 50)], 100
    ledger = Ledger(Costs())
    ledger.emulated, ledger.native = recorder.held, 9900
    seen = hindsight(recorder, ledger, (0, 1 << 40))
    costs = ledger.costs
    assert dict(seen.curve)[1 << 40] == 10_000 * costs.emulated
    # emulated up to the touch, then native, and taken back at the end
    behind = 50 * (costs.emulated - costs.native) + 9900 * costs.native + costs.exit + 2 * costs.hop
    assert seen.clairvoyant == recorder.held * costs.emulated + behind
