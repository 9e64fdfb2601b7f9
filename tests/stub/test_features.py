"""What is advertised is answered, and follows from what the target can do."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from stub.features import target_xml
from stub.markup import attribute, content
from stub.target import Bits, Description, EnumType, Feature, FlagsType, Register, StructType
from stub_fakes import GDB_FEATURES, BareTarget, FakeTarget, client

#: For each advertised feature a packet that uses it; its answer must not be the empty one.
PROOF = {
    "QStartNoAckMode": "QStartNoAckMode",
    "binary-upload": "x0,1",
    "vContSupported": "vCont?",
    "QNonStop": "QNonStop:1",
    "ConditionalTracepoints": "QTDP:1:10100:E:0:0:X3,220127",
    "InstallInTrace": "QTStart",
    "tracenz": "QTDP:-1:10100:X6,22002201 2f27".replace(" ", ""),
    "TracepointSource": "QTDPsrc:1:10100:at:0:1:2a",
    "EnableDisableTracepoints": "QTEnable:1:10100",
    "DisconnectedTracing": "QTDisconnected:1",
    "QTBuffer:size": "QTBuffer:size:100000",
    "qXfer:traceframe-info:read": "qXfer:traceframe-info:read::0,100",
    "swbreak": "Z0,7c00,1",
    "hwbreak": "Z1,7c00,1",
    "qXfer:features:read": "qXfer:features:read:target.xml:0,100",
    "multiprocess": "Hgp1.1",
    "qXfer:memory-map:read": "qXfer:memory-map:read::0,100",
    "qXfer:threads:read": "qXfer:threads:read::0,100",
    "error-message": "Z0,7c00,1;X1,22",
    "ConditionalBreakpoints": "Z0,7c00,1;X3,220127",
    "BreakpointCommands": "Z0,7c00,1;cmds:0,X1,27",
}


def test_every_advertised_feature_is_answered() -> None:
    peer = client()
    features = peer.one(GDB_FEATURES + ";multiprocess+;error-message+").decode().split(";")
    assert features.pop(0) == "PacketSize=20000"
    assert {f.removesuffix("+") for f in features} == set(PROOF)
    for feature in features:
        assert feature.endswith("+")
        assert peer.one(PROOF[feature.removesuffix("+")]) != b"", feature


def test_gdb_is_offered_all_the_actions_without_which_it_ignores_vcont() -> None:
    assert client().one("vCont?") == b"vCont;c;C;s;S;t;r"


class NoSteps(BareTarget):
    resume = FakeTarget.resume
    interrupt = FakeTarget.interrupt


@pytest.mark.parametrize("packet", ["vCont?", "Z0,0,1", "m0,1", "g"])
def test_a_target_that_only_continues_is_not_offered_more(packet: str) -> None:
    peer = client(NoSteps())
    assert peer.one("qSupported") == b"PacketSize=20000;QStartNoAckMode+;QNonStop+;qXfer:threads:read+"
    assert peer.one(packet) == b""


def test_target_description_document() -> None:
    description = Description(
        "i386",
        (
            Feature(
                "org.example.a&b",
                (
                    Register("one", 32, "bits", "system", saved=False),
                    Register("two", 48, "pair"),
                    Register("three", 8, "word"),
                ),
                (
                    FlagsType("bits", 4, (Bits("PE", 0, 0), Bits("DPL", 5, 6))),
                    StructType("pair", (("base", "uint32"), ("limit", "uint16"))),
                    EnumType("word", 1, (("low", 0), ("high", 1))),
                ),
            ),
        ),
    )
    root = ET.fromstring(target_xml(description))
    assert root.findtext("architecture") == "i386"
    feature = root.find("feature")
    assert feature is not None
    assert feature.get("name") == "org.example.a&b"
    assert [dict(r.attrib) for r in feature.iter("reg")] == [
        {"name": "one", "bitsize": "32", "type": "bits", "group": "system", "save-restore": "no"},
        {"name": "two", "bitsize": "48", "type": "pair"},
        {"name": "three", "bitsize": "8", "type": "word"},
    ]
    assert [dict(f.attrib) for f in feature.findall("flags/field")] == [
        {"name": "PE", "start": "0", "end": "0"},
        {"name": "DPL", "start": "5", "end": "6"},
    ]
    assert [f.get("type") for f in feature.findall("struct/field")] == ["uint32", "uint16"]
    assert [dict(v.attrib) for v in feature.findall("enum/evalue")] == [
        {"name": "low", "value": "0"},
        {"name": "high", "value": "1"},
    ]


@pytest.mark.parametrize("words", ["", "real mode", "a < b && b > c", 'it\'s "quoted"', "two\nlines\tand\r", "&amp;"])
def test_a_parser_of_xml_reads_the_words_that_were_written(words: str) -> None:
    assert content(words) == escape(words)
    read = ET.fromstring(f"<a b={attribute(words)}>{content(words)}</a>")
    assert read.attrib["b"] == words
    assert (read.text or "") == words.replace("\r", "\n")  # XML 1.0, 2.11
