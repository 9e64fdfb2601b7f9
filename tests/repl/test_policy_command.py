"""The command policy with learn: it explains, saves and loads, and refuses in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = ("--hypervisor", "model", "--policy", "learn")


def v2e(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`v2e run ARGUMENTS` on the tour image."""
    command = [sys.executable, "-m", "repl.cli", "run", "--headless", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def commands(*lines: str) -> list[str]:
    return [word for line in lines for word in ("-c", line)]


def test_what_one_run_has_learned_another_one_begins_with(tmp_path: Path) -> None:
    file = tmp_path / "learned"
    first = v2e(*NATIVE, "--until", "exit", *commands(f"policy save {file}", "policy why 0x3fd at 0xf0176 (real)"))
    assert "exit sites saved" in first.stdout, first.stderr
    known = first.stdout.split("\n", 1)[1]
    assert known.startswith("pio 0x3fd at 0xf0176 (real): ") and "forecaster" in known
    second = v2e(*NATIVE, *commands(f"policy load {file}", "policy why 0x3fd at 0xf0176 (real)"))
    loaded, again = second.stdout.split("\n", 1)
    assert loaded == first.stdout.split("\n", 1)[0].replace("saved", "loaded")
    # without credit the dwell may be another one; what is known is the same
    assert again.split("\n")[2:] == known.split("\n")[2:] or "moved towards break-even" in again


@pytest.mark.parametrize(
    ("options", "line", "said"),
    [
        (NATIVE, "policy why nothing", "no exit site"),
        (NATIVE, "policy why", "policy why what?"),
        (NATIVE, "policy save", "policy save what?"),
        (NATIVE, "policy save /nonexistent/folder/file", "there is no folder"),
        (NATIVE, "policy load /nonexistent", "cannot read"),
        (NATIVE, "policy load /dev/zero", "no regular file"),
        (NATIVE, "policy load /etc/passwd", "not JSON"),
        (("--hypervisor", "model", "--policy", "auto"), "policy save file", "learns nothing"),
        (("--policy", "emulated"), "policy why 0x60", "--hypervisor"),
        (NATIVE, "policy dwell:0", "a dwell of 0"),
        (NATIVE, "policy dwell:9999999999999", "a dwell of 9999999999999 instructions: use 1 to 1000000000"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(options: tuple[str, ...], line: str, said: str) -> None:
    done = v2e(*options, *commands(line))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_an_exit_that_costs_nothing_leaves_learn_nothing_to_decide() -> None:
    said = "learn weighs emulation against exits: one that costs nothing leaves nothing to decide"
    free = ("--hypervisor", "model", "--costs", "exit=0")
    at_the_start = v2e(*free, "--policy", "learn")
    assert (at_the_start.returncode, at_the_start.stderr) == (2, f"v2e: --policy: {said}\n")
    at_the_prompt = v2e(*free, "-c", "policy learn")
    assert at_the_prompt.returncode == 2 and said in at_the_prompt.stderr
    assert "internal error" not in at_the_prompt.stderr


def test_the_session_of_the_documentation_is_what_the_tour_says() -> None:
    text = (Path(__file__).parents[2] / "docs/transitions.md").read_text(encoding="utf-8")
    session = text.split("## Who executes, and why\n```\n", 1)[1].split("```", 1)[0]
    lines = [line.removeprefix("v2e> ") for line in session.splitlines() if line.startswith("v2e> ")]
    told = v2e("--hypervisor", "model", *commands(*lines))
    shown = "".join(line for line in session.splitlines(True) if not line.startswith("v2e> "))
    printed, refused = shown.rsplit("native execution is refused", 1)
    assert told.stdout == printed
    assert "native execution is refused" + refused in told.stderr
