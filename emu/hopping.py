"""Notices a policy under which hops take the larger share of the cost.

By the ledger alone, so that equal runs notice it at the same instruction, whatever the host's clock says.
"""

from __future__ import annotations

from emu.ledger import Ledger
from emu.policies import Policy

#: Hops between two looks: fewer are soon over.
EVERY = 1000


class Hopping:
    """Of one machine's transitions. `noticed` is what was told since `begin`, or empty."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.begin()

    def begin(self) -> None:
        """What counts begins here: another policy decides, or the ledger was cleared."""
        self.noticed = ""
        self._hops, self._cycles = self._ledger.hops, self._ledger.cost
        self._next = self._hops + EVERY

    def look(self, policy: Policy) -> str:
        """Behind a hop: the sentence that a person has to read, once; else empty."""
        hops = self._ledger.hops
        if hops < self._next or self.noticed:
            return ""
        self._next = hops + EVERY
        count, cycles = hops - self._hops, self._ledger.cost - self._cycles
        share = 100 * count * self._ledger.costs.hop // max(1, cycles)
        if share <= 50 or policy.fixed is None:  # one that learns keeps within its bound
            return ""
        self.noticed = (
            f"hops take {share}% of the time, by the ledger, under the policy {policy.name}: {count} of them in"
            f" {cycles} cycles; {_advice(policy.fixed)}"
        )
        return self.noticed


def _advice(dwell: int) -> str:
    if not dwell:
        return "the guest is often where it cannot be native, and `policy learn` or `policy emulated` hops less"
    return f"`policy learn` or a longer dwell, as `policy dwell:{max(1000, 10 * dwell)}`, hops less"
