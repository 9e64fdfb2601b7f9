"""Tracepoints in packets: "Debugging with GDB", "Tracepoint Packets" and "Trace File Format"."""

from __future__ import annotations

import re
import struct
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub.packet import PACKET_SIZE, escape
from stub.parser import parse
from stub.target import TargetError
from stub.trace_messages import CollectMemory, CollectRegisters, DefineActions, DefineTracepoint, Evaluate
from stub.traceframe import UNCHANGED
from stub.tracing import AT_ONE_PLACE, MAX_FRAMES, MAX_SIZE, Frame, FrameBuffer, frame_size
from stub_fakes import Client, FakeTarget, client

HERE = 0x10180
OK = b"OK"
EIP = 8  #: its number in gdb's i386.core


def tracing(*packets: str, target: FakeTarget | None = None) -> tuple[Client, FakeTarget]:
    """A client that has defined what `packets` say, and started."""
    target = target or FakeTarget()
    peer = client(target)
    for packet in ("QTinit", *packets, "QTStart"):
        assert peer.one(packet) == OK, packet
    return peer, target


def point(number: int = 1, address: int = HERE, passes: int = 0, options: str = "", enabled: str = "E") -> str:
    return f"QTDP:{number:x}:{address:x}:{enabled}:0:{passes:x}{options}"


def actions(text: str, number: int = 1, address: int = HERE) -> str:
    return f"QTDP:-{number:x}:{address:x}:{text}"


def code(text: str) -> str:
    raw = bytes.fromhex(text)
    return f"X{len(raw):x},{raw.hex()}"


def fields(peer: Client) -> dict[str, str]:
    running, *rest = peer.one("qTStatus").decode().split(";")
    return {"running": running, **{name: value for name, _, value in (field.partition(":") for field in rest)}}


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ("QTDP:1:7c00:E:0:0", DefineTracepoint(1, 0x7C00, True, 0, 0)),
        ("QTDP:a:7c00:D:3:10-", DefineTracepoint(10, 0x7C00, False, 3, 16, more=True)),
        ("QTDP:1:7c00:E:0:0:X3,220127-", DefineTracepoint(1, 0x7C00, True, 0, 0, b"\x22\x01\x27", True)),
        # as gdb 13 writes them
        (
            "QTDP:-1:7c00:MFFFFFFFF,500,4X3,220127-",
            DefineActions(
                1, 0x7C00, (CollectMemory(None, 0x500, 4), Evaluate(b"\x22\x01\x27")), "MFFFFFFFF,500,4X3,220127",
                more=True,
            ),
        ),
        ("QTDP:-1:7c00:R1ffM4,-8,10", DefineActions(1, 0x7C00, (CollectRegisters(0x1FF), CollectMemory(4, -8, 16)),
                                                    "R1ffM4,-8,10")),
        ("QTDP:-1:7c00:SR3", DefineActions(1, 0x7C00, (CollectRegisters(3),), "R3", stepping=True)),
    ],
)  # fmt: skip
def test_definitions_are_read_as_gdb_writes_them(packet: str, message: object) -> None:
    assert parse(packet.encode()) == message


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        ("QTDP:1:7c00:E:f4241:0", "at most 1000000 steps"),
        ("QTDP:1:7c00:E:0:0:F5", "patch code"),
        ("QTDP:1:7c00:X:0:0", "E, enabled, or D"),
        ("QTDP:1:7c00", "5 parts"),
        ("QTDP:10000:7c00:E:0:0", "numbers to 65535"),
        ("QTDP:1:7c00:E:0:0:X1,22", "ends within"),
        ("QTDP:1:7c00:E:0:0:X4,26ffff27", "names register 65535"),
        ("QTDP:-7:7c00:R1", "no tracepoint 7"),
        ("QTDP:-1:10100:L", "R, M or X"),
        ("QTDP:-1:10100:R", "mask"),
        ("QTDP:-1:10100:M1,2", "base register"),
        ("QTDP:-1:10100:Mfff,0,4", "names register 4095"),
        ("QTDP:-1:10100:X5,22", "shorter"),
        ("QTDP:-1:10100:X1,22", "ends within"),
        ("QTDP:-1:10100:" + "R1" * 101, "at most 100"),
        ("QTDPsrc:1:10100:at:0:1", "6 parts"),
        ("QTEnable:9:10100", "no tracepoint 9"),
        ("QTBuffer:size:0", "1 to"),
        (f"QTBuffer:size:{MAX_SIZE + 1:x}", "1 to"),
        ("QTBuffer:colour:1", "circular and size"),
        ("QTFrame:pc", "frame's number"),
        ("QTFrame:colour:1", "number, pc, tdp"),
        ("QTNotes:notes:" + "20" * 5000, "at most 4096"),
    ],
)
def test_what_cannot_be_is_refused_in_words(packet: str, words: str) -> None:
    target = FakeTarget()
    answer = client(target).one(packet)
    assert answer.startswith(b"E."), answer
    assert words in answer.decode()
    assert target.experiment.points[1, 0x10100].actions == []


