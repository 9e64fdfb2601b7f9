"""What `.ci/run` looks at once more: a few failures, none of what runs alike each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """One whose tests are set up as this project's."""
    tests = pytester.mkdir("tests")
    for name in ("conftest.py", "forked.py"):
        shutil.copy(HERE / name, tests / name)
    pytester.makeini("[pytest]\npythonpath = tests\naddopts = --import-mode=importlib\n")
    return pytester


def failing(project: pytest.Pytester, **counts: int) -> None:
    """So many tests by folder, which fail the first time that they are run."""
    for folder, count in counts.items():
        path = project.path / "tests" / folder
        path.mkdir()
        (path / f"test_{folder}.py").write_text(
            "from pathlib import Path\nimport pytest\n"
            f"@pytest.mark.parametrize('number', range({count}))\n"
            "def test_it(number):\n"
            f"    seen = Path({str(path)!r}) / str(number)\n"
            "    known = seen.exists()\n"
            "    seen.touch()\n"
            "    assert known\n"
            "def test_other():\n    pass\n"
        )


@pytest.mark.slow_variants
@pytest.mark.parametrize(
    ("counts", "passed", "why"),
    [
        ({"stub": 2}, 2, ""),
        ({"stub": 1, "emu": 1}, 0, "these run alike each time, and failed: *test_emu.py::test_it[[]0[]]*"),
        ({"cpu": 1}, 0, "these run alike each time, and failed: *"),
        ({"repl": 4}, 0, "4 tests failed last: 1 to 3 are looked at once more"),
        ({"gdb": 0}, 0, "0 tests failed last: 1 to 3 are looked at once more"),
    ],
)
def test_a_second_look(project: pytest.Pytester, counts: dict[str, int], passed: int, why: str) -> None:
    failing(project, **counts)
    project.runpytest_subprocess("-p", "no:v2e").assert_outcomes(
        passed=len(counts), failed=sum(counts.values()), skipped=1 if 0 in counts.values() else 0
    )
    second = project.runpytest_subprocess("-p", "no:v2e", "--lf", "--lfnf", "none", "--second-look")
    if why:
        assert second.ret != 0
        second.stderr.fnmatch_lines([f"*{why}*"])
    else:
        second.assert_outcomes(passed=passed, deselected=None)
        assert second.ret == 0
