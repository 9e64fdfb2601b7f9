"""What the policy learn knows, saved and loaded: all of it comes back, and no file that is none of ours is taken."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emu import learned
from emu.gaps import EDGES, LONGER
from emu.learned import LearnedError
from emu.learner import Learner
from emu.learning import kind_of
from emu.rental import Prices, Touch, best_fixed, replay
from emu.vcpu import ExitCause, Site
from emu.x86.modes import Mode

PRICES = Prices(75_000, 75_000, 75_000, 30, 1)
PORT = Site(ExitCause.PIO, 0x7C12, 0x1F7, Mode.REAL)
PAGE = Site(ExitCause.MMIO, 0x100400, 0xA0000, Mode.PROTECTED32)


def taught(touches: int = 400) -> Learner:
    learner = Learner(PRICES, kind_of)
    dice = random.Random(3)
    for _ in range(touches):
        learner.dwell(Touch(dice.choice((PORT, PAGE)), dice.choice((3, 5, 40, 9000, 90_000))), False)
    return learner


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "learned.json"
    learned.save(taught(), path)
    return path


def test_what_is_loaded_decides_as_what_was_saved(file: Path) -> None:
    one, other = taught(), Learner(PRICES, kind_of)
    assert learned.load(other, file) == 2
    for site in (PORT, PAGE):
        was, loaded = one.view(site), other.view(site)
        assert (loaded.gaps, loaded.proposed, loaded.forecaster, loaded.losses, loaded.bursts) == (
            was.gaps, was.proposed, was.forecaster, was.losses, was.bursts)  # fmt: skip
        assert dict(loaded.weights) == pytest.approx(dict(was.weights))


def test_numbers_that_have_run_over_are_saved_at_the_edge(tmp_path: Path) -> None:
    """As sums of what an extreme file had, where large numbers have cancelled each other out."""
    learner, path = taught(), tmp_path / "learned.json"
    known = learner.sites[PORT]
    known.losses[:2] = [-2e17, 1e30]
    known.burst.load(-1e19, 7)
    known.lack.count = known.gaps = 1 << 70
    learner.prior.counts[0] = -1.5
    learned.save(learner, path)
    other = Learner(PRICES, kind_of)
    assert learned.load(other, path) == 2
    assert other.sites[PORT].gaps == learned.MOST_GAPS
    assert other.sites[PORT].losses[:2] == [0.0, learned.MOST_MONEY]
    assert (other.sites[PORT].burst.value, other.sites[PORT].lack.count) == (-learned.MOST_MONEY, learned.MOST_GAPS)


def test_credit_is_not_loaded(file: Path) -> None:
    learner = Learner(PRICES, kind_of)
    learned.load(learner, file)
    assert learner.account.credit == 0


def test_where_a_guest_begins_otherwise_than_it_ended_what_was_learned_does_no_harm(tmp_path: Path) -> None:
    """Gaps that grow slowly, where hops are slow: at the end being native behind a long gap was the better. Until there
    is a long one the trials of short ones say that it is not; who believed the end left and came back again and again,
    at 1.13 times the best fixed dwell."""
    prices, loaded_costs, fresh_costs = Prices(10_000, 150_000, 200_000, 3, 0.5), 0.0, 0.0
    for seed in range(20, 23):
        dice = random.Random(seed)
        trace = [Touch(PORT, 1 + int(dice.expovariate(1 / (20 + 6 * number)))) for number in range(3000)]
        trace.append(Touch(PAGE, 1, True))
        best = best_fixed(trace, prices, (0, *EDGES[:80], 1 << 40))[1]
        first, other = Learner(prices, kind_of), Learner(prices, kind_of)
        fresh_costs += replay(trace, first).cost(prices) / best
        learned.save(first, tmp_path / "learned.json")
        learned.load(other, tmp_path / "learned.json")
        loaded_costs += replay(trace, other).cost(prices) / best
    assert loaded_costs <= fresh_costs <= 3.0 * 1.02


def test_at_other_prices_gaps_are_kept_and_losses_forgotten(file: Path) -> None:
    learner = Learner(Prices(10, 1, 1, 5, 1), kind_of)
    learned.load(learner, file)
    view = learner.view(PORT)
    assert view.gaps > 100
    assert (view.bursts, {loss for _, loss in view.losses}) == (0, {0.0})


def test_saving_replaces_a_file_as_a_whole(file: Path) -> None:
    learned.save(taught(2), file)
    assert json.loads(file.read_text())["sites"][0]["gaps"] <= 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(LearnedError, match="there is no folder"):
        learned.save(taught(), tmp_path / "no folder" / "file")
    (tmp_path / "taken").mkdir()
    with pytest.raises(LearnedError, match="is no regular file"):
        learned.save(taught(), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def change(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(changes)


def change_site(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["sites"][0].update(changes)


BAD: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": change(format="another"),
    "another version": change(version=1),
    "other classes": change(classes=3),
    "no sites": change(sites=None),
    "sites that are no records": change(sites=[1]),
    "too many sites": change(sites=[{}] * 5000),
    "a short prior": change(prior=[1.0]),
    "a negative prior": change(prior=[-1.0] * 97),
    "no prices": change(prices=None),
    "four prices": change(prices=[1.0, 1.0, 1.0, 1.0]),
    "a price that is no number": change(prices=[75_000.0, float("nan"), 75_000.0, 30.0, 1.0]),
    "a price without end": change(prices=[float("inf"), 1.0, 1.0, 1.0, 1.0]),
    "a price below all numbers": change(prices=[1.0, 1.0, 1.0, 1.0, float("-inf")]),
    "a negative price": change(prices=[1.0, -1.0, 1.0, 1.0, 1.0]),
    "a price of 400 digits": change(prices=[10**400, 1.0, 1.0, 1.0, 1.0]),
    "a price that is a text": change(prices=["75000", 1.0, 1.0, 1.0, 1.0]),
    "an unknown cause": change_site(cause="magic"),
    "a cause that is a list": change_site(cause=[]),
    "an unknown mode": change_site(mode=99),
    "a negative pc": change_site(pc=-1),
    "gaps that are a text": change_site(gaps="5"),
    "gaps that are true": change_site(gaps=True),
    "no last gap": change_site(last=None),
    "a class that does not exist": change_site(last=1000),
    "a weight without class": change_site(all=[[3]]),
    "a negative weight": change_site(all=[[3, -1.0]]),
    "a weight without end": change_site(all=[[3, float("inf")]]),
    "no number at all": change_site(all=[[3, float("nan")]]),
    "losses of another number": change_site(losses=[0.0]),
    "no means of trials": change_site(burst=None),
    "a mean without its number": change_site(lack=[1.0]),
    "a mean of trials before there were any": change_site(burst=[1.0, -1]),
    "a mean that is no number": change(lack=[float("nan"), 3]),
    "what came behind no gap": change_site(after=[[99, []]]),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD.keys())
def test_a_file_that_is_wrong_is_refused_in_one_sentence(spoil: Callable[[dict[str, Any]], object], file: Path) -> None:
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    learner = taught(5)
    before = list(learner.sites)
    with pytest.raises(LearnedError, match="cannot be loaded") as refused:
        learned.load(learner, file)
    assert "\n" not in str(refused.value)
    assert list(learner.sites) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"format": "v2e policy learn"}, "it has no 'version', which must be 2"),
        ({"format": "v2e policy learn", "version": 1}, "its 'version' is 1: this v2e reads 2"),
        ({"format": "v2e policy learn", "version": True}, "its 'version' is True: this v2e reads 2"),
        ({"format": "v2e policy learn", "version": "9" * 1000}, f"its 'version' is '{'9' * 19}: this v2e reads 2"),
        ({"format": "v2e policy learn", "version": 2}, f"it has no 'classes', which must be {LONGER + 1}"),
        (
            {"format": "v2e policy learn", "version": 2, "classes": 5},
            f"its 'classes' is 5: this v2e reads {LONGER + 1}",
        ),
    ],
)
def test_what_a_file_is_of_is_said_as_it_is(content: dict[str, Any], words: str, file: Path) -> None:
    file.write_text(json.dumps(content))
    with pytest.raises(LearnedError) as refused:
        learned.load(taught(5), file)
    assert str(refused.value) == f"{str(file)!r} cannot be loaded: {words}"


def test_a_price_above_all_numbers_is_refused_however_it_is_written(file: Path) -> None:
    """1e999 is JSON, and becomes infinity."""
    text = file.read_text()
    assert text.count('"prices":[75000') == 1
    file.write_text(text.replace('"prices":[75000', '"prices":[1e999', 1).replace("[1e999.0", "[1e999"))
    with pytest.raises(LearnedError, match="inf is no number that it can be"):
        learned.load(taught(5), file)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"[1, 2]", b"[" * 100_000, b'"text"', b"\xff\xfe{}"])
def test_what_is_no_record_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(LearnedError, match="cannot be loaded"):
        learned.load(taught(5), path)


def test_a_file_that_is_cut_off_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(LearnedError, match="not JSON"):
        learned.load(taught(5), file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "none"):
        with pytest.raises(LearnedError, match="cannot"):
            learned.load(taught(5), path)


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(LearnedError, match="is no regular file"):
        learned.save(taught(), pipe)
    assert pipe.is_fifo()
    (tmp_path / "target").write_text("old")
    (link := tmp_path / "link").symlink_to("target")
    learned.save(taught(), link)
    assert link.is_symlink() and (tmp_path / "target").read_text().startswith("{")
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "target"]
