"""A sample of the changed sessions that `make soak` runs 100,000 of, on the real machine: the first of those.
test_fuzz_minute.py has others, half a minute's."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from mutated_sessions import Desk, Ground, Mutator
from stub.handlers import base
from stub.packet import frame
from stub_fuzzing import Finding


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    ground = Ground()
    yield ground
    ground.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 100))
def test_a_hundred_changed_sessions_end_without_an_error_and_leave_nothing(ground: Ground, first: int) -> None:
    for number in range(first, first + 100):
        ground.session(number)


def test_a_recording_is_answered_alike_before_and_behind_others(ground: Ground) -> None:
    whole = ground.mutator.whole
    answers = {name: ground.play(pieces) for name, pieces in whole.items()}
    for number in range(2_000, 2_020):
        ground.session(number)
    for name, said in answers.items():
        assert b"$" in b"".join(said)
        assert ground.play(whole[name]) == said


def test_a_number_is_the_same_session_each_time_and_others_are_others() -> None:
    first, second = Mutator(), Mutator()
    sessions = [first.pieces(random.Random(number)) for number in range(200)]
    assert sessions == [second.pieces(random.Random(number)) for number in range(200)]
    assert len(set(map(tuple, sessions))) == 200


def test_a_machine_that_wants_to_be_looked_at_ends_no_step(ground: Ground) -> None:
    """So it does each so many events of all sessions together, at another place of each session."""
    desk = Desk(ground.debugger)
    ground.debugger.request_stop()
    desk.resume(ground.debugger.begin_step)
    assert not ground.debugger.running
    ground.debugger.reset()


def test_what_a_session_leaves_behind_is_a_finding(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.Context, "release", lambda context: None)
    with pytest.raises(Finding, match="left behind"):
        ground.play([frame(b"?"), frame(b"Z0,f000f,1")])


def test_an_error_within_a_session_is_a_finding(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.Context, "layout", lambda context: 1 // 0)
    with pytest.raises(Finding, match="an error"):
        ground.play([frame(b"?"), frame(b"p0")])