def test_a_hit_collects_and_a_frame_shows_what_was_then() -> None:
    peer, target = tracing(point(options="-"), actions("R1"), actions("MFFFFFFFF,500,4"))
    target.cpu.regs[0] = 7
    target.memory[0x500:0x504] = b"then"
    target.arrive(HERE)
    target.cpu.regs[0], target.cpu.rip = 9, 0
    target.memory[0x500:0x504] = b"now!"
    assert peer.one("QTStop") == OK
    assert peer.one("QTFrame:0") == b"F0T1"
    assert peer.one("p0") == b"07000000"
    assert peer.one(f"p{EIP:x}") == HERE.to_bytes(4, "little").hex().encode()
    assert bytes.fromhex(peer.one("g").decode())[:4] == b"\7\0\0\0"
    assert bytes.fromhex(peer.one("m500,4").decode()) == b"then"
    assert bytes.fromhex(peer.one("m502,8").decode()) == b"en"
    assert peer.one("x501,2") == b"bhe"
    assert peer.one("QTFrame:ffffffff") == OK
    assert peer.one("p0") == b"09000000"
    assert bytes.fromhex(peer.one("m500,4").decode()) == b"now!"


def test_what_was_not_collected_is_not_known() -> None:
    peer, target = tracing(point(options="-"), actions("MFFFFFFFF,500,4"))
    target.arrive(HERE)
    peer.one("QTFrame:0")
    assert peer.one("p0") == b"x" * 8
    pc = HERE.to_bytes(4, "little").hex().encode()
    assert peer.one(f"p{EIP:x}") == pc, "where it was is known"
    assert set(peer.one("g").replace(pc, b"")) == {ord("x")}
    for packet in ("m4ff,1", "m504,1", "m600,10"):
        assert peer.one(packet) == b"E01", packet
    assert b"not collected" in peer.one("x504,1")
    assert b'<memory start="0x500" length="0x4"/>' in peer.one("qXfer:traceframe-info:read::0,1000")
    peer.one("QTFrame:ffffffff")
    assert peer.one("qXfer:traceframe-info:read::0,1000") == b"E00"
    peer.one("qSupported:error-message+")
    assert peer.one("qXfer:traceframe-info:read::0,1000") == b"E.no trace frame is chosen: `tfind` chooses one"


def test_a_frame_s_document_lists_what_it_has_and_that_of_a_step_its_own() -> None:
    """ "Traceframe Info Format": `memory` with start and length, `tvar` with its id; numbers are C's."""
    variable = actions(code("2e000227") + "-")  # tracev 2
    peer, target = tracing(
        "QTDV:2:5:0:6e", "QTDP:1:10180:E:1:0-", variable, actions("MFFFFFFFF,500,4MFFFFFFFF,1000,20-"),
        actions("SMFFFFFFFF,600,1"),
    )  # fmt: skip
    target.arrive(HERE)
    target.arrive(HERE + 1)
    expected = [
        [("memory", {"start": 0x500, "length": 4}), ("memory", {"start": 0x1000, "length": 0x20}), ("tvar", {"id": 2})],
        [("memory", {"start": 0x600, "length": 1})],
    ]
    for frame, rows in enumerate(expected):
        assert peer.one(f"QTFrame:{frame}") == b"F%dT1" % frame
        text = peer.one("qXfer:traceframe-info:read::0,1000").decode()
        assert text[0] == "l"
        root = ElementTree.fromstring(re.sub("<!DOCTYPE.*?>", "", text[1:]))
        assert root.tag == "traceframe-info"
        assert [(row.tag, {k: int(v, 0) for k, v in row.attrib.items()}) for row in root] == rows


