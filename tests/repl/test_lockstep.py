"""`lockstep` at the prompt and `v2e run --lockstep`: what they say, and that the guest goes on as it would have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from emu import seconds
from emu.replica import Replica
from emu.x86.state import CpuState
from repl.cli import main
from repl.command import CommandError
from repl.session import Session
from wrong_cpu import wrong

V2E = (sys.executable, "-m", "repl.cli")


def v2e(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*V2E, "run", *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_lockstep_goes_on_by_so_many_instructions_and_finds_nothing(
    say: Callable[[str], str], session: Session
) -> None:
    before = session.debugger.machine.executor.retired
    text = say("lockstep 1000")
    assert text.splitlines()[:2] == [
        "unicorn and emulator: no difference in 1000 instructions",
        "1000 instructions done",
    ]
    assert session.debugger.machine.executor.retired == before + 1000


def test_the_guest_is_as_if_it_had_run_alone(session_for: Callable[..., Session]) -> None:
    compared, alone = session_for(), session_for()
    compared.execute("lockstep 5000 hooked")
    alone.execute("step 5000")
    assert compared.debugger.fingerprint() == alone.debugger.fingerprint()


def test_an_unknown_second_cpu_is_named(say: Callable[[str], str]) -> None:
    with pytest.raises(Exception, match="no second CPU is called 'other': use one of emulator, hooked, portable"):
        say("lockstep 10 other")


def test_a_count_is_needed(say: Callable[[str], str]) -> None:
    with pytest.raises(CommandError, match="lockstep needs COUNT"):
        say("lockstep")


@pytest.mark.slow
def test_a_whole_run_in_lockstep_prints_what_it_prints_alone() -> None:
    alone = v2e("--until", "exit", "--serial", "stdio")
    compared = v2e("--lockstep", "--until", "exit", "--serial", "stdio")
    assert (compared.returncode, compared.stdout) == (alone.returncode, alone.stdout)
    assert compared.stderr == "v2e: lockstep of unicorn and emulator: 87680 instructions compared, no difference\n"


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["native", "emulated", "dwell:100"])
def test_the_model_hypervisor_does_what_the_emulator_does(policy: str) -> None:
    """The tour on both: every state that the model enters, and each of its exits."""
    done = v2e(
        "--lockstep", "--hypervisor", "model", "--policy", policy, "--until", "exit", "-c", "fingerprint", "--json"
    )
    assert done.returncode == 1
    alone = v2e("--until", "exit", "-c", "fingerprint", "--json")
    assert json.loads(done.stdout) == json.loads(alone.stdout)
    assert done.stderr.startswith("v2e: lockstep of unicorn and model: 87680 instructions compared, no difference")


@pytest.mark.slow
def test_the_hypervisors_cpu_is_the_second_one_of_the_command() -> None:
    words = ("--hypervisor", "model", "--policy", "dwell:30", "--until", "insns:4000")
    done = v2e(*words, "-c", "lockstep 5000", "-c", "continue", "-c", "fingerprint")
    alone = v2e(*words, "-c", "continue", "-c", "fingerprint")
    first, *rest = done.stdout.splitlines()
    assert first == "unicorn and model: no difference in 5000 instructions"
    assert rest[-5:] == alone.stdout.splitlines()[-5:]


#: MOV AH, AL of the tour, in a loop that draws text: of its 336 rounds it is wrong in the one with this RSI and RBX.
BROKEN, RSI, RBX = 0xF04AD, 0x131B, 0x2A


def _break_it(replica: Replica, state: CpuState) -> None:
    if (state.regs[6] & 0xFFFF, state.regs[3] & 0xFFFF) == (RSI, RBX):
        state.regs[0] ^= 0x4000


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second CPU does one instruction wrongly, once."""
    monkeypatch.setattr(seconds, "second_named", lambda config, name=None: wrong(BROKEN, _break_it))


@pytest.mark.usefixtures("broken")
def test_a_broken_instruction_is_found_at_its_exact_address(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["run", "--headless", "--lockstep", "--until", "exit"])
    said = capsys.readouterr()
    assert status == 4, said.err
    told = re.match(
        r"v2e: lockstep: unicorn and wrong part behind `mov ah, al` at f000:04ad \(linear 0xf04ad\), (\d+) "
        r"instructions from reset: rax 0x(\w+) and 0x(\w+); the guest stands at f000:04ad \(after (\d+) "
        r"instructions\)\n",
        said.err,
    )
    assert told, said.err
    assert int(told[2], 16) ^ int(told[3], 16) == 0x4000 and told[1] == told[4]


@pytest.mark.slow
@pytest.mark.usefixtures("broken")
def test_at_the_prompt_the_guest_stands_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--headless", "-c", "lockstep 60000", "-c", "step", "-c", "print $al", "-c", "print $ah"]) == 0
    first, where, _, values, *rest = capsys.readouterr().out.splitlines()
    told = re.fullmatch(r"unicorn and wrong: they part behind (\d+) equal instructions", first)
    assert told and where == f"f000:04ad linear 000f04ad, {told[1]} instructions from reset: mov ah, al"
    name, right, bad = values.split()
    assert name == "rax" and int(right, 16) ^ int(bad, 16) == 0x4000
    # it is carried out as the first CPU does it
    assert rest[0].startswith("f000:04ad ") and rest[1].startswith("f000:04af "), rest
    assert rest[2] == rest[3], rest
