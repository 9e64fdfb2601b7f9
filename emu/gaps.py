"""What is known of one exit site: how long the gaps behind it were, in which order, and which dwell suits them.

A gap is the number of instructions to the next access that a native vCPU would exit for. Pure arithmetic on what it is
told: no clock, no randomness.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from emu.rental import FOR_GOOD, Prices

#: Gaps are counted in classes of four an octave; each is represented by its longest, so that a dwell of that covers it.
EDGES = tuple(sorted({round(2 ** (step / 4)) for step in range(4 * 24 + 1)}))
LONGER = len(EDGES)  #: the class of all that are longer still
#: The class of the gap before, two octaves each: what one gap tells of the next is learned for each of them.
PRECEDING = 8
#: Behind how many gaps one has half its weight: among all of a site, and among those behind a gap of one kind.
ALL_HALF_LIFE, AFTER_HALF_LIFE, RECORD_HALF_LIFE = 128, 64, 32
#: Weights grow instead of all earlier ones shrinking; beyond this they are scaled down.
HEAVIEST = 1e9
#: A distribution's best dwell is looked for again when this part of its weight is new.
STALE = 1 / 16
#: No dwell is useful that is longer than so many break-even ones.
USEFUL = 4

#: The prior is worth so many gaps to a site, and its guess as much as a gap of a new class at so many sites.
PRIOR_GAPS, GUESS = 1.0, 1.0

#: Before so many trials nothing is concluded from them; what was tried at sites like it is worth so many to a site.
TRIALS = 4
#: Of trials the last are told by a mean of so many, or by one of which half is new behind so many gaps, where that has
#: forecast them better, by so much.
LATELY, QUICK_HALF_LIFE, BETTER = 16, 32, 0.8
#: Behind how many trials an error of a forecast has half its weight.
ERROR_HALF_LIFE = 8

#: The forecasters, in the order in which one is preferred among equals.
FORECASTERS = ("all gaps", "gaps behind such a gap", "the last gap", "break-even")
LAST_GAP, BREAK_EVEN = 2, 3
FADE, ERROR_FADE = 0.5 ** (1 / RECORD_HALF_LIFE), 0.5 ** (1 / ERROR_HALF_LIFE)


def class_of(gap: int) -> int:
    """The index in EDGES of the class of a gap, LONGER beyond them."""
    return bisect_left(EDGES, gap)


def paid(gap: int, dwell: int, rent: float, price: float) -> float:
    """What a gap costs beyond its native instructions with this dwell: its rent, or that of the dwell and the price."""
    return rent * gap if gap <= dwell else rent * dwell + price


def break_even(rent: float, price: float) -> int:
    """The dwell whose rent is the price of leaving; FOR_GOOD where emulation costs no rent."""
    return FOR_GOOD if rent <= 0 else min(FOR_GOOD, int(price / rent))


class Prior:
    """What is expected of a gap that is not like those which a site has had: like the gaps that were new to other sites
    when they came. So a class counts once for each site that has it, however often it came there. Before there were
    any the guess is a gap for which break-even is just long enough. It is worth so many gaps, and the less the more a
    site has had of its own."""

    def __init__(self) -> None:
        self.counts = [0.0] * (LONGER + 1)  #: by class, the sites that have had it
        self.version = 0  #: of the weights
        self._total = self._shared = 0.0
        self._share()

    def _share(self) -> None:
        self._total = self._shared = sum(self.counts)
        whole = self._total + GUESS
        self._weights = [count * PRIOR_GAPS / whole for count in self.counts]
        self._guess = GUESS * PRIOR_GAPS / whole
        self.version += 1

    def load(self, counts: list[float]) -> None:
        """Replace the counts."""
        self.counts = list(counts)
        self._share()

    def add(self, index: int) -> None:
        """A gap of this class came, at a site that had none."""
        self.counts[index] += 1
        self._total += 1
        if self._total > (1 + STALE) * self._shared:
            self._share()

    def weights(self, even: float) -> list[float]:
        """By class, in gaps, where break-even is so many instructions."""
        weights = list(self._weights)
        weights[max(0, bisect_right(EDGES, even) - 1)] += self._guess
        return weights


class Distribution:
    """Weights of gap classes, the recent ones heavier, and the dwell that would have been cheapest for them."""

    def __init__(self, half_life: int, prior: Prior, weights: Mapping[int, float] | None = None) -> None:
        self._growth = 2 ** (1 / half_life)
        self._prior = prior
        self._weight = 1.0  #: of the next gap
        self._weights = dict(weights or {})
        self._total = sum(self._weights.values())
        self._news = float("inf")  #: weight since `_found`
        self._found = (0, 0.0, 0)  #: the best dwell, for this price and prior

    @property
    def weights(self) -> dict[int, float]:
        """By class, in terms of the next gap's weight."""
        return {index: weight / self._weight for index, weight in sorted(self._weights.items())}

    def with_weights(self, weights: Mapping[int, float]) -> Distribution:
        """The same with other gaps."""
        other = Distribution(1, self._prior, weights)
        other._growth = self._growth
        return other

    def __contains__(self, index: int) -> bool:
        return index in self._weights

    def add(self, index: int) -> None:
        """A gap of this class came."""
        weight = self._weight = self._weight * self._growth
        self._weights[index] = self._weights.get(index, 0.0) + weight
        self._news += weight
        self._total += weight
        if weight > HEAVIEST:
            self._weights = self.weights
            self._news /= weight
            self._weight = 1.0
            self._total = sum(self._weights.values())

    def best(self, rent: float, price: float) -> int:
        """The cheapest dwell: 0, or the longest gap of a class."""
        best, for_price, prior = self._found
        if self._news > self._total * STALE or for_price != price or prior != self._prior.version:
            best = self._search(rent, price)
            self._found, self._news = (best, price, self._prior.version), 0.0
        return best

    def _search(self, rent: float, price: float) -> int:
        """`rent` is positive. Each class's end is tried: the rents of the gaps up to there, and for the others its own
        rent and the price."""
        longest = USEFUL * price / rent
        scale, expected = self._weight, self._prior.weights(price / rent)
        total = self._total + scale * sum(expected)
        best, least = 0, price * total
        covered = 0.0
        for index, dwell in enumerate(EDGES):
            if dwell > longest:
                break
            weight = self._weights.get(index, 0.0) + scale * expected[index]
            covered += rent * dwell * weight
            total -= weight
            cost = covered + (rent * dwell + price) * total
            if cost < least - least * 1e-9:  # beyond what is rounded the least dwell is meant
                best, least = dwell, cost
        return best


