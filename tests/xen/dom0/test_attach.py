"""`v2e attach` on a real domain."""

import subprocess
import sys

import pytest

from machines import booted, served, until, word
from xenbridge.xen.domain import TIMER_MODE_PARAM


def v2e(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "repl.cli", "attach", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80, check=False)


@pytest.fixture
def counting(libraries):
    """A domain that runs: it counts at 600h, on and on."""
    guest, _ = booted(libraries, "counts")
    guest.domain.set_param(TIMER_MODE_PARAM, 2)  # ticks that are missed while it is paused are dropped
    guest.domain.resume()
    with served(guest):
        yield guest
    guest.close()


def test_a_script_looks_at_a_running_domain_sets_a_register_and_lets_it_run_on(counting) -> None:
    said = v2e(str(counting.domain.domid), "-c", "sreg", "-c", "x 0x7c00", "-c", "dev lapic", "-c", "set esi 0x1234")
    assert (said.returncode, said.stderr) == (0, "")
    assert "cs" in said.stdout
    assert "LVT_LINT0" in said.stdout
    assert counting.domain.cpu_state().regs[6] == 0x1234
    seen = word(counting, 0x600, 4)
    assert until(lambda: word(counting, 0x600, 4) != seen)


def test_a_script_sets_a_breakpoint_runs_to_it_and_steps(counting) -> None:
    said = v2e(str(counting.domain.domid), "-c", "b 0x7c37", "-c", "c", "-c", "s", "-c", "watch 0x600 2")
    assert "Breakpoint 1 at 0000:7c37" in said.stdout
    assert "0000:7c31" in said.stdout  # where it was stepped to, from the end of the loop
    assert (said.returncode, said.stderr.count("Xen tells of no accesses to memory")) == (2, 1)
    seen = word(counting, 0x600, 4)
    assert until(lambda: word(counting, 0x600, 4) != seen)


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
