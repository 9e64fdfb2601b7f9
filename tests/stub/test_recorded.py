"""Sessions of a real gdb, taken down byte by byte (tests/gdb_recording.py): replayed, cut, delayed, mutated."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asm import assemble
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker
from gdb_recording import LOOP, RECORDED, SESSIONS, record
from mutated_sessions import Ground
from stub.adapter import DebuggerTarget
from stub.handlers import base
from stub.messages import Unknown
from stub.packet import Decoder, Packet, frame
from stub.parser import parse
from stub.session import Close, RunCommand, Session
from stub_fakes import FakeTarget
from stub_fuzzing import Finding

PATIENCE = 60  #: seconds until a test that hangs fails, on a busy host too
RECORDINGS = {path.stem: path.read_bytes() for path in sorted(RECORDED.glob("*.rsp"))}
#: What gdb asks of every stub, and this one has nothing to say to.
UNKNOWN = {b"vFile:setfs:0"}


def packets(data: bytes) -> list[bytes]:
    decoder = Decoder()
    decoder.receive_data(data)
    found = []
    while (event := decoder.next_event()) is not None:
        if isinstance(event, Packet):
            found.append(event.payload)
    return found


def pieces(data: bytes) -> list[bytes]:
    """Each packet, and what stands between them, alone."""
    found = []
    while data:
        end = data.find(b"#") + 3 if data[:1] == b"$" else 1
        found.append(data[:end])
        data = data[end:]
    return found


def cuts(name: str) -> list[int]:
    """Lengths of a recording's beginnings: up to each packet, and within those whose kind no earlier one has."""
    known: set[bytes] = set()
    for other in RECORDINGS:
        found, at = [], 0
        for piece in pieces(RECORDINGS[other]):
            kind = re.split(rb"[^$?\w]|(?<=^\$[mMXPZz])", piece)[0]
            found += range(at, at + (1 if kind in known else len(piece)))
            known.add(kind)
            at += len(piece)
        if other == name:
            break
    return [*found, at]


class Host:
    """What a server does for a session, on a target in memory."""

    def __init__(self, looks_on: bool = False) -> None:
        self.errors: list[Exception] = []
        self.target = FakeTarget()
        self.asked_to_stay = False  #: commands of a breakpoint that outlast their client: `cmds:1`
        self.session = Session(self.target, has_runner=True, looks_on=looks_on, on_error=self.errors.append)

    def feed(self, data: bytes) -> bytes:
        """The guest stops as soon as it has nothing else to do."""
        self.asked_to_stay |= re.search(rb"cmds:(?!0,)", data) is not None
        events = self.session.receive_data(data)
        out = self.session.data_to_send()
        while self.session.stalled:
            events += self.session.receive_data(b"")
            out += self.session.data_to_send()
        if self.target.active:
            self.target.interrupt()
            out += self.session.data_to_send()
        for event in events:
            if isinstance(event, RunCommand):
                self.session.command_finished("done")
                out += self.session.data_to_send()
            assert isinstance(event, RunCommand | Close)
        return out


def test_every_session_that_can_be_made_is_there() -> None:
    assert set(RECORDINGS) == set(SESSIONS), "run `python tests/gdb_recording.py`"


@pytest.mark.parametrize("name", RECORDINGS)
def test_all_that_gdb_asked_is_known_and_answered(name: str) -> None:
    asked = packets(RECORDINGS[name])
    assert len(asked) > 20
    assert {p for p in asked if isinstance(parse(p), Unknown)} <= UNKNOWN
    host = Host()
    for packet in (piece for piece in pieces(RECORDINGS[name]) if piece[:1] == b"$"):
        answer = host.feed(packet)
        assert b"$" in answer, packet
        assert b"$E." not in answer, packet
    assert host.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_client_killed_behind_and_within_packets_leaves_nothing_behind(name: str) -> None:
    data = RECORDINGS[name]
    for end in cuts(name):
        host = Host()
        host.feed(data[:end])
        host.session.disconnected()
        assert host.target.points == set(), data[:end]
        assert host.target.listener is None
        assert host.errors == []


