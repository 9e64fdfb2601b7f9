"""A client that came second: it sees what there is, changes nothing, and is told so."""

from __future__ import annotations

from stub.handlers.base import error_text
from stub.handlers.onlooker import REFUSAL, VACANT
from stub.session import Close, RunCommand
from stub.target import SIGNAL_INT, StopReason, StopReport
from stub_fakes import GDB_FEATURES, Client, FakeTarget, client
from stub_forms import FORMS, example

WORDS = error_text(REFUSAL)

#: Answered otherwise than to the first client, see below.
QUIET = (
    "qSupported:FEATURE;...",
    "D",
    "D;PID",
    "qRcmd,HEX",
    "vCont;c",
    "vCont;C",
    "c [ADDR]",
    "C SIGNAL[;ADDR]",
    "k",
    "R XX",
)
STEPS = ("vCont;s", "vCont;S", "vCont;r", "vCont;t", "s [ADDR]", "S SIGNAL[;ADDR]")


def onlooker(target: FakeTarget) -> Client:
    peer = client(target, looks_on=True)
    peer.ask(GDB_FEATURES)
    return peer


def state(target: FakeTarget) -> tuple[object, ...]:
    return target.active, target.cpu.copy(), bytes(target.memory), frozenset(target.points), tuple(target.calls)


def test_no_documented_packet_changes_anything_whether_the_guest_runs_or_not() -> None:
    for running in (False, True):
        for form, _ in FORMS:
            target = FakeTarget()
            target.active = running
            before = state(target)
            peer = onlooker(target)
            peer.ask(example(form))
            peer.raw(b"\x03")
            peer.session.disconnected()
            assert state(target) == before, form
            assert not target.steps_into_interrupts, form


def test_it_is_told_when_the_machine_could_be_had() -> None:
    peer, gone = onlooker(FakeTarget()), []
    peer.session.vacate(lambda: bool(gone))
    assert peer.ask("M10,1:00") == [WORDS]
    gone.append(True)
    assert peer.ask("M10,1:00") == [error_text(VACANT)]


def test_what_it_may_not_do_is_answered_in_words_and_the_rest_as_ever() -> None:
    refused = set()
    for form, _ in FORMS:
        peer, plain = onlooker(FakeTarget()), client()
        plain.ask(GDB_FEATURES)
        answers = peer.ask(example(form))
        if answers == [WORDS]:
            refused.add(form.partition(" ")[0].partition(",")[0].partition(":")[0].partition(";")[0])
        elif form not in QUIET + STEPS:
            assert answers == plain.ask(example(form)), form
    assert refused == {
        "!", "QNonStop", "vCtrlC", "vKill", "vAttach", "vRun", "G", "P", "M", "X", "Qqemu.sstep=BITS",
        "Z0", "Z1", "Z2", "Z3", "Z4", "z0", "z1", "z2", "z3", "z4",
        "QTinit", "QTDP", "QTDPsrc", "QTEnable", "QTDisable", "QTDV", "QTro", "QTStart", "QTStop", "QTDisconnected",
        "QTBuffer", "QTNotes",
    }  # fmt: skip


def test_continue_waits_for_the_next_stop_of_the_other_client() -> None:
    target = FakeTarget()
    peer = onlooker(target)
    assert peer.ask("vCont;c") == []
    assert not target.active
    target.stop(StopReport(reason=StopReason.NONE))
    assert peer.incoming(peer.session.data_to_send()) == [b"T05thread:1;core:0;"]
    target.stop(StopReport())
    assert peer.session.data_to_send() == b"", "a client that does not wait is told nothing"


def test_continue_from_an_address_is_refused_and_sets_no_program_counter() -> None:
    """`c ADDR` would set EIP. It is answered as a step is: an error would make gdb try again."""
    for packet in ("c1000", "C05;1000", "c0"):
        target = FakeTarget()
        before = state(target)
        peer = onlooker(target)
        said, stop = peer.ask(packet)
        assert said == b"O" + (REFUSAL + "\n").encode().hex().encode()
        assert stop == b"T02thread:1;core:0;"
        assert state(target) == before, packet


def test_ctrl_c_ends_the_wait_and_stops_nobody() -> None:
    target = FakeTarget()
    target.active = True
    peer = onlooker(target)
    assert peer.one("?") == b"T05thread:1;core:0;"
    peer.ask("vCont;c")
    assert peer.incoming(peer.raw(b"\x03")) == [b"T%02xthread:1;core:0;" % SIGNAL_INT]
    assert target.active
    assert target.calls == []


def test_ctrl_c_before_it_waits_ends_the_wait_too() -> None:
    """gdb asks `vCont?` before it continues for the first time, and a person may be quicker."""
    for running in (False, True):
        target = FakeTarget()
        target.active = running
        peer = onlooker(target)
        peer.raw(b"\x03")
        assert peer.one("vCont?").startswith(b"vCont;c")
        (reply,) = peer.ask("vCont;c")
        assert reply.startswith(b"T02")
        assert target.active is running
        assert peer.ask("vCont;c") == [], "the next one waits"


def test_what_is_refused_while_it_waits_is_refused_in_the_words_of_one_that_looks() -> None:
    for packet in ("vCont;s", "s", "R00", "qRcmd," + b"sreg".hex()):
        peer = onlooker(FakeTarget())
        peer.ask("vCont;c")
        assert peer.ask(packet) == [WORDS], packet
    peer = onlooker(FakeTarget())
    peer.ask("vCont;c")
    assert peer.ask("D") == [b"OK"]


def test_leaving_and_killing_end_only_the_connection() -> None:
    for packet in ("D", "k"):
        target = FakeTarget()
        peer = onlooker(target)
        peer.ask(packet)
        peer.session.disconnected()
        assert isinstance(peer.events[-1], Close)
        assert target.calls == []


def test_killing_what_nobody_has_ends_only_the_connection_too() -> None:
    """gdb kills what it has before it connects again to have it."""
    for packet in ("vKill;1", "k", "D"):
        target = FakeTarget()
        before = state(target)
        peer = onlooker(target)
        peer.session.vacate(lambda: True)
        assert peer.ask(packet) == ([] if packet == "k" else [b"OK"])
        assert isinstance(peer.events[-1], Close)
        peer.session.disconnected()
        assert state(target) == before


def test_it_has_its_own_kind_of_addresses() -> None:
    target = FakeTarget()
    peer, first = onlooker(target), client(target)
    assert peer.one("Qqemu.PhyMemMode:1") == b"OK"
    assert peer.one("m0,2") != first.one("m1000,1")
    assert first.one("qqemu.PhyMemMode") == b"0"


def test_a_step_stops_where_it_began_and_says_why() -> None:
    """An error would make gdb step again, for ever."""
    for form in STEPS:
        said, stop = onlooker(FakeTarget()).ask(example(form))
        assert said == b"O" + (REFUSAL + "\n").encode().hex().encode()
        assert stop == b"T02thread:1;core:0;"


def test_commands_of_the_prompt_are_for_a_runner_that_knows_which_only_look() -> None:
    peer = client(FakeTarget(), looks_on=True)
    assert peer.ask("qRcmd," + b"sreg".hex()) == [b"O" + (REFUSAL + "\n").encode().hex().encode(), b"OK"]
    peer = client(FakeTarget(), looks_on=True, has_runner=True)
    assert peer.ask("qRcmd," + b"sreg".hex()) == []
    assert peer.events == [RunCommand("sreg")]
