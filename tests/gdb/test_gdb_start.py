"""`start` and `run` of a real gdb with a kernel that has symbols, and what becomes of the guest when gdb quits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gdb_batch import batch
from repl.harness import Gdb, Server

#: A multiboot kernel whose `main` is reached through a function that begins.
KERNEL = """
    bits 32
    global _start, main
    section .text
    header:
        dd 0x1badb002, 0, -0x1badb002
    _start:
        mov esp, 0x9000
        call main
    halt:
        jmp halt
    main:
        mov eax, [rounds]
        inc dword [rounds]
        ret
    section .data
    rounds: dd 7
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    if shutil.which("ld") is None:
        pytest.skip("ld is not installed (Debian: apt-get install binutils)")
    source, obj, elf = (tmp_path / name for name in ("kernel.asm", "kernel.o", "kernel.elf"))
    source.write_text(KERNEL)
    subprocess.run(["nasm", "-f", "elf32", "-g", "-F", "dwarf", "-o", obj, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-n", "-Ttext", "0x100000", "-e", "_start", "-o", elf, obj], check=True)
    return elf


@pytest.fixture
def extended(kernel: Path, v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> tuple[Gdb, Server]:
    server, gdb = v2e_server("--kernel", str(kernel)), start_gdb()
    gdb.cmd(f"file {kernel}")
    gdb.connect(server.address, extended=True)
    return gdb, server


def test_start_runs_from_power_on_to_main(extended: tuple[Gdb, Server]) -> None:
    gdb, _ = extended
    for _ in range(2):
        assert "main ()" in gdb.cmd("start")
        assert gdb.value("(int)&main == $pc")
        assert gdb.value("(int)rounds") == 7
        gdb.cmd("stepi 2")
        assert gdb.value("(int)rounds") == 8
    assert "main" in gdb.cmd("backtrace")


@pytest.mark.slow
def test_who_has_run_the_guest_ends_it_by_quitting_and_who_attached_does_not(
    kernel: Path, v2e_server: Callable[..., Server]
) -> None:
    server = v2e_server("--kernel", str(kernel))
    connect = f"target extended-remote {server.address}"
    assert "<_start>" in batch(f"file {kernel}", connect, "info symbol $pc", "print $pc")
    assert server.process.poll() is None
    assert "main ()" in batch("set confirm off", f"file {kernel}", connect, "tbreak main", "run")
    assert server.wait() == 0