class Mean:
    """Of what came lately, `count` in all; as long as that is little, with `parent`, what is known of others. A mean of
    the last trials is right where they are drawn at random. Where the guest comes to something else, and trials are of
    many gaps, it is late, and a quicker one is asked: the one which has forecast the better lately."""

    __slots__ = ("_quick", "_quick_error", "_slow", "_slow_error", "_untried", "count", "parent")

    def __init__(self, parent: Mean | None = None) -> None:
        self.parent = parent
        self.load(0.0, 0)

    def load(self, value: float, count: int) -> None:
        """It was of so many, in another run. Until one has come in this run neither has forecast anything, and the
        quicker one is believed: it is the same until there is something new."""
        self.count, self._slow, self._quick = count, value, value
        self._slow_error = self._quick_error = 0.0
        self._untried = True

    @property
    def value(self) -> float:
        """Without what is known of others."""
        quick = self._untried or self._quick_error < BETTER * self._slow_error
        return self._quick if quick else self._slow

    def add(self, value: float, gaps: int) -> None:
        """One more, which took so many gaps to be known."""
        self.count += 1
        self._untried = False
        if self.count > 1:
            self._slow_error = self._slow_error * ERROR_FADE + abs(value - self._slow)
            self._quick_error = self._quick_error * ERROR_FADE + abs(value - self._quick)
        part = 1 / min(self.count, LATELY)
        self._slow += (value - self._slow) * part
        self._quick += (value - self._quick) * max(part, _news(gaps))

    def hint(self, value: float, gaps: int) -> None:
        """Something came that is none of these, but tells of them what has changed since."""
        if self.count:
            self._quick += (value - self._quick) * _news(gaps)

    @property
    def expected(self) -> float | None:
        """What to expect; None where there were too few."""
        weight, value = self._weighed()
        return value if weight >= TRIALS else None

    def _weighed(self) -> tuple[int, float]:
        own = min(self.count, LATELY)
        if self.parent is None or own >= LATELY:
            return own, self.value
        weight, value = self.parent._weighed()
        weight = min(weight, TRIALS)
        total = own + weight
        return total, (own * self.value + weight * value) / total if total else 0.0


