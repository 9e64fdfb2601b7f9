"""What is known of one exit site: how long the gaps behind it were, in which order, and which dwell suits them.

A gap is the number of instructions to the next access that a native vCPU would exit for. Pure arithmetic on what it is
told: no clock, no randomness.
"""

from __future__ import annotations

from bisect import bisect_left
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

#: The prior is worth so many gaps to a site; its own uniform part is worth so many of the guest's.
PRIOR_GAPS, FLAT = 1.0, 8.0

#: Before so many trials at a site nothing is concluded from them.
TRIALS = 4

#: The forecasters, in the order in which one is preferred among equals.
FORECASTERS = ("all gaps", "gaps behind such a gap", "the last gap", "break-even")
BREAK_EVEN = 3
FADE = 0.5 ** (1 / RECORD_HALF_LIFE)


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
    """What is expected of a gap of which nothing is known: every class alike, until the guest's gaps have shown which
    ones it has. It is worth so many gaps, and the less the more a site has had of its own."""

    def __init__(self) -> None:
        self._counts = [FLAT / (LONGER + 1)] * (LONGER + 1)
        self._share()

    def _share(self) -> None:
        self._total = self._shared = sum(self._counts)
        self.weights = [count * PRIOR_GAPS / self._total for count in self._counts]  #: by class, in gaps

    @property
    def counts(self) -> list[float]:
        """By class, the uniform part included."""
        return list(self._counts)

    @counts.setter
    def counts(self, counts: list[float]) -> None:
        if sum(counts) > 0:
            self._counts = list(counts)
            self._share()

    def add(self, index: int) -> None:
        """A gap of this class came, at any site."""
        self._counts[index] += 1
        self._total += 1
        if self._total > (1 + STALE) * self._shared:
            self._share()


class Distribution:
    """Weights of gap classes, the recent ones heavier, and the dwell that would have been cheapest for them."""

    def __init__(self, half_life: int, prior: Prior, weights: Mapping[int, float] | None = None) -> None:
        self._growth = 2 ** (1 / half_life)
        self._prior = prior
        self._weight = 1.0  #: of the next gap
        self._weights = dict(weights or {})
        self._total = sum(self._weights.values())
        self._news = float("inf")  #: weight since `_found`
        self._found = (0, 0.0)  #: the best dwell, for this price

    @property
    def weights(self) -> dict[int, float]:
        """By class, in terms of the next gap's weight."""
        return {index: weight / self._weight for index, weight in sorted(self._weights.items())}

    def with_weights(self, weights: Mapping[int, float]) -> Distribution:
        """The same with other gaps."""
        other = Distribution(1, self._prior, weights)
        other._growth = self._growth
        return other

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
        best, for_price = self._found
        if self._news > self._total * STALE or for_price != price:
            best = self._search(rent, price)
            self._found, self._news = (best, price), 0.0
        return best

    def _search(self, rent: float, price: float) -> int:
        """`rent` is positive. Each class's end is tried: the rents of the gaps up to there, and for the others its own
        rent and the price."""
        longest = USEFUL * price / rent
        scale, expected = self._weight, self._prior.weights
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
            if cost < least:
                best, least = dwell, cost
        return best


class SiteKnowledge:
    """One exit site: how many `gaps` were seen, the class of the `last` one, None before the first, and what each
    forecaster's dwells would have cost lately (`losses`). `burst` is what it gained lately, beyond hops and rent, to
    take the vCPU to the emulator behind an exit, as a mean of `bursts` trials."""

    def __init__(self, prior: Prior) -> None:
        self.gaps = 0
        self.last: int | None = None
        self.losses = [0.0] * len(FORECASTERS)
        self.burst, self.bursts = 0.0, 0
        self.all_gaps = Distribution(ALL_HALF_LIFE, prior)
        self.after: dict[int, Distribution] = {}
        self._prior = prior
        self._price: float | None = None  #: for which `_forecasts` are
        self._forecasts: list[int] = []

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
        if self.last is not None:
            self._behind(self.last).add(index)
        self.last = index
        self.gaps += 1
        self._price = None

    def price(self, prices: Prices) -> float:
        """What it costs to leave the emulator here: the hop in, the exit, and what being native behind it is worth less
        than being in the emulator, which is never more than a hop out."""
        if self.bursts < TRIALS:
            return prices.price
        worse = min(max(self.burst + prices.hop_out, -prices.hop_in), prices.hop_out)
        return prices.hop_in + prices.exit + worse

    def choice(self, prices: Prices) -> tuple[str, int]:
        """The forecaster that would have been cheapest lately, and its dwell now; break-even before the first gap."""
        forecasts, losses = self._forecast(prices), self.losses
        number = losses.index(min(losses)) if self.gaps else BREAK_EVEN
        return FORECASTERS[number], forecasts[number]

    def tried(self, gain: float) -> None:
        """A trial of `burst` has ended."""
        self.bursts += 1
        self.burst += (gain - self.burst) / min(self.bursts, RECORD_HALF_LIFE)
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
