"""What is known of one exit site: how long the gaps behind it were, in which order, and which dwell suits them.

A gap is the number of instructions to the next access that a native vCPU would exit for. Pure arithmetic on what it is
told: no clock, no randomness.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from emu.record import dataclass, field
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

#: The forecasters, in the order in which one is preferred among equals.
ALL, AFTER, LAST, BREAK_EVEN = "all gaps", "gaps behind such a gap", "the last gap", "break-even"
FORECASTERS = (ALL, AFTER, LAST, BREAK_EVEN)


def class_of(gap: int) -> int:
    """The index in EDGES of the class of a gap, LONGER beyond them."""
    return bisect_left(EDGES, gap)


def paid(gap: int, dwell: int, rent: float, price: float) -> float:
    """What a gap costs beyond its native instructions with this dwell: its rent, or that of the dwell and the price."""
    return rent * gap if gap <= dwell else rent * dwell + price


def break_even(rent: float, price: float) -> int:
    """The dwell whose rent is the price of leaving; FOR_GOOD where emulation costs no rent."""
    return FOR_GOOD if rent <= 0 else min(FOR_GOOD, int(price / rent))


class Distribution:
    """Weights of gap classes, the recent ones heavier, and the dwell that would have been cheapest for them."""

    def __init__(self, half_life: int, weights: Mapping[int, float] | None = None) -> None:
        self._growth = 2 ** (1 / half_life)
        self._weight = 1.0  #: of the next gap
        self._weights = dict(weights or {})
        self._total = sum(self._weights.values())
        self._news = float("inf")  #: weight since `_found`
        self._found = (0, 0.0, 0.0)  #: the best dwell, for this rent and price

    @property
    def weights(self) -> dict[int, float]:
        """By class, in terms of the next gap's weight."""
        return {index: weight / self._weight for index, weight in sorted(self._weights.items())}

    def add(self, index: int) -> None:
        """A gap of this class came."""
        self._weight *= self._growth
        self._weights[index] = self._weights.get(index, 0.0) + self._weight
        self._news += self._weight
        self._total += self._weight
        if self._weight > HEAVIEST:
            self._weights = self.weights
            self._news /= self._weight
            self._total = sum(self._weights.values())
            self._weight = 1.0

    def best(self, rent: float, price: float) -> int | None:
        """The cheapest dwell, 0 or the longest gap of a class; None without any gap."""
        if not self._weights:
            return None
        best, for_rent, for_price = self._found
        if self._news > self._total * STALE or for_price != price or for_rent != rent:
            best = self._search(rent, price, self._total)
            self._found, self._news = (best, rent, price), 0.0
        return best

    def _search(self, rent: float, price: float, total: float) -> int:
        """Each class's end is tried: rents of the gaps up to there, and for the others its own rent and the price."""
        longest = FOR_GOOD if rent <= 0 else USEFUL * price / rent
        best, least = 0, price * total
        covered = 0.0
        for index in sorted(self._weights):
            if index == LONGER or EDGES[index] > longest:
                break
            dwell, weight = EDGES[index], self._weights[index]
            covered += rent * dwell * weight
            total -= weight
            cost = covered + (rent * dwell + price) * total
            if cost < least:
                best, least = dwell, cost
        return best


@dataclass
class SiteKnowledge:
    """One exit site. `gaps` is the number seen; `last` the class of the last one, None before the first; `losses` what
    each forecaster's dwells would have cost lately; `burst` what it gained lately, beyond hops and rent, to take the
    vCPU to the emulator behind an exit, as a mean of `bursts` trials."""

    gaps: int = 0
    last: int | None = None
    all_gaps: Distribution = field(default_factory=lambda: Distribution(ALL_HALF_LIFE))
    after: dict[int, Distribution] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FORECASTERS, 0.0))
    forecasts: dict[str, int] = field(default_factory=dict)
    burst: float = 0.0
    bursts: int = 0

    def seen(self, gap: int, prices: Prices) -> None:
        """A gap behind this site has ended: each forecaster pays what its dwell would have cost."""
        fade = 0.5 ** (1 / RECORD_HALF_LIFE)
        forecasts, rent, price = self._forecast(prices), prices.rent, self.price(prices)
        for name in FORECASTERS:
            self.losses[name] = self.losses[name] * fade + paid(gap, forecasts[name], rent, price)
        index = class_of(gap)
        self.all_gaps.add(index)
        if self.last is not None:
            self._behind_last().add(index)
        self.last = index
        self.gaps += 1
        self.forecasts = {}

    def price(self, prices: Prices) -> float:
        """What it costs to leave the emulator here: the hop in, the exit, and what being native behind it is worth less
        than being in the emulator, which is never more than a hop out."""
        worse = min(max(self.burst + prices.hop_out, -prices.hop_in), prices.hop_out) if self.bursts else prices.hop_out
        return prices.hop_in + prices.exit + worse

    def choice(self, prices: Prices) -> tuple[str, int]:
        """The forecaster that would have been the cheapest lately, and its dwell now; break-even before the first gap."""
        forecasts = self._forecast(prices)
        name = min(FORECASTERS, key=self.losses.__getitem__) if self.gaps else BREAK_EVEN
        return name, forecasts[name]

    def tried(self, gain: float) -> None:
        """A trial of `burst` has ended."""
        self.bursts += 1
        self.burst += (gain - self.burst) / min(self.bursts, RECORD_HALF_LIFE)
        self.forecasts = {}

    def _forecast(self, prices: Prices) -> dict[str, int]:
        """Each forecaster's dwell; kept until the next gap."""
        if not self.forecasts:
            rent, price = prices.rent, self.price(prices)
            even = break_even(rent, price)
            every = self.all_gaps.best(rent, price)
            after = None if self.last is None else self._behind_last().best(rent, price)
            last = even
            if self.last is not None:
                last = EDGES[self.last] if self.last < LONGER and EDGES[self.last] <= even else 0
            self.forecasts = {
                ALL: even if every is None else every,
                AFTER: even if after is None else after,
                LAST: last,
                BREAK_EVEN: even,
            }
        return self.forecasts

    def _behind_last(self) -> Distribution:
        assert self.last is not None
        kind = self.last // PRECEDING
        if kind not in self.after:
            self.after[kind] = Distribution(AFTER_HALF_LIFE)
        return self.after[kind]
