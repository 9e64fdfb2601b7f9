"""What is suggested for a word that is no command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repl.command import CommandError
from repl.commands import all_commands
from repl.session import Session
from repl.spelling import nearest, slips


@pytest.mark.parametrize(
    ("typed", "word"),
    [("contniue", "continue"), ("setp", "step"), ("brek", "break"), ("regsiters", "registers"), ("jornal", "journal"),
     ("gtd", "gdt"), ("hlep", "help"), ("dissassemble", "disassemble"), ("inof", "info"), ("screeen", "screen")],
)  # fmt: skip
def test_slips_of_the_fingers_are_understood(typed: str, word: str) -> None:
    with pytest.raises(CommandError, match=f"did you mean '{word}'\\?$"):
        all_commands().find(typed)


@pytest.mark.parametrize("typed", ["nosuch", "frobnicate", "foo", "zz", "x86", "7c00", "a" * 1000, "", "\u00fc"])
def test_what_is_near_to_nothing_is_not_guessed(typed: str) -> None:
    with pytest.raises(CommandError, match=r"`help` lists them all$"):
        all_commands().find(typed)


@pytest.mark.parametrize(
    ("typed", "word", "count"),
    [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("acb", "abc", 1), ("ab", "abc", 1), ("abcd", "abc", 1),
     ("axc", "abc", 1), ("kitten", "sitting", 3), ("ca", "abc", 3)],
)  # fmt: skip
def test_slips_are_counted_as_published(typed: str, word: str, count: int) -> None:
    """The last two: the examples of Levenshtein's distance and of what tells this one from Damerau's in full."""
    assert slips(typed, word) == count


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_slips_are_as_many_both_ways_and_none_of_equal_words(one: str, other: str) -> None:
    assert slips(one, other) == slips(other, one) <= max(len(one), len(other))
    assert (slips(one, other) == 0) == (one == other)


def test_of_words_equally_near_the_one_with_as_many_letters_is_meant() -> None:
    assert nearest("setp", ("set", "step", "stop")) == "step"
    assert nearest("ragisters", ("registers", "ragister")) == "registers"


def test_in_gdb_the_list_is_monitors(session: Session) -> None:
    """`help` alone is gdb's own command."""
    under_gdb = session.shared(may_resume=False, resumed_by="gdb")
    with pytest.raises(CommandError, match=r"there is no command 'nosuch'; `monitor help` lists them all$"):
        under_gdb.execute("nosuch")