def _news(gaps: int) -> float:
    """The part that a quick mean takes of what took so many gaps to be known."""
    return 1 - math.pow(0.5, gaps / QUICK_HALF_LIFE)


class SiteKnowledge:
    """One exit site: how many `gaps` were seen, the class of the `last` one, None before the first, and what each
    forecaster's dwells would have cost lately (`losses`). `burst` is what it gained lately, beyond hops and rent, to
    take the vCPU to the emulator behind an exit; `lack`, how much dearer it was to be native than emulated behind the
    touch at the end of a long gap. `parent` knows of sites like it."""

    def __init__(self, prior: Prior, parent: SiteKnowledge | None = None) -> None:
        self.gaps = 0
        self.last: int | None = None
        self.losses = [0.0] * len(FORECASTERS)
        self.burst: Mean = Mean(None if parent is None else parent.burst)
        self.lack: Mean = Mean(None if parent is None else parent.lack)
        self.all_gaps = Distribution(ALL_HALF_LIFE, prior)
        self.after: dict[int, Distribution] = {}
        self._prior = prior
        self._price: float | None = None  #: for which `_forecasts` are
        self._forecasts: list[int] = []

    def belongs(self, parent: SiteKnowledge) -> None:
        """It is one of the sites that `parent` knows of."""
        self.burst.parent, self.lack.parent = parent.burst, parent.lack

    def seen(self, gap: int, prices: Prices) -> None:
        """A gap behind this site has ended: each forecaster pays what its dwell would have cost."""
        forecasts, rent, price = self._forecast(prices), prices.rent, self.price(prices)
        if gap <= min(forecasts):
            cost = rent * gap
            self.losses = [loss * FADE + cost for loss in self.losses]
        else:
            self.losses = [
                loss * FADE + paid(gap, dwell, rent, price) for loss, dwell in zip(self.losses, forecasts, strict=True)
            ]
        index = class_of(gap)
        self.all_gaps.add(index)
        if self.last is None:
            # That gaps come like the last one is believed when it has earned so much: a first one shows nothing of it.
            self.losses[LAST_GAP] += price
        else:
            self._behind(self.last).add(index)
        self.last = index
        self.gaps += 1
        self._price = None

    def price(self, prices: Prices) -> float:
        """What it costs to leave the emulator here: the hop in, the exit, and what it is worth less to be native behind
        it than to be emulated, which is never more than a hop out."""
        lack = self.lack.expected
        return prices.price if lack is None else prices.hop_in + prices.exit + lack

    def choice(self, prices: Prices) -> tuple[str, int]:
        """The forecaster that would have been cheapest lately, and its dwell now; break-even before the first gap."""
        forecasts, losses = self._forecast(prices), self.losses
        number = losses.index(min(losses)) if self.gaps else BREAK_EVEN
        return FORECASTERS[number], forecasts[number]

    def tried(self, gain: float, lack: float, long: bool, gaps: int) -> None:
        """A trial has ended, in so many gaps: what taking the vCPU behind an exit would have gained, and what it lacks
        to be native behind the touch at the end of its own gap, which was long or not."""
        self.burst.add(gain, gaps)
        (self.lack.add if long else self.lack.hint)(lack, gaps)
        self._price = None

    def _forecast(self, prices: Prices) -> list[int]:
        """Each forecaster's dwell; kept until the next gap."""
        price = self._price
        if price is None:
            price, rent = self.price(prices), prices.rent
            even = break_even(rent, price)
            if self.last is None or rent <= 0:
                self._forecasts = [even] * len(FORECASTERS)
            else:
                last = EDGES[self.last] if self.last < LONGER and EDGES[self.last] <= even else 0
                every = self.all_gaps.best(rent, price)
                self._forecasts = [every, self._behind(self.last).best(rent, price), last, even]
            self._price = price
        return self._forecasts

    def _behind(self, last: int) -> Distribution:
        kind = last // PRECEDING
        if kind not in self.after:
            self.after[kind] = Distribution(AFTER_HALF_LIFE, self._prior)
        return self.after[kind]
