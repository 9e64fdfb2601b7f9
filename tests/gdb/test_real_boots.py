"""Stock gdb and gdb with the helper on real software: SYSLINUX under SeaBIOS, and Debian's kernels."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.assets import AssetMissing, linux
from kernel_symbols import write_symbols
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


def shown_registers(gdb: Gdb) -> dict[str, int]:
    """What the machine itself says of its general registers, by the names that gdb has for them."""
    found = re.findall(r"(\w+) +([0-9a-f]{8,16})(?= |$)", gdb.cmd("monitor regs").split("\n", 1)[1], re.MULTILINE)
    return {name.replace("rflags", "eflags"): int(value, 16) for name, value in found}


def assert_registers_are_the_machine_s(gdb: Gdb, count: int, width: int) -> None:
    registers = shown_registers(gdb)
    assert len(registers) == count
    for name, value in registers.items():
        assert int(gdb.cmd(f"output/x ${name}"), 16) & (1 << width) - 1 == value, name


def assert_memory_is_what_paging_shows(gdb: Gdb, linear: int, physical: int, length: int) -> None:
    """Linear addresses against the same bytes by physical ones."""
    read = f"x/{length // 4}xw"
    through = re.findall("\t(0x[0-9a-f]{8})", gdb.cmd(f"{read} {linear:#x}"))
    gdb.cmd("monitor phys on")
    beneath = re.findall("\t(0x[0-9a-f]{8})", gdb.cmd(f"{read} {physical:#x}"))
    gdb.cmd("monitor phys off")
    assert through == beneath
    assert len(set(through)) > 2


def assert_steps_go_where_the_code_does(gdb: Gdb, count: int) -> None:
    """Each step against the listing: to the next instruction, to a jump's or call's target, or there is no telling."""
    told = 0
    for _ in range(count):
        lines = re.findall(r"0x([0-9a-f]+)(?: <[^>]*>)?:\t(\w+) *(?:0x([0-9a-f]+))?\b", gdb.cmd("x/2i $pc"))
        (here, mnemonic, target), (following, *_) = lines
        assert int(here, 16) == gdb.value("$pc") & (1 << 64) - 1
        gdb.cmd("stepi")
        place = gdb.value("$pc") & (1 << 64) - 1
        if mnemonic in ("jmp", "call") and target:
            assert place == int(target, 16)
        elif mnemonic.startswith("j") and target:
            assert place in (int(target, 16), int(following, 16))
        elif not mnemonic.startswith(("ret", "iret", "jmp", "call", "rep", "notrack")):
            assert place == int(following, 16)
            told += 1
    assert told


#: Debian's i386 kernel is loaded at 16 MiB and linked at 3 GiB above (CONFIG_PHYSICAL_START, CONFIG_PAGE_OFFSET).
OFFSET = 0xC0000000
TEXT = range(0xC1000000, 0xC2000000)


@pytest.fixture
def paged_linux(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], request: pytest.FixtureRequest
) -> Gdb:
    """Linux for i686, 3 million instructions behind the one that turns paging on, in its C code."""
    server = v2e_server("--kernel", kernel("i386"), "--memory", "128M", "--append", "nokaslr")
    gdb = start_gdb(server, arguments=request.param)
    assert gdb.value("$pc") == 0x100000
    assert gdb.value("$mode") == 32
    gdb.cmd("monitor tcatch cr 0 80000000h")
    assert "about to execute mov cr0, eax" in gdb.cmd("continue")
    before = gdb.value("$pc")
    assert before in range(TEXT.start - OFFSET, TEXT.stop - OFFSET)
    gdb.cmd("stepi 2")
    assert gdb.value("$pc") in TEXT, "behind the far jump to where the kernel is linked"
    assert_memory_is_what_paging_shows(gdb, before + OFFSET, before, 64)
    gdb.cmd("monitor tcatch insns +3000000")
    gdb.cmd("continue")
    assert gdb.value("$pc") in TEXT
    return gdb


both_linux = pytest.mark.parametrize("paged_linux", [[], HELPER], ids=["stock", "helper"], indirect=True)


@both_linux
def test_registers_memory_and_steps_in_the_paged_kernel_are_the_machine_s(paged_linux: Gdb) -> None:
    gdb = paged_linux
    assert_registers_are_the_machine_s(gdb, 10, 32)
    assert int(gdb.cmd("output/x $cr0"), 16) >> 31 == 1
    stack = gdb.value("$esp") & 0xFFFFFFFF
    assert_memory_is_what_paging_shows(gdb, stack, stack - OFFSET, 64)
    assert_steps_go_where_the_code_does(gdb, 25)
    assert_registers_are_the_machine_s(gdb, 10, 32)


@both_linux
def test_callers_in_the_paged_kernel_are_those_of_its_frame_pointers_and_are_returned_to(paged_linux: Gdb) -> None:
    gdb = paged_linux
    frames = [int(at, 16) for at in re.findall(r"^#\d+ +0x([0-9a-f]+) in", gdb.cmd("backtrace"), re.MULTILINE)]
    assert frames[0] == gdb.value("$pc")
    chain, frame = [], gdb.value("$ebp") & 0xFFFFFFFF
    for _ in range(4):
        chain.append(gdb.value(f"*(unsigned *){frame + 4:#x}"))
        frame = gdb.value(f"*(unsigned *){frame:#x}")
    assert frames[1:5] == chain
    for caller in chain:
        assert caller in TEXT
        assert "call" in gdb.cmd(f"x/i {caller - 5:#x}")
    gdb.cmd(f"break *{chain[1]:#x}")
    stack = gdb.value("$esp") & 0xFFFFFFFF
    assert f"Breakpoint 1, {chain[1]:#x}" in gdb.cmd("continue")
    assert gdb.value("$pc") == chain[1]
    assert gdb.value("$esp") & 0xFFFFFFFF > stack
    gdb.cmd("delete")
    gdb.cmd("finish")
    assert gdb.value("$pc") == chain[2]


@both_linux
def test_a_breakpoint_in_the_paged_kernel_s_text_is_met_each_time_it_is_called(paged_linux: Gdb) -> None:
    gdb = paged_linux
    caller = gdb.value("*(unsigned *)($ebp + 4)")
    (called,) = re.findall(r"call +0x([0-9a-f]+)", gdb.cmd(f"x/i {caller - 5:#x}"))
    gdb.cmd(f"break *0x{called}")
    for _ in range(3):
        assert f"Breakpoint 1, 0x{called}" in gdb.cmd("continue")
        assert "call" in gdb.cmd("x/i *(unsigned *)$esp - 5")
    assert gdb.value(f"*(unsigned char *)0x{called}") != 0xCC
    gdb.cmd("delete")
    gdb.start("continue")
    gdb.interrupt()
    assert "SIGINT" in gdb.wait_stop()
    assert_registers_are_the_machine_s(gdb, 10, 32)


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
    if not arguments:
        assert gdb.value("$eip") == 0x100200  # stock gdb keeps the registers of the mode in which it connected
        assert gdb.value("$esp") & 0xFFFFFFFF == shown_registers(gdb)["rsp"]
        return
    assert "i386:x86-64" in gdb.cmd("show architecture")
    assert_registers_are_the_machine_s(gdb, 18, 64)
    assert "%r" in gdb.cmd("x/12i $pc")
    assert_steps_go_where_the_code_does(gdb, 25)
    gdb.cmd("delete")
    gdb.cmd("hbreak *0x1000000")  # where it is unpacked to (CONFIG_PHYSICAL_START)
    assert "Breakpoint 2, 0x0000000001000000" in gdb.cmd("continue")
    gdb.cmd("monitor tcatch insns +3000000")
    gdb.cmd("continue")
    place = gdb.value("$pc") & (1 << 64) - 1
    assert place >= 0xFFFFFFFF81000000  # where it is linked (Linux Documentation/arch/x86/x86_64/mm.rst)
    assert_registers_are_the_machine_s(gdb, 18, 64)
    assert_memory_is_what_paging_shows(gdb, place & ~0xFFF, (place & ~0xFFF) - 0xFFFFFFFF80000000, 64)
    assert gdb.cmd("backtrace").startswith(f"#0  {place:#x} in ")
    again = re.findall(r"0x([0-9a-f]+)(?: <[^>]*>)?:\t", gdb.cmd("x/3i $pc"))[1]
    gdb.cmd(f"break *0x{again}")
    assert f"Breakpoint 3, 0x{again}" in gdb.cmd("continue")
    assert_steps_go_where_the_code_does(gdb, 10)


@pytest.fixture(scope="module")
def symbols_64(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """For gdb's `symbol-file`, and the addresses by names."""
    if not shutil.which("objcopy"):
        pytest.skip("objcopy is not installed: make setup, as root, installs it")
    return write_symbols(kernel("amd64"), tmp_path_factory.mktemp("symbols"))


