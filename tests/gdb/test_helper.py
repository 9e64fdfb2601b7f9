"""What v2e's helper gives a real gdb: callers, stepping over calls, commands, functions, decoding by width."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.firmware import tour
from gdb_batch import batch
from machines import protected, rom_text
from repl.harness import Gdb, GdbError, Server
from stub.gdb import helper_path

#: A boot ROM without a BIOS; each label is a symbol for the tests by the list below.
CALLS = rom_text("""
        mov ss, ax
        mov sp, 0x7000
        mov word [0x84], service
        mov word [0x86], cs
    again:
        call near_one
        call 0xf000:far_one
        int 0x21
        mov cx, 300
        mov di, 0x2000
        mov es, ax
        rep stosb
        jmp again
    times 0x100-($-$$) nop
    near_one:
        push bx
        call leaf
        pop bx
        ret
    times 0x120-($-$$) nop
    far_one:
        push cx
        call leaf
        pop cx
        retf
    times 0x140-($-$$) nop
    service:
        push ax
        call leaf
        pop ax
        iret
    times 0x160-($-$$) nop
    leaf:
        inc word [0x500]
        ret
""")
NEAR, FAR, SERVICE, LEAF = 0xF0100, 0xF0120, 0xF0140, 0xF0160
calls = pytest.mark.boot(firmware=CALLS)


def callers(gdb: Gdb) -> list[str]:
    """The backtrace's places."""
    return re.findall(r"^#\d+ +0x[0-9a-f]+ in (.*?) \(", gdb.cmd("backtrace"), re.MULTILINE)


@calls
def test_backtraces_over_near_far_and_int_frames(helped: Gdb) -> None:
    helped.cmd(f"break *{LEAF:#x}")
    for function, call in ((NEAR, "call "), (FAR, "lcall "), (SERVICE, "int ")):
        helped.cmd("continue")
        frames = callers(helped)
        assert len(frames) == 3, frames
        assert frames[0] == "f000:0160"
        assert frames[1] == f"f000:{function - 0xF0000 + 4:04x}"
        helped.cmd("up 2")
        back = helped.value("$pc")
        before = helped.cmd(f"x/i {back - (5 if 'l' in call[:1] else 3 if 'c' in call else 2):#x}")
        assert call in before
        assert helped.value("$esp") == 0x7000
        with pytest.raises(GdbError, match="cannot go up"):
            helped.cmd("up")


@calls
def test_finish_leaves_near_far_and_int_functions(helped: Gdb) -> None:
    for function, behind in ((NEAR, "lcall"), (FAR, "int"), (SERVICE, "mov    $0x12c,%cx")):
        helped.cmd(f"tbreak *{function:#x}")
        helped.cmd("continue")
        helped.cmd("stepi")
        helped.cmd("finish")
        assert behind in helped.cmd("x/i $pc")
        assert helped.value("$esp") == 0x7000


@pytest.mark.slow
@calls
def test_nexti_runs_over_near_far_int_and_advance_over_rep(helped: Gdb) -> None:
    helped.cmd(f"tbreak *{NEAR:#x}")
    helped.cmd("continue")
    helped.cmd("finish")
    pcs = []
    for _ in range(5):
        helped.cmd("nexti")
        pcs.append(helped.cmd("x/i $pc").split("\t")[1].split()[0])
    assert pcs == ["int", "mov", "mov", "mov", "rep"]
    assert helped.value("*(short *)0x500") == 3
    helped.cmd("advance *($pc + 2)")
    assert helped.value("$cx") == 0


@pytest.mark.slow
@calls
def test_nexti_with_a_count_sees_what_the_guest_has_written_meanwhile(helped: Gdb) -> None:
    helped.cmd("tbreak *0xf0000")
    helped.cmd("continue")
    # Behind the 7th is the first call; gdb reports nothing of what happens between.
    helped.cmd("nexti 8")
    assert "lcall" in helped.cmd("x/i $pc")


@pytest.mark.slow
@calls
def test_until_and_advance_stay_in_the_frame(helped: Gdb) -> None:
    helped.cmd(f"tbreak *{NEAR:#x}")
    helped.cmd("continue")
    helped.cmd(f"advance *{NEAR + 4:#x}")
    assert helped.value("$pc") == NEAR + 4
    helped.cmd("finish")
    caller = helped.value("$pc")
    helped.cmd(f"until *{caller + 5:#x}")
    assert helped.value("$pc") == caller + 5
    helped.cmd(f"tbreak *{NEAR:#x}")
    helped.cmd("continue")
    # `until LOCATION` also stops when the function returns without passing there.
    helped.cmd(f"until *{FAR:#x}")
    assert helped.value("$pc") == caller


