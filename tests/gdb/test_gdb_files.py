"""A real gdb on files that a real Xen wrote: `v2e inspect --gdb`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import repl
from gdb_batch import batch
from xen_samples import sample

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(repl.__file__).parent.parent)}


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server for the sample that the test names."""
    path = tmp_path / request.param
    path.write_bytes(sample(request.param))
    command = [sys.executable, "-m", "repl.cli", "inspect", str(path), "--headless", "--gdb", str(tmp_path / "gdb")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("gdb: target remote ")
        yield line.split()[-1]
        process.kill()


def on(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("served", [name], indirect=True)


@on("s_stream.bin")
def test_gdb_reads_a_save_stream_with_its_hidden_state(served: str) -> None:
    out = batch(f"target remote {served}", "p/x $pc", "p/x $es_base", "p/x $cs_attr", "x/2i $pc", "x/2xb 0x610",
                "monitor dev pit", "info threads")  # fmt: skip
    assert "$1 = 0x7c8f" in out
    assert "$2 = 0xd0000" in out
    assert "incw   0x610" in out
    assert re.search(r"0x610:\s+0x2b\s+0x00", out)
    assert "counter 0 CR    0x2000" in out
    assert '"CPU 0" (real mode)' in out


@pytest.mark.slow
@on("s_stream.bin")
def test_gdb_changes_nothing_in_a_file_and_nothing_runs(served: str) -> None:
    out = batch(f"target remote {served}", "set $eax = 1", "set *(char *)0x600 = 1", "stepi", "p/x $eax", "x/2xb 0x610",
                "p/x $pc", "detach")  # fmt: skip
    assert "this subject is read-only" in out
    assert "Cannot access memory at address 0x600" in out
    assert "$1 = 0xcafef07e" in out
    assert "$2 = 0x7c8f" in out
    assert "detached" in out


@pytest.mark.slow
@on("s_hvmctx.bin")
def test_gdb_reads_the_registers_of_a_bare_context_and_no_memory(served: str) -> None:
    out = batch(f"target remote {served}", "p/x $rip", "p/x $eip", "p/x $idtr.limit", "x/xb 0x7c00")
    assert "= 0x7c8f" in out
    assert "= 0xffff" in out
    assert "Cannot access memory at address 0x7c00" in out


@pytest.mark.slow
@on("s_dump.core")
def test_gdb_shows_what_a_core_does_not_have_as_unavailable(served: str) -> None:
    out = batch(f"target remote {served}", "p/x $ip", "p/x $eax", "p $cs_base", "p $gdtr", "x/3xb 0x7c00",
                "monitor sreg")  # fmt: skip
    assert "$1 = 0x7c8f" in out
    assert "$2 = 0xcafef07e" in out
    assert "$3 = <unavailable>" in out
    assert "$4 = <unavailable>" in out
    assert re.search(r"0x7c00:\s+0xfa\s+0x31\s+0xc0", out)
    assert "cs    0000   ????????" in out


@pytest.mark.slow
@on("s_stream.bin")
def test_a_gdb_that_kills_ends_it(served: str) -> None:
    assert "killed" in batch(f"target remote {served}", "kill")
