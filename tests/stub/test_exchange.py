"""Answering what is known already: the loop in Python and the one in C, over a real pair of sockets, give the same."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stub import known as known_module
from stub.exchange import Exchanged, Known, known
from stub.known import MOST, Library, load_library
from stub.links import SocketLink
from stub.packet import frame

PATIENCE = 20
ANSWERS = {frame(b"m1,1"): b"00", frame(b"m2,2"): b"0102", frame(b"g"): b"ff" * 600}
TABLE: dict[bytes, Known] = {packet: known(packet, answer, frame(answer)) for packet, answer in ANSWERS.items()}
FOREVER = 1e6


@pytest.fixture(params=["python", "C"])
def library(request: pytest.FixtureRequest) -> Library | None:
    if request.param == "python":
        return None
    found = load_library()
    if found is None:
        pytest.skip("stub/native was not built here")
    return found


class Pair:
    """A link, and the client at its other end."""

    def __init__(self, library: Library | None) -> None:
        self.client, ours = socket.socketpair()
        self.client.settimeout(PATIENCE)
        self.link = SocketLink(ours, library)

    def talk(self, *packets: bytes) -> list[bytes]:
        """Say these one after another, each behind the answer to the one before; the answers."""
        answers = []
        for packet in packets:
            self.client.sendall(frame(packet))
            said = b""
            while said[-3:-2] != b"#":
                said += self.client.recv(1 << 16)
            answers.append(said)
        return answers


@pytest.fixture
def pair(library: Library | None) -> Iterator[Pair]:
    made = Pair(library)
    yield made
    made.client.close()
    made.link.close()


def beside(talk: Callable[[], object], pair: Pair, until: float = FOREVER) -> list[Exchanged]:
    """What exchanges give while the client talks, until one has something that is not known."""
    found = []
    thread = threading.Thread(target=talk)
    thread.start()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found.append(pair.link.exchange(TABLE, until))
        if found[-1].data or found[-1].ended or found[-1].unsent:
            break
    thread.join(PATIENCE)
    return found


def test_known_packets_are_answered_in_their_order_and_the_first_other_one_is_handed_back(pair: Pair) -> None:
    said: list[bytes] = []

    def talk() -> None:
        said.extend(pair.talk(b"m1,1", b"g", b"m1,1", b"m2,2"))
        pair.client.sendall(frame(b"vCont;s"))

    found = beside(talk, pair)
    packets = [frame(packet) for packet in (b"m1,1", b"g", b"m1,1", b"m2,2")]
    assert [pair for one in found for pair in one.answered] == [(p, ANSWERS[p]) for p in packets]
    assert said == [frame(ANSWERS[packet]) for packet in packets]
    assert found[-1]._replace(answered=[]) == Exchanged([], frame(b"vCont;s"))


def test_half_a_packet_two_at_once_and_a_prefix_are_not_known(pair: Pair) -> None:
    for data in (frame(b"m1,1")[:5], frame(b"m1,1") + frame(b"g"), b"+" + frame(b"g")):
        pair.client.sendall(data)
        assert pair.link.exchange(TABLE, FOREVER) == Exchanged([], data)


def test_silence_ends_it(pair: Pair) -> None:
    assert pair.link.exchange(TABLE, FOREVER) == Exchanged([])
    assert pair.link.exchange({}, FOREVER) == Exchanged([])


def test_the_client_s_end_is_told(pair: Pair) -> None:
    pair.client.close()
    assert pair.link.exchange(TABLE, FOREVER) == Exchanged([], ended=True)


def test_at_its_time_it_comes_back_behind_an_answer(pair: Pair) -> None:
    pair.client.sendall(frame(b"m1,1"))
    assert pair.link.exchange(TABLE, 0.0) == Exchanged([(frame(b"m1,1"), b"00")])
    assert pair.client.recv(100) == frame(b"00")


def test_what_does_not_go_out_at_once_is_left_over(pair: Pair) -> None:
    packet, answer = frame(b"m0,8000"), frame(b"5a" * 0x80000)
    table = {**TABLE, packet: known(packet, answer[1:-3], answer)}
    pair.client.sendall(packet)
    exchanged = pair.link.exchange(table, FOREVER)
    assert (exchanged.answered, exchanged.data, exchanged.ended) == ([(packet, answer[1:-3])], b"", False)
    assert 0 < len(exchanged.unsent) < len(answer)
    rest = len(answer) - len(exchanged.unsent)
    said = b""
    while len(said) < rest:
        said += pair.client.recv(1 << 16)
    assert said + exchanged.unsent == answer


def test_one_call_answers_a_bounded_number(pair: Pair) -> None:
    count = 2 * MOST + 3

    def talk() -> None:
        for _ in range(count):
            pair.talk(b"m1,1")
        pair.client.sendall(frame(b"k"))

    found = beside(talk, pair)
    assert sum(len(one.answered) for one in found) == count


def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if load_library() is None:
        pytest.skip("stub/native was not built here")
    (path,) = (Path(known_module.__file__).parent / "native").glob("_known*.so")
    monkeypatch.setattr(known_module, "sources_checksum", lambda: 1)
    with pytest.raises(ValueError, match="install it again"):
        Library(path)
    assert load_library() is None
