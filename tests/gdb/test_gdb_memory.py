"""A real gdb looks for memory, compares it, and names physical addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gdb_batch import batch
from machines import rom_text
from repl.harness import Gdb, GdbError, Server

#: Maps linear 400000h and FEC00000h to physical 0, by 4 MiB pages, and goes on in 32-bit code. At physical FEC00000h
#: are registers of the I/O APIC.
PAGED = rom_text("""
        mov dword [0x8000], 0x83
        mov dword [0x8004], 0x83
        mov dword [0x8fec], 0x83
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


def regions(gdb: Gdb) -> list[tuple[int, int, str]]:
    """(start, end, ro or rw) of what `info mem` shows."""
    rows = re.findall(r"^\d+ +y +\t?0x([0-9a-f]+) 0x([0-9a-f]+) (r[ow]) ", gdb.cmd("info mem"), re.MULTILINE)
    return [(int(start, 16), int(end, 16), access) for start, end, access in rows]


@paged
def test_gdb_s_map_is_the_machine_s_without_the_registers_of_devices(gdb: Gdb) -> None:
    rows = regions(gdb)
    assert all(start < end for start, end, _ in rows)
    text = gdb.cmd("monitor map")
    ranges = re.findall(r"^([0-9a-f]{8})-([0-9a-f]{8})  (ram|rom|mmio) +(\S+)", text, re.MULTILINE)
    assert {"ioapic", "hpet", "lapic"} <= {name for *_, name in ranges}
    for first, last, kind, name in ranges:
        low, high = int(first, 16), int(last, 16) + 1
        over = {access for start, end, access in rows if start < high and low < end}
        plain = kind == "ram" or name == "vga"  # the display's memory is memory to one who looks
        assert over == ({"rw"} if plain else {"ro"} if kind == "rom" else set()), name


@paged
def test_gdb_refuses_registers_of_devices_by_itself(v2e_server: Callable[..., Server]) -> None:
    connect = f"target remote {v2e_server().address}"
    looks = ("x/xw 0xfec00000", "x/4xb 0xfee00030", "set {int} 0xfee000b0 = 0", "output *(int *)0xfed00000")
    refused = batch(connect, "monitor detach stop", "set debug remote 1", *looks, "set debug remote 0")
    assert refused.count("Cannot access memory at address 0xfe") == len(looks)
    assert "Sending packet" not in refused
    asked = batch(connect, "set mem inaccessible-by-default off", "set debug remote 1", looks[0], "set debug remote 0")
    assert "Sending packet: $mfec00000,4" in asked, "and so does the stub"
    assert "Cannot access memory at address 0xfec00000" in asked


@paged
def test_with_the_helper_paging_takes_gdb_s_map_away_until_it_is_off(helped: Gdb) -> None:
    helped.cmd("set {int} 0x10 = 0x1234abcd")
    before = regions(helped)
    assert len(before) > 5
    helped.cmd("stepi 20")
    assert "There are no memory regions defined" in helped.cmd("info mem")
    assert helped.value("*(int *)0xfec00010") == 0x1234ABCD
    helped.cmd("set {char} 0x4f0000 = 0x90")  # 32-bit addresses, F0000h of which was ROM
    helped.cmd("monitor set cr0 = 1")
    helped.cmd("stepi")
    assert regions(helped) == before
    with pytest.raises(GdbError, match="Cannot access memory at address 0xfec00010"):
        helped.cmd("x/x 0xfec00010")


@pytest.mark.slow
@paged
def test_without_the_helper_the_map_stays_until_the_user_deletes_it(gdb: Gdb) -> None:
    gdb.cmd("set {int} 0x10 = 0x1234abcd")
    gdb.cmd("stepi 20")
    with pytest.raises(GdbError, match="Cannot access memory at address 0xfec00010"):
        gdb.cmd("x/x 0xfec00010")
    gdb.cmd("delete mem")
    assert gdb.value("*(int *)0xfec00010") == 0x1234ABCD


@pytest.mark.slow
@paged
def test_one_who_connects_under_paging_has_no_map_and_is_asked_for_everything(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd("set {int} 0x10 = 0x1234abcd")
    first.cmd("stepi 20")
    first.cmd("monitor detach stop")
    first.cmd("detach")
    second = start_gdb(server)
    assert "There are no memory regions defined" in second.cmd("info mem")
    assert second.value("*(int *)0xfec00010") == 0x1234ABCD


@pytest.mark.slow
@paged
def test_regions_of_the_user_s_own_stay_under_paging(helped: Gdb) -> None:
    helped.cmd("delete mem")
    helped.cmd("mem 0x1000 0x2000 ro")
    helped.cmd("mem 0x400000 0x500000 rw")
    own = [(0x1000, 0x2000, "ro"), (0x400000, 0x500000, "rw")]
    assert regions(helped) == own
    helped.cmd("stepi 20")
    assert regions(helped) == own
    helped.cmd("monitor set cr0 = 1")
    helped.cmd("stepi")
    assert regions(helped) == own


@pytest.mark.slow
@paged
def test_gdb_knows_rom_and_is_refused_nothing_but_writing_it(gdb: Gdb) -> None:
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