def test_what_is_called_read_only_is_read_from_the_machine() -> None:
    peer, target = tracing(point(), "QTro:600,604")
    target.arrive(HERE)
    peer.one("QTFrame:0")
    assert peer.one("m602,10") == b"0203"
    assert peer.one("m604,1") == b"E01"


def test_a_frame_is_not_changed_and_the_guest_is_not_resumed_meanwhile() -> None:
    peer, target = tracing(point(options="-"), actions("R1"), actions("MFFFFFFFF,500,4"))
    target.arrive(HERE)
    before = bytes(target.memory), target.cpu.copy()
    peer.one("QTFrame:0")
    for packet in ("M500,1:00", "X500,1:a", "P0=00000000", "G" + "11" * 308, "vCont;c", "s", "vRun;"):
        assert UNCHANGED.encode()[:30] in peer.one(packet), packet
    assert (bytes(target.memory), target.cpu) == before
    assert not target.active
    assert b"linear addresses only" in peer.one("Qqemu.PhyMemMode:1")


def stepping(steps: int, passes: int = 0) -> Client:
    """A trace of EAX, and of memory at 500h behind each of `steps` steps; the guest goes ten instructions from there,
    with their number at 500h, and comes back to go six."""
    defined = f"QTDP:1:{HERE:x}:E:{steps:x}:{passes:x}-"
    # gdb says S with the first action only
    peer, target = tracing(defined, actions("R1-"), actions("SMFFFFFFFF,500,1-"), actions("MFFFFFFFF,600,1"))
    for begin, end in ((0, 10), (100, 106)):
        for number in range(begin, end):
            target.memory[0x500] = number
            target.arrive(HERE + number - begin)
    return peer


def frames(peer: Client) -> list[tuple[int, bytes]]:
    """Where each was collected, and what of 500h."""
    found = []
    while (answer := peer.one(f"QTFrame:{len(found):x}")) != b"F-1":
        assert answer == b"F%xT1" % len(found)
        found.append((int.from_bytes(bytes.fromhex(peer.one(f"p{EIP:x}").decode()), "little"), peer.one("m500,1")))
    return found


def test_while_stepping_collects_behind_each_step() -> None:
    peer = stepping(3)
    once = [(HERE, b"E01"), (HERE + 1, b"01"), (HERE + 2, b"02"), (HERE + 3, b"03")]
    again = [(HERE, b"E01"), (HERE + 1, b"65"), (HERE + 2, b"66"), (HERE + 3, b"67")]
    assert frames(peer) == once + again
    assert peer.one(f"qTP:1:{HERE:x}").startswith(b"V2:")
    assert peer.one(f"QTFrame:pc:{HERE + 2:x}") == b"F-1"  # behind the last
    peer.one("QTFrame:ffffffff")
    assert peer.one(f"QTFrame:pc:{HERE + 2:x}") == b"F2T1"
    assert peer.one(f"QTFrame:outside:{HERE:x}:{HERE + 2:x}") == b"F3T1"
    pieces = [peer.one("qTfP")] + [peer.one("qTsP") for _ in range(4)]
    place = f"1:{HERE:x}:".encode()
    assert pieces == [b"T" + place + b"E:3:0", b"A" + place + b"R1", b"S" + place + b"MFFFFFFFF,500,1",
                      b"S" + place + b"MFFFFFFFF,600,1", b"l"]  # fmt: skip


