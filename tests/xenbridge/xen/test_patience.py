"""What counts of the time that somebody waits for Xen, or for a domain."""

import pytest

from xenbridge.xen import channels
from xenbridge.xen.channels import Channels, Patience


class Time:
    """The host's clock, which a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Time:
    found = Time()
    monkeypatch.setattr(channels, "time", found)
    return found


def test_it_is_over_when_it_has_been_looked_for_that_long(clock) -> None:
    patience, looks = Patience(10.0), 0
    while not patience.over:
        clock.now += 0.5
        looks += 1
    assert looks == 20


def test_a_process_that_was_stopped_has_not_waited_meanwhile(clock) -> None:
    patience = Patience(10.0)
    clock.now += 3600
    assert not patience.over
    assert patience.left == pytest.approx(9.0)


class Events:
    """Channels whose events come when the test lets them; each wait takes all the time it may."""

    wait = Channels.wait

    def __init__(self, clock: Time, stopped: float, comes_at_look: int) -> None:
        self._clock, self._stopped, self._comes, self.looks = clock, stopped, comes_at_look, 0

    def take(self, seconds: float) -> bool:
        self.looks += 1
        self._clock.now += self._stopped if self.looks == 1 else seconds
        return self.looks == self._comes


def test_what_has_come_while_the_process_was_stopped_is_found(clock) -> None:
    """For longer than its patience: it looks again before it gives up."""
    events = Events(clock, stopped=60.0, comes_at_look=2)
    assert events.wait(lambda: events.looks == 2, 10.0)


def test_what_does_not_come_is_given_up(clock) -> None:
    events = Events(clock, stopped=60.0, comes_at_look=0)
    assert not events.wait(lambda: False, 10.0)
    assert events.looks == 10
