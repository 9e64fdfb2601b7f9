"""A sample of `make soak`'s hour under atheris: so many inputs, each made of the ones before that reached new code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz.py"
RUNS, SECONDS = 1000, 250

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: `tools/setup` does it, where there is a wheel of it for this Python",
)


def fuzz(*options: str) -> tuple[int, str]:
    """libFuzzer's exit status, and what it said. By a shell, as the limit of memory is for the most that getrusage(2)
    says the process had, and that begins with what the one had which it was forked from."""
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(FUZZ), *options], capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_packets_sessions_and_agent_expressions_steered_by_coverage(tmp_path: Path) -> None:
    status, said = fuzz(f"-runs={RUNS}", "-seed=1", "-rss_limit_mb=512", "-timeout=60", f"-artifact_prefix={tmp_path}/")
    assert status == 0, said[-2000:]
    assert f"Done {RUNS} runs" in said
    reached = [int(number) for number in re.findall(r"^#\d+\s+\w+\s+cov: (\d+)", said, re.MULTILINE)]
    assert reached[-1] >= reached[0] > 500, "branches of the stub"
