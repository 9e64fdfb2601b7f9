"""`.ci/run` with a `make` that only tells what it was asked: what runs beside what, and that each failure is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / ".ci" / "run"
#: Its targets are functions of the shell, which a test gives. `asked` keeps the order.
MAKE = """#!/usr/bin/env bash
cd "$HERE"
await() { for _ in {1..600}; do [[ -e $1 ]] && return; sleep 0.05; done; echo "no $1"; exit 9; }
lint() { :; }
test-xen() { echo "3 passed in dom0"; }
test() { echo "== 5 passed in 1 s =="; echo "$V2E_SAID_BEFORE"; }
test-again() { echo "== 1 passed in 1 s =="; echo "$V2E_SAID_BEFORE"; }
setup() { :; }
. ./targets
echo "$2" >>asked
"$2"
"""


@pytest.fixture
def ci(tmp_path: Path) -> Callable[[str], tuple[int, str, list[str]]]:
    """Runs it with these functions of the shell for targets: its status, what it prints, and the targets asked for."""

    def run(targets: str) -> tuple[int, str, list[str]]:
        (tmp_path / ".ci").mkdir()
        shutil.copy(RUN, tmp_path / ".ci" / "run")
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "make").write_text(MAKE)
        (programs / "make").chmod(0o755)
        (tmp_path / "targets").write_text(targets)
        environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "HERE": str(tmp_path)}
        done = subprocess.run(
            [tmp_path / ".ci" / "run"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, (tmp_path / "asked").read_text().split()

    return run


def test_all_that_passes_is_told_in_its_order(ci: Callable[[str], tuple[int, str, list[str]]]) -> None:
    status, said, asked = ci('lint() { echo "lint is clean"; }')
    assert status == 0, said
    assert asked[0] == "setup" and set(asked[1:3]) == {"lint", "test-xen"} and asked[3:] == ["test"]
    assert said.splitlines() == [
        "lint is clean", "3 passed in dom0", "== 5 passed in 1 s ==", "test-xen: 3 passed in dom0",
    ]  # fmt: skip


def test_lint_and_the_tests_in_xen_run_side_by_side(ci: Callable[[str], tuple[int, str, list[str]]]) -> None:
    """Each waits until the other has begun."""
    status, said, _ = ci("lint() { touch l; await x; }\ntest-xen() { touch x; await l; echo both; }")
    assert status == 0, said
    assert "test-xen: both" in said


def test_lint_that_fails_ends_the_tests_in_xen(ci: Callable[[str], tuple[int, str, list[str]]], tmp_path: Path) -> None:
    """They get what Ctrl-C sends, and are waited for."""
    status, said, asked = ci(
        "lint() { await x; exit 2; }\n"
        "test-xen() { trap 'sleep 0.3; touch cleared; exit 130' INT; touch x; for _ in {1..600}; do sleep 0.1; done; }"
    )
    assert (status, "test" in asked) == (2, False), said
    assert (tmp_path / "cleared").exists()


@pytest.mark.parametrize(
    ("targets", "status", "last"),
    [
        ("test-xen() { echo '1 failed in dom0'; exit 2; }", 2, "1 failed in dom0"),
        ("test() { exit 5; }", 1, "3 passed in dom0"),
        ("test() { echo '== 4 failed, 90 passed =='; exit 1; }", 1, "== 4 failed, 90 passed =="),
        (
            "test() { echo '!!! Interrupted'; echo '== 1 failed, 90 passed =='; exit 2; }",
            1,
            "== 1 failed, 90 passed ==",
        ),
        (
            "test() { echo 'FAILED a.py::b'; echo '== 1 failed, 90 passed =='; exit 1; }\n"
            "test-again() { echo twice; exit 1; }",
            1,
            "twice",
        ),
    ],
)
def test_each_failure_fails_the_run(
    ci: Callable[[str], tuple[int, str, list[str]]], targets: str, status: int, last: str
) -> None:
    found, said, asked = ci(targets)
    assert (found, said.splitlines()[-1]) == (status, last), said
    assert ("test-again" in asked) == ("test-again" in targets)


def test_what_failed_once_is_told_behind_the_second_look(ci: Callable[[str], tuple[int, str, list[str]]]) -> None:
    status, said, asked = ci("test() { echo 'FAILED tests/a.py::b'; echo '== 1 failed, 90 passed in 7 s =='; exit 1; }")
    assert (status, asked[-1]) == (0, "test-again"), said
    assert said.splitlines()[-4:] == [
        "== 1 passed in 1 s ==", "test-xen: 3 passed in dom0", "the first time: == 1 failed, 90 passed in 7 s ==",
        "FAILED tests/a.py::b",
    ]  # fmt: skip
