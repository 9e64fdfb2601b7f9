"""The learner: it comes near to the best dwell of what it has seen, follows phases, and is the same each time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from emu.gaps import EDGES, LATELY, LONGER, QUICK_HALF_LIFE, Distribution, Mean, Prior, break_even, class_of
from emu.learner import MOST_SITES, Learner
from emu.rental import Prices, Touch, best_fixed, clairvoyant, replay

FREE_HOPS = Prices(75_000, 0, 0, 30, 1)
MODEL = Prices(75_000, 75_000, 75_000, 30, 1)
SLOW_HOPS = Prices(10_000, 150_000, 200_000, 3, 0.5)
ALL = pytest.mark.parametrize(
    "prices",
    [
        pytest.param(FREE_HOPS, id="free hops"),
        pytest.param(MODEL, id="model"),
        pytest.param(SLOW_HOPS, id="slow hops", marks=pytest.mark.slow),
    ],
)
A, B, END = "pio 0x1f7", "pio 0x60", Touch("end", 1, True)
FIXED = (0, *EDGES[:80], 1 << 40)


def cost_of(gaps: list[tuple[str, int]], prices: Prices) -> tuple[float, float, float]:
    """Of the learner, of the best fixed dwell, of a clairvoyant."""
    trace = [*(Touch(site, gap) for site, gap in gaps), END]
    learned = replay(trace, Learner(prices)).cost(prices)
    return learned, best_fixed(trace, prices, FIXED)[1], clairvoyant(trace, prices)


STATIONARY: dict[str, Callable[[int], list[tuple[str, int]]]] = {
    "polls, and now and then a pause": lambda even: [(A, gap) for _ in range(20) for gap in [6] * 60 + [even // 3]],
    "polls, and now and then a long pause": lambda even: [(A, gap) for _ in range(20) for gap in [6] * 60 + [even * 9]],
    "short gaps": lambda even: [(A, 50)] * 1500,
    "gaps a little longer than break-even": lambda even: [(A, even + even // 20)] * 1500,
    "long gaps": lambda even: [(A, even * 50)] * 1500,
    "two sites": lambda even: [(A, even // 4), (B, even * 8)] * 500,
}


@pytest.mark.slow_variants(keep=4)
@ALL
@pytest.mark.parametrize("gaps", STATIONARY.values(), ids=STATIONARY.keys())
def test_what_repeats_costs_at_most_a_twentieth_more_than_the_best_fixed_dwell(
    gaps: Callable[[int], list[tuple[str, int]]], prices: Prices
) -> None:
    learned, fixed, _ = cost_of(gaps(break_even(prices.rent, prices.price)), prices)
    assert learned <= 1.05 * fixed


@ALL
def test_gaps_drawn_at_random_cost_at_most_a_tenth_more_than_the_best_fixed_dwell(prices: Prices) -> None:
    dice = random.Random(6)
    even = break_even(prices.rent, prices.price)
    learned, fixed, _ = cost_of([(A, 1 + int(dice.expovariate(1 / even))) for _ in range(4000)], prices)
    assert learned <= 1.10 * fixed


@pytest.mark.parametrize("prices", [FREE_HOPS, MODEL], ids=["free hops", "model"])
def test_phases_cost_less_than_any_fixed_dwell(prices: Prices) -> None:
    burst = int(prices.exit / prices.rent / 2)
    phases = ([(A, burst)] * 300 + [(A, 8 * break_even(prices.rent, prices.price))] * 150) * 5
    learned, fixed, least = cost_of(phases, prices)
    assert learned < 0.95 * fixed
    assert learned < 1.2 * least


def test_gaps_that_grow_slowly_are_followed_where_hops_are_slow() -> None:
    """From 20 to 18,000 instructions, each drawn at random; behind 4,000 it is an exit that is cheaper. A trial of
    hopping takes some 60 gaps, and a mean of many trials would come to know of it when all is over: 1.14 times."""
    ratios = []
    for seed in range(4):
        dice = random.Random(seed)
        gaps = [(A, 1 + int(dice.expovariate(1 / (20 + 6 * number)))) for number in range(3000)]
        learned, fixed, _ = cost_of(gaps, SLOW_HOPS)
        ratios.append(learned / fixed)
    assert sum(ratios) / len(ratios) <= 1.02
    assert max(ratios) <= 1.05


def test_a_mean_of_what_is_drawn_at_random_is_that_of_the_last_trials() -> None:
    """A quicker one is followed for a trial now and then, where it was right some times by chance."""
    dice, mean, values, other = random.Random(3), Mean(), [], 0
    for number in range(2000):
        values.append(dice.gauss(1000, 300))
        mean.add(values[-1], 2 * QUICK_HALF_LIFE)
        if number > 50:
            other += abs(mean.value - sum(values[-LATELY:]) / LATELY) > 150
    assert other < 2000 / 20


@pytest.mark.parametrize(("gaps", "trials"), [(1, 9), (2 * QUICK_HALF_LIFE, 2)])
def test_where_trials_are_of_many_gaps_a_mean_has_come_to_something_else_behind_few(gaps: int, trials: int) -> None:
    """Half way and more; trials of one gap are themselves quick."""
    mean = Mean()
    for _ in range(40):
        mean.add(1000.0, gaps)
    count = 0
    while mean.value > 500:
        mean.add(0.0, gaps)
        count += 1
    assert trials <= count <= trials + 3


def test_what_is_like_a_trial_tells_of_what_has_changed_and_not_of_what_was_never_tried() -> None:
    tried, untried = Mean(), Mean()
    for _ in range(8):
        tried.add(1000.0, QUICK_HALF_LIFE)
    for mean in (tried, untried):
        for _ in range(20):
            mean.hint(0.0, QUICK_HALF_LIFE)
    assert untried.expected is None
    assert tried.value == 1000.0  # the slow one has never been wrong
    tried.add(0.0, QUICK_HALF_LIFE)
    assert tried.value < 1.0


def test_a_first_gap_does_not_show_that_gaps_are_like_the_last_one() -> None:
    """A long gap behind a short one: the last one's dwell was the shortest, by no merit, and says 0 now."""
    learner = Learner(MODEL)
    for gap in (1, 60, 300_000):
        learner.dwell(Touch(A, gap), False)
    assert learner.view(A).gaps == 2
    assert learner.view(A).forecaster != "the last gap"
    assert learner.view(A).proposed >= 60


