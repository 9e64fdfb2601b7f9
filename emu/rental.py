"""Emulate on or go native, as a rental: what executing costs, and what strategies and a clairvoyant pay on a trace.

After each access that a native vCPU would exit for, the emulator may keep the vCPU, in case another such access comes
soon (rent: emulation is slower), or hand it over (buy: a hop, and the next access is an exit). docs/policies.md defines
the terms, and has the theorem that `Account` is the ledger of.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from emu.record import dataclass
from emu.typed import Protocol

#: A dwell that no gap is longer than: remain in the emulator for good.
FOR_GOOD = 1 << 62

#: Where an exit comes from, for those that learn: anything that can be compared and hashed.
Site = Hashable


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in one unit, cycles or nanoseconds: `exit` of an access that a native vCPU stops for, until it executes
    again; `hop_in` and `hop_out` of moving the CPU's state to the vCPU and back; `emulated` and `native` of one
    instruction. Raises ValueError where a price is negative or an exit is free."""

    exit: float
    hop_in: float
    hop_out: float
    emulated: float
    native: float

    def __post_init__(self) -> None:
        prices = (self.exit, self.hop_in, self.hop_out, self.emulated, self.native)
        if not all(0 <= price < float("inf") for price in prices):
            raise ValueError(f"prices are finite numbers from 0 on, not {prices}")
        if not self.exit:
            raise ValueError("an exit that costs nothing leaves nothing to decide")

    @property
    def rent(self) -> float:
        """What an emulated instruction costs more than a native one; not positive where emulation is no slower."""
        return self.emulated - self.native

    @property
    def hops(self) -> float:
        """In and out again."""
        return self.hop_in + self.hop_out

    @property
    def price(self) -> float:
        """To leave the emulator and to be back in it behind the next access."""
        return self.exit + self.hops

    @property
    def bound(self) -> float:
        """How many times the clairvoyant's cost is never exceeded: 2 where a hop costs nothing beyond the exit, and no
        strategy can promise less; with hops that cost more up to 3."""
        return 2 + min(1.0, self.hops / self.exit)


@dataclass(frozen=True, slots=True)
class Touch:
    """An access that a native vCPU exits for, `gap` (>= 1) instructions behind the one before it, its own included.
    `forced`: the emulator has to execute it (HLT, CPUID, a stop by the debugger, a state that cannot be entered), so
    that behind it the emulator has the vCPU whoever had it before."""

    site: Site
    gap: int
    forced: bool = False


class Strategy(Protocol):
    """Decides, seeing nothing of what is to come."""

    def dwell(self, touch: Touch, native: bool) -> int:
        """Behind `touch`: how many instructions the emulator executes from here if no other comes, before it hands over
        the vCPU. 0 with `native`, the vCPU having exited for `touch`: it goes on without a hop."""


class Fixed:
    """The same dwell behind every touch: 0 is native wherever possible, FOR_GOOD emulated."""

    def __init__(self, instructions: int) -> None:
        self._instructions = instructions

    def dwell(self, touch: Touch, native: bool) -> int:
        """The number."""
        return self._instructions


@dataclass
class Bill:
    """What a trace cost: of `instructions` those `emulated`, `exits`, `hops` (each in or out), and the whole `cost`."""

    instructions: int = 0
    emulated: int = 0
    exits: int = 0
    hops_in: int = 0
    hops_out: int = 0

    @property
    def hops(self) -> int:
        """In either direction."""
        return self.hops_in + self.hops_out

    def cost(self, prices: Prices) -> float:
        """The sum at these prices."""
        moves = self.exits * prices.exit + self.hops_in * prices.hop_in + self.hops_out * prices.hop_out
        return moves + self.emulated * prices.emulated + (self.instructions - self.emulated) * prices.native


def replay(trace: Iterable[Touch], strategy: Strategy) -> Bill:
    """What `strategy` does on a trace, which begins in the emulator behind a touch and ends with a forced one: a run's
    end takes the vCPU back. The strategy is asked behind each touch but the last, and before the first one with it."""
    bill = Bill()
    native, dwell = False, None
    for touch in trace:
        if dwell is None:
            dwell = strategy.dwell(Touch(touch.site, 1, True), False)
        bill.instructions += touch.gap
        if not native and touch.gap > dwell:
            bill.hops_in += 1
            bill.emulated += dwell
            native = True
        elif not native:
            bill.emulated += touch.gap
        bill.exits += native
        dwell = strategy.dwell(touch, native and not touch.forced)
        if native and (touch.forced or dwell):
            bill.hops_out += 1
            native = False
    return bill


def clairvoyant(trace: Iterable[Touch], prices: Prices) -> float:
    """The least that any sequence of hops costs on a trace, with all of it known: the shortest path through two
    states, the vCPU in the emulator or native behind each touch. It has the moves that strategies have and no others:
    out of native only behind an exit."""
    emulator, native, instructions = 0.0, prices.hop_in, 0
    for touch in trace:
        instructions += touch.gap
        emulator, native = _behind(touch.gap, touch.forced, emulator, native, prices)
    return min(emulator, native) + instructions * prices.native


