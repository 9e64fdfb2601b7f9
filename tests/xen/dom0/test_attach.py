"""`v2e attach` on a real domain."""

import subprocess
import sys

import pytest

from machines import booted, word


def v2e(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "repl.cli", "attach", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80, check=False)


def test_a_script_looks_at_a_running_domain_sets_a_register_and_lets_it_run_on(ticks) -> None:
    guest, board = ticks
    assert guest.run(lambda: "~" in board.text, 30)
    said = v2e(str(guest.domain.domid), "-c", "sreg", "-c", "x 0x7c00", "-c", "dev lapic", "-c", "set eax 0x1234")
    assert (said.returncode, said.stderr) == (0, "")
    assert "cs" in said.stdout
    assert "LVT_LINT0" in said.stdout
    assert guest.run(lambda: board.text.endswith("."), 30)
    assert word(guest, 0x600) == 20


def test_what_would_run_it_is_refused_in_a_sentence(libraries) -> None:
    guest, _ = booted(libraries, "g_steps")
    said = v2e(str(guest.domain.domid), "-c", "s")
    guest.close()
    assert said.returncode == 2
    assert "the domain is paused as long as v2e is attached" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["4321"], "v2e: there is no domain 4321\n"),
        (["0"], "v2e: domain 0 is no HVM domain: only those have a PC's registers and devices\n"),
    ],
)
def test_other_domains_are_refused_with_status_2(libraries, arguments, sentence) -> None:
    said = v2e(*arguments)
    assert (said.returncode, said.stdout, said.stderr) == (2, "", sentence)
