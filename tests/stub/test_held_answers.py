"""Answers that are kept while nobody but the client does anything to the target."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stub.packet import frame
from stub.remembered import ANSWER_LENGTH, ANSWERS
from stub_fakes import Client, FakeTarget, client

#: Looks, and what changes what they see.
PACKETS = (
    "g", "p8", "m10100,1", "m41,8", "x41,8", "m1ffff,4", "m20000,1", "qC", "qXfer:threads:read::0,ff",
    "qv2e.Memory:41,2;10100,1",
    "qXfer:threads:read::10,ff", "qXfer:features:read:target.xml:0,ff", "vCont;s:1;c", "s10200", "M41,2:ffee",
    "X10100,1:a", "P0=01000000", "Hg1", "Z0,10100,1", "z0,10100,1", "QTFrame:-1", "?", "QNonStop:0",
    "Qqemu.PhyMemMode:1", "Qqemu.PhyMemMode:0",
)  # fmt: skip


def talking(held: bool) -> Client:
    """A client that needs no acknowledgements."""
    peer = client()
    for greeting in ("qSupported:error-message+", "QStartNoAckMode", "?"):
        peer.ask(greeting)
    peer.session.hold(held)
    return peer


def reads(peer: Client) -> list[int]:
    """Where memory is read from now on, as it is."""
    target, seen = peer.session.target, []
    assert isinstance(target, FakeTarget)
    read = target.read_memory

    def noted(address: int, length: int) -> bytes:
        seen.append(address)
        return read(address, length)

    peer.session._context.read = noted
    return seen


@given(st.lists(st.sampled_from(PACKETS), max_size=40))
def test_a_session_that_holds_answers_says_what_one_that_does_not_says(packets: list[str]) -> None:
    held, plain = talking(True), talking(False)
    for packet in packets:
        assert held.raw(frame(packet.encode())) == plain.raw(frame(packet.encode()))
    assert held.session.log == plain.session.log


def test_what_is_asked_again_is_looked_up_once() -> None:
    peer = talking(True)
    seen = reads(peer)
    assert peer.one("m41,3") == peer.one("m41,3") == b"414243"
    assert peer.one("m42,1") == b"42"
    assert seen == [0x41, 0x42]


def test_behind_a_write_a_step_and_a_pause_it_is_looked_up_again() -> None:
    peer = talking(True)
    seen = reads(peer)
    for between in ("M41,1:00", "vCont;s:1;c", "Hg1"):
        peer.one("m41,3")
        peer.one(between)
    assert peer.one("m41,3") == b"004243"
    peer.session.hold(False)
    assert isinstance(peer.session.target, FakeTarget)
    peer.session.target.memory[0x41] = 0x77  # somebody else
    assert peer.one("m41,3") == peer.one("m41,3") == b"774243"
    assert seen == [0x41] * 6


def test_half_a_packet_ends_what_is_held() -> None:
    peer = talking(True)
    seen = reads(peer)
    peer.one("m41,3")
    assert peer.raw(frame(b"m41,3")[:4]) == b""
    assert peer.incoming(peer.raw(frame(b"m41,3")[4:])) == [b"414243"]
    assert seen == [0x41, 0x41]


def test_many_answers_and_long_ones_cost_no_memory() -> None:
    peer = talking(True)
    for address in range(4 * ANSWERS):
        peer.one(f"m{address:x},1")
        peer.one(f"m{address:x},{ANSWER_LENGTH:x}")
    assert len(peer.session._answers._answers) <= ANSWERS