def test_a_hit_within_the_steps_begins_them_anew() -> None:
    places = [place for place, _ in frames(stepping(12))]
    # nine steps, the tenth arrives at the tracepoint again, and five more
    assert places == [*range(HERE, HERE + 10), HERE, HERE, *range(HERE + 1, HERE + 6)]


def test_a_pass_count_ends_the_trace_behind_the_last_hit_s_steps() -> None:
    peer = stepping(4, passes=1)
    assert [place for place, _ in frames(peer)] == list(range(HERE, HERE + 5))
    assert fields(peer)["tpasscount"] == "1"


def test_steps_end_with_their_trace() -> None:
    peer, target = tracing(f"QTDP:1:{HERE:x}:E:9:0", actions("SR1"))
    target.arrive(HERE)
    target.arrive(HERE + 1)
    peer.one("QTStop")
    peer.one("QTStart")
    target.arrive(HERE + 2)
    assert fields(peer)["tframes"] == "0"
    assert target.followers == []


def test_memory_by_a_register_and_by_agent_expressions() -> None:
    # reg eax; const8 2; trace - const16 700; tracenz of at most 8 - const16 510; trace_quick 3; pop
    peer, target = tracing(
        point(options="-"), actions("M0,-10,4" + code("260000 2202 0c 27") + code("230700 2208 2f 230510 0d03 29 27"))
    )
    target.cpu.regs[0] = 0x610
    target.memory[0x700:0x708] = b"abc\0defg"
    target.arrive(HERE)
    peer.one("QTFrame:0")
    assert [peer.one(p) for p in ("m600,8", "m610,8", "m700,8", "m510,8")] == [
        b"00010203", b"1011", b"61626300", b"101112",
    ]  # fmt: skip


def test_a_condition_decides_and_only_hits_are_counted() -> None:
    # eax == 3
    peer, target = tracing(point(options=":" + code("260000 2203 13 27")))
    for value in range(5):
        target.cpu.regs[0] = value
        target.arrive(HERE)
    assert peer.one(f"qTP:1:{HERE:x}") == b"V1:6"
    assert fields(peer)["tframes"] == "1"


def test_disabled_ones_do_not_collect_and_are_enabled_while_it_runs() -> None:
    peer, target = tracing(point(enabled="D"))
    target.arrive(HERE)
    peer.one(f"QTEnable:1:{HERE:x}")
    target.arrive(HERE)
    target.arrive(HERE)
    peer.one(f"QTDisable:1:{HERE:x}")
    target.arrive(HERE)
    assert fields(peer)["tframes"] == "2"


def test_a_pass_count_ends_the_trace_behind_its_frame() -> None:
    peer, target = tracing(point(passes=3))
    for _ in range(5):
        target.arrive(HERE)
    found = fields(peer)
    assert (found["running"], found["tpasscount"], found["tframes"], found["tcreated"]) == ("T0", "1", "3", "3")
    assert target.traced == {}, "what collects no more is gone"


@pytest.mark.parametrize("anew", [("QTinit", point(passes=2)), ()], ids=["defined anew", "as it was"])
def test_a_tracepoint_that_the_target_has_still_to_remove_collects_nothing(anew: tuple[str, ...]) -> None:
    """It removes one between two instructions, which may be later than the next trace begins."""

    class Slow(FakeTarget):
        def remove_tracepoint(self, id: int) -> None:
            pass

    peer, target = tracing(point(passes=2), target=Slow())
    target.arrive(HERE)
    for packet in ("QTStop", *anew, "QTStart"):
        assert peer.one(packet) == OK
    for _ in range(5):
        target.arrive(HERE)
    found = fields(peer)
    assert (found["tpasscount"], found["tframes"], found["tcreated"]) == ("1", "2", "2")


def test_an_expression_that_fails_ends_the_trace_and_says_why() -> None:
    # 1 / 0
    peer, target = tracing(point(options="-"), actions(code("2201 2200 05 27")))
    target.arrive(HERE)
    text, culprit = fields(peer)["terror"].split(":")
    assert bytes.fromhex(text) == b"the expression divides by zero"
    assert culprit == "1"
    assert fields(peer)["tframes"] == "0"


