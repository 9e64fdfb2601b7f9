"""Framing: "Debugging with GDB", appendix "GDB Remote Serial Protocol", "Overview" and "Packet Acknowledgment"."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.packet import (
    PACKET_SIZE,
    Ack,
    Damaged,
    Decoder,
    Interrupt,
    Nak,
    Packet,
    checksum,
    compress,
    escape,
    expand,
    frame,
    unescape,
)


def events(data: bytes, *, pieces: int | None = None, **options: object) -> list[object]:
    decoder = Decoder(**options)  # type: ignore[arg-type]
    found = []
    for start in range(0, len(data), pieces or max(1, len(data))):
        decoder.receive_data(data[start : start + (pieces or len(data))])
        while (event := decoder.next_event()) is not None:
            found.append(event)
    return found


#: The manual's own checksum is the sum modulo 256 in two digits; these were summed by hand.
FRAMES = [
    (b"$#00", [Packet(b"")]),
    (b"$OK#9a", [Packet(b"OK")]),
    (b"+$?#3f", [Ack(), Packet(b"?")]),
    (b"+++-\x03", [Ack(), Nak(), Interrupt()]),
    (b"$g#67$?#3f", [Packet(b"g"), Packet(b"?")]),
    (b"noise$g#67more", [Packet(b"g")]),
    (b"$OK#9b", [Damaged("a packet with a wrong checksum")]),
    (b"$OK#zz", [Damaged("a packet without a checksum")]),
    (b"$OK#$g#67", [Damaged("a packet without a checksum"), Packet(b"g")]),
    (b"$m0,4$g#67", [Packet(b"g")]),  # the end of the first was lost
    (b"$X}\x03}\x04}]}\n#" + b"%02x" % checksum(b"X}\x03}\x04}]}\n"), [Packet(b"X#$}*")]),
    (b"$Xa*b#" + b"%02x" % checksum(b"Xa*b"), [Packet(b"Xa*b")]),  # a client may leave * plain
    (b"$X}#d5", [Damaged("a packet with an escape without the byte it escapes")]),
    (b"$\x03#03", [Packet(b"\x03")]),  # inside a packet it is data
]


@pytest.mark.parametrize("pieces", [None, 1, 2, 3])
@pytest.mark.parametrize(("data", "expected"), FRAMES)
def test_bytes_become_events_however_they_arrive(data: bytes, expected: list[object], pieces: int | None) -> None:
    found = events(data, pieces=pieces)
    if pieces:  # acknowledgements that arrive apart are not merged
        found = [e for i, e in enumerate(found) if not (isinstance(e, Ack) and i and found[i - 1] == e)]
    assert found == expected


def test_checksum_of_long_data_is_the_plain_sum() -> None:
    data = random.Random(1).randbytes(70_000) + b"\xff" * 70_000
    assert checksum(data) == sum(data) & 0xFF


@given(st.binary(max_size=600))
def test_escaped_and_compressed_data_comes_back(data: bytes) -> None:
    sent = compress(escape(data))
    assert b"#" not in sent and b"$" not in sent
    assert unescape(expand(sent)) == data
    assert events(frame(sent), repeats=True) == [Packet(data)]


@given(st.lists(st.sampled_from(b"}]#\x03\x5da"), max_size=12).map(bytes))
def test_each_escape_takes_the_byte_behind_it_whatever_that_is(data: bytes) -> None:
    expected, at = bytearray(), 0
    while at < len(data) and (data[at] != ord("}") or at + 1 < len(data)):
        expected.append(data[at + 1] ^ 0x20 if data[at] == ord("}") else data[at])
        at += 2 if data[at] == ord("}") else 1
    if at < len(data):
        with pytest.raises(ValueError, match="an escape without"):
            unescape(data)
    else:
        assert unescape(data) == expected


@given(st.lists(st.tuples(st.sampled_from(b"0xf}#*"), st.integers(1, 300)), max_size=8))
def test_runs_are_shortened_and_come_back(runs: list[tuple[int, int]]) -> None:
    data = escape(b"".join(bytes((byte,)) * count for byte, count in runs))
    sent = compress(data)
    assert expand(sent) == data
    assert len(sent) <= len(data)


def test_run_length_example_of_the_manual() -> None:
    # "Overview": `0* ` (0, *, 20h = 32 = 3 + 29) is the encoding of "0000".
    assert expand(b"0* ") == b"0000"
    assert compress(b"0000") == b"0* "


@pytest.mark.parametrize("extra", [6, 7, 14, 16])
def test_repeat_counts_that_look_like_framing_are_not_used(extra: int) -> None:
    sent = compress(b"a" * (extra + 1))
    assert not set(sent) & set(b"#$+-")
    assert expand(sent) == b"a" * (extra + 1)


@pytest.mark.parametrize("bad", [b"* ", b"a*", b"a*\x1f", b"a*\x7f"])
def test_bad_repeats_are_damage(bad: bytes) -> None:
    assert events(frame(bad), repeats=True) == [
        Damaged("a packet with a repeat without a byte before it or with a bad count")
    ]


def test_a_packet_of_packetsize_is_taken_and_a_longer_one_is_not_kept() -> None:
    limit = 64
    assert events(frame(b"a" * limit), limit=limit, pieces=7) == [Packet(b"a" * limit)]
    for pieces in (None, 7):
        found = events(frame(b"a" * (limit + 1)) + frame(b"g"), limit=limit, pieces=pieces)
        assert found == [Damaged("a packet longer than 64 bytes (PacketSize)"), Packet(b"g")]


def test_a_cut_off_long_packet_is_followed_by_the_next() -> None:
    for pieces in range(1, 107):
        assert events(b"$" + b"a" * 100 + frame(b"g"), limit=64, pieces=pieces) == [Packet(b"g")]


@pytest.mark.parametrize("filler", [None, b"$", b"a", b"$a", b"+", pytest.param(b"#", marks=pytest.mark.slow), b"}"])
def test_ten_megabytes_of_anything_do_not_grow_memory(filler: bytes | None) -> None:
    rng = random.Random(2)
    decoder, worst = Decoder(), 0
    decoder.receive_data(b"$")
    for _ in range(160):
        decoder.receive_data(rng.randbytes(0x10000) if filler is None else filler * (0x10000 // len(filler)))
        while decoder.next_event() is not None:
            pass
        worst = max(worst, decoder.buffered)
    assert worst <= PACKET_SIZE + 0x10000
    decoder.receive_data(b"#00" + frame(b"g"))
    last = None
    while (event := decoder.next_event()) is not None:
        last = event
    assert last == Packet(b"g")


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_random_bytes_never_raise(chunks: list[bytes]) -> None:
    for chunk in chunks:
        events(chunk + b"$" + chunk + b"#")


@given(st.lists(st.sampled_from((b"$", b"#", b"g", b"}", b"*", b"67", b"00", b"+", b"\x03")), max_size=6).map(b"".join))
def test_what_is_taken_as_one_whole_packet_is_what_the_decoder_finds(data: bytes) -> None:
    payload = Decoder().whole(data)
    if payload is not None:
        assert events(data) == [Packet(payload)]


@given(st.binary(max_size=40).map(escape))
def test_a_good_packet_is_taken_as_a_whole_unless_it_has_escapes(payload: bytes) -> None:
    assert Decoder().whole(frame(payload)) == (None if b"}" in payload else payload)


def test_a_packet_behind_a_piece_of_another_or_over_the_limit_is_not_taken_as_a_whole() -> None:
    decoder = Decoder(limit=4)
    assert decoder.whole(frame(b"12345")) is None
    decoder.receive_data(b"$g")
    assert decoder.next_event() is None
    assert decoder.whole(frame(b"?")) is None
