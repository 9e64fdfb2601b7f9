"""How events and conditions are written, and what is said to what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from emu.catches import CatchKind
from emu.engine import Access
from emu.stops import Breakpoint
from repl.catches import FORMS, WORDS, parse_catch
from repl.command import CommandError
from repl.expr import ExpressionError
from repl.json_text import result_json
from repl.session import Session

#: (what is typed, (first, last, access, mask), what is shown)
WRITTEN = (
    ("int 13h", (0x13, None, Access.BOTH, 0), "int 0x13"),
    ("int", (None, None, Access.BOTH, 0), "int"),
    ("exception gp", (13, None, Access.BOTH, 0), "exception 0x0d"),
    ("exception #PF", (14, None, Access.BOTH, 0), "exception 0x0e"),
    ("interrupt 8", (8, None, Access.BOTH, 0), "interrupt 0x08"),
    ("port 60h", (0x60, 0x60, Access.BOTH, 0), "port 0x60"),
    ("port 1f0h-1f7h out", (0x1F0, 0x1F7, Access.WRITE, 0), "port 0x1f0-0x1f7 out"),
    ("msr efer write", (0xC0000080, None, Access.WRITE, 0), "msr 0xc0000080 write"),
    ("msr read", (None, None, Access.READ, 0), "msr read"),
    ("cr 0 80000001h", (0, None, Access.BOTH, 0x80000001), "cr 0 0x80000001"),
    ("cr cr4", (4, None, Access.BOTH, 0), "cr 4"),
    ("physical 7c00h", (0x7C00, None, None, 0), "physical 0x7c00"),
    ("physical 500h 4 write", (0x500, 0x503, Access.WRITE, 0), "physical 0x500 4 write"),
    ("physical 500h read", (0x500, 0x500, Access.READ, 0), "physical 0x500 1 read"),
    ("insns 1000", (1000, None, Access.BOTH, 0), "insns 1000"),
    ("ir", (None, None, Access.BOTH, 0), "iret"),
)


@pytest.mark.parametrize(("text", "values", "shown"), WRITTEN)
def test_events_are_read(session: Session, text: str, values: tuple[object, ...], shown: str) -> None:
    catch = session.call(lambda: parse_catch(session, text))
    assert (catch.first, catch.last, catch.access, catch.mask) == values
    assert catch.text == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no event"),
        ("in", "is no event"),  # int, interrupt and insns begin so
        ("int 100h", "vector 100h is out of range"),
        ("exception 99", "vector 99 is out of range: 0 to 0x1f is possible"),
        ("exception 32", "vector 32 is out of range"),
        ("port", "which port"),
        ("port 70h-60h", "ends before it begins"),
        ("port 60h up", "none of in, out"),
        ("cr 5", "no control register 5"),
        ("table cs", "none of gdtr"),
        ("mode real", "one word too many"),
        ("screen", "which text"),
        ("serial (", "no regular expression"),
        ("insns", "how many"),
        ("physical 500h 4", "say read, write or access"),
        ("physical 500h 0 read", "0 bytes"),
        ("msr 1 2 3", "one word too many"),
    ],
)
def test_what_is_no_event_is_refused_in_words(session: Session, text: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        session.call(lambda: parse_catch(session, text))


def test_every_event_has_a_form() -> None:
    assert {kind.value for kind in CatchKind} == set(WORDS)
    assert len(FORMS) == len(WORDS)


def test_catches_are_listed_and_deleted_like_breakpoints(session: Session, say: Callable[[str], str]) -> None:
    say("catch int 13h if ah == 2")
    say("tcatch mode")
    listed = say("breaks")
    assert "1  catch  int 0x13" in listed
    assert "if ah == 2" in listed
    assert "once" in listed
    document = json.loads(result_json("breaks", session.execute("breaks")))
    first = document["views"][0][0]
    assert first["condition"] == {"text": "ah == 2"}
    assert first["catch"]["first"] == 0x13
    say("delete 1 2")
    assert say("breaks") == "no breakpoints"


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        ("int 13", "13 is decimal: this is INT 0Dh; for INT 13h write `int 13h`"),
        ("int 10 if ah == 2", "10 is decimal: this is INT 0Ah; for INT 10h write `int 10h`"),
        ("int 128", "128 is decimal: this is INT 80h"),
        *((event, "") for event in ("int", "int 9", "int 13h", "int 0x13", "int 1+12", "exception 13", "cr 4")),
    ],
)
def test_a_decimal_vector_of_int_is_said_to_be_one(session: Session, event: str, hint: str) -> None:
    for command in ("catch", "tcatch"):
        assert session.execute(f"{command} {event}").text == hint


@pytest.mark.parametrize("line", ["break 0:7c00 if nosuch == 1", "break 0:7c00 if 1 +", "catch mode if )"])
def test_a_condition_that_is_no_expression_is_refused_at_once(session: Session, line: str) -> None:
    with pytest.raises(ExpressionError):
        session.execute(line)
    assert not session.debugger.breakpoint_list()


def test_a_condition_on_memory_that_is_not_there_yet_is_taken(session: Session) -> None:
    (point,) = session.execute("break 0:7c00 if [0xa0000000] == 1").views
    assert isinstance(point, Breakpoint)
    assert point.condition is not None


def test_watchpoints_have_conditions_too(session: Session, say: Callable[[str], str]) -> None:
    say("watch 0x500 2 if word [0x500] == 3")
    text = say("continue")
    assert "wrote 0x3 (2 bytes) at 0x500" in text.lower()
    say("delete")
    with pytest.raises(CommandError, match="not an address, a length"):
        session.execute("watch 0x500 2 3")
