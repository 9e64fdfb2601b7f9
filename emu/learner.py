"""The policy `learn`: how long to remain in emulation behind an exit, learned online for each exit site.

Ski rental (Karlin, Manasse, Rudolph and Sleator 1988) with advice from the past (Purohit, Svitkina and Kumar 2018):
what is known of a site proposes a dwell, and the account of what a clairvoyant would have paid permits it or moves it
towards break-even. docs/policies.md explains it, and proves the bound. Deterministic; prices are injected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from emu.gaps import EDGES, FORECASTERS, LONGER, Prior, SiteKnowledge, break_even, class_of
from emu.record import dataclass
from emu.rental import Account, Prices, Site, Touch

#: The most sites that are known at a time: a guest may touch any port and page. That unused for longest is forgotten.
MOST_SITES = 4096
#: A site is asked for its own gaps from so many on, and tells its kind of so many.
ENOUGH, YOUNG = 2, 8
#: In trials a hop out is taken for dearer than it is, by half of both hops where they cost so many exits.
DEARER_HALF = 6.0


@dataclass(frozen=True, slots=True)
class SiteView:
    """What is known of a site. `dwell` is what would be played now in instructions, of `proposed` by `forecaster`;
    `weights` of the gaps that were up to so long, None for longer than all classes, in terms of a new one's; `credit`
    what may be lost by deviating, and `burst` the mean gain of taking the vCPU behind an exit, both in the unit of the
    prices."""

    site: Site
    gaps: int
    dwell: int
    proposed: int
    forecaster: str
    losses: tuple[tuple[str, float], ...]
    weights: tuple[tuple[int | None, float], ...]
    burst: float | None
    bursts: int
    credit: float
    break_even: int


class _Trial:
    """How much dearer it is to be native than emulated behind the touch that ended a gap, by the best decisions from
    there on: from `low` to `high`, and known when the touches to come have made them one. With D the same behind the
    last touch, it is D + `sum` within these. Native one is taken to hop out for more than it costs, by `_dearer`:
    who does not know what comes pays for being too late and too early, and the best would not."""

    __slots__ = ("dwell", "gap", "gaps", "high", "low", "site", "sum")

    def __init__(self, site: Site, gap: int, dwell: int, prices: Prices) -> None:
        self.site, self.gap, self.dwell, self.gaps = site, gap, dwell, 1
        self.sum, self.low, self.high = 0.0, -prices.hop_in, prices.hop_out + _dearer(prices)


class Learner:
    """Strategy and teacher in one: it is told every touch, and says how long the emulator keeps the vCPU behind it."""

    name = "learn"

    def __init__(self, prices: Prices, kind: Callable[[Site], Site] = lambda site: site) -> None:
        self.prices = prices
        self.account = Account(prices)
        self.sites: OrderedDict[Site, SiteKnowledge] = OrderedDict()
        self.kinds: OrderedDict[Site, SiteKnowledge] = OrderedDict()  #: of the first gaps of the sites of a kind
        self.prior = Prior()
        self.all_sites = SiteKnowledge(self.prior)  #: what trials have shown at any
        self._kind = kind
        self._site: Site | None = None
        self._dwell = 0
        self._proposed = 0
        self._native = False
        self._trial: _Trial | None = None

    def dwell(self, touch: Touch, native: bool) -> int:
        """As `emu.rental.Strategy` has it: what was answered last time has been done."""
        if self._site is not None:
            emulated = 0 if self._native else min(touch.gap, self._dwell)
            self.touched(touch.gap, emulated, exited=emulated < touch.gap, forced=touch.forced)
        return self.decide(touch.site, native)

    def touched(
        self, gap: int, emulated: int, *, exited: bool, forced: bool = False, counted: bool = True, held: int = 0
    ) -> None:
        """The next touch came, after a gap of which so many instructions were emulated, by an exit or not. Not
        `counted`: the gap is an estimate, which is believed of the site, but not to be owed by a clairvoyant. `held` of
        the emulated instructions could not have been native: nobody pays rent for them."""
        if self._site is not None:
            self._learn(self._site, gap - held)
            if self._trial is not None:
                self._advance_trial(self._trial, gap - held, forced)
            elif self.prices.hops:
                self._begin_trial(self._site, gap - held, forced)
        owed = gap - held if counted else min(gap, emulated + 1)
        self.account.touched(owed, forced, emulated - held, exited, exited and not self._native)

    def restart(self) -> None:
        """The emulator has the vCPU for a reason that is none of the policy's: what was expected is void."""
        if self._native:
            self.account.hopped()
        self._site = self._trial = None
        self._native = False
        self.account.restart()

    def decide(self, site: Site, native: bool) -> int:
        """Behind a touch at `site`: how long the emulator is to keep the vCPU; 0 with `native`, it goes on natively.
        The trace that is accounted for begins behind the first one, in the emulator."""
        knowledge = self._adviser(site)
        _, proposed = knowledge.choice(self.prices)
        self._proposed = proposed
        first, self._site = self._site is None, site
        self._native = native and not first and not self._hop(knowledge, proposed)
        if native and not first and not self._native:
            self.account.hopped()
        dwell = 0 if self._native else self.account.nearest(proposed)
        if native and not self._native:
            dwell = max(1, dwell)  # 0 would mean to remain native
        self._dwell = dwell
        return dwell

    @property
    def last(self) -> tuple[int, bool]:
        """What was decided last: the dwell, and whether the vCPU was left native."""
        return self._dwell, self._native

    def _learn(self, site: Site, gap: int) -> None:
        """The gap behind a touch at `site`."""
        knowledge = self._known(site)
        if knowledge.gaps < YOUNG:
            self._known_kind(site).seen(gap, self.prices)
        index = class_of(gap)
        if index not in knowledge.all_gaps:
            self.prior.add(index)
        knowledge.seen(gap, self.prices)

    def _adviser(self, site: Site) -> SiteKnowledge:
        """Who is asked: the site, or, before it has seen enough, what the first gaps of its kind were like."""
        return self._advises(site, self._known(site))

    def _advises(self, site: Site, knowledge: SiteKnowledge) -> SiteKnowledge:
        if knowledge.gaps >= ENOUGH:
            return knowledge
        kind = self.kinds.get(self._kind(site))
        return knowledge if kind is None or kind.gaps < ENOUGH else kind

    def _known(self, site: Site) -> SiteKnowledge:
        """What is known of a site, new or found; it becomes the one that was used last."""
        knowledge = self.sites.get(site)
        if knowledge is None:
            knowledge = _new(self.sites, site, SiteKnowledge(self.prior, self._known_kind(site)))
        self.sites.move_to_end(site)
        return knowledge

    def _known_kind(self, site: Site) -> SiteKnowledge:
        """The same of what is known of the kind of a site."""
        kind = self._kind(site)
        knowledge = self.kinds.get(kind)
        if knowledge is None:
            knowledge = _new(self.kinds, kind, SiteKnowledge(self.prior, self.all_sites))
        self.kinds.move_to_end(kind)
        return knowledge

    def view(self, site: Site) -> SiteView:
        """Raises KeyError for a site that is not known."""
        prices = self.prices
        known = self.sites[site]
        knowledge = self._advises(site, known)
        forecaster, proposed = knowledge.choice(prices)
        weights = known.all_gaps.weights.items()
        return SiteView(
            site, known.gaps, self.account.nearest(proposed), proposed, forecaster,
            tuple(zip(FORECASTERS, knowledge.losses, strict=True)),
            tuple((EDGES[index] if index < LONGER else None, weight) for index, weight in weights),
            knowledge.burst.expected, knowledge.burst.count, self.account.credit, break_even(prices.rent, prices.price),
        )  # fmt: skip

    def know(
        self,
        prior: Prior,
        all_sites: SiteKnowledge,
        kinds: OrderedDict[Site, SiteKnowledge],
        sites: OrderedDict[Site, SiteKnowledge],
    ) -> None:
        """Replace what is known. Sites become those of their kinds."""
        self.prior, self.all_sites, self.kinds, self.sites = prior, all_sites, kinds, sites
        for site, known in sites.items():
            known.belongs(kinds.get(self._kind(site), all_sites))

    def _hop(self, knowledge: SiteKnowledge, proposed: int) -> bool:
        """Behind an exit: whether the emulator takes the vCPU."""
        account = self.account
        burst = knowledge.burst.expected
        wanted = proposed > 0 and (account.safe_to_hop if burst is None else burst > 0)
        return (wanted and account.permits_hop()) or not account.permits_native()

    def _advance_trial(self, trial: _Trial, gap: int, forced: bool) -> None:
        """What a gap tells of the open trial. Behind a touch it is dearer to be native by what it is behind the next
        one, and an exit, less the gap's rent; but never by more than a hop out is taken to cost, nor cheaper than by
        a hop in, which one would take. Behind one that is forced it is a hop out."""
        prices = self.prices
        trial.gaps += 1
        trial.sum += prices.exit - prices.rent * gap
        most = prices.hop_out + (0.0 if forced else _dearer(prices))
        low, high = trial.low, trial.high
        trial.high = min(max(trial.sum + most, low), high)
        trial.low = trial.high if forced else min(max(trial.sum - prices.hop_in, low), high)
        if trial.low == trial.high:
            self._trial = None
            self._tried(trial)

    def _begin_trial(self, site: Site, gap: int, forced: bool) -> None:
        """Of hopping out before a gap that has ended, where no other trial is open: so they follow on each other, and
        which gaps have one is no matter of their lengths."""
        trial = _Trial(site, gap, self._proposed, self.prices)
        if forced:
            trial.low = self.prices.hop_out
            self._tried(trial)
        else:
            self._trial = trial

    def _tried(self, trial: _Trial) -> None:
        """What it would have gained to hop out before the gap, whatever was done."""
        prices, gap, dwell, site = self.prices, trial.gap, trial.dwell, trial.site
        lack = min(trial.low, prices.hop_out)
        emulated = prices.rent * gap if gap <= dwell else prices.rent * dwell + prices.hop_in + prices.exit + lack
        gain = prices.exit + trial.low - prices.hop_out - emulated
        long = prices.rent * gap > prices.exit
        for knowledge in (self.sites.get(site), self.kinds.get(self._kind(site)), self.all_sites):
            if knowledge is not None:
                knowledge.tried(gain, lack, long, trial.gaps)


def _dearer(prices: Prices) -> float:
    """By how much a hop out is taken for dearer in trials: the part of both hops that is the greater, the more exits
    they cost, as the longer is the burst that a hop has to be for, and many trials begin in the middle of it."""
    return prices.hops**2 / (prices.hops + DEARER_HALF * prices.exit)


def _new(table: OrderedDict[Site, SiteKnowledge], site: Site, knowledge: SiteKnowledge) -> SiteKnowledge:
    """Put into a table, in which there is room for it."""
    if len(table) >= MOST_SITES:
        table.popitem(last=False)
    table[site] = knowledge
    return knowledge
