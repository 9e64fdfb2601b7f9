"""A client whose runs to watchpoints and stores C answers hears what one hears to whom Python says all, and leaves
the same behind."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from emu.debugger import BreakKind, Debugger
from emu.stops import Condition
from emu.unicorn_engine import HELPER
from emu.worker import Worker
from machines import TIMER_100US, rom
from stub import links
from stub.exchange import Exchanged
from stub.known import load_library
from stub.packet import escape, frame
from stub.session import Session
from talks import PATIENCE, Talks, served

pytestmark = pytest.mark.skipif(
    load_library() is None or isinstance(HELPER, str), reason="the helpers in C were not built here"
)

GO, STEP = "vCont;c:p1.-1", "vCont;s:p1.1;c:p1.-1"
#: In RAM at 8000h: a loop with accesses around 500h, ports, an interrupt of its own and the timer's, and now and
#: then a wait that is longer than what is run before others are looked after.
GUEST = rom(
    f"""
    mov ss, ax
    mov es, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
    mov word [0x40*4], called
    mov word [0x40*4+2], 0xf000
{TIMER_100US}
    cld
    mov si, loaded
    mov di, 0x8000
    mov cx, ended-loaded
    cs rep movsb
    sti
    jmp 0:0x8000
loaded:
    inc dword [0x500]
    mov al, [0x502]
    mov [0x4ff], ax
    in al, 0x61
    mov di, 0x504
    mov cx, 3
    rep stosw
    int 0x40
    inc ax
    inc word [0x610]
    test byte [0x610], 15
    jnz loaded
    mov cx, 3000
spin:
    loop spin
    jmp loaded
ended:
called:
    xor word [0x506], 0x55
    iret
tick:
    push ax
    inc word [0x508]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
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


def to_loop(talks: Talks) -> None:
    talks.ask("Z0,8000,1")
    talks.ask(GO)
    talks.ask("z0,8000,1")


def hits(talks: Talks, *points: str) -> None:
    to_loop(talks)
    for point in points:
        assert talks.ask(f"Z{point}") == b"OK"
    for number in range(300):
        assert talks.ask(GO)[:3] == b"T05"
        if number % 3 == 0:
            talks.ask("m500,10")
            talks.ask("g")


def one_point(talks: Talks) -> None:
    hits(talks, "2,500,4")


def many_points(talks: Talks) -> None:
    hits(talks, "4,502,4", "2,500,4", "3,502,1", "2,504,8", "4,6ff8,8", "2,20000,10")


def a_breakpoint_besides(talks: Talks) -> None:
    hits(talks, "2,500,4", "0,8005,1", "1,8017,1")


def as_gdb(talks: Talks) -> None:
    """It takes its watchpoints out at each stop."""
    to_loop(talks)
    points = ("2,500,4", "3,502,2")
    for point in points:
        talks.ask(f"Z{point}")
    for number in range(150):
        talks.ask(GO)
        talks.ask("m500,4")
        for point in points:
            talks.ask(f"z{point}")
        talks.ask("m500,4")
        if number % 20 == 7:
            for _ in range(3):
                talks.ask(STEP)
        for point in points[: 1 if number % 30 == 9 else 2]:
            talks.ask(f"Z{point}")
        if number % 30 == 9:
            talks.ask(GO)
            talks.ask("Z3,502,2")


def with_others(talks: Talks) -> None:
    """Between hits: steps of three kinds, writes, registers, physical mode, another packet that runs, what is wrong."""
    to_loop(talks)
    talks.ask("Z2,500,4")
    for packet in (STEP, "s", "vCont;r8000,8005:p1.1", "M500,2:ff00", "P0=01000000", "Qqemu.PhyMemMode:1", "m500,4",
                   "Qqemu.PhyMemMode:0", "c", "vCont;c", "Hg0", "Z4,500,8", "z4,500,8", "vCont;c:p1.7", "?", "qC",
                   "P8=08800000", "Z2,504,2", "z2,504,2", "c8000", "qRcmd,xx", "vCont?"):  # fmt: skip
        for _ in range(5):
            talks.ask(GO)
        talks.ask(packet)