def test_memory_that_is_not_there_is_not_collected() -> None:
    peer, target = tracing(point(options="-"), actions("MFFFFFFFF,1fffc,10"))
    target.arrive(HERE)
    peer.one("QTFrame:0")
    assert len(peer.one("m1fffc,10")) == 8
    assert fields(peer)["running"] == "T1"


def test_the_buffer_is_bounded_and_full_ends_the_trace() -> None:
    size = frame_size(0, [(0, bytes(100))], 0)
    peer, target = tracing(f"QTBuffer:size:{3 * size + 5:x}", point(options="-"), actions("MFFFFFFFF,500,64"))
    for _ in range(5):
        target.arrive(HERE)
    found = fields(peer)
    assert (found["tfull"], found["tframes"], found["tfree"]) == ("0", "3", "5")


def test_a_circular_buffer_keeps_the_newest() -> None:
    size = frame_size(0, [(0, bytes(2))], 0)
    peer, target = tracing(
        f"QTBuffer:size:{3 * size:x}", "QTBuffer:circular:1", point(options="-"), actions("MFFFFFFFF,500,2")
    )
    for count in range(7):
        target.memory[0x500] = count
        target.arrive(HERE)
    found = fields(peer)
    assert (found["running"], found["tframes"], found["tcreated"], found["circular"]) == ("T1", "3", "7", "1")
    assert [peer.one(f"QTFrame:{n}") + peer.one("m500,1") for n in range(3)] == [b"F0T104", b"F1T105", b"F2T106"]
    assert peer.one("QTFrame:3") == b"F-1"


def test_frames_are_found_by_what_they_are_from_the_one_that_is_looked_at_on() -> None:
    places = [(1, HERE), (2, HERE + 1), (1, HERE), (2, HERE + 9)]
    peer, target = tracing(point(1), point(2, HERE + 1), point(2, HERE + 9))
    for _, address in places:
        target.arrive(address)
    for packet, expected in [
        (f"QTFrame:pc:{HERE:x}", b"F0T1"),
        (f"QTFrame:pc:{HERE:x}", b"F2T1"),
        (f"QTFrame:pc:{HERE:x}", b"F-1"),
        ("QTFrame:tdp:2", b"F3T2"),
        ("QTFrame:0", b"F0T1"),
        ("QTFrame:tdp:2", b"F1T2"),
        (f"QTFrame:range:{HERE + 1:x}:{HERE + 9:x}", b"F3T2"),
        ("QTFrame:0", b"F0T1"),
        (f"QTFrame:outside:{HERE:x}:{HERE + 1:x}", b"F3T2"),
        ("QTFrame:9", b"F-1"),
        ("QTFrame:ffffffff", OK),
        (f"QTFrame:range:{HERE:x}:{HERE:x}", b"F0T1"),
    ]:
        assert peer.one(packet) == expected, packet


def test_variables_begin_anew_are_set_at_hits_and_collected() -> None:
    # $n = $n + 1 (getv 2; const8 1; add; setv 2); tracev 2
    peer, target = tracing("QTDV:2:5:0:6e", point(options="-"), actions(code("2c0002 2201 02 2d0002 29 2e0002 27")))
    target.arrive(HERE)
    target.arrive(HERE)
    assert peer.one("qTV:2") == b"V7"
    assert peer.one("qTV:1") == b"V64", "virtual microseconds"
    assert peer.one("qTV:9") == b"U"
    peer.one("QTFrame:0")
    assert peer.one("qTV:2") == b"V6"
    assert peer.one("qTV:1") == b"U"
    assert b'<tvar id="0x2"/>' in peer.one("qXfer:traceframe-info:read::0,1000")
    peer.one("QTStart")
    assert peer.one("qTV:2") == b"V5"


def test_a_breakpoint_s_condition_may_name_a_variable() -> None:
    peer, target = tracing("QTDV:2:5:0:6e")
    assert peer.one("Z0,10190,1;" + code("2c0002 2205 13 27")) == OK
    hooks = target.hooks[0x10190]
    assert hooks is not None
    assert hooks.holds is not None
    assert hooks.holds()
    target.experiment.set_value(2, 6)
    assert not hooks.holds()


