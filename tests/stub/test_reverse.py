"""Going backwards: answered and advertised where the target can, and nowhere else."""

from __future__ import annotations

from stub.target import StopReport
from stub_fakes import GDB_FEATURES, Backwards, client


def test_a_target_that_goes_forwards_alone_is_not_offered_it() -> None:
    peer = client()
    assert b"Reverse" not in peer.one(GDB_FEATURES)
    assert peer.one("bs") == peer.one("bc") == b""


def test_one_that_can_is_asked_and_its_stops_are_told() -> None:
    target = Backwards()
    peer = client(target)
    features = peer.one(GDB_FEATURES).split(b";")
    assert {b"ReverseStep+", b"ReverseContinue+"} <= set(features)
    assert peer.one("bs") == b"T05thread:1;core:0;"
    assert target.cpu.rip == 0xFF
    assert peer.ask("bc") == []
    assert peer.one("bs").startswith(b"E.the guest runs")
    target.stop(StopReport())
    assert peer.incoming(peer.session.data_to_send()) == [b"T05thread:1;core:0;"]


def test_who_looks_on_does_not_turn_the_guest_back() -> None:
    target = Backwards()
    peer = client(target, looks_on=True)
    peer.ask(GDB_FEATURES)
    assert peer.ask("bs")[-1] == b"T02thread:1;core:0;"
    assert target.cpu.rip == 0x100
