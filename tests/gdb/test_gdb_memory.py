"""A real gdb looks for memory, compares it, and names physical addresses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from machines import rom_text
from repl.harness import Gdb, GdbError

#: Maps linear 400000h to physical 0, by 4 MiB pages, and goes on in 32-bit code.
PAGED = rom_text("""
        mov dword [0x8000], 0x83
        mov dword [0x8004], 0x83
        mov eax, cr4
        or al, 0x10
        mov cr4, eax
        mov eax, 0x8000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000001
        mov cr0, eax
    paged:
        nop
        jmp paged
""")
paged = pytest.mark.boot(firmware=PAGED)


@paged
def test_find_is_done_by_one_packet_over_megabytes(gdb: Gdb) -> None:
    gdb.cmd('set {char[4]} 0x12345 = "v2e"')
    gdb.cmd("set debug remote 1")
    text = gdb.cmd("find /b 0, 0xfffff, 0x76, 0x32, 0x65, 0")
    gdb.cmd("set debug remote 0")
    assert "0x12345" in text
    assert text.count("Sending packet: $qSearch:memory:") <= 2
    assert "$m" not in text
    assert "$x" not in text
    assert "Pattern not found." in gdb.cmd("find /b 0x12346, 0x9ffff, 0x76, 0x32, 0x65, 0")


@pytest.mark.slow
@paged
def test_physical_addresses_by_monitor_and_by_qemu_s_packet(gdb: Gdb) -> None:
    gdb.cmd("set {int} 0x500 = 0x1234abcd")
    for _ in range(20):
        gdb.cmd("stepi")
    assert gdb.value("*(int *)0x400500") == 0x1234ABCD
    with pytest.raises(GdbError, match="Cannot access memory at address 0x900000"):
        gdb.cmd("x/x 0x900000")
    for on, off in (
        ("monitor phys on", "monitor phys off"),
        ("maintenance packet Qqemu.PhyMemMode:1", "maintenance packet Qqemu.PhyMemMode:0"),
    ):
        gdb.cmd(on)
        assert gdb.value("*(int *)0x500") == 0x1234ABCD
        assert gdb.value("*(unsigned char *)0x8000") & 0x83 == 0x83
        assert gdb.value("*(unsigned char *)0x900000") == 0  # memory that is not mapped
        gdb.cmd(off)
        with pytest.raises(GdbError, match="Cannot access memory"):
            gdb.cmd("x/x 0x900000")


@pytest.mark.slow
@paged
def test_gdb_knows_rom_and_is_refused_nothing_but_writing_it(gdb: Gdb) -> None:
    assert "ro" in gdb.cmd("info mem")
    assert gdb.value("*(unsigned char *)0xf0000") == 0xFA
    with pytest.raises(GdbError, match="Cannot access memory at address 0xf0000"):
        gdb.cmd("set {char} 0xf0000 = 0x90")
    gdb.cmd("delete mem")
    gdb.cmd("set {char} 0x600 = 7")


@pytest.mark.slow
@paged
def test_sections_of_a_program_are_compared_by_their_checksum(gdb: Gdb, tmp_path: Path) -> None:
    if shutil.which("ld") is None or shutil.which("nasm") is None:
        pytest.skip("nasm and ld are not installed")
    (tmp_path / "p.asm").write_text("bits 32\nglobal _start\n_start: times 3000 db 0x5a\n")
    subprocess.run(["nasm", "-f", "elf32", "-o", "p.o", "p.asm"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x20000", "-o", "p", "p.o"], cwd=tmp_path, check=True)
    gdb.cmd(f"file {tmp_path / 'p'}")
    assert "MIS-MATCHED" in gdb.cmd("compare-sections .text")
    (tmp_path / "text").write_bytes(b"\x5a" * 3000)
    gdb.cmd(f"restore {tmp_path / 'text'} binary 0x20000")
    text = gdb.cmd("compare-sections .text")
    assert "matched." in text
    assert "MIS" not in text
