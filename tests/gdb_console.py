"""Runs a real gdb as a person at a terminal does: a prompt before each command, which `gdb -batch` and MI lack."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest

MARK = "--- answer ends ---"


def console(arguments: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What each of `commands` prints, prompts left out; `repeat COMMAND` types Enter alone behind the command."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    lines = ["set pagination off", "set confirm off", "set width 0"]
    for command in commands:
        lines += [command.removeprefix("repeat "), *([""] if command.startswith("repeat ") else [])]
        lines += [f"echo {MARK}\\n"]
    done = subprocess.run(
        [gdb, "-q", "-nx", *arguments],
        input="\n".join(lines) + "\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "internal-error" not in done.stdout
    answers = done.stdout.split(f"{MARK}\n")
    assert len(answers) == len(commands) + 1, done.stdout
    return [answer.replace("(gdb) ", "").strip() for answer in answers[:-1]]