def frames_of(gdb: Gdb) -> list[tuple[int, str]]:
    """Addresses and names, the innermost first."""
    found = re.findall(r"^#\d+ +0x([0-9a-f]+) in (\S+) \(\)", gdb.cmd("backtrace"), re.MULTILINE)
    return [(int(place, 16), name) for place, name in found]


def assert_each_frame_was_called_by_the_next(gdb: Gdb, frames: list[tuple[int, str]], at: dict[str, int]) -> None:
    """By the code alone: in front of where a caller goes on stands the CALL of the function below it."""
    for (place, name), (caller, _) in itertools.pairwise(frames):
        assert place >= at[name]
        call = gdb.cmd(f"x/i {caller - 5:#x}")
        assert re.search(rf"\tcall +0x{at[name]:x} ", call), (name, call)


@both
def test_callers_in_the_64_bit_kernel_have_names_and_are_returned_to(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], arguments: list[str],
    symbols_64: tuple[Path, dict[str, int]],
) -> None:  # fmt: skip
    """It has no frame pointers; what its own unwinder goes by is given to gdb (tests/kernel_symbols.py)."""
    file, at = symbols_64
    server = v2e_server("--kernel", kernel("amd64"), "--memory", "256M", "--append", "nokaslr")
    gdb = start_gdb(server, arguments=arguments)
    gdb.cmd("hbreak *0x1000000")
    gdb.cmd("continue")
    if not arguments:  # stock gdb keeps the registers of the mode in which it connected
        gdb.cmd("disconnect")
        gdb.connect(server.address)
    gdb.cmd("delete")
    gdb.cmd(f"symbol-file {file}")
    gdb.cmd("break setup_arch")
    assert "in setup_arch ()" in gdb.cmd("continue")
    assert [name for _, name in frames_of(gdb)[:2]] == ["setup_arch", "start_kernel"]
    assert_each_frame_was_called_by_the_next(gdb, frames_of(gdb)[:2], at)
    gdb.cmd("break jump_label_swap")
    gdb.cmd("continue")
    gdb.cmd("stepi 6")  # within it, where it has moved its stack pointer
    frames = frames_of(gdb)
    names = [name for _, name in frames]
    assert names[:6] == ["jump_label_swap", "sort_r", "sort", "jump_label_init", "setup_arch", "start_kernel"]
    assert frames[0][0] == gdb.value("$pc") & (1 << 64) - 1
    assert_each_frame_was_called_by_the_next(gdb, frames[1:6], at)  # sort_r has its pointer from sort
    assert_registers_are_the_machine_s(gdb, 18, 64)
    gdb.cmd("delete")
    for caller, name in frames[1:4]:
        gdb.cmd("finish")
        assert gdb.value("$pc") & (1 << 64) - 1 == caller
        assert f"in {name} ()" in gdb.cmd("frame")
    assert [name for _, name in frames_of(gdb)[:3]] == ["jump_label_init", "setup_arch", "start_kernel"]
    assert_steps_go_where_the_code_does(gdb, 10)
    assert_memory_is_what_paging_shows(gdb, at["start_kernel"], at["start_kernel"] - 0xFFFFFFFF80000000, 64)