@calls
def test_callers_have_the_registers_that_were_kept_for_them(helped: Gdb) -> None:
    helped.cmd(f"tbreak *{NEAR:#x}")
    helped.cmd("continue")
    helped.cmd("set $bx = 0x1234")
    helped.cmd("stepi")
    helped.cmd("set $bx = 0x4321")
    helped.cmd(f"tbreak *{LEAF:#x}")
    helped.cmd("continue")
    helped.cmd("up")
    assert helped.value("$ebx") == 0x4321
    helped.cmd("up")
    assert helped.value("$ebx") == 0x1234
    assert helped.value("$ip") == helped.value("$pc") - 0xF0000
    assert helped.value("$cs") == 0xF000


@pytest.mark.slow
@calls
def test_without_the_helper_gdb_finds_no_caller(gdb: Gdb) -> None:
    """What the helper is for; if this fails, a newer gdb has learned it."""
    gdb.cmd(f"break *{LEAF:#x}")
    gdb.cmd("continue")
    assert "0x000f0104" not in gdb.cmd("backtrace")


@pytest.mark.slow
@calls
def test_backtraces_end_at_bad_stacks(helped: Gdb) -> None:
    helped.cmd(f"break *{LEAF:#x}")
    helped.cmd("continue")
    helped.cmd("set $ss_base = 0xd0000000")
    helped.cmd("maintenance flush register-cache")
    assert callers(helped) == ["f000:0160"]
    helped.cmd("set $ss_base = 0xa0000")
    helped.cmd("maintenance flush register-cache")
    assert callers(helped)[0] == "f000:0160"


#: 16-bit protected mode with a base that is no selector * 16, a 32-bit segment on a 32-bit stack, far calls between.
MIXED = rom_text(
    protected(
        "0x08:protected",
        """
        dw 0xffff, 0, 0x9a0f, 0x0000          ; 08: code16, base F0000h
        dw 0xffff, 0x1200, 0x920f, 0x0000     ; 10: data16
        dw 0xffff, 0, 0x9a0f, 0x00cf          ; 18: code32, base F0000h
        dw 0xffff, 0, 0x9200, 0x00cf          ; 20: flat, 32-bit stack
        dw 0xffff, 0x0200, 0x9a0f, 0x0000     ; 28: code16, base F0200h
        """,
    )
    + """
    protected:
        mov ax, 0x20
        mov ds, ax
        mov ss, ax
        mov esp, 0x7000
    again:
        call word near_16
        hlt
    times 0x100-($-$$) nop
    near_16:
        push si
        call dword 0x18:code_32
        pop si
        ret
    times 0x140-($-$$) nop
    bits 32
    code_32:
        push ebx
        push edi
        call near_32
        pop edi
        pop ebx
        o16 mov ax, 0
        retf
    near_32:
        sub esp, 12
        call 0x28:0
        add esp, 12
        ret
    times 0x200-($-$$) nop
    bits 16
        pusha
        call leaf
        popa
        o32 retf
    leaf:
        push bp
        mov bp, sp
        nop
        pop bp
        ret
"""
)


@pytest.mark.boot(firmware=MIXED)
def test_backtraces_over_16_and_32_bit_segments_of_protected_mode(helped: Gdb) -> None:
    helped.cmd("break *0xf020a")
    helped.cmd("continue")
    assert helped.value("$mode") == 16
    text = helped.cmd("backtrace")
    places = ["0028:000a", "0028:0004", "0018:0158", "0018:0147", "0008:0109", "0008:0066"]
    assert re.findall(r"in (\S+) \(\)", text) == places
    for level, (width, code) in enumerate(
        ((16, "nop"), (16, "popa"), (32, "add    $0xc,%esp"), (32, "pop    %edi"), (16, "pop    %si"), (16, "hlt"))
    ):
        helped.cmd(f"frame {level}")
        assert helped.value("$mode") == width
        assert code in helped.cmd("x/i $pc")
    helped.cmd("frame 0")
    for place in places[1:]:
        helped.cmd("finish")
        assert f"{helped.value('$cs'):04x}:{helped.value('$ip'):04x}" == place
        assert helped.value("$mode") == (32 if place.startswith("0018") else 16)