def test_gaps_in_turns_are_told_apart_by_the_one_before() -> None:
    even = break_even(FREE_HOPS.rent, FREE_HOPS.price)
    learned, fixed, least = cost_of([(A, even // 2), (A, 6 * even)] * 500, FREE_HOPS)
    assert learned < 0.9 * fixed
    assert learned < 1.05 * least


def test_an_unknown_site_has_break_even() -> None:
    learner = Learner(FREE_HOPS)
    assert learner.decide(A, native=False) == break_even(FREE_HOPS.rent, FREE_HOPS.price)
    assert learner.view(A).forecaster == "break-even"


def test_a_new_place_of_a_known_kind_is_expected_to_be_like_the_others() -> None:
    learner = Learner(MODEL, lambda site: site.split("@")[0])  # type: ignore[attr-defined]
    for number in range(8):
        learner.dwell(Touch(f"pio 0x60@{number}", 100_000), False)
    learner.dwell(Touch("pio 0x60@new", 100_000), False)
    view = learner.view("pio 0x60@new")
    assert (view.gaps, view.proposed) == (0, 0)


def test_the_same_touches_give_the_same_decisions() -> None:
    dice = random.Random(1)
    trace = [Touch(dice.choice((A, B)), dice.choice((1, 10, 1000, 5000, 90_000))) for _ in range(500)]
    one, other = Learner(MODEL), Learner(MODEL)
    assert [one.dwell(touch, False) for touch in trace] == [other.dwell(touch, False) for touch in trace]


def test_where_emulation_is_no_slower_the_cpu_is_never_handed_over() -> None:
    learner = Learner(Prices(1000, 10, 10, 2, 5))
    trace = [Touch(A, gap) for gap in (1, 10**6, 3, 10**9)] + [END]
    bill = replay(trace, learner)
    assert (bill.exits, bill.hops) == (0, 0)


def test_a_guest_that_touches_everything_is_remembered_only_in_part() -> None:
    learner = Learner(MODEL)
    for number in range(MOST_SITES + 100):
        learner.dwell(Touch(f"pio {number}", 5), False)
    assert len(learner.sites) == MOST_SITES
    assert "pio 0" not in learner.sites and f"pio {MOST_SITES + 50}" in learner.sites


def test_a_move_that_the_policy_did_not_make_leaves_no_debt() -> None:
    learner = Learner(MODEL)
    for _ in range(50):
        learner.dwell(Touch(A, 100_000), True)
    learner.restart()
    assert learner.account.credit >= 0
    assert learner.view(A).gaps == 49


def test_instructions_that_could_not_be_native_are_no_gap() -> None:
    learner = Learner(MODEL)
    dwell = learner.decide(A, native=False)
    learner.touched(dwell + 500_000, dwell + 500_000, exited=False, held=500_000)
    assert [longest for longest, _ in learner.view(A).weights] == [EDGES[class_of(dwell)]]


def test_a_dwell_of_a_class_covers_every_gap_of_the_class() -> None:
    for gap in (*range(1, 3000), 10**5, 10**6, EDGES[-1]):
        assert gap <= EDGES[class_of(gap)] <= gap * 1.25 + 1
    assert class_of(EDGES[-1] + 1) == LONGER


def test_a_distribution_forgets() -> None:
    distribution = Distribution(10, Prior())
    for index, times in ((3, 500), (40, 60)):
        for _ in range(times):
            distribution.add(index)
    weights = distribution.weights
    assert weights[3] / weights[40] == pytest.approx(2**-6 * (1 - 2**-50) / (1 - 2**-6), rel=0.01)


def test_weights_do_not_grow_without_end() -> None:
    distribution = Distribution(1, Prior())
    for _ in range(3000):
        distribution.add(2)
    assert distribution.weights[2] == pytest.approx(2.0)
