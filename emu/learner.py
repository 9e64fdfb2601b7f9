"""The policy `learn`: how long to remain in emulation behind an exit, learned online for each exit site.

Ski rental (Karlin, Manasse, Rudolph and Sleator 1988) with advice from the past (Purohit, Svitkina and Kumar 2018):
what is known of a site proposes a dwell, and the account of what a clairvoyant would have paid permits it or moves it
towards break-even. docs/policies.md explains it, and proves the bound. Deterministic; prices are injected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from emu.gaps import EDGES, FORECASTERS, LONGER, TRIALS, Prior, SiteKnowledge, break_even, class_of
from emu.record import dataclass
from emu.rental import Account, Prices, Site, Touch

#: The most sites that are known at a time: a guest may touch any port and page. That unused for longest is forgotten.
MOST_SITES = 4096
#: A site is asked for its own gaps from so many on, and tells its kind of so many.
ENOUGH, YOUNG = 2, 8


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
    burst: float
    bursts: int
    credit: float
    break_even: int


@dataclass
class _Trial:
    """What taking the vCPU behind an exit at `site` would gain: exits saved so far, less hops and rent."""

    site: Site
    gain: float
    dwell: int


class Learner:
    """Strategy and teacher in one: it is told every touch, and says how long the emulator keeps the vCPU behind it."""

    name = "learn"

    def __init__(self, prices: Prices, kind: Callable[[Site], Site] = lambda site: site) -> None:
        self.prices = prices
        self.account = Account(prices)
        self.sites: OrderedDict[Site, SiteKnowledge] = OrderedDict()
        self.kinds: OrderedDict[Site, SiteKnowledge] = OrderedDict()  #: of the first gaps of the sites of a kind
        self.prior = Prior()
        self._kind = kind
        self._site: Site | None = None
        self._dwell = 0
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
        self._advance_trial(gap - held, forced)
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
        self._begin_trial(site, proposed)
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
        knowledge = self._known(self.sites, site)
        if knowledge.gaps < YOUNG:
            self._known(self.kinds, self._kind(site)).seen(gap, self.prices)
        knowledge.seen(gap, self.prices)
        self.prior.add(class_of(gap))

    def _adviser(self, site: Site) -> SiteKnowledge:
        """Who is asked: the site, or, before it has seen enough, what the first gaps of its kind were like."""
        return self._advises(site, self._known(self.sites, site))

    def _advises(self, site: Site, knowledge: SiteKnowledge) -> SiteKnowledge:
        if knowledge.gaps >= ENOUGH:
            return knowledge
        kind = self.kinds.get(self._kind(site))
        return knowledge if kind is None or kind.gaps < ENOUGH else kind

    def _known(self, table: OrderedDict[Site, SiteKnowledge], site: Site) -> SiteKnowledge:
        """What is known of a site or a kind, new or found; it becomes the one that was used last."""
        knowledge = table.get(site)
        if knowledge is None:
            if len(table) >= MOST_SITES:
                table.popitem(last=False)
            knowledge = table[site] = SiteKnowledge(self.prior)
        table.move_to_end(site)
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
            knowledge.burst, knowledge.bursts, self.account.credit, break_even(prices.rent, prices.price),
        )  # fmt: skip

    def _hop(self, knowledge: SiteKnowledge, proposed: int) -> bool:
        """Behind an exit: whether the emulator takes the vCPU."""
        account = self.account
        if knowledge.bursts >= TRIALS:
            wanted = proposed > 0 and knowledge.burst > 0
        else:
            wanted = proposed > 0 and account.safe_to_hop
        return (wanted and account.permits_hop()) or not account.permits_native()

    def _begin_trial(self, site: Site, proposed: int) -> None:
        """One at a time, where a hop has a price of its own."""
        if self._trial is not None:
            self._trial.dwell = proposed
        elif self.prices.hops:
            self._trial = _Trial(site, -self.prices.hops, proposed)

    def _advance_trial(self, gap: int, forced: bool) -> None:
        """An exit saved and its gap's rent, until the emulator would have left or the result is clear."""
        trial, prices = self._trial, self.prices
        if trial is None:
            return
        caught = gap <= trial.dwell
        trial.gain += prices.exit - prices.rent * gap if caught else -prices.rent * trial.dwell
        if not caught or forced or abs(trial.gain) > 2 * prices.hops:
            if trial.site in self.sites:
                self.sites[trial.site].tried(trial.gain)
            self._trial = None
