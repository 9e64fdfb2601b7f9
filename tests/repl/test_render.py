"""Views as text and as JSON."""

from __future__ import annotations

import io
import json

import pytest

from emu.journal import Event
from emu.stops import BreakKind, Breakpoint, Stop, StopKind
from emu.views import (
    DeviceView,
    DifferenceView,
    DivergenceView,
    EntryView,
    FieldView,
    FingerprintView,
    InstructionView,
    LedgerView,
    LockstepView,
    PageLevelView,
    PageWalkView,
    PictureView,
    RegionView,
    RegistersView,
    RegisterView,
    ScreenView,
    SegmentView,
    StuckView,
    TableEntryView,
    TransitionsView,
    TransitionView,
    VcpuView,
)
from repl import render
from repl import style as style_module
from repl.command import Result
from repl.json_text import plain, result_json
from repl.render import result_text, view_lines
from repl.shown import CodeView, FindingView, MemoryView, PositionView, ValueView
from repl.style import Style, aligned, printable, terminal_style, wants_colour, width

CS = SegmentView("cs", 8, 0xF0000, 0xFFFF, 0x9B, "code16 r-x DPL 0 accessed", 0, 0xFFFF, 0x9B, ("base",), "")
LONG = SegmentView("fs", 0, 0xFFFF_8000_0000_1000, 0, 0x10000, "unusable", note="64-bit mode")
INSTRUCTION = InstructionView(0xF0000, 0, b"\xfa", "cli", True)
EXAMPLES = (
    CS,
    (CS, LONG),
    TableEntryView(1, 8, bytes(8), "null", None, None, None, None, "null"),
    RegistersView("real", 0xFFF0, (RegisterView("eax", 32, 5),), "ZF PF", {"extra": 7}),
    RegisterView("cr0", 64, 0x60000010, "ET NW CD"),
    PageWalkView(0, None, None, False, False, False, (PageLevelView("PDE", 0, 0x1000, 0, "not present"),), "no PDE"),
    PageWalkView(0x400000, 0x400000, 4 << 20, True, False, True, (PageLevelView("PDE", 1, 0x1004, 0x83, "P RW PS"),)),
    INSTRUCTION,
    CodeView((INSTRUCTION,), 0xF000, 0xFFFF, {0xF0000: "start"}),
    DeviceView("pic", "8259A", "20h", (FieldView("IMR", 0xFF, "masked"), FieldView("on", True), FieldView("x", "y"))),
    ScreenView("text 80x25", ("hello".ljust(80), " " * 80), cursor=(0, 5)),
    PictureView("graphics 320x200", 2, 2, bytes(12)),
    RegionView(0, 0x9FFFF, "ram", "conventional"),
    FingerprintView(5, 50, "a", "b", "c"),
    Event(5, "interrupt", "vector 0x08"),
    Breakpoint(1, BreakKind.WRITE, 0x500, 4),
    Stop(StopKind.SHUTDOWN, "triple fault", 0, 5),
    PositionView("real", 0xF000, 0xFFF0, 0xFFFFFFF0, 0, 0, False, "", INSTRUCTION),
    PositionView("real", 0xF000, 0xFFF0, 0xFFFFFFF0, 9, 0, True),
    MemoryView("linear", 0, 1, "x", b"abc"),
    ValueView("", -5),
    FindingView("kvm", None, "not there"),
    EntryView("vtx2006", "VT-x of 2006", ("SS is unusable (SDM 3C 26.3.1.2)",), "`mov ss, ax` at 0x7c00 loads SS"),
    EntryView("svm", "AMD SVM", ()),
    LockstepView("unicorn", "model", 1000, 2, None, "1000 instructions done"),
    LockstepView(
        "unicorn",
        "model",
        17,
        0,
        DivergenceView("unicorn", "model", 17, 0x1000, 0x20, 0x10020, None, (DifferenceView("rax", 1, 2, 64),), "why"),
        "they part",
    ),
    TransitionsView(
        True, "model", "vtx2006", "dwell:5", ("five",), "", (), "", (), (TransitionView(7, 0x7C00, True, "enterable"),)
    ),
    LedgerView((("pio", 3),), 2, 1, 4, 0, 100, 900, 12345, (("exit", 1), ("hop", 2), ("emulated", 3), ("native", 4))),
    StuckView("waits", "the loop at 0x7c00 waits", ("way out at 0x7c05",), ()),
    (VcpuView(0, True, "real", 0xF000, 0xFFF0, None, 0), VcpuView(2, False, "long64", 8, 0x1000, 0x1000, 0x5000)),
)


@pytest.mark.parametrize("view", EXAMPLES, ids=lambda view: type(view).__name__)
def test_every_view_has_text_and_json_and_colour_changes_no_letter(view):
    plain_lines, coloured = view_lines(view, Style()), view_lines(view, Style(True))
    assert plain_lines
    assert [style_module._SGR.sub("", line) for line in coloured] == plain_lines
    assert all(line == line.rstrip() for line in plain_lines)
    document = json.loads(result_json("command", Result((view,))))
    assert document["command"] == "command"
    assert document["views"]


