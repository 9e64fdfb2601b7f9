"""Virtual time and the event queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.clock import NS_PER_INSTRUCTION, Clock


class Counter:
    def __init__(self) -> None:
        self.retired = 0

    def __call__(self) -> int:
        return self.retired


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_time_is_instructions_plus_what_was_skipped(counter: Counter) -> None:
    clock = Clock(counter)
    counter.retired = 7
    clock.skip_to(1000)
    counter.retired = 8
    assert clock.now == 1000 + NS_PER_INSTRUCTION


def test_skipping_never_goes_back(counter: Counter) -> None:
    clock = Clock(counter)
    counter.retired = 100
    clock.skip_to(5)
    assert clock.now == 100 * NS_PER_INSTRUCTION


def test_a_timer_does_not_fire_before_its_instant(counter: Counter) -> None:
    clock, fired = Clock(counter), []
    clock.timer("a", fired.append).arm(25)
    counter.retired = 2
    clock.run_due()
    assert fired == []
    counter.retired = 3
    clock.run_due()
    assert fired == [25]


def test_timers_due_together_fire_in_the_order_of_creation(counter: Counter) -> None:
    clock, fired = Clock(counter), []
    first = clock.timer("first", lambda _: fired.append("first"))
    second = clock.timer("second", lambda _: fired.append("second"))
    second.arm(10)
    first.arm(10)
    counter.retired = 1
    clock.run_due()
    assert fired == ["first", "second"]


def test_rearming_replaces_the_deadline(counter: Counter) -> None:
    clock, fired = Clock(counter), []
    timer = clock.timer("a", fired.append)
    timer.arm(10)
    timer.arm(30)
    counter.retired = 2
    clock.run_due()
    assert fired == []
    assert clock.next_deadline() == 30


def test_a_cancelled_timer_is_no_deadline(counter: Counter) -> None:
    clock = Clock(counter)
    timer = clock.timer("a", lambda _: None)
    timer.arm(10)
    timer.cancel()
    assert clock.next_deadline() is None


def test_arming_before_the_planned_horizon_asks_for_a_new_plan(counter: Counter) -> None:
    clock, plans = Clock(counter), []
    clock.on_replan = lambda: plans.append(1)
    timer = clock.timer("a", lambda _: None)
    clock.horizon = 100
    timer.arm(200)
    assert plans == []
    timer.arm(50)
    assert plans == [1]


def test_two_timers_cannot_share_a_name(counter: Counter) -> None:
    clock = Clock(counter)
    clock.timer("a", lambda _: None)
    with pytest.raises(ValueError, match="'a' exists already"):
        clock.timer("a", lambda _: None)


def test_saved_state_holds_the_guests_timers_and_not_the_hosts(counter: Counter) -> None:
    clock, fired = Clock(counter), []
    guest, host = clock.timer("guest", lambda _: fired.append("guest")), clock.timer("h", lambda _: None, host=True)
    guest.arm(40)
    host.arm(20)
    state = clock.save()
    assert state.timers == {"guest": 40}
    guest.cancel()
    clock.restore(state)
    counter.retired = 4
    clock.run_due()
    assert fired == ["guest"]


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=30))
def test_every_armed_deadline_fires_once_and_in_order(plan: list[tuple[int, bool]]) -> None:
    counter = Counter()
    clock, fired = Clock(counter), []
    expected = []
    for index, (deadline, cancel) in enumerate(plan):
        timer = clock.timer(str(index), lambda d, i=index: fired.append((d, i)))
        timer.arm(deadline)
        if cancel:
            timer.cancel()
        else:
            expected.append((deadline, index))
    for counter.retired in range(52):
        clock.run_due()
    assert fired == sorted(expected)
