"""What is made once in a run is made by one process, and again where it could not be made; variants that are quick; the
order of the workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared import once

HERE = Path(__file__).parent


def test_what_was_made_is_given_to_all_that_ask(tmp_path_factory: pytest.TempPathFactory) -> None:
    made: list[Path] = []

    def make(folder: Path) -> tuple[str, int]:
        made.append(folder)
        (folder / "image").write_text("kept")
        return str(folder / "image"), len(made)

    name = "given to all"
    found = [once(tmp_path_factory, name, make) for _ in range(3)]
    assert found == [(str(made[0] / "image"), 1)] * 3
    assert Path(found[0][0]).read_text() == "kept"
    assert once(tmp_path_factory, "another one", make) != found[0]


def test_what_raises_is_made_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fails(folder: Path) -> int:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            once(tmp_path_factory, "raises", fails)
    assert once(tmp_path_factory, "raises", lambda folder: 5) == 5


MAKER = """
import pathlib, sys, time
from shared import once
class Factory:
    def getbasetemp(self): return pathlib.Path(sys.argv[1])
def make(folder):
    with open(sys.argv[2], "a") as file: file.write("made ")
    time.sleep(0.2)
    return folder.name
print(once(Factory(), "both", make))
"""


def test_workers_share_one_folder_and_one_waits_for_the_other(tmp_path: Path) -> None:
    workers = []
    for number in range(2):
        own = tmp_path / f"popen-gw{number}"
        own.mkdir()
        environment = os.environ | {"PYTEST_XDIST_WORKER": f"gw{number}", "PYTHONPATH": str(HERE)}
        command = [sys.executable, "-c", MAKER, str(own), str(tmp_path / "log")]
        workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    assert [worker.communicate()[0] for worker in workers] == ["files\n"] * 2
    assert (tmp_path / "log").read_text() == "made "


def set_up(pytester: pytest.Pytester) -> Path:
    """The folder of a project's tests, set up as this one's."""
    tests = pytester.mkdir("tests")
    for name in ("conftest.py", "forked.py"):
        shutil.copy(HERE / name, tests / name)
    pytester.makeini(
        "[pytest]\npythonpath = tests\naddopts = --import-mode=importlib\nmarkers =\n slow\n slow_variants"
    )
    return tests


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "expected"), [("0", "aabbcc"), ("1", "bbccaa")])
def test_workers_have_files_with_slow_tests_first(workers: str, expected: str, pytester: pytest.Pytester) -> None:
    tests = set_up(pytester)
    for name, second in (("a", "other"), ("b", "slow"), ("c", "slow")):
        (tests / f"test_{name}.py").write_text(
            f"import pytest\ndef test_1(): pass\n@pytest.mark.{second}\ndef test_2(): pass\n"
        )
    done = pytester.runpytest_subprocess("-p", "no:v2e", "-n", workers, "--dist", "worksteal", "-v")
    passed = [line for line in done.outlines if "PASSED" in line]
    assert "".join(line.partition("/test_")[2][0] for line in passed) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "quick"),
    [("slow_variants", [0]), ("slow_variants(keep=3)", [0, 3, 6]), ("slow_variants(keep=99)", list(range(10)))],
)
def test_as_many_variants_are_quick_as_the_mark_says(mark: str, quick: list[int], pytester: pytest.Pytester) -> None:
    tests = set_up(pytester)
    (tests / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.{mark}\n@pytest.mark.parametrize('n', range(10))\ndef test_it(n): pass\n"
    )
    done = pytester.runpytest_subprocess("-p", "no:v2e", "--collect-only", "-q", "-m", "not slow")
    assert [int(line[:-1].partition("[")[2]) for line in done.outlines if "::" in line] == quick
