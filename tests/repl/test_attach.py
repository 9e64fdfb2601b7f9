"""`v2e attach` where there is no Xen."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_outside_of_dom0_it_is_refused_in_a_sentence() -> None:
    if Path("/proc/xen/capabilities").exists():
        pytest.skip("this is a domain of Xen")
    command = [sys.executable, "-m", "repl.cli", "attach", "1"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "v2e: this is no dom0 of Xen: /proc/xen/capabilities cannot be read\n"
