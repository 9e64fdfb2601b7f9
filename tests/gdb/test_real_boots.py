"""Stock gdb and gdb with the helper on real software: SYSLINUX under SeaBIOS, and Debian's kernels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.assets import AssetMissing, linux
from repl.harness import Gdb, Server
from stub.gdb import helper_path

pytestmark = pytest.mark.slow
HELPER = ["-x", str(helper_path())]
both = pytest.mark.parametrize("arguments", [[], HELPER], ids=["stock", "helper"])


@pytest.fixture
def syslinux(tmp_path: Path) -> Path:
    """A FAT floppy with SYSLINUX that waits at its prompt."""
    floppy, config = tmp_path / "floppy.img", tmp_path / "syslinux.cfg"
    if not shutil.which("syslinux") or not shutil.which("mformat"):
        pytest.skip("syslinux or mtools is not installed: make setup, as root, installs them")
    floppy.write_bytes(bytes(1440 << 10))
    config.write_text("PROMPT 1\nTIMEOUT 0\nDEFAULT none\n")
    for command in (
        ["mformat", "-i", floppy, "-f", "1440", "::"],
        ["syslinux", "--install", floppy],
        ["mcopy", "-o", "-i", floppy, config, "::syslinux.cfg"],
    ):
        subprocess.run(
            [str(word) for word in command], check=True, capture_output=True,
            env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
        )  # fmt: skip
    return floppy


@both
def test_breakpoints_set_before_syslinux_is_loaded_over_them_are_met(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], syslinux: Path, arguments: list[str]
) -> None:
    gdb = start_gdb(v2e_server("--firmware", "seabios", "--floppy", syslinux), arguments=arguments)
    gdb.cmd("break *0x7c00")
    assert "Breakpoint 1, 0x00007c00" in gdb.cmd("continue")
    assert "jmp    0x7c5a" in gdb.cmd("x/i $pc")
    assert gdb.value("*(unsigned char *)0x7c00") == 0xEB  # the loader's byte, and no breakpoint's
    gdb.cmd("break *0x7c5a")
    assert "Breakpoint 2, 0x00007c5a" in gdb.cmd("continue")
    gdb.cmd("stepi 500")
    assert "0x" in gdb.cmd("x/i $pc")


def test_syslinux_s_boot_sector_is_named_from_inside_int_13h(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], syslinux: Path
) -> None:
    gdb = start_gdb(v2e_server("--firmware", "seabios", "--floppy", syslinux), arguments=HELPER)
    gdb.cmd("tbreak *0x7c00")
    gdb.cmd("continue")
    gdb.cmd("tbreak *$seg(*(unsigned short *)0x4e, *(unsigned short *)0x4c)")
    gdb.cmd("continue")
    frames = re.findall(r"^#\d+ +0x0*([0-9a-f]+) in", gdb.cmd("backtrace"), re.MULTILINE)
    caller = int(frames[1], 16)
    assert 0x7C00 <= caller < 0x7E00
    assert "int    $0x13" in gdb.cmd(f"x/i {caller - 2:#x}")
    gdb.cmd("finish")
    assert gdb.value("$pc") == caller


def kernel(architecture: str) -> Path:
    try:
        return linux(architecture).kernel
    except AssetMissing as missing:
        pytest.skip(str(missing))


@both
def test_linux_from_its_entry_to_the_paged_kernel(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], arguments: list[str]
) -> None:
    gdb = start_gdb(
        v2e_server("--kernel", kernel("i386"), "--memory", "128M", "--append", "nokaslr"), arguments=arguments
    )
    gdb.cmd("hbreak *0x100000")
    if gdb.value("$pc") != 0x100000:
        assert "Breakpoint 1, 0x00100000" in gdb.cmd("continue")
    assert gdb.value("$mode") == 32
    gdb.cmd("delete")
    gdb.cmd("stepi 300")
    assert gdb.cmd("backtrace").startswith("#0")
    gdb.start("continue")
    gdb.interrupt()
    assert "SIGINT" in gdb.wait_stop()
    assert gdb.cmd("backtrace").startswith("#0")
    assert "=> 0x" in gdb.cmd("x/3i $pc")


@both
def test_the_64_bit_kernel_switches_modes_under_gdb(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], arguments: list[str]
) -> None:
    gdb = start_gdb(
        v2e_server("--kernel", kernel("amd64"), "--memory", "256M", "--append", "nokaslr"), arguments=arguments
    )
    gdb.cmd("hbreak *0x100200")  # startup_64 (Linux Documentation/arch/x86/boot.rst, 64-bit boot protocol)
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.value("$mode") == 64
    assert gdb.value("$pc") == 0x100200
    if arguments:
        assert "i386:x86-64" in gdb.cmd("show architecture")
        assert gdb.value("$rip") == 0x100200
        assert "%r" in gdb.cmd("x/12i $pc")
    gdb.cmd("stepi 50")
    assert gdb.cmd("backtrace").startswith("#0")
