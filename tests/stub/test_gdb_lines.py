"""What the gdb helper keeps of memory, against memory itself; and how often it has to ask."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stub.gdb.cpu import Cpu, Segment
from stub.gdb.frames import Frames
from stub.gdb.memory import GATHERED, LINE, PAGE, Memory, Results

#: What can be read begins at 0 and ends in the middle of a page and of a line.
SIZE = 0x8000 + PAGE + LINE + 3


class Stub:
    """Memory behind a connection that counts. `knows`: it has the packet for many ranges."""

    def __init__(self, knows: bool) -> None:
        self.bytes = bytearray(random.Random(1).randbytes(SIZE))
        self.knows = knows
        self.asked: list[str] = []
        self.memory = Memory(self.fetch, self.gather)

    def fetch(self, linear: int, length: int) -> bytes | None:
        self.asked.append("m")
        return bytes(self.bytes[linear : linear + length]) if linear + length <= SIZE else None

    def gather(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        if not self.knows:
            return None
        assert sum(length for _, length in ranges) <= GATHERED * LINE
        self.asked.append("gather")
        return [bytes(self.bytes[linear : linear + length]) for linear, length in ranges]


def test_what_is_read_is_what_is_there_since_the_guest_ran_last() -> None:
    choose = random.Random(7)
    for knows in (False, True):
        stub = Stub(knows)
        for _ in range(3000):
            linear, length = choose.randrange(SIZE // PAGE * PAGE - 64), choose.randrange(1, 64)
            what = choose.randrange(8)
            if what == 0:
                stub.bytes[linear] ^= 0xFF
                stub.memory.forget()
            elif what == 1:
                stub.memory.prefetch((choose.randrange(SIZE), 10) for _ in range(5))
            assert stub.memory.read(linear, length) == stub.bytes[linear : linear + length]


def test_what_cannot_be_read_is_none_with_the_packet_and_without() -> None:
    for knows in (False, True):
        stub = Stub(knows)
        stub.memory.prefetch([(SIZE - 2, 4), (0xFFFFFFF0, 0x20)])
        for linear, length in ((SIZE - 2, 4), (SIZE + PAGE, 1), (0xFFFFFFF0, 4)):
            for _ in range(2):
                assert stub.memory.read(linear, length) is None
                stub.memory.forget()
    # An address behind 4 GiB is one behind 0.
    assert stub.memory.read(1 << 32, 4) == stub.bytes[:4]


def test_a_look_like_the_last_one_is_one_question() -> None:
    stub = Stub(True)
    places = range(0, 0x8000, 0x300)
    for linear in places:
        stub.memory.read(linear, 8)
    assert stub.asked == ["m"] * len(places)
    for _ in range(3):
        stub.asked.clear()
        stub.memory.forget()
        stub.memory.forget()  # nothing was looked at between
        for linear in places:
            assert stub.memory.read(linear, 8) == stub.bytes[linear : linear + 8]
        assert stub.asked == ["gather"]


def test_what_is_announced_is_one_question_and_what_is_known_none() -> None:
    stub = Stub(True)
    places = range(0, 0x8000, 0x300)
    for _ in range(2):
        stub.memory.prefetch((linear, 8) for linear in places)
        for linear in places:
            stub.memory.read(linear, 8)
    assert stub.asked == ["gather"]


def test_places_that_are_not_looked_at_again_are_asked_for_once_more_only() -> None:
    stub = Stub(True)
    stub.memory.read(0, 4)
    stub.memory.forget()
    for _ in range(2):
        stub.memory.read(0x1000, 4)
        stub.memory.forget()
    assert 0 not in {number * LINE for number in stub.memory._before}


def test_a_look_is_unchanged_only_while_every_byte_that_it_read_is() -> None:
    choose = random.Random(11)
    same = 0
    for knows in (False, True):
        stub = Stub(knows)
        assert not stub.memory.unchanged(), "nothing was looked at yet"
        for _ in range(400):
            places = [(choose.randrange(SIZE), choose.randrange(1, 64)) for _ in range(choose.randrange(1, 6))]
            seen = [stub.memory.read(*place) for place in places]
            for _ in range(3):
                stub.memory.forget()
                if choose.randrange(2):
                    linear, _ = choose.choice(places)
                    stub.bytes[linear] ^= choose.choice((0, 1))
                if stub.memory.unchanged():
                    same += 1
                    assert [stub.memory.read(*place) for place in places] == seen
                seen = [stub.memory.read(*place) for place in places]
    assert same > 200


def test_whether_a_look_is_unchanged_is_one_question() -> None:
    stub = Stub(True)
    for linear in (0x100, 0x2000, 0x7000):
        stub.memory.read(linear, 4)
    stub.memory.forget()
    stub.asked.clear()
    assert stub.memory.unchanged()
    assert stub.asked == ["gather"]
    stub.memory.forget()
    assert stub.memory.unchanged(), "what was read by a look that was not made again counts"
    stub.memory.forget()
    stub.bytes[0x2001] ^= 1
    assert not stub.memory.unchanged()


def test_what_a_look_has_given_holds_until_a_line_that_it_read_changes() -> None:
    stub = Stub(knows=True)
    made, lines = stub.memory.noting(lambda: stub.memory.read(0x100, 4))
    stub.memory.read(0x400, 4)
    assert made == bytes(stub.bytes[0x100:0x104])
    assert set(lines) == {0x100 // LINE}
    for changed, holds in ((None, True), (0x400, True), (0x100 + LINE - 1, False), (0x100 + LINE, False)):
        stub.memory.forget()
        if changed is not None:
            stub.bytes[changed] ^= 0xFF
        assert stub.memory.holds(lines) is holds, changed


def test_to_ask_whether_it_holds_is_one_packet_and_counts_as_reading() -> None:
    stub = Stub(knows=True)
    _, lines = stub.memory.noting(lambda: [stub.memory.read(at, 8) for at in range(0, 0x8000, 0x400)])
    for _ in range(3):
        stub.memory.forget()
        stub.asked.clear()
        assert stub.memory.holds(lines)
        stub.memory.read(0x400, 8)
        assert stub.asked == ["gather"]


def test_without_the_packet_nothing_is_taken_to_hold() -> None:
    stub = Stub(knows=False)
    _, lines = stub.memory.noting(lambda: stub.memory.read(0x100, 4))
    stub.memory.forget()
    assert not stub.memory.holds(lines)


def test_callers_are_those_that_are_found_with_nothing_remembered() -> None:
    """Random stacks over random code with many CALLs, which change between looks at times; the program counter goes
    on."""
    choose = random.Random(11)
    stub = Stub(knows=True)
    for at in range(0x2000, 0x7000, 16):  # CALL of what is near, FAR CALL, INT
        code = choose.choice((b"\xe8" + choose.randbytes(1) + b"\x00", b"\x9a\x00\x20\x00\x00", b"\xcd\x13"))
        stub.bytes[at : at + len(code)] = code
    kept: dict[object, tuple[list[object], dict[int, bytes | None]]] = {}

    def remembered(key, make):  # type: ignore[no-untyped-def]
        if key in kept and stub.memory.holds(kept[key][1]):
            return kept[key][0]
        kept[key] = stub.memory.noting(make)
        return kept[key][0]

    keeping = Frames(stub.memory.read, lambda selector: None, stub.memory.prefetch, remembered)
    found = 0
    stack = 0x1000
    for _ in range(400):
        stub.memory.forget()
        if choose.random() < 0.3:
            stack = choose.randrange(0x1000, 0x1800, 2)
        if choose.random() < 0.4:
            at = stack + 2 * choose.randrange(40)
            stub.bytes[at : at + 2] = (choose.randrange(0x2000, 0x7000) & ~0xF | choose.choice((2, 3, 5))).to_bytes(
                2, "little"
            )
        segments = [Segment(0, 0) for _ in range(6)]
        cpu = Cpu([0, 0, 0, 0, stack, 0, 0, 0], segments, choose.randrange(0x2000, 0x7000), 2)
        fresh = Frames(lambda at, length: bytes(stub.bytes[at : at + length]), lambda selector: None)
        caller = fresh._guess(cpu)
        assert keeping._guess(cpu) == caller
        found += caller is not None
    assert 20 < found < 400, "some have a caller, and some none"


def test_a_result_is_made_anew_where_what_it_has_read_is_found_changed() -> None:
    """The third time all that was gathered is asked for in one question, and then again."""
    stub = Stub(knows=True)
    same = [True]
    stub.memory = Memory(stub.fetch, stub.gather, lambda: same[0])
    results, made = Results(stub.memory), []

    def look() -> bytes | None:
        made.append(stub.memory.read(0x100, 4))
        return made[-1]

    for _ in range(4):
        assert results("key", look) == stub.bytes[0x100:0x104]
        stub.memory.forget()
    assert len(made) == 1
    stub.bytes[0x100] ^= 0xFF
    same[0] = False
    assert results("key", look) == stub.bytes[0x100:0x104]
    assert len(made) == 2
