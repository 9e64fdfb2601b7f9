"""The learner's one constant that is chosen: `python -m bench.sensitivity [PRICES ...]`, what others would cost.

Gaps at one site are drawn from lognormal distributions, of five spreads with six medians each, two seeds of 2,000; a
row of the table has the worst and the mean of these in terms of the best fixed dwell, by replay, for each value of
`emu.learner.DEARER_HALF`. Some minutes for each of the prices.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence

from emu import learner
from emu.gaps import EDGES, break_even
from emu.rental import Prices, Touch, best_fixed, replay

PRICES = {
    "ledger": Prices(75_000, 75_000, 75_000, 30, 1),
    "cheap hops": Prices(75_000, 25_000, 25_000, 30, 1),
    "dear hops": Prices(10_000, 150_000, 200_000, 3, 0.5),
}
#: 0 is all of both hops, and what has no end nothing.
CONSTANTS = (0.0, 1.5, 3.0, 6.0, 12.0, 1e18)
SPREADS = (0.5, 1.0, 1.5, 2.0, 3.0)
MEDIANS = (0.02, 0.04, 0.08, 0.12, 0.2, 0.4)  #: in terms of break-even
SEEDS, GAPS = (50, 51), 2000
FIXED = (0, *EDGES[:80], 1 << 40)


def traces(prices: Prices, gaps: int = GAPS) -> Iterator[list[list[Touch]]]:
    """For each distribution the traces of all seeds."""
    even = break_even(prices.rent, prices.price)
    for spread in SPREADS:
        for median in MEDIANS:
            drawn = []
            for seed in SEEDS:
                dice = random.Random(seed)
                touches = [Touch("site", 1 + int(even * median * dice.lognormvariate(0, spread))) for _ in range(gaps)]
                drawn.append([*touches, Touch("end", 1, True)])
            yield drawn


def ratios(prices: Prices, constants: Sequence[float] = CONSTANTS, gaps: int = GAPS) -> list[tuple[float, float]]:
    """For each constant the worst and the mean cost of learn in terms of the best fixed dwell's."""
    found: list[list[float]] = [[] for _ in constants]
    usual = learner.DEARER_HALF
    try:
        for drawn in traces(prices, gaps):
            best = [best_fixed(trace, prices, FIXED)[1] for trace in drawn]
            for constant, costs in zip(constants, found, strict=True):
                learner.DEARER_HALF = constant
                learned = [replay(trace, learner.Learner(prices)).cost(prices) for trace in drawn]
                costs.append(sum(one / other for one, other in zip(learned, best, strict=True)) / len(drawn))
    finally:
        learner.DEARER_HALF = usual
    return [(max(costs), sum(costs) / len(costs)) for costs in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.sensitivity", description=__doc__)
    parser.add_argument("prices", nargs="*", metavar="PRICES", help=f"only these: {', '.join(PRICES)}")
    chosen = parser.parse_args(arguments).prices or list(PRICES)
    if unknown := [name for name in chosen if name not in PRICES]:
        parser.error(f"there are no prices {unknown[0]!r}: {', '.join(PRICES)}")
    print("| worst and mean | " + " | ".join("nothing" if one > 1e9 else f"{one:g}" for one in CONSTANTS) + " |")
    print("|---" * (len(CONSTANTS) + 1) + "|")
    for name in chosen:
        row = ratios(PRICES[name])
        print(f"| {name} | " + " | ".join(f"{worst:.3f} {mean:.3f}" for worst, mean in row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
