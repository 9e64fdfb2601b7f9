"""A client whose steps and looks C answers hears what one hears to whom Python says all, and leaves the same behind."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

import pytest

from emu.unicorn_engine import HELPER
from machines import TIMER_100US, rom
from stub import links
from stub.exchange import Exchanged
from stub.known import load_library
from stub.packet import frame
from stub.session import Session
from talks import PATIENCE, Talks, served

pytestmark = pytest.mark.skipif(
    load_library() is None or isinstance(HELPER, str), reason="the helpers in C were not built here"
)

STEP = "vCont;s:p1.1;c:p1.-1"
THREADS = "qXfer:threads:read::0,1000"
#: A loop with stores and ports, and a timer every 100 us.
LOOP = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
{TIMER_100US}
    sti
main:
    inc dword [0x500]
    in al, 0x61
    push ax
    pop bx
    jmp main
tick:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)
#: To protected mode and back, a few instructions in each, for ever; big real mode remains.
MODES = rom(
    """
    lgdt [cs:table]
    mov ss, ax
again:
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:wide
    bits 32
wide:
    mov dx, 16
    mov ds, edx
    inc eax
    jmp 24:narrow
    bits 16
narrow:
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0xf000:again
table:
    dw 31
    dd 0xf0000 + gdt
gdt:
    dq 0
    dw 0xffff, 0, 0x9a0f, 0xcf
    dw 0xffff, 0, 0x9200, 0xcf
    dw 0xffff, 0, 0x9a0f, 0
    """
)


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchanged]:
    """What C has answered."""
    found: list[Exchanged] = []
    end = Session.end_quiet

    def counted(session: Session, exchanged: Exchanged) -> None:
        found.append(exchanged)
        end(session, exchanged)

    monkeypatch.setattr(Session, "end_quiet", counted)
    return found


def looks(talks: Talks) -> None:
    """What gdb asks behind a step at its prompt."""
    reply = talks.said[-1]
    pc = int.from_bytes(bytes.fromhex(reply.partition(b";8:")[2][:8].decode()), "little")
    for packet in (f"m{pc:x},1", f"m{pc:x},1", f"m{pc & ~63:x},40", THREADS, f"m{pc:x},1", f"m{pc:x},1"):
        talks.ask(packet)


def in_a_loop(talks: Talks) -> None:
    for number in range(300):
        talks.ask(STEP)
        if number % 3:
            looks(talks)


def with_changes(talks: Talks) -> None:
    """Between steps: registers and memory read and written, a watchpoint, another packet that steps, what is wrong."""
    for packet in ("m500,4", "M500,4:ff000000", "m500,4", "Z2,500,4", "z2,500,4", "g", "P0=01000000", "s", "vCont;s:1",
                   "m500,10000", "m0,0", "ma0000,10", "mffffffff,1", "mFFF0,2", "m500", "x500,4", "Qqemu.PhyMemMode:1",
                   "m500,4", "Qqemu.PhyMemMode:0", "Z0,f0100,1", "monitor"):  # fmt: skip
        for _ in range(4):
            talks.ask(STEP)
            looks(talks)
        talks.ask(packet)
    talks.ask("Z2,500,4")
    for _ in range(30):
        talks.ask(STEP)
        looks(talks)


def in_a_run(talks: Talks) -> None:
    talks.ask("Z2,500,4")
    for _ in range(10):
        talks.ask("vCont;c:p1.-1")
        talks.ask("m500,4")
        talks.ask("z2,500,4")
        for _ in range(2):  # the first one has to take the watchpoint out
            talks.ask(STEP)
            looks(talks)
        talks.ask("Z2,500,4")


def at_hits(talks: Talks) -> None:
    """What gdb does at each hit of two watchpoints, and once not all of it."""
    for packet in ("Z2,500,4", "Z4,502,2"):
        talks.ask(packet)
    for number in range(12):
        talks.ask("vCont;c:p1.-1")
        for packet in ("m500,4", THREADS, "z2,500,4", "z4,502,2"):
            talks.ask(packet)
        talks.ask("m500,4")
        if number != 6:
            talks.ask("Z2,500,4")
        talks.ask("Z4,502,2")
        if number == 9:
            talks.ask("z4,502,2")
            talks.ask(STEP)
            talks.ask("Z4,502,2")


def with_writes(talks: Talks) -> None:
    """What is written somewhere, nowhere or in part, and what is no packet: a bare `$` or `#` begins or ends one."""
    packets = [frame(payload.encode()) for payload in (
        "M500,4:01020304", "X600,3:abc", "Mf8000,2:5aa5", "Md0000,1:00", "Ma0000,1:55", "Ma0000,1:ff",
        "M9fffe,4:11223344", "M100000,1:00", "Mffffe,4:11223344", "X9ffff,2:ab", "Mb8000,2:4107",
        "X500,2:abc", "X500,4:abc", "M500,2:010",
    )]  # fmt: skip
    for data in (b"a$b", b"a#b", b"$ab", b"ab#", b"}\x03}\x04c", b"a}$b", b"a}#b"):
        payload = b"X700,3:" + data
        packets.append(b"$%b#%02x" % (payload, sum(payload) & 0xFF))
    for packet in packets:
        for _ in range(3):
            talks.ask(STEP)
        talks.send(packet)
        talks.ask("m500,4")
        talks.ask("m700,3")
        talks.ask("m9fffe,4")


#: Code that stays, a counter that LOOP writes once in five instructions, and what no memory is behind.
STAYING, CHANGING, MISSING = "f0000,20;7000,8", "f0000,20;500,4", "f0000,20;ffff0000,4;a0000,4"


def gather(talks: Talks, ranges: str) -> str:
    """Read them; the packet that asks whether they are as they are now."""
    return f"qv2e.Same:{zlib.crc32(ranges.encode() + talks.ask(f'qv2e.Memory:{ranges}')):x}"


def with_memory_that_is_the_same(talks: Talks) -> None:
    talks.ask("qv2e.Same:0")
    for ranges in (STAYING, CHANGING, MISSING, STAYING):
        question = gather(talks, ranges)
        for number in range(40):
            talks.ask(STEP)
            talks.ask(question)
            if number % 8 == 0:
                talks.ask(question[:-1])
    for packet in ("M7000,1:55", "Qqemu.PhyMemMode:1", "Qqemu.PhyMemMode:0"):
        talks.ask(packet)
        talks.ask(question)
        talks.ask(STEP)
        talks.ask(question)


def test_whether_memory_is_the_same_is_said_as_it_is() -> None:
    with served(LOOP) as (talks, debugger, worker):
        for _ in range(60):  # to the loop
            talks.ask(STEP)
        for ranges in (STAYING, CHANGING):
            question, said = gather(talks, ranges), []
            for _ in range(12):
                was = worker.call(lambda: debugger.read_linear(0x500, 4), PATIENCE)
                talks.ask(STEP)
                is_now = worker.call(lambda: debugger.read_linear(0x500, 4), PATIENCE)
                said.append((talks.ask(question), was == is_now))
                if ranges is CHANGING:
                    question = gather(talks, ranges)
            if ranges is STAYING:
                assert {answer for answer, _ in said} == {b"1"}
            else:
                assert [answer == b"1" for answer, _ in said] == [same for _, same in said]
                assert len({answer for answer, _ in said}) == 2


@pytest.mark.parametrize(
    ("talk", "firmware", "steps"),
    [
        (in_a_loop, LOOP, 200),
        (in_a_loop, MODES, 200),
        (with_changes, LOOP, 40),
        (with_changes, MODES, 20),
        (with_writes, LOOP, 20),
        (in_a_run, LOOP, 8),
        (at_hits, LOOP, 0),
        (with_memory_that_is_the_same, LOOP, 100),
        (with_memory_that_is_the_same, MODES, 60),
    ],
)
def test_c_says_what_python_says(
    talk: Callable[[Talks], None],
    firmware: bytes,
    steps: int,
    exchanges: list[Exchanged],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(firmware) as (by_c, one, worker):
        talk(by_c)
        left = worker.call(lambda: (one.fingerprint(), one.retired, one.last_stop, one.events()), PATIENCE)
    quiet = [packet for one in exchanges for packet, _ in one.answered]
    stepped = sum(one.stepped for one in exchanges)
    exchanges.clear()
    monkeypatch.setattr(links, "load_library", lambda: None)
    with served(firmware) as (by_python, other, worker):
        talk(by_python)
        assert worker.call(lambda: (other.fingerprint(), other.retired, other.last_stop, other.events())) == left
    assert by_c.said == by_python.said
    assert by_c.log == by_python.log
    assert steps <= stepped == quiet.count(frame(STEP.encode()))
    if talk is with_writes:
        assert frame(b"X600,3:abc") in quiet
        assert quiet.count(frame(b"M500,4:01020304")) == 1
    if talk is at_hits:
        assert frame(b"z2,500,4") in quiet
        assert frame(b"Z4,502,2") in quiet
    if talk is with_memory_that_is_the_same:
        assert sum(packet.startswith(b"$qv2e.Same:") for packet in quiet) > 30
    assert exchanges == []


def test_where_a_listener_hears_of_each_step_none_is_quiet(exchanges: list[Exchanged]) -> None:
    with served(LOOP) as (talks, _, worker):
        heard = []
        worker.add_listener(heard.append)
        for _ in range(20):
            talks.ask(STEP)
            looks(talks)
        assert len(heard) == 20
    assert sum(one.stepped for one in exchanges) == 0


def test_one_who_waits_for_the_machine_gets_it_though_the_client_never_rests() -> None:
    with served(LOOP) as (talks, debugger, worker):
        for _ in range(10):
            talks.ask(STEP)
        done: list[int | None] = []
        worker.post(lambda: done.append(debugger.retired))
        end = time.monotonic() + PATIENCE
        while not done:
            assert time.monotonic() < end
            talks.ask(STEP)
        assert (done[0] or 0) >= 10
