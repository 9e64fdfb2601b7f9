"""The command table: complete, unambiguous, and what drives parsing and completion."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import repl
from repl.command import GROUPS, CommandError, Table, split_arguments
from repl.commands import all_commands
from repl.expr import ExpressionError
from repl.reference import TARGET, reference

TABLE = all_commands()
#: What the project promises at the prompt.
PROMISED = """
regs sreg creg dreg msr gdt ldt idt ivt page x xp u write set break tbreak watch rwatch awatch delete enable disable
breaks
continue step next until screen type key dev irq map in out journal fingerprint save restore reset symbols help quit
"""


@pytest.mark.parametrize("entry", TABLE.commands, ids=lambda entry: entry.name)
def test_every_command_has_a_group_help_and_explained_arguments(entry):
    assert entry.group in GROUPS
    assert entry.help and not entry.help.endswith(".")
    assert "\n" not in entry.help
    assert all(argument.kind.help for argument in entry.arguments)


def test_all_promised_commands_exist():
    assert [name for name in PROMISED.split() if name not in TABLE.words] == []


def test_the_reference_page_is_the_one_the_table_makes():
    page = Path(repl.__file__).parent.parent / TARGET
    assert page.read_text("utf-8") == reference(TABLE), "run `python -m repl.reference`"


@pytest.mark.parametrize(
    ("line", "name", "slash", "rest"),
    [
        ("regs", "regs", "", ""),
        ("r", "regs", "", ""),
        ("info registers", "regs", "", ""),
        ("info reg", "regs", "", ""),
        ("info b", "breaks", "", ""),
        ("info idt 3", "idt", "", "3"),
        ("watch read 0x500 2", "rwatch", "", "0x500 2"),
        ("watch 0x500", "watch", "", "0x500"),
        ("x/16xb 0x7c00", "x", "16xb", "0x7c00"),
        ("x /16xb 0x7c00", "x", "16xb", "0x7c00"),
        ("x/i", "x", "i", ""),
        ("fing", "fingerprint", "", ""),
        ("cont", "continue", "", ""),
        ("si 5", "step", "", "5"),
        ("?  1 + 1", "print", "", "1 + 1"),
        ("type /hello", "type", "", "/hello"),
    ],
)
def test_a_line_finds_its_command(line, name, slash, rest):
    found = TABLE.invocation(line)
    assert (found.command.name, found.slash, found.rest) == (name, slash, rest)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "'nonsense'"),
        ("fingerprnt", "'fingerprint'"),  # the nearest is offered
        ("s/4", "slash"),
        ("info", "registers"),
        ("info nonsense", "'nonsense'"),
        ("sa x", None),
        ("re", "regs or repeats or reset or restore"),
        ("/x", "''"),
    ],
)
def test_an_unknown_word_is_named(line, named):
    if named is None:
        assert TABLE.invocation(line).command.name == "save"
        return
    with pytest.raises(CommandError) as caught:
        TABLE.invocation(line)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("0x500 2", ["0x500", "2"]),
        ("0x500 + 4 2", ["0x500 + 4", "2"]),
        ("0x500 +4", ["0x500 +4"]),
        ("[ es : di ] 2", ["[ es : di ]", "2"]),
        ("(1 + 2) 3", ["(1 + 2)", "3"]),
        ("cs : ip", ["cs : ip"]),
        ("0x7c00 -1", ["0x7c00", "-1"]),
        ("0x7c00 - 1", ["0x7c00 - 1"]),
        ('1 "a b" 2', ["1", '"a b"', "2"]),
    ],
)
def test_arguments_split_where_an_expression_ends(text, pieces):
    assert split_arguments(text) == pieces


def test_an_open_quote_is_named():
    with pytest.raises(CommandError, match="quote"):
        split_arguments('write 0 "abc')


def test_two_commands_of_one_name_are_a_mistake_in_the_table():
    with pytest.raises(ValueError, match="'regs'"):
        Table((*TABLE.commands, TABLE.find("regs")))


@given(st.text(max_size=40))
def test_any_line_is_a_command_or_one_sentence(line):
    try:
        TABLE.invocation(line)
    except (CommandError, ExpressionError) as error:
        assert str(error)


def test_too_few_and_too_many_arguments_show_the_usage(session):
    with pytest.raises(CommandError, match="break needs ADDRESS: break ADDRESS"):
        session.execute("break")
    with pytest.raises(CommandError, match=r"does not know what to do with '4': page ADDRESS"):
        session.execute("page 0x10 4")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fin", {"fingerprint"}),
        ("info reg", {"info registers"}),
        ("break $e", {"$eax", "$eip"}),
        ("x/4x 1 + start.", {"start.loop"}),
        ("dev pi", {"pic", "pit"}),
        ("help sr", {"sreg"}),
        ("journal 5 inter", {"interrupt"}),
        ("regs a", set()),
    ],
)
def test_completion_comes_from_the_table(session, line, expected):
    session.symbols.add({"start": 0x7C00, "start.loop": 0x7C03})
    _, words = session.table.complete(session, line)
    assert expected <= set(words)
    assert bool(words) == bool(expected)


def test_completion_offers_the_numbers_of_breakpoints_and_the_names_of_snapshots(session):
    session.execute("break 0x100")
    session.execute("save before")
    assert session.table.complete(session, "delete ")[1] == ["1"]
    assert session.table.complete(session, "restore b")[1] == ["before"]