def test_who_comes_later_is_told_what_is_defined() -> None:
    peer, target = tracing(
        "QTDV:2:5:0:6e", point(1, passes=3, options=":" + code("220127") + "-"), actions("R1"),
        "QTDPsrc:1:10180:at:0:8:" + b"*0x10180".hex(), "QTDPsrc:1:10180:cond:0:1:31",
        "QTDPsrc:1:10180:cmd:0:d:" + b"collect $regs".hex(), "QTDPsrc:1:10180:cmd:0:3:" + b"end".hex(),
        "QTNotes:user:" + b"me".hex() + ";notes:" + b"why".hex() + ";",
    )  # fmt: skip
    target.arrive(HERE)
    peer.one("QTDisconnected:1")
    peer.session.disconnected()
    later = client(target)
    assert fields(later)["running"] == "T1"
    assert bytes.fromhex(fields(later)["notes"]) == b"why"

    def listed(kind: str) -> list[bytes]:
        found = [later.one(f"qTf{kind}")]
        while found[-1] != b"l":
            found.append(later.one(f"qTs{kind}"))
        return found[:-1]

    assert listed("P") == [
        b"T1:10180:E:0:3:X3,220127", b"A1:10180:R1", b"Z1:10180:at:0:8:" + b"*0x10180".hex().encode(),
        b"Z1:10180:cond:0:1:31", b"Z1:10180:cmd:0:d:" + b"collect $regs".hex().encode(),
        b"Z1:10180:cmd:0:3:" + b"end".hex().encode(),
    ]  # fmt: skip
    assert listed("V") == [b"1:0:1:" + b"trace_timestamp".hex().encode(), b"2:5:0:6e"]
    target.arrive(HERE)
    assert later.one("QTFrame:1") == b"F1T1"


def test_a_trace_ends_with_its_client_unless_it_says_otherwise() -> None:
    for stays in (0, 1):
        peer, target = tracing(f"QTDisconnected:{stays}", point())
        target.arrive(HERE)
        peer.session.disconnected()
        later = client(target)
        found = fields(later)
        assert found["running"] == f"T{stays}"
        assert ("tdisconnected" in found) is not stays
        assert later.one("QTFrame:0") == b"F0T1"
        assert (target.traced == {}) is not stays


def test_a_tracepoint_that_comes_while_it_runs_takes_part_when_its_actions_are_there() -> None:
    peer, target = tracing(point())
    assert peer.one(point(2, HERE + 1, options="-")) == OK
    target.arrive(HERE + 1)
    assert peer.one(actions("MFFFFFFFF,500,1", 2, HERE + 1)) == OK
    target.arrive(HERE + 1)
    assert peer.one("QTFrame:tdp:2") == b"F0T2"
    assert peer.one("m500,1") == b"00"
    assert peer.one("QTFrame:tdp:2") == b"F-1"


def test_a_tracepoint_that_is_defined_anew_while_it_runs_takes_the_place_of_the_one_before() -> None:
    peer, target = tracing(point(options="-"), actions("R1"))
    assert len(target.traced) == 1
    assert peer.one(point(options="-")) == OK
    assert target.traced == {}, "until its actions are there"
    assert peer.one(actions("M0,500,4")) == OK
    assert len(target.traced) == 1
    target.arrive(HERE)
    assert fields(peer)["tframes"] == "1"
    peer.session.disconnected()
    assert target.traced == {}