def _behind(gap: int, forced: bool, emulator: float, native: float, prices: Prices) -> tuple[float, float]:
    """The least cost beyond native instructions of being in either state behind a touch, from that before the gap."""
    exited = native + prices.exit
    emulator = min(emulator + prices.rent * gap, exited + prices.hop_out)
    through = emulator + prices.hop_in
    return emulator, through if forced else min(exited, through)


def best_fixed(trace: Sequence[Touch], prices: Prices, dwells: Iterable[int]) -> tuple[int, float]:
    """Of `dwells` the one that is cheapest on the trace in hindsight, the least of equals, and its cost."""
    return min(
        ((dwell, replay(trace, Fixed(dwell)).cost(prices)) for dwell in dwells), key=lambda pair: (pair[1], pair[0])
    )


class Account:
    """How far a strategy may deviate from the safe rule and still cost at most `Prices.bound` times what a clairvoyant
    pays, on every continuation of the trace. It is told each touch; `credit` is the slack, never negative as long as
    only what it permits is done. See docs/policies.md for the proof."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.credit = 0.0
        #: how much dearer it would be for a clairvoyant to be in the emulator now than where it would be cheapest:
        #: from 0 to `Prices.hops`
        self.lag = 0.0
        self._patient = prices.hops > prices.exit
        self._rent, self._price, self._more = prices.rent, prices.price, prices.bound - 1

    def restart(self) -> None:
        """The emulator has the vCPU for a reason that no strategy chose: a clairvoyant's is there as well, at least at
        the price of the hop that it would have needed."""
        self.credit += (self.prices.bound - 1) * self.lag
        self.lag = 0.0

    @property
    def break_even(self) -> int:
        """The safe rule's dwell: until the rent is what it would cost to have left and to be back."""
        return self._instructions(self.prices.price - self.lag)

    @property
    def safe_to_hop(self) -> bool:
        """The safe rule behind an exit: take the vCPU to the emulator. Where hops are cheaper than exits always, else
        when exits have cost a clairvoyant as much as the hops."""
        return not self._patient or self.lag == 0

    def permits_dwell(self, dwell: int) -> bool:
        """From the emulator: the bound holds whenever the next touch comes."""
        prices = self.prices
        credit, _ = self._behind(dwell, False)
        if credit - prices.rent * dwell < 0:
            return False
        credit, lag = self._behind(dwell + 1, False)
        return credit - prices.rent * dwell - prices.hop_in - prices.exit >= self._needed(lag)

    def permits_hop(self) -> bool:
        """Behind an exit: the bound holds if the emulator takes the vCPU."""
        return self.credit >= self.prices.hop_out

    def permits_native(self) -> bool:
        """Behind an exit: the bound holds if the vCPU goes on natively."""
        credit, lag = self._behind(1, False)
        return credit - self.prices.exit >= self._needed(lag)

    def nearest(self, dwell: int) -> int:
        """Of the dwells between the safe rule's and `dwell` the one nearest to `dwell` that is permitted."""
        if self._plenty(dwell) or self.permits_dwell(dwell):
            return dwell
        good, bad = self.break_even, dwell
        while abs(good - bad) > 1:
            middle = (good + bad) // 2
            if self.permits_dwell(middle):
                good = middle
            else:
                bad = middle
        return good

    def _plenty(self, dwell: int) -> bool:
        """Quickly, whether credit is no question: whatever comes, it pays for the dwell and for leaving."""
        return self.credit >= self._rent * dwell + self._price

    def touched(self, gap: int, forced: bool, emulated: int, exited: bool, entered: bool) -> None:
        """A touch came after `gap` instructions, `emulated` of them in the emulator, by an exit or not, with a hop in
        on the way or not. One that is forced and exited has hopped out as well."""
        prices = self.prices
        credit, self.lag = self._behind(gap, forced)
        paid = prices.rent * emulated + prices.hop_in * entered + (prices.exit + prices.hop_out * forced) * exited
        self.credit = credit - paid

    def hopped(self) -> None:
        """The emulator has taken the vCPU behind an exit."""
        self.credit -= self.prices.hop_out

    def _behind(self, gap: int, forced: bool) -> tuple[float, float]:
        """Credit and lag behind a touch, before what the strategy pays is taken off."""
        prices = self.prices
        emulator = self.lag - prices.hop_in
        behind, native = _behind(gap, forced, emulator, 0.0, prices)
        earned = behind - emulator + self._more * (native + prices.native * gap)
        return self.credit + earned, behind - native + prices.hop_in

    def _needed(self, lag: float) -> float:
        """The credit that being native behind an exit needs, so that the safe rule can follow."""
        return self.prices.hop_out - (max(lag - self.prices.exit, 0.0) if self._patient else 0.0)

    def _instructions(self, rent: float) -> int:
        return FOR_GOOD if self._rent <= 0 else min(FOR_GOOD, int(rent / self._rent))
