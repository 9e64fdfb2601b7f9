"""Non-stop mode: resuming is answered at once, stops are notified ("Remote Non-Stop", "Notification Packets")."""

from __future__ import annotations

import pytest

from stub.packet import checksum, frame
from stub.session import RunCommand
from stub.states import State
from stub.target import SIGNAL_INT, StopReason, StopReport
from stub.voice import HIGH_WATER
from stub_fakes import GDB_FEATURES, Client, FakeTarget, client

STOP = b"T05thread:1;core:0;"


def notification(payload: bytes) -> bytes:
    return b"%%%b#%02x" % (payload, checksum(payload))


def answer(payload: bytes) -> bytes:
    return frame(payload)


class Peer(Client):
    """A client in non-stop mode without acknowledgments: `say` gives the bytes that come back, notifications too."""

    def __init__(self, target: FakeTarget) -> None:
        super().__init__(client(target, has_runner=True).session)
        self.target = target
        for packet in ("QStartNoAckMode", "QNonStop:1"):
            assert self.one(packet) == b"OK"

    def say(self, payload: str) -> bytes:
        return self.raw(frame(payload.encode()))

    def heard(self) -> bytes:
        return self.session.data_to_send()


@pytest.fixture
def peer() -> Peer:
    return Peer(FakeTarget())


def test_it_is_offered_to_who_has_the_target_alone() -> None:
    assert b"QNonStop+" in client().one(GDB_FEATURES)
    onlooker = client(looks_on=True)
    assert b"QNonStop+" not in onlooker.one(GDB_FEATURES)
    assert b"another client came first" in onlooker.one("QNonStop:1")
    assert onlooker.one("QNonStop:0") == b"OK"


def test_resuming_is_answered_at_once_and_the_stop_is_notified_later(peer: Peer) -> None:
    assert peer.say("vCont;c") == answer(b"OK")
    assert peer.session.state is State.RUNNING
    peer.target.stop(StopReport())
    assert peer.heard() == notification(b"Stop:" + STOP)
    assert peer.say("vStopped") == answer(b"OK")
    assert peer.say("p8") == answer(b"00010100")


def test_a_stop_that_comes_at_once_is_told_behind_the_answer(peer: Peer) -> None:
    assert peer.say("vCont;s:1") == answer(b"OK") + notification(b"Stop:" + STOP)
    assert peer.say("vStopped") == answer(b"OK")


def test_who_says_so_first_leaves_a_running_guest_alone() -> None:
    for mode, expected, running in ((1, b"OK", True), (0, b"T02thread:1;core:0;", False)):
        target = FakeTarget()
        target.active = True
        guest = client(target)
        for packet in (GDB_FEATURES, "Hg0", "qXfer:features:read:target.xml:0,100"):
            guest.ask(packet)
        assert guest.one(f"QNonStop:{mode}") == b"OK"
        assert guest.one("?").startswith(expected)
        assert target.active is running


def test_who_has_asked_for_more_before_has_stopped_it() -> None:
    target = FakeTarget()
    target.active = True
    guest = client(target)
    guest.ask("g")
    assert guest.one("QNonStop:1") == b"OK"
    assert not target.active


def test_a_stop_that_was_asked_for_is_no_signal_and_ctrl_c_is_one(peer: Peer) -> None:
    for packet, signal in (("vCont;t:1", 0), ("vCont;t", 0), ("vCtrlC", SIGNAL_INT)):
        peer.say("vCont;c")
        said = peer.say(packet)
        assert answer(b"OK") in said
        assert notification(b"Stop:T%02xthread:1;core:0;" % signal) in said
        peer.say("vStopped")
        assert peer.say("?") == answer(b"T%02xthread:1;core:0;" % signal)
    peer.say("vCont;c")
    assert peer.raw(b"\x03") == notification(b"Stop:T02thread:1;core:0;")


def test_who_knows_that_the_cpu_stands_still_is_not_told_again(peer: Peer) -> None:
    peer.say("vCont;c")
    peer.say("vCont;t:1")
    assert peer.say("vStopped") == answer(b"OK")
    assert peer.say("vCont;t:1") == peer.say("vCont;t") == peer.say("vCtrlC") == answer(b"OK")
    assert peer.session.state is State.STOPPED
    assert not peer.session.owes
    assert peer.say("vCont;s:1") == answer(b"OK") + notification(b"Stop:" + STOP)


def test_outside_of_non_stop_mode_each_resume_has_its_stop_reply() -> None:
    assert client().one("vCont;t").startswith(b"T")


def test_a_breakpoint_met_before_the_stop_that_was_asked_for_is_what_is_told(peer: Peer) -> None:
    peer.target.interrupt = lambda: None  # type: ignore[method-assign]
    peer.say("vCont;c")
    peer.say("vCont;t")
    peer.target.stop(StopReport(reason=StopReason.NONE))
    assert peer.heard() == notification(b"Stop:" + STOP)


