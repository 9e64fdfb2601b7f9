"""What the gdb helper keeps of memory, against memory itself; and how often it has to ask."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stub.gdb.memory import GATHERED, LINE, PAGE, Memory

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