def test_every_kind_of_view_that_can_be_rendered_is_tried_here():
    tried = {type(v[0] if isinstance(v, tuple) else v) for v in EXAMPLES}
    assert set(render._RENDERERS) == tried


def test_a_difference_between_cache_and_table_is_marked_and_shown_beside():
    line = view_lines((CS,), Style())[1]
    assert line.split()[:3] == ["cs", "0008", "*000f0000"]
    assert line.split()[-3:] == ["00000000", "0000ffff", "009b"]
    assert "\x1b[1;31m*000f0000" in view_lines((CS,), Style(True))[1]


def test_one_wide_base_widens_the_whole_column():
    lines = view_lines((CS, LONG), Style())
    assert "00000000000f0000" in lines[1]
    assert "ffff800000001000" in lines[2]


def test_unknown_fields_are_not_guessed():
    """A core dump has no hidden state."""
    view = SegmentView("ds", 0x10, 0, 0, 0, "unknown", unknown=("base", "limit", "access"))
    line = view_lines((view,), Style())[1]
    assert line.split() == ["ds", "0010", "????????", "????????", "????", "unknown"]


def test_a_page_walk_that_ends_says_why():
    assert view_lines(EXAMPLES[5], Style())[-1] == "linear 00000000 is not mapped: no PDE"
    assert view_lines(EXAMPLES[6], Style())[-1] == (
        "linear 00400000 -> physical 00400000: 4096 KiB page, supervisor rwx"
    )


def test_equal_table_entries_are_folded_from_the_fourth_on():
    null = [TableEntryView(i, i * 8, bytes(8), "null", None, None, None, None, "null") for i in range(5)]
    assert len(view_lines(tuple(null[:3]), Style())) == 1 + 3
    lines = view_lines(tuple(null), Style())
    assert len(lines) == 1 + 2
    assert lines[-1].split()[0] == "4"
    assert "4 more" in lines[-1]


def test_a_guest_cannot_send_control_characters_to_the_terminal():
    assert printable("a\x1b]0;title\x07b") == "a.]0;title.b"
    view = ScreenView("text 80x25", ("\x1b[2Jboo",))
    assert not any("\x1b" in line for line in view_lines(view, Style()))


def test_a_picture_is_drawn_only_where_there_is_room_for_it_and_json_has_no_pixels():
    picture = PictureView("graphics 320x200", 2, 2, bytes(12))
    assert view_lines(picture, Style(True, 40))[1].count("\u2580") == 8
    assert len(view_lines(picture, Style(True))) == 1
    (document,) = json.loads(result_json("screen", Result((picture,))))["views"]
    assert document == {"view": "screen", "mode": "graphics 320x200", "rows": [], "width": 2, "height": 2}


@pytest.mark.parametrize(
    ("colorterm", "no_color", "expected"),
    [("truecolor", None, (True, True, True)), ("", None, (True, True, False)), ("24bit", "1", (False, False, False))],
)
def test_a_terminal_shows_pictures_unless_no_color(colorterm, no_color, expected, monkeypatch):
    monkeypatch.setenv("COLORTERM", colorterm)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color or "")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    style = terminal_style(terminal)
    assert (style.colour, style.columns > 0, style.truecolour) == expected


def test_the_blank_end_of_a_screen_is_not_shown():
    assert view_lines(EXAMPLES[10], Style())[1:-1] == ["hello"]


def test_columns_align_whatever_their_colour():
    style = Style(True)
    lines = aligned([[style("name", "a"), "1"], ["bbb", "2"]])
    assert {width(line) for line in lines} == {len("bbb  2")}


def test_a_step_says_only_where_it_came_to():
    assert view_lines(Stop(StopKind.STEP, "step", 0, 1), Style()) == []


def test_bytes_are_hex_and_enumerations_words_in_json():
    assert plain(Breakpoint(1, BreakKind.EXECUTE, 0x500))["kind"] == "break"
    assert plain(MemoryView("linear", 0, 1, "x", b"\x00\xff"))["data"] == "00ff"
    document = json.loads(result_json(" regs ", Result((CS, (CS, CS)), "text")))
    assert document["command"] == "regs"
    assert document["text"] == "text"
    assert document["views"][0]["view"] == "segment"
    assert len(document["views"][1]) == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "xterm", "NO_COLOR": ""}, True),
     ({"TERM": "dumb"}, False), ({}, False)],
)  # fmt: skip
def test_colour_is_for_terminals_unless_no_color_says_no(monkeypatch, environment, colour):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal()) is colour
    assert wants_colour(io.StringIO()) is False


def test_text_comes_behind_the_views():
    assert result_text(Result((ValueView("", 1),), "done"), Style()) == "0x1 = 1\ndone"
