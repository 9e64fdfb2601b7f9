"""Sessions of which C answers what it can: the same is said and left behind as by Python alone."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from emu.unicorn_engine import HELPER
from mutated_exchanges import GREETINGS, STEPS, ExchangeGround, Exchanging
from stub.known import load_library
from stub.packet import frame
from stub.session import Session
from stub_fuzzing import Finding

LIBRARY = load_library()
pytestmark = pytest.mark.skipif(LIBRARY is None or isinstance(HELPER, str), reason="the helpers in C were not built")

STEP, LOOK = frame(STEPS[0]), frame(b"m500,4")
#: A client that has stepped: the next steps are C's.
BEGUN = [[frame(greeting) for greeting in GREETINGS], [STEP, LOOK, STEP, LOOK, STEP]]


@pytest.fixture(scope="module")
def ground() -> Iterator[ExchangeGround]:
    assert LIBRARY is not None
    ground = ExchangeGround(LIBRARY)
    yield ground
    ground.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 150, 50))
def test_c_and_python_say_the_same_in_fifty_changed_sessions(ground: ExchangeGround, first: int) -> None:
    ground.came.clear()
    for number in range(first, first + 50):
        ground.session(number)
    came = ground.came
    assert (
        came["answered"] > 2_000
        and came["stepped"] > 1_000
        and came["begun"] > 50
        and came["out"] > 10
        and came["met"] > 30
        and came["by Python"] > 300
    )


@pytest.mark.slow
def test_a_packet_that_was_cut_off_is_dropped_where_c_answers_the_next(ground: ExchangeGround) -> None:
    """What a later piece ends, and that Ctrl-C is no part of a packet, goes by what has come before."""
    for part in (b"$m500,", b"$m500,4", b"$m500,4#", b"$M500,1:"):
        said = ground.compare([*BEGUN, [STEP, part, frame(b"m504,4"), b"\x03", STEP]])
        assert said[-1].count(b"$T05") == 1
        assert b"$T02" in said[-1]
        # What was looked up ahead of the client is not known behind a part either.
        said = ground.compare([*BEGUN, [LOOK, STEP, LOOK, STEP + part, LOOK, b"\x03", STEP]])
        assert b"$T02" in said[-1]
        said = ground.compare([*BEGUN, [part, STEP, b"#fd", frame(b"qC")]])
        assert said[-1].endswith(frame(b"QCp1.1"))
        assert said[-1].count(b"$T05") == 1


def test_behind_the_start_of_one_over_the_limit_c_answers_nothing_either(ground: ExchangeGround) -> None:
    ground.compare([*BEGUN, [b"$" + b"a" * 0x18000, b"a" * 0x18000, LOOK, STEP, b"\x03", STEP]])


def test_a_stop_reply_is_as_the_client_has_announced_last(ground: ExchangeGround) -> None:
    greeting = frame(b"qSupported:swbreak+")
    said = ground.compare([*BEGUN, [greeting, STEP, STEP], [frame(GREETINGS[0]), STEP, STEP]])
    assert said[2].count(b"thread:1;") == 2
    assert said[3].count(b"thread:p1.1;") == 2


def test_ctrl_c_between_two_steps_ends_the_next_though_c_makes_it(ground: ExchangeGround) -> None:
    ground.came.clear()
    said = ground.compare([*BEGUN, [STEP, b"\x03", STEP, STEP, LOOK, STEP, b"\x03", LOOK, STEP]])
    assert [part[:3] for part in said[-1].split(b"$") if part[:1] == b"T"] == [b"T05", b"T02", b"T05", b"T05", b"T02"]
    assert ground.came["stepped"] > 2


def test_a_number_is_the_same_session_each_time_and_others_are_others() -> None:
    first, second = Exchanging(), Exchanging()
    sessions = [first.pieces(random.Random(number)) for number in range(200)]
    assert sessions == [second.pieces(random.Random(number)) for number in range(200)]
    assert len(set(map(tuple, sessions))) == 200


def test_what_c_answers_otherwise_is_a_finding(ground: ExchangeGround, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Session.begin_quiet

    def other(session: Session) -> object:
        talk = begin(session)
        return talk and talk._replace(reply=talk.reply.replace(b"core:0", b"core:1"))

    monkeypatch.setattr(Session, "begin_quiet", other)
    with pytest.raises(Finding, match="in another way"):
        ground.compare([*BEGUN, [STEP, STEP]])