def test_the_buffer_is_read_as_a_trace_file_has_it() -> None:
    """ "Trace File Format": number (2), length (4), then R registers, M address (8) length (2) bytes, V number (4)
    value (8)."""
    peer, target = tracing(
        "QTDV:2:ffffffffffffffff:0:6e", point(3, options="-"), actions("R1MFFFFFFFF,500,4" + code("2e0002 27"), 3)
    )
    target.memory[0x500:0x504] = b"abcd"
    target.arrive(HERE)
    registers = bytes.fromhex(peer.one("g").decode())
    raw = bytes.fromhex(peer.one("qTBuffer:0,10000").decode())
    blocks = b"R" + registers + b"M" + struct.pack("<QH", 0x500, 4) + b"abcd" + b"V" + struct.pack("<Iq", 2, -1)
    assert raw == struct.pack("<HI", 3, len(blocks)) + blocks
    assert fields(peer)["tfree"] == f"{(5 << 20) - len(raw):x}"
    assert peer.one(f"qTBuffer:{len(raw) - 1:x},10") == raw[-1:].hex().encode()
    assert peer.one(f"qTBuffer:{len(raw):x},10") == b"l"
    peer.one("QTStart")
    assert peer.one("qTBuffer:0,10") == b"l"


def test_an_onlooker_looks_at_frames_of_its_own() -> None:
    peer, target = tracing(point(options="-"), actions("R1"))
    target.arrive(HERE)
    onlooker = client(target, looks_on=True)
    assert onlooker.one("QTFrame:0") == b"F0T1"
    assert peer.one("QTFrame:0") == b"F0T1"
    assert b"another client came first" in onlooker.one("QTStop")
    onlooker.session.disconnected()
    assert fields(peer)["running"] == "T1"


def test_what_one_hit_may_take_is_bounded() -> None:
    huge = [actions("MFFFFFFFF,0,100001"), actions(code("2200 24ffffffff 0c 27"))]
    # const8 0; then for ever: trace_quick 1; const8 2; add; goto 2
    many = actions(code("2200 0d01 2202 02 210002"))
    # const16 2400; then down to 0: const8 1; sub; dup; if_goto 3
    slow = actions(code("230960 2201 03 28 200003 27") * 20)
    for action, words in (
        (huge[0], "1048576 bytes"),
        (huge[1], "1048576 bytes"),
        (many, "pieces"),
        (slow, "100000 steps"),
    ):
        peer, target = tracing(point(options="-"), action)
        target.arrive(HERE)
        assert words.encode().hex() in fields(peer)["terror"]


def test_one_place_has_a_bounded_number_of_tracepoints() -> None:
    peer, _ = tracing()
    peer.one("QTinit")
    for number in range(1, AT_ONE_PLACE + 1):
        assert peer.one(point(number)) == b"OK"
    assert peer.one(point(100)) == b"E.at most 10 tracepoints can be at one place"
    assert peer.one(point(100, HERE + 1)) == b"OK"


def test_frames_cost_bounded_memory_however_small_they_are() -> None:
    buffer = FrameBuffer()
    buffer.resize(MAX_SIZE)
    frame = Frame(1, 0, None, (), (), frame_size(0, [], 0))
    assert sum(buffer.add(frame) for _ in range(MAX_FRAMES + 5)) == MAX_FRAMES
    with pytest.raises(TargetError, match="holds"):
        buffer.resize(5)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=12)), max_size=6),
    st.integers(0, 50),
    st.integers(1, 30),
)
def test_memory_of_a_frame_is_what_its_pieces_say(pieces: list[tuple[int, bytes]], at: int, length: int) -> None:
    known: dict[int, int] = {}
    for start, data in reversed(pieces):
        known |= {start + n: byte for n, byte in enumerate(data)}
    found = Frame(1, 0, None, tuple(pieces), (), 0).read(at, length)
    expected = bytearray()
    while len(expected) < length and at + len(expected) in known:
        expected.append(known[at + len(expected)])
    assert len(found) == len(expected)
    if len({n for start, data in pieces for n in range(start, start + len(data))}) == sum(len(d) for _, d in pieces):
        assert found == expected, "pieces that do not overlap"


@given(st.binary(max_size=60))
def test_whatever_comes_behind_a_name_is_answered(noise: bytes) -> None:
    for name in (b"QTDP:", b"QTDP:-1:10100:", b"QTDPsrc:", b"QTDV:", b"QTro:", b"QTBuffer:", b"QTFrame:", b"qTBuffer:"):
        peer, target = tracing(point(), point(1, 0x10100))
        target.arrive(HERE)
        (answer,) = peer.ask(name + escape(noise))
        assert len(answer) < PACKET_SIZE