@calls
def test_the_prompt_s_commands_are_gdb_s_commands(helped: Gdb) -> None:
    for command, word in (("sreg", "limit"), ("gdt", "index"), ("idt", "vector"), ("page 0x1000", "no paging"),
                          ("dev", "8259"), ("screen", "off"), ("x/2xb 0xffff0", "ea"), ("pc", "linear")):  # fmt: skip
        assert word in helped.cmd(f"v2e {command}").lower(), command
    assert "v2e sreg" in helped.cmd("complete v2e sr")
    helped.cmd("stepi")  # at a prompt, the list of the stub's commands becomes gdb's
    assert "Walk the page tables" in helped.cmd("help v2e page")
    assert set(helped.cmd("complete v2e page es").split("\n")) >= {"v2e page es", "v2e page esi", "v2e page esp"}
    assert "v2e dev pic" in helped.cmd("complete v2e dev pi")
    assert "page needs ADDRESS" in helped.cmd("v2e page")
    assert "there is no command 'nonsense'" in helped.cmd("v2e nonsense")
    assert "gdb runs and stops the guest" in helped.cmd("v2e continue")


@pytest.mark.slow
@pytest.mark.parametrize("connected", [False, True], ids=["helper first", "target first"])
@calls
def test_a_script_completes_the_prompt_s_commands_before_one_was_run(
    v2e_server: Callable[..., Server], connected: bool
) -> None:
    begin = [f"source {helper_path()}", f"target remote {v2e_server().address}"]
    lines = batch(*(begin[::-1] if connected else begin), "complete v2e sr", "complete v2e dev pi", "kill").splitlines()
    assert {"v2e sreg", "v2e dev pic", "v2e dev pit"} <= set(lines)


@calls
def test_code_is_decoded_by_the_width_asked_for(helped: Gdb) -> None:
    assert "xor    %ax,%ax" in helped.cmd("x/i 0xf0001")
    helped.cmd("set v2e code-width 32")
    assert "xor    %eax,%eax" in helped.cmd("x/i 0xf0001")
    helped.cmd("set v2e code-width 64")
    assert "0x" in helped.cmd("x/i 0xf0001")
    helped.cmd("set disassembly-flavor intel")
    helped.cmd("set v2e code-width auto")
    assert "xor    ax,ax" in helped.cmd("x/i 0xf0001")


@pytest.mark.slow
def test_display_decodes_right_at_the_first_stop_in_a_mode(helped: Gdb) -> None:
    stops = {stop.name: stop.linear for stop in tour.stops()}
    helped.cmd("display/i $pc")
    for name, code in (("pm16", "mov    $0x20,%ax"), ("pm32", "mov    $0x10,%eax"), ("real-again", "xor    %ax,%ax")):
        helped.cmd(f"tbreak *{stops[name]:#x}")
        assert code in helped.cmd("continue")


@pytest.mark.slow
@calls
def test_jumps_lead_where_the_cpu_goes_where_gdb_alone_errs(helped: Gdb, gdb: Gdb) -> None:
    # EB 10 at linear 2FFF8h in a segment with base 20010h: to offset 0000Ah of it, which is 3000Ah.
    for client in (helped, gdb):
        client.cmd("stepi")
        client.cmd("set $cs_base = 0x20010")
        client.cmd("set $cs = 0x2001")
        client.cmd("maintenance flush register-cache")
        client.cmd("set {char[2]}0x2fff8 = {0xeb, 0x10}")
    assert "0x20010" not in gdb.cmd("x/i 0x2fff8")
    assert "jmp    0x3000a" in helped.cmd("x/i 0x2fff8")


@pytest.mark.slow
@calls
def test_the_helper_is_sourced_by_hand_and_twice(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    gdb = start_gdb(v2e_server())
    gdb.cmd(f"break *{LEAF:#x}")
    gdb.cmd("continue")
    gdb.cmd(f"source {helper_path()}")
    gdb.cmd(f"source {helper_path()}")
    assert len(callers(gdb)) == 3
    assert '"auto" (currently "i8086")' in gdb.cmd("show architecture")
    assert "breakpoint already hit 1 time" in gdb.cmd("info breakpoints")


@pytest.mark.parametrize(("module", "lost"), [("gdb.disassembler", "decode by the architecture"),
                                              ("gdb.unwinder", "do not understand 16-bit code")])  # fmt: skip
def test_an_older_gdb_is_told_what_it_lacks_and_has_the_rest(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], module: str, lost: str
) -> None:
    gdb = start_gdb(v2e_server())
    gdb.cmd(f"python import sys; sys.modules['{module}'] = None")
    assert lost in gdb.cmd(f"source {helper_path()}")
    assert "limit" in gdb.cmd("v2e sreg")
    assert gdb.value("$seg(0x7c0, 0)") == 0x7C00