def test_what_the_client_wants_of_a_cpu_that_runs_to_it_is_nothing_new(peer: Peer) -> None:
    peer.say("vCont;c")
    assert peer.say("vCont;c") == peer.say("vCont;s:1") == answer(b"OK")
    assert peer.target.cpu.rip == 0x100
    peer.target.stop(StopReport())
    peer.heard()
    # The notification may still be on its way: to the client the CPU runs.
    assert peer.say("vCont;s:1") == answer(b"OK")
    assert peer.say("vCont;t:1") == answer(b"OK")
    assert peer.target.cpu.rip == 0x100
    assert "interrupt" not in peer.target.calls
    assert peer.say("vStopped") == answer(b"OK")
    assert peer.say("vCont;s:1") == answer(b"OK") + notification(b"Stop:" + STOP)
    assert peer.target.cpu.rip == 0x101


def test_while_it_runs_memory_is_answered_and_registers_are_refused(peer: Peer) -> None:
    peer.say("vCont;c")
    assert peer.say("m41,3") == answer(b"414243")
    assert peer.say("M41,1:ff") == answer(b"OK")
    assert peer.say("Z0,10180,1") == answer(b"OK")
    assert peer.say("T1") == answer(b"OK")
    for packet in ("g", "p8", "P0=00000000", "G00"):
        assert b"$E.the CPU runs" in peer.say(packet), packet
    assert peer.target.active


def test_the_mode_is_not_changed_while_it_runs(peer: Peer) -> None:
    peer.say("vCont;c")
    assert b"E.the guest runs" in peer.say("QNonStop:0")
    assert peer.say("QNonStop:1") == answer(b"OK")
    peer.raw(b"\x03")
    assert peer.say("QNonStop:0") == answer(b"OK")
    assert peer.say("vCont;s:1") == answer(STOP)


def test_commands_are_run_while_it_runs_and_a_stop_among_them_is_notified(peer: Peer) -> None:
    peer.say("vCont;c")
    assert peer.say("qRcmd,73726567") == b""
    assert peer.events == [RunCommand("sreg")]
    assert peer.session.state is State.MONITOR
    peer.target.stop(StopReport())
    assert peer.heard() == notification(b"Stop:" + STOP)
    peer.session.command_finished("done")
    assert peer.heard() == answer(b"O" + b"done\n".hex().encode()) + answer(b"OK")
    assert peer.session.state is State.STOPPED

    peer.say("vStopped")
    peer.say("vCont;c")
    peer.say("qRcmd,73726567")
    peer.session.command_finished("")
    assert peer.session.state is State.RUNNING


def test_words_wait_for_a_command_as_no_packet_may_carry_them(peer: Peer) -> None:
    peer.say("vCont;c")
    peer.session.printed("printed by a breakpoint\n")
    peer.target.stop(StopReport(note="breakpoint 3 of the prompt"))
    assert peer.heard() == notification(b"Stop:" + STOP)
    words = b"printed by a breakpoint\nbreakpoint 3 of the prompt\n".hex().encode()
    command = "qRcmd," + b"pc".hex()
    assert peer.say(command).startswith(b"$O" + words)
    assert words not in peer.say(command)


def test_words_that_nobody_asks_for_cost_no_memory(peer: Peer) -> None:
    peer.say("vCont;c")
    for _ in range(20):
        peer.session.printed("x" * (HIGH_WATER // 10))
    assert peer.heard() == b""
    said = b"".join(payload[1:] for payload in peer.incoming(peer.say("qRcmd," + b"pc".hex())) if payload != b"OK")
    assert b"(10 pieces of output were dropped" in bytes.fromhex(said.decode())


def test_the_end_of_the_guest_is_notified(peer: Peer) -> None:
    peer.say("vCont;c")
    peer.target.stop(StopReport(exit_code=3))
    assert peer.heard() == notification(b"Stop:W03")
    assert peer.say("vStopped") == answer(b"OK")
    assert b"$E.the guest has ended" in peer.say("vCont;c")


def test_attaching_is_answered_at_once_too() -> None:
    for running in (False, True):
        peer = Peer(FakeTarget())
        assert peer.say("!") == answer(b"OK")
        assert peer.say("D") == answer(b"OK")  # the guest runs on
        peer.target.active = running
        told = b"" if running else notification(b"Stop:T00thread:1;core:0;")
        assert peer.say("vAttach;1") == answer(b"OK") + told
        assert peer.target.active is running
        assert peer.session.state is (State.RUNNING if running else State.STOPPED)


def test_killing_a_running_guest_tells_of_no_stop(peer: Peer) -> None:
    peer.say("!")
    peer.say("vCont;c")
    assert peer.say("vKill;1") == answer(b"OK")
    assert peer.say("vRun;") == answer(STOP)
