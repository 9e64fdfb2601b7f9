"""While a vector waits beside which the borrowed vCPU is deaf, the keeper looks for what comes before it, ever less
often; else it looks for nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from emu.clock import Clock
from xenbridge.bridge import BridgeError
from xenbridge.xen import context
from xenbridge.xen.bridge import _NOTHING, XenBridge, _At
from xenbridge.xen.context import Record
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


def test_a_domain_that_is_lost_at_a_look_ends_the_machine(kept: tuple[XenKeeper, Bridge, Clock]) -> None:
    keeper, bridge, clock = kept
    said: list[str] = []
    keeper.failed = said.append  # type: ignore[method-assign]

    def lost() -> None:
        raise BridgeError("there is no domain 7")

    bridge.vector, bridge.deaf, bridge.doubt = 0x74, True, lost  # type: ignore[method-assign]
    keeper._look()
    pass_by(clock, 1)
    assert said == ["the devices in the hypervisor are lost: there is no domain 7"]


@pytest.mark.parametrize(("at", "enters"), [(_At.DOOR, 1), (_At.LISTENING, 0)])
def test_a_vcpu_that_does_not_listen_enters_its_code_for_a_look(at: _At, enters: int) -> None:
    """Without that Xen's timers ask for nothing."""
    bridge, done = XenBridge.__new__(XenBridge), []
    bridge._at, bridge._rose = at, False
    bridge._do = done.append  # type: ignore[method-assign]
    bridge._until_door = lambda: done.append("door")  # type: ignore[method-assign]
    bridge.doubt()
    assert (bridge._rose, done) == (True, [_NOTHING, "door"] * enters)


def pic(base: int, isr: int = 0, mode: int = 0) -> bytes:
    """A record of Xen's 8259 with this in service."""
    return bytes((0, 0, isr, base, 0, mode, 0, 0))


AEOI, SPECIAL_MASK = 4, 32


@pytest.mark.parametrize(
    ("vector", "master", "slave", "deaf"),
    [
        (None, pic(8, mode=AEOI), pic(0x70, mode=AEOI), False),
        (0x74, pic(8, isr=4), pic(0x70, isr=0x10), True),  # of the slave's by the cascade
        (0x0C, pic(8, isr=0x10), pic(0x70), False),  # it listens for all that comes before
        (0x74, pic(8, mode=AEOI), pic(0x70, mode=AEOI), True),  # it does not listen: all would come
        (0x0C, pic(8, mode=AEOI), pic(0x70, mode=AEOI), True),
        (0x0C, pic(8, isr=0x10, mode=SPECIAL_MASK), pic(0x70), True),
    ],
)
def test_beside_which_vectors_the_vcpu_does_not_hear_all(
    vector: int | None, master: bytes, slave: bytes, deaf: bool
) -> None:
    bridge = XenBridge.__new__(XenBridge)
    records = [Record(context.PIC, 0, master), Record(context.PIC, 1, slave)]
    bridge._domain = SimpleNamespace(records=lambda: records)  # type: ignore[assignment]
    bridge._vector, bridge._service, bridge._deaf = vector, None, False
    assert bridge.deaf is deaf