def stores(talks: Talks) -> None:
    """In and beside RAM and ROM, in every form, right and wrong; none is of use to the guest."""
    chance = random.Random(5)
    for address in (0x600, 0x9FFFE, 0xA0000, 0xBFFFF, 0xC0000, 0xEFFFE, 0xF0000, 0xFFFF8, 0x100000, 0xFEE00000,
                    0xFFFFFFFC, 0x100000000, 0xFFFFFFFFFFFFFFFF):  # fmt: skip
        for length in (1, 3, 8, 1024):
            data = chance.randbytes(length)
            talks.ask(f"M{address:x},{length:x}:{data.hex()}")
            talks.ask(f"m{address:x},{length:x}")
            talks.ask(b"X%x,%x:%b" % (address, length, escape(data[::-1])))
            talks.ask(f"m{address:x},{length:x}")
    for packet in (b"M600,2:0", b"M600,2:00", b"M600,2:001122", b"M600,2:0g11", b"M600,0:", b"M600,2:AABB", b"M600,2",
                   b"M,2:1122", b"M600:1122", b"M0000000000000000600,2:1234", b"M600,00002:5678", b"M-1,1:00", b"M",
                   b"X600,0:", b"X600,3:a*b", b"X600,2:}", b"X600,1:}}", b"X600,1:}", b"X600,2:a}\x03", b"X600,1:ab",
                   b"X600,2:\x00\xff", b"X600,2:}\x03}\x04", b"X", b"X600,4:}]}]}]}]", b"X601,1:\r",
                   b"M601,10000:" + b"11" * 0x10000, b"X602,1001:" + b"x" * 0x1001, b"X602,1000:" + b"y" * 0x1000,
                   b"X600,1fffffffffffffff:a"):  # fmt: skip
        talks.ask(packet)
        talks.ask("m600,8")
    talks.send(b"$M600,2:1234#00")  # a wrong checksum
    talks.send(b"$M600,2:1234#F1")  # and one in capitals, which is right
    talks.ask("m600,8")
    for number in range(8):  # what Python has said of memory does not hold behind a store
        for packet in ("x600,2", "x600,2", "qv2e.Memory:600,2", "g", f"M600,2:{number:04x}", "x600,2", "g",
                       "qv2e.Memory:600,2", f"M601,1:{number:02x}"):  # fmt: skip
            talks.ask(packet)
    for packet in ("M600,2:7788", "m600,2", "g", "m600,2", "M600,2:9900", "g", "m600,2", "qXfer:threads:read::0,1000"):
        talks.ask(packet)


def physical_stores(talks: Talks) -> None:
    talks.ask("Qqemu.PhyMemMode:1")
    stores(talks)


def patches(talks: Talks) -> None:
    """The loop it runs in, between hits: INC AX is INC BX, and back."""
    to_loop(talks)
    assert talks.ask("m8017,1") == b"40"
    talks.ask("Z2,500,4")
    for number in range(60):
        talks.ask(GO)
        if number % 7 == 3:
            talks.ask(f"M8017,1:{'43' if number % 2 else '40'}")
        if number % 7 == 5:
            talks.ask(b"X8017,1:" + (b"B" if number % 2 else b"A"))
        talks.ask("g")
        talks.ask("m8000,40")


def patches_between_steps(talks: Talks) -> None:
    to_loop(talks)
    for number in range(200):
        talks.ask(STEP)
        if number % 5 == 3:
            talks.ask(f"M8017,1:{random.Random(number).choice(('40', '41', '42', '43'))}")
        if number % 11 == 3:
            talks.ask(f"M500,4:{number:08x}")


def at_random(seed: int) -> Callable[[Talks], None]:
    """Watchpoints come, go and are met, between all that C answers and some that it does not."""
    points = ("2,500,4", "4,502,2", "3,502,1", "2,504,8", "4,6ffa,4", "0,8005,1")
    rare = (
        "?",
        "qC",
        "s",
        "c",
        "vCont;c",
        "P0=78563412",
        "x500,4",
        "Hg1",
        "vCont;r8000,8008:p1.1",
        "qXfer:threads:read::0,1000",
    )

    def talk(talks: Talks) -> None:
        chance = random.Random(seed)
        to_loop(talks)
        talks.ask("Z2,500,4")  # so that each run ends
        for _ in range(400):
            kind = chance.random()
            address = chance.choice((0x500, 0x502, 0x600, 0x8017, 0xF0200, 0xA0000, 0x6FF8))
            data = (
                bytes((0x40 + chance.randrange(4),)) if address == 0x8017 else chance.randbytes(chance.randrange(1, 5))
            )
            if kind < 0.45:
                talks.ask(GO)
            elif kind < 0.6:
                talks.ask(STEP)
            elif kind < 0.7:
                talks.ask(f"m{address:x},{len(data):x}")
            elif kind < 0.77 and address != 0x6FF8:
                talks.ask(f"M{address:x},{len(data):x}:{data.hex()}")
            elif kind < 0.82 and address != 0x6FF8:
                talks.ask(b"X%x,%x:%b" % (address, len(data), escape(data)))
            elif kind < 0.93:
                talks.ask(f"{chance.choice('Zz')}{chance.choice(points[1:])}")
            else:
                talks.ask(chance.choice(rare))

    return talk


