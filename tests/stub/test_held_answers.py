"""Answers that are kept while nobody but the client does anything to the target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.ahead import MOST, Ahead
from stub.meanings import Meanings
from stub.packet import frame
from stub.registers import describe
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


def steady(held: bool) -> Client:
    """The same, and it knows all registers: stop replies have the program counter."""
    peer = talking(held)
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    return peer


@given(st.lists(st.sampled_from((*PACKETS, *["vCont;s:1;c"] * 8, "m10101,1", "m10100,40")), max_size=60))
def test_a_session_that_looks_ahead_says_what_one_that_does_not_says(packets: list[str]) -> None:
    ahead, plain = steady(True), steady(False)
    for packet in packets:
        assert ahead.raw(frame(packet.encode())) == plain.raw(frame(packet.encode()))
        ahead.session.look_ahead()
    assert ahead.session.log == plain.session.log


def test_what_was_asked_at_the_last_stop_is_looked_up_before_it_is_asked_at_this_one() -> None:
    peer = steady(True)
    seen = reads(peer)
    for packet in ("vCont;s:1;c", "m10101,1", "m10100,40", "m41,1", "vCont;s:1;c"):
        peer.one(packet)
        peer.session.look_ahead()
    assert seen == [0x10101, 0x10100, 0x41, 0x10100, 0x41]  # the byte is one of the 40h
    assert [peer.one(packet) for packet in ("m10102,1", "m41,1")] == [b"02", b"41"]
    assert len(seen) == 5
    peer.one("vCont;s:1;c")
    peer.session.look_ahead()
    assert seen[5:] == [0x10103, 0x41]  # what was not asked again is not looked up a third time


def test_where_a_block_cannot_be_read_whole_each_look_is_made_by_itself() -> None:
    peer = steady(True)
    seen = reads(peer)
    assert isinstance(peer.session.target, FakeTarget)
    del peer.session.target.memory[0x10120:]
    for packet in ("vCont;s:1;c", "m10101,1", "m10100,40", "vCont;s:1;c"):
        peer.one(packet)
        peer.session.look_ahead()
    assert seen == [0x10101, 0x10100, 0x10100, 0x10102]
    assert (peer.one("m10102,1"), len(peer.one("m10100,40"))) == (b"02", 2 * 0x20)
    assert len(seen) == 4


@pytest.mark.parametrize("bits", [(32, 64), (64, 32)])
def test_a_stop_that_was_told_in_another_mode_s_registers_is_no_help(bits: tuple[int, int]) -> None:
    before, now = map(describe, bits)
    packet = frame(b"m7c00,1")
    meanings = Meanings({}, looks_on=False)
    for description, blocks in ((before, 1), (now, 0)):
        ahead = Ahead()
        for pc in (0x7C00, 0x7C01):
            told = [0] * len(before.expedited)
            told[[r.type for r in before.expedited].index("code_ptr")] = pc
            values = (n.to_bytes(r.size, "little").hex() for n, r in zip(told, before.expedited, strict=True))
            ahead.stopped(b"T05thread:1;" + (before.expedited_form % tuple(values)).encode())
            guessed, others = ahead.guess({packet: None} if pc & 1 else {}, meanings, description)
        assert (len(guessed), others) == (blocks, [] if blocks else [packet])


@pytest.mark.parametrize(("value", "blocks"), [("007c0000", 1), ("007c000000000000", 0), ("007c", 0)])
def test_a_program_counter_of_another_width_is_no_help(value: str, blocks: int) -> None:
    """As one has that was told by another description, before the guest changed its mode."""
    ahead, packet = Ahead(), frame(b"m7c00,1")
    for asked in ({}, {packet: None}):
        ahead.stopped(f"T05thread:1;8:{value};".encode())
        guessed, _ = ahead.guess(asked, Meanings({}, looks_on=False), describe(32))
    assert len(guessed) == blocks


def test_nothing_is_looked_up_ahead_of_a_client_that_asks_nothing() -> None:
    peer = steady(True)
    seen = reads(peer)
    for _ in range(3):
        peer.one("vCont;s:1;c")
        peer.session.look_ahead()
    assert seen == []


def test_what_is_guessed_is_little() -> None:
    peer = steady(True)
    seen = reads(peer)
    peer.one("vCont;s:1;c")
    for address in range(4 * ANSWERS):
        peer.one(f"m{address:x},1")
    seen.clear()
    peer.one("vCont;s:1;c")
    peer.session.look_ahead()
    assert len(seen) == MOST


def test_a_breakpoint_that_comes_or_goes_ends_nothing_that_is_held() -> None:
    peer = steady(True)
    seen = reads(peer)
    for packet in ("m41,3", "Z0,41,1", "m41,3", "z0,41,1", "m41,3"):
        peer.one(packet)
    assert seen == [0x41]


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
    assert len(peer.session._answers.known) <= ANSWERS
