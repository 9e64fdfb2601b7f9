"""The policy `learn`: how long to remain in emulation behind an exit, learned online for each exit site.

Ski rental (Karlin, Manasse, Rudolph and Sleator 1988) with advice from the past (Purohit, Svitkina and Kumar 2018): what
is known of a site proposes a dwell, and the account of what a clairvoyant would have paid permits it or moves it towards
break-even. docs/policies.md explains it, and proves the bound. Deterministic; prices are injected.
"""

from __future__ import annotations

from collections import OrderedDict

from emu.gaps import EDGES, LONGER, SiteKnowledge, break_even
from emu.record import dataclass
from emu.rental import Account, Costs, Site, Touch

#: The most sites that are known at a time: a guest may touch any port and page. The one unused for longest is forgotten.
MOST_SITES = 4096
#: Before this many trials at a site the safe rule decides whether the emulator takes the vCPU.
TRIALS = 2


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

    def __init__(self, costs: Costs, sites: OrderedDict[Site, SiteKnowledge] | None = None) -> None:
        self.costs = costs
        self.account = Account(costs)
        self.sites: OrderedDict[Site, SiteKnowledge] = sites if sites is not None else OrderedDict()
        self._site: Site | None = None
        self._dwell = 0
        self._native = False
        self._trial: _Trial | None = None

    def dwell(self, touch: Touch, native: bool) -> int:
        """As `emu.rental.Strategy` has it: what was answered last time has been done."""
        if self._site is not None:
            entered = not self._native and touch.gap > self._dwell
            emulated = 0 if self._native else min(touch.gap, self._dwell)
            self.touched(touch, emulated, exited=self._native or entered, entered=entered)
        return self.decide(touch.site, native)

    def touched(self, touch: Touch, emulated: int, *, exited: bool, entered: bool, counted: bool = True) -> None:
        """`touch` came, `emulated` instructions of its gap in the emulator, by an exit or not, behind a hop in or not.
        Not `counted`: its gap is an estimate, which is believed of the site, but not to be owed by a clairvoyant."""
        before = self._site
        if before is not None and before in self.sites:
            self.sites[before].seen(touch.gap, self.costs)
        self._advance_trial(touch)
        owed = touch.gap if counted else min(touch.gap, emulated + 1)
        self.account.touched(owed, touch.forced, emulated, exited, entered)

    def decide(self, site: Site, native: bool) -> int:
        """Behind a touch at `site`: how long the emulator is to keep the vCPU; 0 with `native`, it goes on natively."""
        knowledge = self._knowledge(site)
        _, proposed = knowledge.choice(self.costs)
        self._begin_trial(site, proposed)
        self._site = site
        self._native = native and not self._hop(knowledge, proposed)
        if native and not self._native:
            self.account.hopped()
        self._dwell = 0 if self._native else self.account.nearest(proposed)
        return self._dwell

    def view(self, site: Site) -> SiteView:
        """Raises KeyError for a site that is not known."""
        knowledge, costs = self.sites[site], self.costs
        forecaster, proposed = knowledge.choice(costs)
        weights = knowledge.all_gaps.weights.items()
        return SiteView(
            site, knowledge.gaps, self.account.nearest(proposed), proposed, forecaster,
            tuple(knowledge.losses.items()),
            tuple((EDGES[index] if index < LONGER else None, weight) for index, weight in weights),
            knowledge.burst, knowledge.bursts, self.account.credit, break_even(costs.rent, costs.price),
        )  # fmt: skip

    def _hop(self, knowledge: SiteKnowledge, proposed: int) -> bool:
        """Behind an exit: whether the emulator takes the vCPU."""
        account = self.account
        if knowledge.bursts >= TRIALS:
            wanted = proposed > 0 and knowledge.burst > 0
        else:
            wanted = proposed > 0 and account.safe_to_hop
        if wanted:
            return account.permits_hop()
        return not account.permits_native()

    def _knowledge(self, site: Site) -> SiteKnowledge:
        """Of the site, new or found, and it becomes the one that was used last."""
        if site not in self.sites:
            if len(self.sites) >= MOST_SITES:
                self.sites.popitem(last=False)
            self.sites[site] = SiteKnowledge()
        self.sites.move_to_end(site)
        return self.sites[site]

    def _begin_trial(self, site: Site, proposed: int) -> None:
        """One at a time, where a hop has a price of its own."""
        if self._trial is not None:
            self._trial.dwell = proposed
        elif self.costs.hops:
            self._trial = _Trial(site, -self.costs.hops, proposed)

    def _advance_trial(self, touch: Touch) -> None:
        """An exit saved and its gap's rent, until the emulator would have left or the result is clear."""
        trial, costs = self._trial, self.costs
        if trial is None:
            return
        caught = touch.gap <= trial.dwell
        trial.gain += costs.exit - costs.rent * touch.gap if caught else -costs.rent * trial.dwell
        if not caught or touch.forced or abs(trial.gain) > 2 * costs.hops:
            if trial.site in self.sites:
                self.sites[trial.site].tried(trial.gain)
            self._trial = None
