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
from emu.x86.state import CpuState, Segment
from gdb_batch import batch
from xen_files import real_mode, save_stream, several
from xen_samples import sample
from xenbridge.wire import stream

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(repl.__file__).parent.parent)}


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server for the sample that the test names."""
    path = tmp_path / request.param
    path.write_bytes(two_vcpus() if request.param == "two" else sample(request.param))
    command = [sys.executable, "-m", "repl.cli", "inspect", str(path), "--headless", "--gdb", str(tmp_path / "gdb")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("gdb: target remote ")
        yield line.split()[-1]
        process.kill()


def two_vcpus() -> bytes:
    """A stream whose second vCPU has paging on, and address 7000h elsewhere than the first."""
    pages = {1: (0x2003).to_bytes(4, "little"), 2: bytes(28) + (0x3003).to_bytes(4, "little"), 3: b"mapped!",
             7: b"in real mode"}  # fmt: skip
    second = CpuState(rip=0x7002, cr0=0x80000011, cr3=0x1000)
    second.cs = Segment(8, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(second, name, Segment(16, 0, 0xFFFFFFFF, 0xC093))
    data = save_stream(real_mode(0x7001), pages)
    parsed = stream.parse_stream(data)
    found = parsed.find(stream.HVM_CONTEXT)
    assert found is not None
    context = several((0, real_mode(0x7001)), (1, second))
    end = stream.build_record(stream.END)
    return data[: found.offset - 8] + stream.build_record(stream.HVM_CONTEXT, context) + end


@pytest.mark.parametrize("served", ["two"], indirect=True)
def test_gdb_has_each_vcpu_as_a_thread_with_its_own_page_tables(served: str) -> None:
    out = batch(f"target remote {served}", "info threads", "p/x $ip", "x/s 0x7000", "thread 2", "p/x $ip", "x/s 0x7000",
                "info threads", "x/2c 0x7000", "monitor vcpus", "thread 1", "x/s 0x7000")  # fmt: skip
    assert '* 1    Thread 1.1 "CPU 0" (real mode)' in out
    assert re.search(r'  2    Thread 1\.2 "CPU 1" \(32-bit protected mode\)', out)
    assert out.index("$1 = 0x7001") < out.index('"in real mode"') < out.index("$2 = 0x7002") < out.index('"mapped!"')
    assert re.search(r"0x7000:\s+109 'm'\s+97 'a'", out)
    assert re.search(r"\* vCPU 0  0000:7001 .*\n  vCPU 1  0008:7002", out), "the prompt's choice is its own"
    assert out.rindex('"in real mode"') > out.index('"mapped!"')


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
