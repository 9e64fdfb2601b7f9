"""A sample of what `make soak` fuzzes, for each change: sessions, packets and agent expressions, bounded by examples,
which are made small where one fails. test_fuzz_minute.py makes many times as many of the same kinds.

The last test has the real machine behind the session, and looks at the memory of the whole process.
"""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.agent import CODES
from stub.packet import PACKET_SIZE, frame
from stub.voice import HIGH_WATER
from stub_fuzzing import AGENT, LOOKS_ON, PACKETS, RAW, SEPARATOR, SESSIONS, feed
from stub_machine import Asker, resident

pytestmark = pytest.mark.slow
EVERY = sorted({packet.encode("latin-1") for packets in SESSIONS.values() for packet in packets} | {b"arrive"})
#: What numbers and lists are torn apart with.
NOISE = (
    b"",
    b"",
    b"0",
    b"1",
    b"ffffffff",
    b"ffffffffffffffff",
    b",",
    b";",
    b":",
    b"=",
    b"-",
    b"-1",
    b"p1.1",
    b"\0",
    b"}",
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A packet that some client sends, whole or damaged at a place."""
    packet = draw(st.sampled_from(EVERY))
    if draw(st.booleans()):
        return packet
    at, drop = draw(st.integers(0, len(packet))), draw(st.integers(0, 4))
    return packet[:at] + draw(st.sampled_from(NOISE) | st.binary(max_size=4)) + packet[at + drop :]


@settings(max_examples=2 * settings.default.max_examples)
@given(st.sampled_from((PACKETS, LOOKS_ON)), st.lists(changed(), min_size=1, max_size=40))
def test_sessions_of_packets_from_all_kinds_of_clients(kind: int, packets: list[bytes]) -> None:
    feed(bytes((kind,)) + SEPARATOR.join(packets))


@settings(max_examples=settings.default.max_examples)
@given(st.lists(changed().map(frame) | st.binary(max_size=20) | st.sampled_from((b"\x03", b"+", b"-")), max_size=40))
def test_streams_of_bytes_that_are_packets_at_times(pieces: list[bytes]) -> None:
    feed(bytes((RAW,)) + b"".join(pieces))


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """Agent expressions of bytecodes that exist, with operands that often make sense."""
    code = bytearray()
    for number in draw(st.lists(st.sampled_from((*CODES, 0x22, 0x22, 0x23, 0x28)), max_size=40)):
        code.append(number)
        size = CODES[number].operand
        code += draw(st.integers(0, 60)).to_bytes(size, "big") if size else b""
    return bytes(code) + draw(st.binary(max_size=3))


@settings(max_examples=5 * settings.default.max_examples)
@given(programs())
def test_agent_expressions_end_in_a_value_or_a_sentence(code: bytes) -> None:
    feed(bytes((AGENT,)) + code)


def test_a_client_that_only_makes_noise_costs_the_process_no_memory() -> None:
    rng = random.Random(5)
    asker = Asker()
    session = asker.client.session
    whole = [
        frame(packet) for packet in EVERY if not packet.startswith((b"vKill", b"D", b"k", b"R", b"vRun", b"arrive"))
    ]

    def round() -> None:
        """A MiB of noise, packets that are damaged among it; the guest may run and be interrupted."""
        for _ in range(16):
            noise = bytearray(rng.randbytes(0xF000))
            for _ in range(40):
                packet = bytearray(rng.choice(whole))
                packet[rng.randrange(len(packet))] = rng.randrange(256)
                noise += rng.choice((bytes(packet), rng.choice(whole), b"\x03"))
            asker.worker.call(lambda noise=noise: asker.feed(bytes(noise)), 60)
            assert session.buffered < HIGH_WATER + 3 * PACKET_SIZE

    try:
        for _ in range(2):
            round()  # what is loaded, built and kept for all sessions
        tracemalloc.start()
        before, objects = resident(), tracemalloc.get_traced_memory()[0]
        for _ in range(6):
            round()
        objects = tracemalloc.get_traced_memory()[0] - objects
    finally:
        tracemalloc.stop()
        asker.close()
    assert asker.errors == []
    assert objects < 3 << 20, f"{objects} bytes more are held"
    assert resident() - before < 64 << 20
