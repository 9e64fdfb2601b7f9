"""A sample of what `make fuzz` and `make soak` do with bad files under atheris: each input is made of the ones before
that reached new code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz_files.py")
RUNS, SECONDS = 5000, 500

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: `tools/setup` does it, where there is a wheel of it for this Python",
)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_streams_contexts_and_cores_steered_by_coverage(tmp_path: Path) -> None:
    options = (f"-runs={RUNS}", "-seed=1", "-rss_limit_mb=1024", "-timeout=60", f"-artifact_prefix={tmp_path}/")
    done = subprocess.run(
        [sys.executable, str(FUZZ), *options], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    assert f"Done {RUNS} runs" in said
    reached = [int(number) for number in re.findall(r"^#\d+\s+\w+\s+cov: (\d+)", said, re.MULTILINE)]
    assert reached[-1] >= reached[0] > 300, "branches of xenbridge"
