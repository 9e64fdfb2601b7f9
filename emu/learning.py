"""The learner as a policy of transitions: exits become touches, exit sites are told in words."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from itertools import islice

from emu.gaps import break_even
from emu.learner import MOST_SITES, Learner, SiteView
from emu.ledger import Costs
from emu.rental import FOR_GOOD, Prices
from emu.vcpu import Site, VmExit
from emu.x86.modes import Mode

#: The lines of `sites`: those those with the most gaps first.
SHOWN_SITES = 12
LEARN = "learn"


def prices_of(costs: Costs) -> Prices:
    """The ledger's costs, in cycles, as the learner has them."""
    return Prices(costs.exit, costs.hop, costs.hop, costs.emulated, costs.native)


def kind_of(site: Hashable) -> Hashable:
    """What sites have in common that are the same port, page or register, accessed from different places."""
    return site._replace(pc=0) if isinstance(site, Site) else site


class Learn:
    """Policy `learn`. `learner` has what is known."""

    name, learns, sees_all, fixed = LEARN, True, True, None

    def __init__(self, costs: Costs) -> None:
        self.learner = Learner(prices_of(costs), kind_of)
        prices = self.learner.prices
        self._break_even = break_even(prices.rent, prices.price)
        #: of sites at which the CPU cannot be native: how often they were met, and why
        self.barred: OrderedDict[Site, tuple[int, str]] = OrderedDict()
        self._passing = False  # the last access was at one of them
        #: Where emulation is no slower it never pays to go native, not even up to the first exit, which may never come.
        self.enters = self.learner.prices.rent > 0

    def dwell(self, exit: VmExit, native: bool) -> int:
        """See Policy. Where the CPU cannot be native nobody has a choice, so there is nothing to learn; when it can be
        again, it is as behind an exit of which nothing is known."""
        if exit.barred:
            return self._pass_by(exit.site, exit.barred)
        self._passing = False
        return self.learner.decide(exit.site, native)

    def _pass_by(self, site: Site, reason: str) -> int:
        if not self._passing:
            self.learner.restart()
            self._passing = True
        count, _ = self.barred.get(site, (0, ""))
        if not count and len(self.barred) >= MOST_SITES:
            self.barred.popitem(last=False)
        self.barred[site] = count + 1, reason
        self.barred.move_to_end(site)
        return self._break_even

    def hit(self, site: Site, gap: int) -> None:
        """See Policy. Beyond the dwell the CPU was emulated because it could not be entered."""
        if self._passing:
            return
        dwell, _ = self.learner.last
        self.learner.touched(gap, gap, exited=False, held=max(0, gap - dwell))

    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None:
        """See Policy."""
        if self._passing:
            return
        dwell, _ = self.learner.last
        self.learner.touched(gap, emulated, exited=True, counted=counted, held=max(0, emulated - dwell))

    def moved(self) -> None:
        """See Policy."""
        self._passing = False
        self.learner.restart()

    def explain(self, text: str, barred: Callable[[int, Mode], str], most: int) -> tuple[tuple[str, ...], ...]:
        """Why the sites whose words contain `text` have the dwells that they have, and why at others nothing is
        learned: lines for people for each of the `most` busiest of both. `barred` says of a linear address and a mode
        why the CPU cannot be native there as things are."""
        learner = self.learner
        found = [(site, learner.view(site)) for site in learner.sites if text in str(site)]
        found.sort(key=lambda pair: -pair[1].gaps)
        told = [
            explained(view, barred(site.pc, site.mode) if isinstance(site, Site) else "") for site, view in found[:most]
        ]
        return (*told, *islice(self._unlearned(text), most))

    def _unlearned(self, text: str) -> Iterator[tuple[str, ...]]:
        """Those that were met most first."""
        until = instructions(self._break_even)
        for site, (count, reason) in sorted(self.barred.items(), key=lambda pair: -pair[1][0]):
            if text in str(site):
                met = f"{count} access{'es' * (count > 1)}"
                yield (
                    f"{site}: {met} met the emulator, and nothing was learned: {reason}",
                    f"nobody has a choice there; once the state can be entered again it is break-even, {until}",
                )

    def shown(self) -> tuple[str, ...]:
        """See Policy."""
        learner = self.learner
        account, prices = learner.account, learner.prices
        if not self.enters:
            return (
                f"everything is emulated: an instruction costs {prices.emulated:g} cycles emulated and"
                f" {prices.native:g} native",
            )
        gaps = sum(known.gaps for known in learner.sites.values())
        return (
            f"learns from {gaps} gaps at {len(learner.sites)} exit sites;"
            f" at most {prices.bound:.3g} times what a clairvoyant pays, with {account.credit:.0f} cycles to spare",
            f"break-even is {instructions(account.break_even)}",
        )

    def sites(self) -> tuple[str, ...]:
        """The exit sites with the most gaps and their dwells, and how many others there are, in lines for people."""
        learner, lines = self.learner, []
        most = sorted(learner.sites.items(), key=lambda pair: -pair[1].gaps)[:SHOWN_SITES]
        for site, _ in most:
            view = learner.view(site)
            lines.append(f"{site}: {view.gaps} gaps, dwell {instructions(view.dwell)} by {view.forecaster}")
        if len(learner.sites) > len(most):
            lines.append(f"and {len(learner.sites) - len(most)} more sites")
        for reason, count in Counter(reason for _, reason in self.barred.values()).most_common():
            lines.append(f"not learned at {count} other site{'s' * (count > 1)}: {reason}")
        return tuple(lines)


def instructions(dwell: int) -> str:
    """A dwell in words."""
    return "without end" if dwell >= FOR_GOOD else f"{dwell} instructions"


def explained(view: SiteView, barred: str = "") -> tuple[str, ...]:
    """Why a site has the dwell that it has, in lines for people; `barred` is why the CPU cannot be native there now."""
    lines = [f"{view.site}: {view.gaps} gaps seen; dwell {instructions(view.dwell)}"]
    if barred:
        lines.append(f"of no use at present, and nothing more is learned: {barred}")
    if view.gaps == 0:
        lines.append(f"nothing is known of it: break-even, {instructions(view.break_even)}")
    else:
        lines.append(
            f"proposed: {instructions(view.proposed)}, by the forecaster that lost least lately, {view.forecaster}"
        )
        if view.dwell != view.proposed:
            lines.append(f"moved towards break-even: the credit of {view.credit:.0f} cycles permits no more")
    lines += [f"  {name + ':':30} {loss:.0f} cycles lost lately" for name, loss in view.losses]
    total = sum(weight for _, weight in view.weights)
    for longest, weight in view.weights:
        gap = "longer" if longest is None else f"up to {longest}"
        lines.append(f"  gaps {gap:20} {weight / total:6.1%}")
    if view.burst is not None:
        what = "gains" if view.burst > 0 else "loses"
        lines.append(
            f"  taking the CPU to the emulator behind an exit {what} {abs(view.burst):.0f} cycles"
            f" ({view.bursts} trials here)"
        )
    return tuple(lines)