def killed_at_every_byte(ground: Ground, name: str) -> None:
    """Each beginning of the recording, arriving at once; `play` raises for an error and for what is left behind."""
    data = RECORDINGS[name]
    for end in range(len(data) + 1):
        try:
            ground.play([data[:end]], looks_on=SESSIONS[name].looks_on)
        except Finding as finding:
            raise AssertionError(f"{finding}, behind {data[:end][-40:]!r}") from finding


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    ground = Ground()
    yield ground
    ground.close()


@pytest.mark.slow
def test_a_client_killed_at_every_byte_of_the_shortest_session_leaves_the_machine_as_it_was(ground: Ground) -> None:
    acting = [name for name in RECORDINGS if not SESSIONS[name].looks_on]
    killed_at_every_byte(ground, min(acting, key=lambda name: len(RECORDINGS[name])))


@pytest.mark.soak
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_client_killed_at_every_byte_of_every_session_leaves_the_machine_as_it_was(ground: Ground, name: str) -> None:
    killed_at_every_byte(ground, name)


@pytest.mark.slow
def test_what_a_killed_client_leaves_behind_is_found(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.Context, "release", lambda context: None)
    with pytest.raises(AssertionError, match="left behind"):
        killed_at_every_byte(ground, "look")


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_slow_client_gets_the_same_answers(name: str) -> None:
    data = RECORDINGS[name]
    slow, quick = Host(), Host()
    assert b"".join(slow.feed(data[at : at + 1]) for at in range(len(data))) == b"".join(map(quick.feed, pieces(data)))


@given(st.sampled_from(sorted(RECORDINGS)), st.data())
def test_recordings_with_bytes_lost_changed_and_repeated(name: str, data: st.DataObject) -> None:
    whole = pieces(RECORDINGS[name])
    host = Host(looks_on=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(whole) - 1))
        part = b"".join(whole[start : start + data.draw(st.integers(1, 12))])
        at = data.draw(st.integers(0, len(part)))
        host.feed(part[:at] + data.draw(st.binary(max_size=4)) + part[at + data.draw(st.integers(0, 3)) :])
        if data.draw(st.booleans()):
            # a packet with its checksum made right again reaches the handlers
            payload = bytearray(data.draw(st.sampled_from(packets(RECORDINGS[name]))))
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
            host.feed(frame(bytes(b for b in payload if b not in b"#$}")))
    host.session.disconnected()
    assert host.errors == []
    assert host.target.points == set() or host.asked_to_stay


class Machine:
    """A session on the machine that the recordings were made with."""

    def __init__(self, looks_on: bool) -> None:
        self.debugger = Debugger(build_machine(MachineConfig(machine="pc", firmware=assemble(LOOP))))
        self.worker = Worker(self.debugger)
        self.worker.start()
        self.session = Session(DebuggerTarget(self.debugger, self.worker), looks_on=looks_on)

    def feed(self, data: bytes, expected: int) -> bytes:
        """Until so many bytes have come, or none come any more."""
        self.worker.call(lambda: self.session.receive_data(data), PATIENCE)
        out, end = b"", time.monotonic() + PATIENCE
        while len(out) < expected and time.monotonic() < end:
            out += self.worker.call(self.session.data_to_send, PATIENCE)
        return out


#: Sessions that `make test-fast` records too.
QUICK = ("look", "step", "trace")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, typed in SESSIONS.items()
        if not typed.live
    ],
)
def test_a_recorded_session_gives_the_same_bytes_without_gdb_and_without_a_socket(name: str, tmp_path: Path) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    typed = SESSIONS[name]
    said = record(tmp_path, typed)
    assert b"".join(data for from_client, data in said if from_client) == RECORDINGS[name], (
        "gdb asks something else by now: run `python tests/gdb_recording.py`"
    )
    turns: list[list[bytes]] = []
    for from_client, data in said:
        if from_client and (not turns or turns[-1][1]):
            turns.append([b"", b""])
        turns[-1][not from_client] += data
    machine = Machine(typed.looks_on)
    for asked, answered in turns:
        assert machine.feed(asked, len(answered)) == answered, asked
    machine.worker.close()
    machine.debugger.machine.close()
