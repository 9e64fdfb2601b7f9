"""While a vector waits beside which the borrowed vCPU is deaf, the keeper looks for what comes before it, ever less
often; else it looks for nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from emu.clock import Clock
from xenbridge.xen.kept import XenKeeper

MS = 1_000_000


class Bridge:
    """As far as it is asked."""

    borrowed = True

    def __init__(self) -> None:
        self.vector: int | None = None
        self.deaf, self.doubts = False, 0

    def look(self) -> int | None:
        return self.vector

    def doubt(self) -> None:
        self.doubts += 1

    def listen(self, on: bool) -> None: ...


@pytest.fixture
def kept() -> tuple[XenKeeper, Bridge, Clock]:
    keeper, bridge, clock = XenKeeper.__new__(XenKeeper), Bridge(), Clock(lambda: 0)
    keeper.bridge = keeper.xen = bridge  # type: ignore[assignment]
    pin = SimpleNamespace(update=lambda: None, settle=lambda: None)
    keeper._pin = pin  # type: ignore[assignment]
    keeper._waiting, keeper._every = None, MS
    keeper._mirrors = SimpleNamespace(clock=clock)  # type: ignore[assignment]
    keeper._doubt = clock.timer("xen", keeper._look_again)
    return keeper, bridge, clock


def pass_by(clock: Clock, ms: int) -> None:
    for _ in range(ms):
        clock.skip_to(clock.now + MS)
        clock.run_due()


def test_it_looks_while_one_waits_beside_which_the_vcpu_is_deaf(kept: tuple[XenKeeper, Bridge, Clock]) -> None:
    keeper, bridge, clock = kept
    bridge.vector, bridge.deaf = 0x74, True
    keeper._look()
    looks = []
    for _ in range(60):
        before = bridge.doubts
        pass_by(clock, 1)
        looks += [clock.now // MS] if bridge.doubts > before else []
    assert looks == [1, 3, 7, 15, 25, 35, 45, 55]
    bridge.vector = None  # it has been put back, and something else comes
    keeper._look()
    pass_by(clock, 30)
    assert bridge.doubts == len(looks)
    bridge.vector = 0x70
    keeper._look()
    pass_by(clock, 1)
    assert bridge.doubts == len(looks) + 1, "from the beginning"


@pytest.mark.parametrize(("vector", "deaf"), [(None, True), (0x74, False)])
def test_else_nothing_is_looked_for(kept: tuple[XenKeeper, Bridge, Clock], vector: int | None, deaf: bool) -> None:
    keeper, bridge, clock = kept
    bridge.vector, bridge.deaf = vector, deaf
    keeper._look()
    assert clock.next_deadline() is None


@pytest.mark.parametrize("change", ["the guest runs natively", "nothing waits"])
def test_a_while_that_ends_too_late_is_no_look(kept: tuple[XenKeeper, Bridge, Clock], change: str) -> None:
    """The timer was armed before, and nobody has cancelled it."""
    keeper, bridge, clock = kept
    bridge.vector, bridge.deaf = 0x74, True
    keeper._look()
    assert clock.next_deadline() == MS
    if change == "nothing waits":
        keeper._waiting = None
    else:
        bridge.borrowed = False
    pass_by(clock, 3)
    assert bridge.doubts == 0


def test_a_guest_that_runs_natively_is_not_looked_after(kept: tuple[XenKeeper, Bridge, Clock]) -> None:
    keeper, bridge, clock = kept
    bridge.vector, bridge.deaf = 0x74, True
    keeper._look()
    keeper.natively()
    assert clock.next_deadline() is None
