"""Nothing that comes in makes a session raise, hang or grow."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.packet import PACKET_SIZE, frame
from stub.session import Close, RunCommand, Session
from stub.voice import HIGH_WATER
from stub_fakes import FakeTarget, client
from stub_fuzzing import SESSIONS, Finding, feed, seeds
from stub_machine import resident

#: A session as gdb has it: attach, look, breakpoint, run, step, detach.
SESSION = SESSIONS["plain"]
RECORDED = [frame(packet.encode("latin-1")) for packet in SESSION]


def serve(session: Session, data: bytes) -> int:
    """What a server does with bytes; how much is held at most."""
    events = session.receive_data(data)
    worst = session.buffered
    while session.data_to_send():
        events += session.receive_data(b"")
        worst = max(worst, session.buffered)
    for event in events:
        if isinstance(event, RunCommand):
            session.command_finished("done")
        assert isinstance(event, RunCommand | Close)
    return worst


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_random_bytes(chunks: list[bytes]) -> None:
    session = Session(FakeTarget(), has_runner=True)
    for chunk in chunks:
        serve(session, chunk)


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=20).map(lambda s: s.encode("latin-1")), max_size=20))
def test_random_packets(payloads: list[bytes]) -> None:
    errors: list[Exception] = []
    session = Session(FakeTarget(), has_runner=True, on_error=errors.append)
    for payload in payloads:
        serve(session, frame(payload))
    assert errors == []


@given(st.data())
def test_mutated_sessions(data: st.DataObject) -> None:
    errors: list[Exception] = []
    target = FakeTarget()
    session = Session(target, has_runner=True, on_error=errors.append)
    packets = data.draw(st.lists(st.sampled_from(SESSION), min_size=1, max_size=15))
    for packet in packets:
        payload = packet.encode("latin-1")
        at, drop = data.draw(st.integers(0, len(payload))), data.draw(st.integers(0, 3))
        noise = data.draw(
            st.sampled_from([b"", b"", b"", b"0", b"ffffffffffffffff", b",", b";", b":", b"-1", b"\0", b"}"])
        )
        serve(session, frame(payload[:at] + noise + payload[at + drop :]))
        if target.active:
            serve(session, b"\x03")
    session.disconnected()
    assert errors == []
    assert target.points == set()


def test_the_recorded_session_itself_is_answered() -> None:
    peer = client(has_runner=True)
    for packet in SESSION:
        answers = peer.ask(packet)
        if packet == "c":
            answers = peer.incoming(peer.raw(b"\x03"))
        expects = packet not in ("R00",)
        assert bool(answers) == expects, packet
        assert not any(answer.startswith(b"E.internal") for answer in answers)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_client_killed_at_every_byte_leaves_no_breakpoints_and_no_listener(step: int) -> None:
    whole = b"".join(RECORDED)
    for end in range(0, len(whole), step):
        target = FakeTarget()
        session = Session(target, has_runner=True)
        serve(session, whole[:end])
        session.disconnected()
        assert target.points == set(), whole[:end]
        assert target.listener is None


@pytest.mark.slow
def test_ten_megabytes_of_random_bytes_do_not_grow_memory() -> None:
    rng = random.Random(3)
    session = Session(FakeTarget(), has_runner=True)
    worst, before = serve(session, rng.randbytes(0x10000)), resident()
    for _ in range(160):
        worst = max(worst, serve(session, rng.randbytes(0x10000)))
    assert resident() - before < 64 << 20
    assert worst < HIGH_WATER + 3 * PACKET_SIZE
    assert b"QC1" in client_after(session)


def client_after(session: Session) -> bytes:
    """The answer to a question once the noise is over."""
    session.receive_data(b"#00" + frame(b"qC"))
    return session.data_to_send()


SEEDS = dict(seeds())


@pytest.mark.parametrize("name", SEEDS)
def test_what_the_fuzzer_begins_with_is_no_finding(name: str) -> None:
    feed(SEEDS[name])


def test_an_error_within_a_session_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: FakeTarget) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(FakeTarget, "describe", fails)
    with pytest.raises(Finding):
        feed(SEEDS["trace-packets"])


@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_what_the_fuzzer_begins_with_changed(name: str, data: st.DataObject) -> None:
    whole = SEEDS[name]
    for _ in range(data.draw(st.integers(1, 4))):
        at, drop = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 8))
        whole = whole[:at] + data.draw(st.binary(max_size=8)) + whole[at + drop :]
    feed(whole)
