"""`why stuck` at the prompt, and what a run that ends by its budget says of the guest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from asm import IMAGES, assemble
from emu.progress import Watch
from repl.cli import main
from repl.render import result_text
from repl.session import Session
from repl.style import Style

POLLING = "mov dx, 0x3fd\nw: in al, dx\ntest al, 1\njz w"


def test_why_stuck_is_no_question_about_rules(session_for: Callable[..., Session]) -> None:
    session = session_for(POLLING)
    session.execute("step 20")
    text = result_text(session.execute("why stuck"), Style())
    assert text.splitlines()[0].endswith("waits: bit 0 of port 0x3fd (com1), which reads 0x60, must become 1")
    assert text == result_text(session.execute("stuck"), Style())
    assert "vtx2006" in result_text(session.execute("why"), Style())


@pytest.mark.parametrize(("source", "line"), [(POLLING, 1), ("nop\n" * 4000, 0), ("mov cx, -1\nloop $", 0)])
def test_before_anything_has_run_it_says_so(session_for: Callable[..., Session], source: str, line: int) -> None:
    session = session_for(source)
    lines = result_text(session.execute("why stuck"), Style()).splitlines()
    assert "othing has run yet: the CPU stands at f000:fff0, before its first instruction" in lines[line], lines
    session.execute("step 20")
    assert "nothing has run" not in result_text(session.execute("why stuck"), Style()).lower()


def test_it_may_be_asked_by_who_does_not_run_the_guest(session_for: Callable[..., Session]) -> None:
    session = session_for(POLLING)
    session.execute("step 20")
    monitor = session.shared(may_resume=False, resumed_by="gdb")
    assert "com1" in result_text(monitor.execute("why stuck"), Style())


def test_it_ends_what_it_says_must_change(session_for: Callable[..., Session]) -> None:
    """The oracle of the explanation: make true what it says, and the guest leaves the loop."""
    session = session_for(POLLING + "\nhlt")
    session.execute("step 20")
    assert "bit 0 of port 0x3fd" in result_text(session.execute("why stuck"), Style())
    session.debugger.send_serial("x")
    session.execute("continue")
    assert "halted" in session.debugger.why_stuck().summary


def test_a_boot_sector_that_divides_by_zero_is_noticed_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The BIOS's handler of vector 0 returns to the DIV. Looks for a storm are a tenth as far apart as else."""
    monkeypatch.setattr(Watch, "EVENTS", 2_000)
    image = tmp_path / "dividing.img"
    image.write_bytes(assemble((IMAGES / "dividing.asm").read_text()))
    status = main(["run", str(image), "--until", "insns:450000", "-c", "journal 1 stuck", "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "#DE is raised again and again at 0000:7c04" in said.out
    (line,) = said.err.splitlines()  # as soon as it is noticed, and once
    told = re.fullmatch(r"v2e: the guest gets nowhere after (\d+) instructions: (.*)", line)
    assert told and int(told[1]) < 450_000 and "#DE is raised again and again at 0000:7c04" in told[2]
    assert main(["run", str(image), "--until", "exit", "--limit", "450_000"]) == 6
    assert "#DE is raised again and again at 0000:7c04" in capsys.readouterr().err
