"""A whole connection in bytes, without a socket."""

from __future__ import annotations

import pytest

from stub.packet import PACKET_SIZE, frame
from stub.session import Close, RunCommand
from stub.states import State
from stub.target import SIGNAL_ABRT, StopReason, StopReport, TargetError
from stub.voice import HIGH_WATER
from stub_fakes import GDB_FEATURES, RAM, BareTarget, Client, FakeTarget, client

#: (what the client sends, what comes back), in one session on a FakeTarget, raw.
CONVERSATIONS: dict[str, list[tuple[bytes, bytes]]] = {
    "acknowledged": [
        (b"+$vMustReplyEmpty#3a", b"+$#00"),
        (b"+$Hg0#df", b"+$OK#9a"),
        (b"-", b"$OK#9a"),
        (b"+$Hg0#00", b"-"),
        (b"$Hg0#df", b"+$OK#9a"),
    ],
    "not acknowledged": [
        (b"$QStartNoAckMode#b0", b"+$OK#9a"),
        (b"+$qC#b4", b"$QC1#c5"),
        (b"-", b""),
        (b"$qC#b4$?#3f", b"$QC1#c5" + frame(b"T05thread:1;core:0;")),
    ],
    "stepping": [
        (frame(b"?"), b"+" + frame(b"T05thread:1;core:0;")),
        (frame(b"vCont;s:1;c"), b"+" + frame(b"T05thread:1;core:0;")),
        (frame(b"p8"), b"+" + frame(b"01010100")),
        (frame(b"s10200"), b"+" + frame(b"T05thread:1;core:0;")),
        (frame(b"p8"), b"+" + frame(b"01020100")),
        (frame(b"vCont;r10201,10210:1;c:1"), b"+" + frame(b"T05thread:1;core:0;")),
        (frame(b"p8"), b"+" + frame(b"10020100")),
    ],
    "memory": [
        (frame(b"m41,3"), b"+" + frame(b"414243")),
        (frame(b"M41,2:ffee"), b"+" + frame(b"OK")),
        (frame(b"m1fffe,10"), b"+" + frame(b"feff")),
        (frame(b"m20000,1"), b"+" + frame(b"E01")),
        (frame(b"x41,3"), b"+" + frame(b"b\xff\xeeC")),
        (frame(b"x23,2"), b"+" + frame(b"b}\x03}\x04")),
        (frame(b"X1ffff,2:ab"), b"+" + frame(b"E.0x20000: not mapped")),
        (frame(b"m10,0"), b"+" + frame(b"")),
    ],
    "malformed": [
        (
            frame(b"mzz,1"),
            b"+" + frame(b"E.malformed packet: the address is not a hexadecimal number of at most 16 digits"),
        ),
        (frame(b"\xff\xfe"), b"+" + frame(b"")),
        (frame(b"Hg7"), b"+" + frame(b"E.there is no thread 7: the threads are 1")),
        (frame(b"pfff"), b"+" + frame(b"E01")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    peer = client()
    for sent, expected in CONVERSATIONS[name]:
        assert peer.raw(sent) == expected, sent


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation_in_single_bytes(name: str) -> None:
    peer = client()
    for sent, expected in CONVERSATIONS[name]:
        assert b"".join(peer.raw(bytes((byte,))) for byte in sent) == expected, sent


def test_who_runs_the_guest_owns_it_until_it_attaches() -> None:
    peer = client()
    assert peer.one("qAttached") == b"1"
    peer.ask("!")
    peer.ask("R00")
    assert peer.one("qAttached") == b"1"
    peer.ask("vRun;")
    assert peer.one("qAttached:1") == b"0"
    peer.ask("D")
    peer.ask("vAttach;1")
    assert peer.one("qAttached") == b"1"


def test_breakpoints_are_inserted_once_and_removed_once() -> None:
    target = FakeTarget()
    peer = client(target)
    assert [peer.one("Z0,10180,1") for _ in range(2)] == [b"OK", b"OK"]
    assert peer.one("Z0,10180,2") == b"OK"  # another kind of breakpoint instruction is the same place
    assert target.points == {(0, 0x10180)}
    assert [peer.one("z0,10180,1") for _ in range(2)] == [b"OK", b"OK"]
    assert target.points == set()


@pytest.mark.parametrize(
    ("packet", "point"),
    [
        ("1,10180,1", (1, 0x10180)),
        ("2,500,4", (StopReason.WATCH, 0x500, 4)),
        ("3,500,10", (StopReason.RWATCH, 0x500, 0x10)),
        ("4,500,1", (StopReason.AWATCH, 0x500, 1)),
    ],
)
def test_each_kind_of_breakpoint_reaches_the_target(packet: str, point: tuple[object, ...]) -> None:
    target = FakeTarget()
    peer = client(target)
    assert peer.one("Z" + packet) == b"OK"
    assert target.points == {point}
    assert peer.one("z" + packet) == b"OK"
    assert target.points == set()


def test_malformed_conditions_are_refused_and_unknown_kinds_unsupported() -> None:
    peer = client()
    assert peer.one("Z0,7c00,1;X1,22") == b"E.the expression ends within its instruction const8"
    assert peer.one("Z0,7c00,1;X4,26ffff27") == b"E.the expression names register 65535; there are 41"
    assert b"conditions" in peer.one("Z2,7c00,1;X3,220127")
    assert peer.one("Z5,7c00,1") == b""


def test_conditions_are_those_of_the_last_packet() -> None:
    peer = client()
    target = peer.session.target
    assert isinstance(target, FakeTarget)
    # $eip == 0x10100; 0; 0 or 1
    for extra, holds in ((";Xa,26000824000101001327", True), (";X3,220027", False), (";X3,220027X3,220127", True)):
        assert peer.one("Z0,10180,1" + extra) == b"OK"
        hooks = target.hooks[0x10180]
        assert hooks is not None
        assert hooks.holds is not None
        assert hooks.holds() == holds
    assert b"shorter" in peer.one("Z0,10180,1;X9,2227")
    assert peer.one("Z0,10180,1") == b"OK"
    assert target.hooks[0x10180] is None


def test_what_one_hit_may_take_is_bounded() -> None:
    peer = client()
    target = peer.session.target
    assert isinstance(target, FakeTarget)
    assert b"at most 100 are run" in peer.one("Z0,10180,1" + ";" + "X1,27" * 101)
    # 0: push 0; ref64; pop; goto 0
    assert peer.one("Z0,10180,1;X7,22001a29210000") == b"OK"
    hooks = target.hooks[0x10180]
    assert hooks is not None
    assert hooks.holds is not None
    with pytest.raises(TargetError, match="within 10000 steps"):
        hooks.holds()
    # a text, for ever
    text = b"%s\0"
    loop = bytes.fromhex("2300012202220234") + b"\x01" + len(text).to_bytes(2, "big") + text + bytes.fromhex("210000")
    assert peer.one(f"Z0,10180,1;cmds:0,X{len(loop):x},{loop.hex()}") == b"OK"
    hooks = target.hooks[0x10180]
    assert hooks is not None
    assert hooks.act is not None
    with pytest.raises(TargetError, match=r"load more than|within 10000 steps"):
        hooks.act()


def test_what_is_to_persist_stays_when_the_client_goes() -> None:
    peer = client()
    target = peer.session.target
    assert isinstance(target, FakeTarget)
    assert peer.one("Z0,10180,1;cmds:1,X1,27") == b"OK"
    assert peer.one("Z0,10190,1;cmds:0,X1,27") == b"OK"
    assert peer.one("Z0,101a0,1;cmds:1,X1,27") == b"OK"
    assert peer.one("Z0,101a0,1;cmds:0,X1,27") == b"OK"  # not any more
    peer.session.disconnected()
    assert target.points == {(0, 0x10180)}


def test_commands_print_while_the_client_waits_and_a_flood_costs_no_memory() -> None:
    peer = client()
    peer.ask(GDB_FEATURES)
    peer.session.printed("nobody waits")
    assert peer.session.data_to_send() == b""
    peer.ask("c")
    for _ in range(20_000):
        peer.session.printed("x" * 1000)
    assert peer.session.buffered < 2 * HIGH_WATER
    peer.session.data_to_send()
    peer.session.printed("after")
    (text,) = peer.incoming(peer.session.data_to_send())
    assert b"pieces of output were dropped" in bytes.fromhex(text[1:].decode())


@pytest.mark.parametrize(("kind", "word"), [(0, b"swbreak"), (1, b"hwbreak")])
def test_breakpoint_stops_name_their_reason_to_a_client_that_knows_it(kind: int, word: bytes) -> None:
    knows, old = client(), client()
    knows.ask(GDB_FEATURES)
    for peer in (knows, old):
        peer.ask(f"Z{kind},10180,1")
    assert knows.one("c") == b"T05" + word + b":;thread:1;core:0;"
    assert old.one("vCont;c") == b"T05thread:1;core:0;"


@pytest.mark.parametrize("reason", [StopReason.WATCH, StopReason.RWATCH, StopReason.AWATCH])
def test_watchpoint_stops_name_the_address(reason: StopReason) -> None:
    target = FakeTarget()
    peer = client(target)
    assert peer.ask("c") == []
    target.stop(StopReport(reason=reason, address=0x502))
    assert peer.incoming(peer.session.data_to_send()) == [b"T05%b:502;thread:1;core:0;" % reason.value.encode()]


def test_stop_reply_carries_registers_once_the_description_was_read() -> None:
    peer = client()
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    reply = peer.one("s")
    # eip is register 8 of gdb's i386 core, little-endian, and linear; cs is register 10.
    assert b";8:01010100;" in reply
    assert b";a:00100000;" in reply


def test_ctrl_c_interrupts_what_the_client_waits_for() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("?")
    assert peer.ask("c") == []
    assert peer.incoming(peer.raw(b"\x03")) == [b"T02thread:1;core:0;"]
    assert target.calls == ["interrupt"]


class TwoCpus(FakeTarget):
    """Which of them was to step is in `calls`."""

    def threads(self) -> tuple[int, ...]:
        return (1, 2)

    def step(self, thread: int) -> None:
        self.calls.append(("step", thread))
        super().step(thread)

    def step_range(self, thread: int, start: int, end: int) -> None:
        self.calls.append(("range", thread))
        super().step_range(thread, start, end)


@pytest.mark.parametrize(
    ("packet", "done"),
    [
        ("vCont;c;s:1", None),  # the first names no thread, which is all of them
        ("vCont;c:1;s:1", None),
        ("vCont;s:1;c", ("step", 1)),
        ("vCont;s:2;c", ("step", 2)),
        ("vCont;c:1;s:2", ("step", 2)),
        ("vCont;c:1;c:2;s:2", None),
        ("vCont;r10100,10110:2;c", ("range", 2)),
        ("vCont;c:2;r10100,10110:2", None),
    ],
)
def test_the_leftmost_action_that_matches_a_thread_is_its_own(packet: str, done: object) -> None:
    """ "Debugging with GDB", "Packets", vCont: of the actions that match a thread the leftmost is applied, and one
    without a thread matches all."""
    target = TwoCpus()
    assert client(target).ask(packet) == ([b"T05thread:1;core:0;"] if done else [])
    assert target.active is (done is None), "continued"
    assert [call for call in target.calls if isinstance(call, tuple)] == ([done] if done else [])


@pytest.mark.parametrize("resume", ["c", "s", "vCont;s:1;c", "vCont;r10100,10110:1", "C02"])
def test_ctrl_c_between_two_steps_of_one_command_stops_before_the_second(resume: str) -> None:
    """gdb sends it while a step is done already and answered; what it looks at then is for the next step."""
    target = FakeTarget()
    peer = client(target)
    peer.ask("s")
    assert peer.raw(b"\x03") == b""
    for packet in ("m10100,1", "g", "p8", "Hg1", "vCont?", "Z0,10180,1", "z0,10180,1"):
        peer.one(packet)
    assert peer.one(resume) == b"T02thread:1;core:0;"
    assert peer.one("p8") == b"01010100", "it stands where it stood"
    assert peer.one("s") == b"T05thread:1;core:0;", "it counts once"


@pytest.mark.parametrize("packet", ["qfThreadInfo", "qXfer:threads:read::0,ff", "?", "M41,1:00", "qRcmd,70"])
def test_a_late_ctrl_c_is_forgotten_when_the_client_has_shown_the_stop(packet: str) -> None:
    peer = client(FakeTarget())
    peer.ask("s")
    peer.raw(b"\x03")
    peer.ask(packet)
    assert peer.one("s") == b"T05thread:1;core:0;"


def test_more_ctrl_c_behind_one_that_was_heard_is_nothing() -> None:
    peer = client(FakeTarget())
    peer.ask("c")
    assert peer.incoming(peer.raw(b"\x03\x03\x03")) == [b"T02thread:1;core:0;"]
    peer.one("m10100,1")
    peer.raw(b"\x03")
    assert peer.one("s") == b"T05thread:1;core:0;"
    # but one for the next command, which gdb sends before it resumes
    peer.ask("c")
    peer.raw(b"\x03")
    peer.one("qXfer:threads:read::0,ff")
    peer.raw(b"\x03")
    assert peer.one("c") == b"T02thread:1;core:0;"


def test_ctrl_c_right_behind_the_resume_counts() -> None:
    peer = client()
    assert peer.incoming(peer.raw(frame(b"vCont;c") + b"\x03")) == [b"T02thread:1;core:0;"]


def test_a_stop_the_client_does_not_wait_for_is_not_told() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("?")
    target.active = True  # continued at the prompt
    target.stop(StopReport(note="breakpoint 1"))
    assert peer.session.data_to_send() == b""


def test_a_client_that_comes_while_the_guest_runs_finds_it_stopped() -> None:
    target = FakeTarget()
    target.active = True
    peer = client(target)
    assert target.running  # connecting alone stops nothing
    assert peer.one("?") == b"T02thread:1;core:0;"
    assert target.calls == ["halt"]


def test_continue_joins_a_guest_that_the_prompt_has_continued_and_step_does_not() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("?")
    target.active = True
    assert peer.one("vCont;s:1").startswith(b"E.the guest runs")
    assert peer.ask("vCont;c") == []
    target.stop(StopReport())
    assert peer.incoming(peer.session.data_to_send()) == [b"T05thread:1;core:0;"]


def test_memory_is_readable_and_resume_refused_while_it_runs() -> None:
    peer = client()
    peer.ask("c")
    assert peer.one("m41,2") == b"4142"
    assert peer.one("c").startswith(b"E.the guest runs")
    assert peer.session.state is State.RUNNING


def test_a_stop_in_words_comes_before_the_stop_reply() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("c")
    target.stop(StopReport(SIGNAL_ABRT, note="triple fault: #GP(0)"))
    console, stop = peer.incoming(peer.session.data_to_send())
    assert bytes.fromhex(console[1:].decode()) == b"triple fault: #GP(0)\n"
    assert stop == b"T06thread:1;core:0;"


def test_the_guest_s_exit_ends_the_session_but_not_for_a_later_client() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("!")
    peer.ask("c")
    target.stop(StopReport(exit_code=0x35))
    assert peer.incoming(peer.session.data_to_send()) == [b"W35"]
    assert peer.one("?") == b"W00"
    assert peer.one("c").startswith(b"E.the guest has ended")
    assert peer.one("vRun;") == b"T05thread:1;core:0;"
    assert peer.one("s").startswith(b"T05")
    target.last = StopReport(exit_code=0x35)
    assert client(target).one("?") == b"T05thread:1;core:0;"


def test_restart_without_reply() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("!")
    assert peer.ask("R00") == []
    assert target.calls == ["restart"]


def test_a_guest_that_has_ended_has_no_threads_until_it_is_begun_again() -> None:
    """gdb takes a thread that it is told of behind `W` for a guest that it has, and shows it as stopped."""
    asked = ("qfThreadInfo", "qXfer:threads:read::0,1000", "T1")
    target = FakeTarget()
    peer = client(target)
    peer.ask("!")
    before = [peer.one(packet) for packet in asked]
    peer.ask("c")
    target.stop(StopReport(exit_code=5))
    assert peer.incoming(peer.session.data_to_send()) == [b"W05"]
    assert peer.one("qfThreadInfo") == b"l"
    assert b"<thread " not in peer.one("qXfer:threads:read::0,1000")
    assert peer.one("qXfer:threads:read::0,5") == b"m<?xml"
    assert peer.one("T1").startswith(b"E.")
    peer.ask("vRun;")
    assert [peer.one(packet) for packet in asked] == before


def test_outside_of_extended_mode_nothing_restarts_and_vrun_says_so() -> None:
    """By bytes as gdbserver 13: an error for vRun, the empty packet for R, which it does not know then."""
    target = FakeTarget()
    target.cpu.rip = 0x123
    peer = client(target)
    peer.ask("QStartNoAckMode")
    sentence = b"E.this connection has the machine already; `target extended-remote` can restart it by `run`"
    for packet in (b"$vRun;#e6", frame(b"vRun;2f62696e2f74727565;61")):
        assert peer.raw(packet) == frame(sentence)
    assert peer.raw(b"$R00#b2") == b"$#00"
    assert target.calls == []
    assert target.cpu.rip == 0x123
    assert peer.one("qAttached") == b"1"
    assert peer.one("!") == b"OK"
    assert peer.raw(b"$vRun;#e6") == frame(b"T05thread:1;core:0;")
    assert target.calls == ["restart"]


def test_kill_is_acknowledged_before_the_connection_closes_and_then_carried_out() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("Z0,7c00,1")
    assert peer.raw(frame(b"k")) == b"+"
    assert peer.events == [Close()]
    assert "kill" not in target.calls
    peer.session.disconnected()
    assert target.calls == ["kill"]
    assert target.points == set()


def test_vkill_is_answered() -> None:
    target = FakeTarget()
    peer = client(target)
    assert peer.one("vKill;1") == b"OK"
    assert peer.events == [Close()]


def test_a_killed_guest_can_be_restarted_in_extended_mode() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("!")
    assert peer.one("vKill;1") == b"OK"
    assert peer.events == []
    assert peer.one("vRun;") == b"T05thread:1;core:0;"
    peer.session.disconnected()
    assert "kill" not in target.calls


def test_killed_in_extended_mode_and_left_is_killed() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("!")
    peer.ask("vKill;1")
    peer.session.disconnected()
    assert target.calls == ["kill"]


@pytest.mark.parametrize("extended", [False, True])
def test_detach_takes_the_breakpoints_away_and_lets_the_guest_run(extended: bool) -> None:
    target = FakeTarget()
    peer = client(target)
    if extended:
        peer.ask("!")
    peer.ask("Z0,10180,1")
    assert peer.one("D") == b"OK"
    assert target.points == set()
    assert target.running
    assert peer.events == ([] if extended else [Close()])
    target.stop(StopReport())
    assert peer.session.data_to_send() == b""


def test_a_client_that_vanishes_takes_its_breakpoints_and_leaves_the_guest_as_it_is() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("Z1,10,1")
    peer.ask("Z2,500,4")
    peer.ask("c")
    peer.session.disconnected()
    peer.session.disconnected()
    assert target.points == set()
    assert target.running
    assert target.listener is None


def test_registers_are_written_only_where_they_differ() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    values = peer.one("g").decode()
    assert peer.one("G" + "44332211" + values[8:]) == b"OK"
    assert target.calls == [("eax", 0x11223344)]


def test_a_refused_register_write_says_why_in_plain_characters() -> None:
    peer = client()
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    number = [r.name for r in FakeTarget().describe().registers].index("mode")
    assert peer.one(f"P{number:x}=00000000") == b"E.mode is derived: it cannot be written 1"
    assert peer.one("P0=00") == b"E.eax has 4 bytes, not 1"


def test_registers_keep_the_numbering_that_the_client_has_read() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    before = peer.one("g")
    target.cpu.efer, target.cpu.cs.access, target.cpu.cs.base = 1 << 10, 0x209B, 0  # now in 64-bit mode
    target.cpu.cr0 |= 1
    assert len(peer.one("g")) == len(before)
    peer.ask("qXfer:features:read:target.xml:0,1ffff")
    assert len(peer.one("g")) > len(before)


def test_a_client_without_the_description_gets_what_it_knows() -> None:
    # eax..gs 16 * 4, st0-7 8 * 10, x87 control 8 * 4, xmm0-7 8 * 16, mxcsr 4 bytes: gdb's default i386 registers.
    assert len(client().one("g")) == 2 * (64 + 80 + 32 + 128 + 4)


def test_documents_come_in_pieces_of_one_text() -> None:
    peer = client()
    whole = peer.one("qXfer:features:read:target.xml:0,1ffff")
    assert whole[:1] == b"l"
    pieces, offset = b"", 0
    while True:
        piece = peer.one(f"qXfer:features:read:target.xml:{offset:x},100")
        pieces += piece[1:]
        offset += len(piece) - 1
        if piece[:1] == b"l":
            break
        assert piece[:1] == b"m"
        assert len(piece) == 0x101
    assert pieces == whole[1:]
    assert peer.one(f"qXfer:features:read:target.xml:{offset + 5:x},100") == b"l"


def test_wrong_annex_and_unknown_object() -> None:
    peer = client()
    assert peer.one("qXfer:features:read:other.xml:0,100") == b"E00"
    assert peer.one("qXfer:auxv:read::0,100") == b""


def test_threads_are_described() -> None:
    peer = client()
    assert peer.one("qfThreadInfo") == b"m1"
    assert peer.one("qsThreadInfo") == b"l"
    assert b'<thread id="1" core="0" name="CPU 0">waits &amp; &lt;sees&gt;</thread>' in peer.one(
        "qXfer:threads:read::0,fff"
    )
    assert bytes.fromhex(peer.one("qThreadExtraInfo,1").decode()) == b"CPU 0: waits & <sees>"
    assert peer.one("T1") == b"OK"


def ask_monitor(peer: Client, command: str) -> list[bytes]:
    return peer.ask("qRcmd," + command.encode().hex())


def shown(answers: list[bytes]) -> str:
    return b"".join(bytes.fromhex(a[1:].decode()) for a in answers if a[:1] == b"O" and a != b"OK").decode()


def test_monitor_help_names_our_commands_and_then_runs_the_runner_s_help() -> None:
    peer = client(has_runner=True)
    assert "pc [linear|offset]" in shown(ask_monitor(peer, "help"))
    assert peer.events == [RunCommand("help")]


def test_monitor_runs_elsewhere_and_packets_wait_for_its_end() -> None:
    peer = client(has_runner=True)
    assert ask_monitor(peer, "sreg cs") == []
    assert peer.events == [RunCommand("sreg cs")]
    assert peer.ask("qC") == []
    assert peer.session.command_finished("cs 1000\n") == []
    answers = peer.incoming(peer.session.data_to_send())
    assert shown(answers[:-2]) == "cs 1000\n"
    assert answers[-2:] == [b"OK", b"QC1"]


def test_a_failed_monitor_command_shows_its_text() -> None:
    old, new = client(has_runner=True), client(has_runner=True)
    new.ask(GDB_FEATURES + ";error-message+")
    for peer in (old, new):
        ask_monitor(peer, "foo")
        peer.session.command_finished("", "no command is called foo")
    answers = old.incoming(old.session.data_to_send())
    assert (shown(answers), answers[-1]) == ("no command is called foo\n", b"OK")
    assert new.incoming(new.session.data_to_send()) == [b"E.no command is called foo"]


def test_monitor_without_a_runner_still_has_its_own_words() -> None:
    peer = client()
    assert "monitor help" in shown(ask_monitor(peer, "foo"))
    assert shown(ask_monitor(peer, "help")).startswith("Commands of the gdb connection")
    assert peer.session.state is State.STOPPED


def test_monitor_pc_switches_the_convention() -> None:
    target = FakeTarget()
    peer = client(target)
    assert "linear address CS base + offset; the offset is $ip" in shown(ask_monitor(peer, "pc"))
    ask_monitor(peer, "pc offset")
    assert target.pc_is_offset
    assert "takes" in shown(ask_monitor(peer, "pc sideways"))
    ask_monitor(peer, "pc linear")
    assert not target.pc_is_offset


def test_long_monitor_output_fits_into_packets() -> None:
    peer = client(has_runner=True)
    text = "é" * PACKET_SIZE
    ask_monitor(peer, "u")
    peer.session.command_finished(text)
    answers = peer.incoming(peer.session.data_to_send())
    assert max(map(len, answers)) <= PACKET_SIZE
    assert shown(answers) == text + "\n"


def test_a_flood_of_large_reads_waits_for_the_client_to_read() -> None:
    peer = client()
    flood = frame(b"m0,10000") * 400
    peer.session.receive_data(flood)
    assert peer.session.buffered < HIGH_WATER + 2 * PACKET_SIZE + len(flood)
    assert peer.session.stalled
    count = 0
    while out := peer.session.data_to_send():
        count += len(peer.incoming(out))
        peer.session.receive_data(b"")
    assert count == 400
    assert not peer.session.stalled


def test_replies_are_compressed_when_asked_for() -> None:
    target = FakeTarget()
    target.memory[0:64] = bytes(64)
    peer = client(target, compressed=True)
    raw = peer.raw(frame(b"m0,40"))
    assert len(raw) < 20
    assert peer.incoming(raw) == [b"00" * 64]


def test_an_error_in_a_handler_is_reported_and_the_session_goes_on() -> None:
    class Broken(FakeTarget):
        def read_memory(self, address: int, length: int) -> bytes:
            raise ZeroDivisionError("oops")

    seen: list[Exception] = []
    peer = client(Broken(), on_error=seen.append)
    assert peer.one("m0,1") == b"E.internal error in b'm0,1': ZeroDivisionError: oops"
    assert isinstance(seen[0], ZeroDivisionError)
    assert peer.one("qC") == b"QC1"


def test_too_long_a_packet_gets_words_and_not_a_request_to_repeat_it() -> None:
    peer = client()
    raw = peer.raw(frame(b"X0,%x:" % RAM + b"a" * (PACKET_SIZE + 1)))
    assert raw == b"+" + frame(b"E.a packet longer than 131072 bytes (PacketSize)")


def test_a_damaged_packet_without_acknowledgements_gets_words() -> None:
    peer = client()
    peer.ask("QStartNoAckMode")
    assert peer.incoming(peer.raw(b"$g#00")) == [b"E.a packet with a wrong checksum came in"]


def test_a_bare_target_is_offered_and_answered_nothing_it_lacks() -> None:
    peer = client(BareTarget())
    assert peer.one("qSupported") == b"PacketSize=20000;QStartNoAckMode+;qXfer:threads:read+"
    for packet in ("g", "p0", "P0=00", "m0,1", "x0,1", "X0,0:", "c", "vCont?", "vCont;c", "Z0,0,1", "z2,0,1", "k", "D",
                   "R00", "!", "vRun;", "qXfer:features:read:target.xml:0,100"):  # fmt: skip
        assert peer.one(packet) == b"", packet
    assert peer.one("?") == b"T05thread:1;core:0;"


def test_the_log_remembers_packets_in_plain_text() -> None:
    peer = client()
    peer.ask("X0,1:\x01")
    peer.ask("m0,10000")
    log = peer.session.log
    assert list(log[:2]) == [r"<- X0,1:\x01", "-> OK"]
    assert log[3].endswith("... 131072 bytes")