def test_the_helper_without_a_target_of_ours_keeps_quiet(start_gdb: Callable[..., Gdb]) -> None:
    gdb = start_gdb(arguments=["-x", str(helper_path())])
    assert gdb.cmd("print 1") == "$1 = 1\n"
    with pytest.raises(GdbError, match="not supported by this target"):
        gdb.cmd("v2e sreg")
    with pytest.raises(GdbError, match="no v2e is connected"):
        gdb.cmd("print $seg(1, 1)")


#: Asks the BIOS for a sector and prints a character, from functions without and with a frame.
SECTOR = """
    bits 16
    section .text
    global start
    start:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
    main:
        call read_disk
        call print_char
        jmp main
    read_disk:
        mov ax, 0x0201
        mov bx, 0x8000
        mov cx, 2
        mov dx, 0x80
        int 0x13
    read_done:
        ret
    print_char:
        push bp
        mov bp, sp
        mov ax, 0x0e41
        mov bx, 7
        int 0x10
        pop bp
        ret
    times 510-($-$$) db 0
    dw 0xaa55
    """


@pytest.fixture
def sector(tmp_path: Path) -> tuple[Path, Path]:
    """The boot sector as a disk and as an ELF file with its symbols and lines."""
    source, part, elf, disk = (tmp_path / f"sector.{end}" for end in ("asm", "o", "elf", "img"))
    source.write_text(SECTOR)
    for command in (
        ["nasm", "-f", "elf32", "-g", "-F", "dwarf", "-o", part, source],
        ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "start", "-o", elf, part],
        ["objcopy", "-O", "binary", "-j", ".text", elf, disk],
    ):
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    disk.write_bytes(disk.read_bytes().ljust(1 << 20, b"\x11"))
    return disk, elf


@pytest.mark.slow
@pytest.mark.parametrize("symbols", [True, False])
def test_a_backtrace_inside_seabios_int_13h_names_the_boot_sector(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], sector: tuple[Path, Path], symbols: bool
) -> None:
    disk, elf = sector
    gdb = start_gdb(v2e_server("--firmware", "seabios", "--disk", disk), arguments=["-x", str(helper_path())])
    gdb.cmd("tbreak *0x7c0b")
    gdb.cmd("continue")
    if symbols:
        gdb.cmd(f"add-symbol-file {elf} 0x7c00")
    names = ["read_done", "main"] if symbols else ["0000:7c21", "0000:7c0e"]
    # at the handler's first instruction, which the vector names
    gdb.cmd("tbreak *$seg(*(unsigned short *)0x4e, *(unsigned short *)0x4c)")
    gdb.cmd("continue")
    assert_named(gdb.cmd("backtrace"), names)
    # and in the disk driver, behind a change of stacks
    gdb.cmd("watch *(char *)0x8000")
    assert "Hardware watchpoint" in gdb.cmd("continue")
    assert gdb.value("$ss_base") > 0x90000
    text = gdb.cmd("backtrace")
    assert text.count("\n") >= 6
    assert_named(text, names)
    gdb.cmd("delete")
    for _ in range(10):
        if gdb.value("$cs") == 0:
            break
        gdb.cmd("finish")
    assert gdb.value("$pc") == 0x7C21
    if symbols:
        assert "sector.asm" in gdb.cmd("info line *$pc")
        gdb.cmd("finish")
        gdb.cmd("next")  # over `call print_char`, INT 10h included
        assert "jmp main" in gdb.cmd("frame")


@pytest.mark.slow
def test_a_backtrace_inside_the_built_in_bios_names_the_boot_sector(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], sector: tuple[Path, Path]
) -> None:
    disk, elf = sector
    gdb = start_gdb(v2e_server("--firmware", "builtin", "--disk", disk), arguments=["-x", str(helper_path())])
    gdb.cmd("tbreak *0x7c0b")
    gdb.cmd("continue")
    gdb.cmd(f"add-symbol-file {elf} 0x7c00")
    gdb.cmd("tbreak *$seg(*(unsigned short *)0x4e, *(unsigned short *)0x4c)")
    gdb.cmd("continue")
    for _ in range(40):
        if gdb.value("$cs") == 0:
            break
        assert_named(gdb.cmd("backtrace"), ["read_done", "main"])
        gdb.cmd("stepi 7")


def assert_named(text: str, names: list[str]) -> None:
    """The last frames are the boot sector's, by their names."""
    frames = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+)", text, re.MULTILINE)
    assert frames[-len(names) :] == names, text
