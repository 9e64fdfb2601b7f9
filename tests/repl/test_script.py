"""Commands without a prompt."""

from __future__ import annotations

import io
import json

import pytest

from repl.script import Line, Printer, ScriptError, file_lines, run_lines, stream_lines
from repl.style import Style


def printer(json=False):
    return Printer(io.StringIO(), Style(), json)


def test_lines_run_in_order_and_comments_and_blanks_are_passed_over(session):
    out = printer()
    assert run_lines(session, stream_lines(io.StringIO("# a comment\n\nstep\n  print 1 + 1\n")), out) == 2
    assert out.stream.getvalue().splitlines() == ["f000:0000 linear 000f0000 [real]  cli", "0x2 = 2"]


def test_the_first_error_ends_it_and_says_which_line(session, tmp_path):
    path = tmp_path / "commands"
    path.write_text("print 1\nnonsense\nprint 2\n")
    out = printer()
    with pytest.raises(ScriptError, match=f"{path}:2: there is no command 'nonsense'"):
        run_lines(session, file_lines(path), out)
    assert out.stream.getvalue() == "0x1 = 1\n"


def test_quit_ends_it_without_an_error(session):
    out = printer()
    run_lines(session, (Line("quit", "-c"), Line("nonsense", "-c")), out)
    assert out.stream.getvalue() == ""


def test_with_json_every_command_prints_one_document_the_failed_one_too(session):
    out = printer(json=True)
    with pytest.raises(ScriptError):
        run_lines(session, [Line(text, "-c") for text in ("regs", "break 0x20", "set eax 1", "x 1:")], out)
    documents = [json.loads(line) for line in out.stream.getvalue().splitlines()]
    assert [d["command"] for d in documents] == ["regs", "break 0x20", "set eax 1", "x 1:"]
    assert documents[0]["views"][0]["view"] == "registers"
    assert documents[2]["views"] == []
    assert "ends where a value is expected" in documents[3]["error"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_command_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScriptError, match=str(path)):
        file_lines(path)
