"""The demo: a real gdb stands at the first instruction of every mode of the tour, and the transcript shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emu.firmware import tour

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


@pytest.fixture(scope="module")
def transcript() -> str:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed (Debian: apt-get install gdb)")
    done = subprocess.run(
        [sys.executable, str(DEMO)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def parts(transcript: str) -> dict[str, str]:
    """What is shown at each stop, by its label."""
    pieces = re.split(r"^# --- \d+ of \d+: (.+?) -+$", transcript, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.slow
def test_every_mode_is_shown_in_order(transcript):
    assert list(parts(transcript)) == [stop.mode_label for stop in tour.stops()]


@pytest.mark.slow
@pytest.mark.parametrize("stop", tour.stops(), ids=lambda stop: stop.name)
def test_a_stop_shows_instruction_registers_and_segments(transcript, stop):
    part = parts(transcript)[stop.mode_label]
    assert re.search(rf"^=> 0x0*{stop.linear:x}:\t\S", part, re.MULTILINE), part
    assert re.search(r"^(eax|rax) +0x", part, re.MULTILINE)
    assert re.search(r"^cs +[0-9a-f]{4} ", part, re.MULTILINE)


@pytest.mark.slow
def test_the_guest_ends_by_itself(transcript):
    assert tour.DONE in transcript or "exited" in transcript
    assert "(0 << 1) | 1 = 1" in transcript
