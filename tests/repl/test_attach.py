"""`v2e attach` where there is no Xen."""

import subprocess
import sys
from pathlib import Path

import pytest


def attached(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repl.cli", "attach", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def test_outside_of_dom0_it_is_refused_in_a_sentence() -> None:
    if Path("/proc/xen/capabilities").exists():
        pytest.skip("this is a domain of Xen")
    said = attached("1")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "v2e: this is no dom0 of Xen: /proc/xen/capabilities cannot be read\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x"], "DOMAIN 'x' is not a number of a domain: `xl list` shows them, beside the names"),
        (["-1"], "DOMAIN -1 is out of range: 0 to 32751 is possible"),
        (["1", "--vcpu", "-1"], "--vcpu -1 is out of range: 0 to 2**62 - 1 is possible"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_wherever_it_is_given(arguments: list[str], sentence: str) -> None:
    said = attached(*arguments)
    assert (said.returncode, said.stdout, said.stderr) == (2, "", f"v2e: {sentence}\n")
