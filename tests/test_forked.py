"""v2e's processes forked for the tests are what processes started by an interpreter are to who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forked import COMMAND, Nursery, Started, popen_of


class Watched(Nursery):
    """Counts what it has forked."""

    def __init__(self) -> None:
        super().__init__()
        self.forked = 0

    def fork(self, words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> int:
        self.forked += 1
        return super().fork(words, folder, environment, files)


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


@pytest.fixture
def nursery(shared: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(subprocess, "Popen", popen_of(shared))
    monkeypatch.setattr(shared, "aside", False)
    shared.forked = 0
    return shared


def told(started: type[subprocess.Popen[Any]], *words: str, typed: str = "") -> tuple[int, str, str]:
    with started([*COMMAND, *words], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        said, complained = process.communicate(typed)
    return process.returncode, said, complained


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (("--version",), ""),
        (("run", "no such file"), ""),
        (("run", "tour", "--headless", "--limit", "1000"), ""),
        (("run", "tour"), "regs\nprint 1\nquit\n"),
    ],
)
def test_a_forked_process_does_what_a_started_one_does(nursery: Watched, words: tuple[str, ...], typed: str) -> None:
    assert told(subprocess.Popen, *words, typed=typed) == told(Started, *words, typed=typed)
    assert nursery.forked == 1


def test_a_forked_process_is_a_child_that_signals_reach(nursery: Watched) -> None:
    with subprocess.Popen([*COMMAND, "run", "tour"], stdin=-1, stdout=-1, text=True) as process:
        assert nursery.forked == 1
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


def test_what_another_interpreter_or_program_has_to_do_is_not_forked(nursery: Watched) -> None:
    asked = [*COMMAND, "--version"]
    said = {subprocess.run(asked, env={**os.environ, "V2E_ENGINE": "gate"}, capture_output=True).stdout}
    said |= {subprocess.run(asked, preexec_fn=os.getpid, capture_output=True).stdout}
    said |= {subprocess.run(asked, start_new_session=True, capture_output=True).stdout}
    nursery.aside = True  # as for a test marked `started`
    said |= {subprocess.run(asked, capture_output=True).stdout}
    assert len(said) == 1
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\n"
    assert nursery.forked == 0


@pytest.mark.started
def test_a_test_that_is_marked_starts_what_it_starts(pytestconfig: pytest.Config) -> None:
    """Each other test has its processes forked where `--forked` is given."""
    patched = subprocess.Popen is not Started
    assert patched == pytestconfig.getoption("--forked")
    if patched:
        with subprocess.Popen([*COMMAND, "run", "tour"], stdin=-1, stdout=-1) as process:
            process.stdin.write(b"print 1\n")
            process.stdin.flush()
            process.stdout.readline()  # by now the kernel shows what was executed
            beginning = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            process.communicate(b"quit\n", 60)
        assert beginning[:3] == [os.fsencode(word) for word in COMMAND]
