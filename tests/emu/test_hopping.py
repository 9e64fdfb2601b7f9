"""Hops that take the larger share of the cost are noticed once, at the same instruction of equal runs."""

from __future__ import annotations

import re

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs, parse_costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from xenbridge.model import make_model

ENOUGH = 200_000  #: instructions, more than the tour has


class Run:
    """The tour under a policy, with what was noticed and when."""

    def __init__(self, policy: str, slice: int | None = None, costs: str = "exit=75000") -> None:
        prices = parse_costs(costs)
        self.noticed: list[tuple[int, str]] = []
        native = NativeConfig(make_model(), policy_named(policy, prices), prices, None, self._note)
        config = MachineConfig(firmware=tour_rom(), shadow=False, slice=slice, native=native)
        self.run = Debugger(build_machine(config))

    def _note(self, text: str) -> None:
        self.noticed.append((self.run.machine.executor.retired, text))

    def to(self, instructions: int) -> Run:
        self.run.machine.run(instructions)
        return self


def test_a_dwell_that_is_too_short_is_noticed_once_with_its_share_and_what_to_do() -> None:
    one = Run("dwell:1").to(ENOUGH)
    ((_, text),) = one.noticed
    share, policy, hops, cycles, advised = re.fullmatch(
        r"hops take (\d+)% of the time, by the ledger, under the policy (\S+): (\d+) of them in (\d+) cycles; "
        r"`policy learn` or a longer dwell, as `policy dwell:(\d+)`, hops less",
        text,
    ).groups()  # type: ignore[union-attr]
    assert (policy, int(hops), int(advised)) == ("dwell:1", 1000, 1000)
    assert int(share) == 100 * 1000 * Costs().hop // int(cycles) > 50
    view = one.run.steering.view()
    assert view.noticed == text and view.totals is not None and view.totals.hops_in + view.totals.hops_out > 2000
    one.run.machine.close()


def test_what_is_advised_hops_less_and_is_not_noticed() -> None:
    hops = []
    for policy in ("dwell:1", "dwell:1000", "learn"):
        one = Run(policy).to(ENOUGH)
        hops.append((one.run.steering.ledger().hops_in, len(one.noticed)))
        one.run.machine.close()
    assert hops[0][0] > 100 * hops[1][0] and hops[0][0] > 100 * hops[2][0]
    assert [noticed for _, noticed in hops] == [1, 0, 0]


def test_hops_that_cost_little_are_not_noticed() -> None:
    one = Run("dwell:1", costs="exit=75000,hop=20000").to(ENOUGH)
    assert one.run.steering.ledger().hops_in > 1000 and not one.noticed
    one.run.machine.close()


@pytest.mark.slow_variants
@pytest.mark.parametrize("slice", [777, 10_007])
def test_slices_and_clocks_change_neither_when_nor_what(slice: int) -> None:
    whole, sliced = Run("dwell:1").to(ENOUGH), Run("dwell:1", slice).to(ENOUGH)
    assert whole.noticed == sliced.noticed != []
    whole.run.machine.close()
    sliced.run.machine.close()


def test_another_policy_begins_anew_and_so_does_a_cleared_ledger() -> None:
    one = Run("dwell:1").to(70_000)
    assert len(one.noticed) == 1
    one.run.steering.set_policy(one.run.steering.named_policy("dwell:2"))
    assert one.run.steering.view().noticed == ""
    one.run.machine.run(ENOUGH)
    assert len(one.noticed) == 2 and "under the policy dwell:2" in one.noticed[1][1]
    one.run.steering.clear_ledger()
    assert one.run.steering.view().noticed == ""
    one.run.machine.close()
