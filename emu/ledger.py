"""What native execution costs: a ledger of exits, hops and instructions, in cycles of a hypothetical host.

It never touches the guest's time, so the same run can be accounted for with any costs, and policies be compared on any
machine.
"""

from __future__ import annotations

import re
from collections import Counter

from emu.record import dataclass, field
from emu.vcpu import ExitCause


class CostError(ValueError):
    """One sentence: why these are no costs."""


@dataclass(slots=True)
class Costs:
    """In cycles of the host. `exit`: a VM exit, its way to a device model in user space and back into the guest, 60 to
    90 thousand on the V2E authors' hosts. `hop`: moving the CPU's state between hypervisor and emulator, one way.
    `emulated`, `native`: an instruction. `inside`: an access of the native CPU to a device of the hypervisor's, which
    it answers by itself: a VM exit and its handler. `request`: the same of the emulator's, submitted on the guest's
    behalf: with a borrowed vCPU that is an entry and an exit to user space (docs/bridge.md has both as measured).
    `native_ns`: what a native instruction lasts, in ns, by which time is told from instructions where a vCPU does not
    count them."""

    exit: int = 75_000
    hop: int = 75_000
    emulated: int = 30
    native: int = 1
    inside: int = 5_000
    request: int = 75_000
    native_ns: float = 1.0


NAMES = ("exit", "hop", "emulated", "native", "inside", "request")
MOST = 1_000_000_000  #: cycles


def parse_costs(text: str) -> Costs:
    """Costs by name, `exit=60000,hop=20000`; the others are the usual ones. Raises CostError."""
    costs = Costs()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*=\s*([0-9]{1,12})\s*", part)
        if match is None or match[1] not in NAMES:
            raise CostError(f"{part!r} is no cost: use {', '.join(f'{name}=N' for name in NAMES)}")
        if (value := int(match[2])) > MOST:
            raise CostError(f"{match[1]}={value} is too much: {MOST} cycles is the most")
        setattr(costs, match[1], value)
    return costs


@dataclass(slots=True)
class Ledger:
    """What has been counted since the machine was built, or since `clear`."""

    costs: Costs = field(default_factory=Costs)
    exits: Counter[ExitCause] = field(default_factory=Counter)
    hops_in: int = 0  #: emulator to native
    hops_out: int = 0
    emulated: int = 0  #: instructions
    native: int = 0
    caught: int = 0  #: accesses that found the CPU emulated and would have been exits
    failed: int = 0  #: entries that were tried and refused
    inside: int = 0  #: accesses of the native CPU that the hypervisor's own devices have answered
    requests: int = 0  #: the same of the emulator's
    elapsed: int = 0  #: ns of native execution where the vCPU does not count instructions

    @property
    def cycles(self) -> int:
        """The virtual cost of all that was counted."""
        costs = self.costs
        return (
            sum(self.exits.values()) * costs.exit
            + (self.hops_in + self.hops_out) * costs.hop
            + self.emulated * costs.emulated
            + self.native * costs.native
            + self.inside * costs.inside
            + self.requests * costs.request
        )

    @property
    def hops(self) -> int:
        """In either direction."""
        return self.hops_in + self.hops_out

    @property
    def cost(self) -> int:
        """As `cycles`, with native execution that is not counted at the time that it took."""
        return self.cycles + round(self.elapsed / self.costs.native_ns * self.costs.native)

    def clear(self) -> None:
        """Count from 0 again, with the same costs."""
        self.exits.clear()
        self.hops_in = self.hops_out = self.emulated = self.native = self.caught = self.failed = 0
        self.inside = self.requests = self.elapsed = 0
