"""Each packet's form: "Debugging with GDB", "Packets" and "General Query Packets"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stub import messages as m
from stub.messages import Action, MessageError, Resume, Unknown
from stub.parser import parse

FORMS = [
    (b"qSupported:swbreak+;xmlRegisters=i386", m.QuerySupported(("swbreak+", "xmlRegisters=i386"))),
    (b"qSupported", m.QuerySupported(())),
    (b"QStartNoAckMode", m.StartNoAck()),
    (b"vMustReplyEmpty", m.MustReplyEmpty()),
    (b"!", m.ExtendedMode()),
    (b"?", m.QueryStop()),
    (b"g", m.ReadRegisters()),
    (b"G0aFF", m.WriteRegisters(b"\x0a\xff")),
    (b"p1f", m.ReadRegister(0x1F)),
    (b"P8=00010000", m.WriteRegister(8, b"\0\1\0\0")),
    (b"m7c00,200", m.ReadMemory(0x7C00, 0x200)),
    (b"x7c00,200", m.ReadMemoryBinary(0x7C00, 0x200)),
    (b"M10,2:beef", m.WriteMemory(0x10, b"\xbe\xef")),
    (b"X10,3::,;", m.WriteMemory(0x10, b":,;")),
    (b"c", Resume((Action("c"),))),
    (b"cffff0", Resume((Action("c"),), 0xFFFF0)),
    (b"s", Resume((Action("s"),))),
    (b"C05", Resume((Action("c", 5),))),
    (b"S05;100", Resume((Action("s", 5),), 0x100)),
    (b"vCont;s:1;c", Resume((Action("s", thread=1), Action("c")))),
    (b"vCont;C0b:-1", Resume((Action("c", 11),))),
    (b"vCont;r100,10f:1", Resume((Action("r", start=0x100, end=0x10F, thread=1),))),
    (b"vCont;t", Resume((Action("t"),))),
    (b"vCont?", m.QueryResume()),
    (b"QNonStop:1", m.NonStop(True)),
    (b"QNonStop:0", m.NonStop(False)),
    (b"vStopped", m.StopSeen()),
    (b"vCtrlC", m.InterruptAll()),
    (b"Z0,7c00,1", m.InsertPoint(0, 0x7C00, 1)),
    (b"Z0,7c00,1;X1,22", m.InsertPoint(0, 0x7C00, 1, (b"\x22",))),
    (b"Z1,7c00,1;X1,22X2,2201", m.InsertPoint(1, 0x7C00, 1, (b"\x22", b"\x22\x01"))),
    (b"Z0,7c00,1;X1,22;cmds:1,X1,27X1,28", m.InsertPoint(0, 0x7C00, 1, (b"\x22",), (b"\x27", b"\x28"), True)),
    (b"Z0,7c00,1;cmds:0,X1,27", m.InsertPoint(0, 0x7C00, 1, (), (b"\x27",))),
    (b"z4,500,10", m.RemovePoint(4, 0x500, 0x10)),
    (b"Hg0", m.SetThread("g", 0)),
    (b"Hc-1", m.SetThread("c", -1)),
    (b"T2", m.ThreadAlive(2)),
    (b"qC", m.CurrentThread()),
    (b"qAttached:1", m.QueryAttached()),
    (b"qfThreadInfo", m.FirstThreads()),
    (b"qsThreadInfo", m.NextThreads()),
    (b"qThreadExtraInfo,1", m.ThreadExtra(1)),
    (b"qXfer:features:read:target.xml:0,ffb", m.Transfer("features", "target.xml", 0, 0xFFB)),
    (b"qXfer:exec-file:read:a:b:10,20", m.Transfer("exec-file", "a:b", 0x10, 0x20)),
    (b"qRcmd,68656c70", m.MonitorCommand("help")),
    (b"qSymbol::", m.SymbolsAvailable()),
    (b"k", m.Kill(replies=False)),
    (b"vKill;1", m.Kill(replies=True)),
    (b"D;1", m.Detach()),
    (b"R00", m.Restart(replies=False)),
    (b"vRun;", m.Restart(replies=True)),
]


@pytest.mark.parametrize(("payload", "message"), FORMS)
def test_packet_is_parsed(payload: bytes, message: m.Message) -> None:
    assert parse(payload) == message


@pytest.mark.parametrize(
    "payload", [b"", b"qNothing", b"vNothing;1", b"_", b"qXfer:features:write:x:0:00", b"qXfer:auxv"]
)
def test_unknown_packets_are_told_apart_from_bad_ones(payload: bytes) -> None:
    assert parse(payload) == Unknown(payload)


@pytest.mark.parametrize(
    "payload",
    [b"m", b"m7c00", b"m7c00,", b"m-1,4", b"m0x10,4", b"m11112222333344445,1", b"p", b"pzz", b"P8", b"P8=0", b"P8=0g",
     b"M0,4:00", b"X0,4:abc", b"X0,4", b"Z0", b"Z0,1", b"Zx,1,1", b"H", b"Hx1", b"Hg", b"Tp2.1", b"vCont", b"vCont;x",
     b"vCont;r1", b"vCont;s1", b"vCont;C", b"C", b"Cg;1", b"qRcmd,6", b"qXfer:features:read:target.xml:0", b"G0",
     b"cxyz", b"m 1,2", b"m1_0,2", b"m\xb2,2"],
)  # fmt: skip
def test_malformed_packets_are_refused_in_words(payload: bytes) -> None:
    with pytest.raises(MessageError, match=r"\w+ \w+ \w+"):
        parse(payload)


@given(st.sampled_from([form for form, _ in FORMS]), st.binary(max_size=12), st.integers(0, 30), st.integers(0, 30))
def test_mutated_packets_raise_nothing_else(form: bytes, noise: bytes, at: int, drop: int) -> None:
    try:
        parse(form[:at] + noise + form[at + drop :])
    except MessageError as error:
        assert str(error)
