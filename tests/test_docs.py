"""The documents tell the truth: sessions shown are what the commands print, links and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from repl.cli import run_parser

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def v2e(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "repl.cli", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_session_in_the_readme_is_what_the_command_prints():
    block = re.search(r"```\n\$ (v2e run [^\n]+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert v2e(*shlex.split(block[1])[1:]) == block[2]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


#: Files in what a document shows as the reader's own.
EXAMPLES = frozenset(("test_loader.py",))
TESTS = frozenset(path.name for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_exist(path):
    text = path.read_text()
    paths = re.findall(r"\btests/[\w./-]*\w/?", text)
    names = set(re.findall(r"(?<![\w/])test_\w+\.py\b", text)) - EXAMPLES
    assert [name for name in paths if not (ROOT / name).exists()] == []
    assert names - TESTS == set()


def test_names_of_tests_are_found_in_the_documents():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert len(re.findall(r"\btests/[\w./-]*\w", text)) > 30, "else the test above sees nothing"


def test_the_guide_names_every_option_of_run():
    guide = (ROOT / "docs" / "guide.md").read_text()
    options = {word for action in run_parser()._actions for word in action.option_strings if word.startswith("-")}
    assert {o for o in options - {"-h", "--help"} if f"`{o}" not in guide} == set()


def test_the_architecture_names_the_rows_of_the_import_contract():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\d+\. (.+)$", text, re.MULTILINE)
    contract = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert contract is not None
    lines = [line for line in contract[1].splitlines() if line.strip()]
    assert len(rows) == 13 == len(lines)
    first = re.findall(r"^- (`\w+\.py`)", text, re.MULTILINE)
    assert len(first) == len(set(first)), "a module is described twice"
    for row, line in zip(rows, lines, strict=True):
        for module in re.findall(r"[\w.]+", line):
            name = module.rpartition(".")[2]
            assert name in row or name.startswith("unicorn_"), f"{module} is not in {row!r}"
