"""The trace of a guest's exits under the reference hypervisor, for replays by any strategy: `emu.rental`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from emu.debugger import Debugger, Stop
from emu.gaps import EDGES
from emu.learning import prices_of
from emu.ledger import Ledger
from emu.machine import build_machine
from emu.rental import Fixed, Prices, Touch, clairvoyant, replay
from emu.until import parse_until
from emu.vcpu import Site, VmExit
from repl.cli import run_parser
from repl.machine_options import machine_config

LIMIT = 6_000_000_000  #: instructions, the most that a workload runs
#: The dwells that are tried in hindsight: none, four an octave up to a million instructions, and without end.
FIXED = (0, *(edge for edge in EDGES if edge <= 1 << 20), 1 << 40)


class Recorder:
    """A policy that is native wherever that can be, and takes down every exit."""

    name, enters, learns, sees_all, fixed = "native", True, True, False, None

    def __init__(self) -> None:
        self.trace: list[Touch] = []
        #: instructions that had to be emulated as the state could not be entered
        self.held = 0

    def dwell(self, exit: VmExit, native: bool) -> int:
        """Never."""
        return 0

    def hit(self, site: Site, gap: int) -> None:
        """An access where native execution was not to be had is nobody's decision."""
        self.held += gap

    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None:
        """An exit."""
        self.held += emulated
        self.trace.append(Touch(site, max(1, gap - emulated)))

    def moved(self) -> None:
        """Where the state cannot be entered the emulator has to take it."""
        if self.trace:
            last = self.trace[-1]
            self.trace[-1] = Touch(last.site, last.gap, True)

    def shown(self) -> tuple[str, ...]:
        """For people."""
        return (f"{len(self.trace)} exits taken down",)


@dataclass(frozen=True)
class Run:
    """A guest's run under a policy: its ledger, its result, and the processor time that it took."""

    policy: str
    ledger: Ledger
    seconds: float
    stop: Stop
    fingerprint: str


@dataclass(frozen=True)
class Hindsight:
    """What strategies cost on a recorded trace, in cycles: of each fixed dwell, the best of them, a clairvoyant."""

    touches: int
    curve: tuple[tuple[int, float], ...]
    best: int
    best_cost: float
    clairvoyant: float


def run(
    options: Sequence[str], until: str, policy: str, recorder: Recorder | None = None, *, limit: int = LIMIT
) -> Run:
    """Run `v2e run OPTIONS` under the reference hypervisor until the event, or for `limit` instructions, in this
    process. Raises what building a machine raises."""
    words = ["--hypervisor", "model", "--policy", policy, *options]
    debugger = Debugger(build_machine(machine_config(run_parser().parse_args(words))))
    machine = debugger.machine
    try:
        transitions = machine.transitions
        assert transitions is not None  # there is a hypervisor
        if recorder is not None:
            transitions.set_policy(recorder)
        debugger.set_until(parse_until(until))
        debugger.set_limit(limit)
        debugger.begin_continue()
        begin = time.process_time()
        stop = debugger.run()
        seconds = time.process_time() - begin
        fingerprint = debugger.fingerprint()
        return Run(policy, transitions.ledger, seconds, stop, str(fingerprint))
    finally:
        machine.close()


def fixed_costs(trace: Sequence[Touch], prices: Prices, dwells: Sequence[int]) -> list[float]:
    """What each dwell costs on a trace that ends with a forced touch, as `replay` has it. Where the emulator takes the
    CPU behind each exit the order of the gaps is nothing to the cost, and equal ones are counted together."""
    gaps = Counter(touch.gap for touch in trace)
    native = prices.native * sum(touch.gap for touch in trace)

    def cost(dwell: int) -> float:
        left = prices.rent * dwell + prices.price
        return native + sum(times * (prices.rent * gap if gap <= dwell else left) for gap, times in gaps.items())

    return [cost(dwell) if dwell else replay(trace, Fixed(0)).cost(prices) for dwell in dwells]


def hindsight(recorder: Recorder, ledger: Ledger, fixed: Sequence[int] = FIXED) -> Hindsight:
    """Of what was taken down, at the prices of the ledger; what had to be emulated is paid by all. Instructions of
    no gap, as those behind the last touch, are the last one."""
    prices = prices_of(ledger.costs)
    rest = ledger.emulated + ledger.native - recorder.held - sum(touch.gap for touch in recorder.trace)
    ended = [*recorder.trace, Touch(None, max(1, rest), True)]
    held = recorder.held * prices.emulated
    costs = fixed_costs(ended, prices, fixed)
    curve = tuple((dwell, held + cost) for dwell, cost in zip(fixed, costs, strict=True))
    best, cost = min(curve, key=lambda pair: pair[1])
    return Hindsight(len(recorder.trace), curve, best, cost, held + clairvoyant(ended, prices))
