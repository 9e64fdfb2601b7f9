"""A plain command line means without argparse what it means with it; any other is argparse's."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repl.cli import _run_options, run_options, run_parser
from repl.options import UsageError
from repl.quick import QuickParser

WORDS = [
    "a.img", "b.img", "", "-", "--", "-c", "-x", "-cstep", "-c=step", "print 1", "--disk", "--disk=", "--disk=x=y",
    "--floppy", "--wait", "--wait=1", "--headless", "--json", "--until", "--until=exit", "--limit", "5", "-5", "--lim",
    "--initrd", "--option-rom", "--no-such", "-h", "--help", "-1 x", "@file",
]  # fmt: skip


def quick() -> QuickParser:
    parser = QuickParser()
    _run_options(parser)
    return parser


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=7))
def test_what_is_read_without_argparse_is_what_it_reads(words: list[str]) -> None:
    found = quick().parse(words)
    if found is not None:
        assert vars(run_parser().parse_args(words)) == vars(found)


@pytest.mark.parametrize(
    "words",
    [
        [], ["a.img"], ["--disk", "a", "--disk=b", "c.img", "--wait"], ["-c", "step", "-x", "f", "-c", "print 1"],
        ["--machine", "isapc", "--firmware", "seabios", "--until", "pc:0x7c00", "--slice", "13", "--json"],
    ],
)  # fmt: skip
def test_plain_lines_need_no_argparse(words: list[str]) -> None:
    found = quick().parse(words)
    assert found is not None
    assert vars(found) == vars(run_parser().parse_args(words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such"], "unrecognized arguments: --no-such"),
        (["--disk"], "argument --disk: expected one argument"),
        (["--disk", "--wait"], "argument --disk: expected one argument"),
        (["a", "b"], "unrecognized arguments: b"),
        (["--wait=1"], "argument --wait: ignored explicit argument '1'"),
    ],
)
def test_mistakes_are_said_in_the_words_of_argparse(words: list[str], said: str) -> None:
    assert quick().parse(words) is None
    with pytest.raises(UsageError, match=said):
        run_options(words)


def test_a_declaration_that_only_argparse_understands_is_refused() -> None:
    for names, how in ((("--a", "-a"), {}), (("--a",), {"action": "count"}), (("a",), {}), (("--a",), {"nargs": "+"})):
        with pytest.raises(ValueError, match=r"declared|positional"):
            QuickParser().add_argument(*names, **how)


def test_a_run_with_plain_options_loads_no_argparse() -> None:
    code = (
        "import sys; from repl.cli import main; main(['run', 'tour', '--until', 'insns:1', '--machine', 'isapc'])\n"
        "print(sorted({'argparse', 'locale', 'pathlib', 'dataclasses', 'inspect', 'json', 'datetime',"
        " 'typing', 're', 'enum',"
        " 'importlib.resources', 'emu.vcpu', 'emu.packed', 'emu.unicorn_gate', 'emu.devices.lapic', 'repl.commands'}"
        " & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
