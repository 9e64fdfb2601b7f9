"""The C that parses what comes from the network, built with sanitizers, under changed sessions and noise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emu.unicorn_engine import HELPER
from stub import native
from stub.native import sources_checksum

GCC = shutil.which("gcc")
TESTS = Path(__file__).parent.parent
SOURCES = sorted(Path(native.__file__).parent.glob("*.c"))
pytestmark = pytest.mark.skipif(GCC is None or isinstance(HELPER, str), reason="no gcc, or no helper in C")


def run(tmp_path: Path, sources: list[Path], sessions: int) -> subprocess.CompletedProcess[str]:
    """Sessions by a library of these sources."""
    assert GCC is not None
    runtime = subprocess.run([GCC, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    if not os.path.isabs(runtime.strip()):
        pytest.skip("gcc has no AddressSanitizer here")
    library = tmp_path / "known.so"
    subprocess.run(
        [GCC, "-shared", "-fPIC", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
         f"-DV2E_SOURCES={sources_checksum()}u", f"-I{SOURCES[0].parent}", "-o", str(library), *map(str, sources)],
        check=True, timeout=120,
    )  # fmt: skip
    environment = {
        **os.environ, "LD_PRELOAD": runtime.strip(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc",
    }  # fmt: skip
    command = [sys.executable, str(TESTS / "soak_sessions.py"), "--exact", str(library), "--sessions", str(sessions)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


@pytest.mark.slow
def test_c_reads_and_writes_nothing_beyond_its_room(tmp_path: Path) -> None:
    done = run(tmp_path, SOURCES, 40)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no finding" in done.stdout
    stepped = re.search(r"'stepped': (\d+)", done.stdout)
    assert stepped is not None
    assert int(stepped[1]) > 300


@pytest.mark.slow
def test_what_is_read_beyond_a_packet_is_found(tmp_path: Path) -> None:
    """As it would be by a comparison that forgets the length of what has come."""
    (source,) = SOURCES
    text = source.read_text()
    condition = "length == t->step_size && !memcmp(x->data, t->step, length)"
    assert condition in text
    changed = tmp_path / "changed.c"
    include = f'"{SOURCES[0].parent.parents[1] / "emu/native/quiet.h"}"'
    text = text.replace(condition, "!memcmp(x->data, t->step, t->step_size)")
    changed.write_text(text.replace('"../../emu/native/quiet.h"', include))
    done = run(tmp_path, [changed], 10)
    assert done.returncode
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
