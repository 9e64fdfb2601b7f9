"""docs/packets.md says what is answered, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stub import parser, peers, reference
from stub.features import MEANINGS
from stub.handlers.every import ALL_HANDLERS
from stub.peers import PACKETS, PEERS, PROPERTIES
from stub.reference import TARGET, here, page
from stub.registers import describe
from stub.session import Session
from stub_fakes import GDB_FEATURES, Backwards, FakeTarget, client
from stub_forms import FORMS, example

ROOT = Path(__file__).resolve().parents[2]
#: Packets whose right answer is the empty one, or none, or comes when the guest stops.
QUIET = (
    "vMustReplyEmpty",
    "k",
    "R XX",
    "vCont;c",
    "vCont;C",
    "c [ADDR]",
    "C SIGNAL[;ADDR]",
)


def test_the_page_is_the_one_the_tables_make() -> None:
    assert (ROOT / TARGET).read_text("utf-8") == page(), "run `python -m stub.reference`"


def test_every_packet_that_is_understood_is_documented() -> None:
    documented = {re.split("[:;,]| ", form)[0] for form, _ in FORMS}
    assert {name.decode() for name in parser._NAMES} <= documented
    # what goes backwards waits for a target that does
    assert {chr(letter) for letter in parser._LETTERS} - {"b"} <= {form[0] for form in documented}


@pytest.mark.parametrize(("form", "handler"), FORMS, ids=[form for form, _ in FORMS])
def test_every_documented_packet_is_answered_by_its_handler(form: str, handler: object) -> None:
    packet = example(form)
    message = parser.parse(packet.encode())
    assert type(message) is handler.message  # type: ignore[attr-defined]
    target = FakeTarget()
    peer = client(target, has_runner=True)
    peer.ask(GDB_FEATURES)
    if form.startswith(("vAttach", "vRun", "R ")):
        peer.ask("!")
    if form.startswith("qXfer:traceframe-info"):
        peer.ask("QTStart")
        target.arrive(0x10100)
        assert peer.one("QTFrame:0") == b"F0T1"
    answers = peer.ask(packet)
    if form == "qRcmd,HEX":
        assert len(peer.events) == 1  # what the command prints comes later
    elif form not in QUIET:
        assert answers, packet
        assert answers[0] != b"", packet
        assert not re.match(rb"E[.0-9]", answers[0]), (packet, answers)


def test_every_handler_is_documented_and_each_form_once() -> None:
    assert all(handler.forms for handler in ALL_HANDLERS)
    assert len({form for form, _ in FORMS}) == len(FORMS)


def test_every_advertised_feature_is_explained_and_every_explanation_is_of_one() -> None:
    features = client().one(GDB_FEATURES + ";multiprocess+;error-message+").decode().split(";")
    assert {feature.partition("=")[0].removesuffix("+") for feature in features} == set(MEANINGS) - {
        "ReverseStep",
        "ReverseContinue",
    }


def test_every_row_about_peers_is_of_something_documented_and_has_a_cell_for_each() -> None:
    documented = [form for form, _ in FORMS] + list(MEANINGS)
    for key, cells in PACKETS.items():
        assert len(cells) == len(PEERS)
        assert any(form.startswith(key) for form in documented), key
    assert all(len(cells) == len(PEERS) for cells in PROPERTIES.values())


def test_what_is_said_of_this_stub_beside_its_peers_is_what_the_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = here(Session(FakeTarget()))
    assert set(cells) == set(PROPERTIES)
    assert cells[peers.REVERSE] == "-"
    assert cells[peers.CLIENTS] == "one acts, 4 look on"
    assert cells[peers.LISTENS] == "loopback"
    assert cells[peers.EXPEDITED] == cells[peers.ARCHITECTURE] == "yes"
    registers = {register.name for feature in describe(32).features for register in feature.registers}
    assert {"cr0", "cr2", "cr3", "cr4", "efer", "dr7", "pat", "gdtr", "idtr", "ldtr", "tr", "cs_attr"} <= registers
    assert cells[peers.SYSTEM] == "CR, EFER, DR, MSRs, GDTR, IDTR, LDTR, TR, caches of segments"
    assert here(Session(Backwards()))[peers.REVERSE] == "yes"
    monkeypatch.setattr(reference, "MAX_ONLOOKERS", 2)
    assert here(Session(FakeTarget()))[peers.CLIENTS] == "one acts, 2 look on"


def test_a_stop_reply_has_registers_and_the_architecture_follows_the_mode() -> None:
    """What the columns say of this stub, by its packets."""
    target = FakeTarget()
    peer = client(target)
    document = "qXfer:features:read:target.xml:0,ffff"
    assert b"<architecture>i8086</architecture>" in peer.one(document)
    assert b";8:00010100;" in peer.one("?"), "EIP"
    target.cpu.cr0, target.cpu.cs.access = 0x11, 0xC09B
    assert b"<architecture>i386</architecture>" in peer.one(document)