@pytest.mark.parametrize(
    ("talk", "met", "written"),
    [
        (one_point, 200, 0),
        (many_points, 200, 0),
        (a_breakpoint_besides, 50, 0),
        (as_gdb, 90, 0),
        (with_others, 30, 0),
        (stores, 0, 40),
        (physical_stores, 0, 0),
        (patches, 30, 10),
        (patches_between_steps, 0, 40),
        *((at_random(seed), 20, 2) for seed in range(8)),
    ],
)
def test_c_says_what_python_says(
    talk: Callable[[Talks], None],
    met: int,
    written: int,
    exchanges: list[Exchanged],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def left(session: Debugger, worker: Worker) -> list[object]:
        return worker.call(
            lambda: [session.fingerprint(), session.retired, session.last_stop, session.events(), session.cpu(),
                     [(p.id, p.hits) for p in session.breakpoint_list()]],
            PATIENCE,
        )  # fmt: skip

    with served(GUEST) as (by_c, session, worker):
        talk(by_c)
        one = left(session, worker)
    assert sum(e.met for e in exchanges) >= met
    assert sum(e.written for e in exchanges) >= written
    exchanges.clear()
    monkeypatch.setattr(links, "load_library", lambda: None)
    with served(GUEST) as (by_python, session, worker):
        talk(by_python)
        assert left(session, worker) == one
    assert by_c.said == by_python.said
    assert by_c.log == by_python.log
    assert exchanges == []


def test_a_hit_that_somebody_else_has_asked_for_is_pythons_to_tell(exchanges: list[Exchanged]) -> None:
    """One of the prompt's, one with a condition, one that is ignored, though gdb's own is met as well."""
    with served(GUEST) as (talks, session, worker):
        to_loop(talks)
        talks.ask("Z2,500,4")
        for _ in range(10):
            talks.ask(GO)
        other = worker.call(lambda: session.add_breakpoint(BreakKind.READ, 0x502, 1), PATIENCE)
        assert sum(e.met for e in exchanges) > 5
        for _ in range(10):
            talks.ask(GO)
        assert worker.call(lambda: other.hits, PATIENCE) > 3
        assert any(packet[1:2] == b"O" for packet in talks.said)  # in words
        worker.call(lambda: session.remove_breakpoint(other.id), PATIENCE)
        own = worker.call(lambda: session.breakpoint_list()[0], PATIENCE)
        before, count = own.hits, sum(e.met for e in exchanges)
        odd = Condition("odd", lambda: session.read_linear(0x500, 1)[0] % 2 == 1)
        worker.call(lambda: session.set_condition(own.id, odd), PATIENCE)
        for _ in range(4):
            talks.ask(GO)
            assert int(talks.ask("m500,1"), 16) % 2 == 1
        assert own.hits == before + 4
        assert sum(e.met for e in exchanges) == count


def test_a_listener_that_hears_of_each_stop_hears_of_each_hit(exchanges: list[Exchanged]) -> None:
    with served(GUEST) as (talks, _, worker):
        to_loop(talks)
        talks.ask("Z2,500,4")
        heard = []
        worker.add_listener(heard.append)
        for _ in range(20):
            talks.ask(GO)
        assert len(heard) == 20
    assert sum(e.met for e in exchanges) == 0


def test_one_that_looks_on_hears_what_python_says_of_each_hit(exchanges: list[Exchanged]) -> None:
    with served(GUEST) as (talks, _, _worker):
        to_loop(talks)
        talks.ask("Z2,500,4")
        onlooker = Talks(talks.address)
        for _ in range(20):
            talks.ask(GO)
            onlooker.ask("m500,4")
            assert onlooker.said[-1] == frame(talks.ask("m500,4"))
        assert sum(e.met for e in exchanges) == 0
        onlooker.socket.close()


def test_hits_without_end_let_others_in(exchanges: list[Exchanged]) -> None:
    with served(GUEST) as (talks, session, worker):
        to_loop(talks)
        talks.ask("Z2,500,4")
        done: list[int | None] = []
        for number in range(3000):
            talks.ask(GO)
            if number == 1000:
                worker.post(lambda: done.append(session.retired))
            if done:
                break
        assert done
        assert number < 2999
    assert sum(e.met for e in exchanges) > 500
