"""A real gdb on a real server: what people do to boot code with it, and what used to hurt them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.firmware import tour
from gdb_batch import batch
from machines import CALLED, calling, rom_text
from repl.harness import Gdb, GdbError, Server
from stub.server import MAX_ONLOOKERS

#: gdb's words for the instruction at each stop of the tour, by the width the CPU executes it with; from `ndisasm -b`.
DECODED = {
    "pm16": "mov    $0x20,%ax",
    "pm32": "mov    $0x10,%eax",
    "long64": "mov    $0x10,%ax",
    "real-again": "xor    %ax,%ax",
}
WIDTH = {"pm32": 32, "pse": 32, "pae": 32, "long64": 64, "compat": 32}

#: A boot ROM without a BIOS: a loop with a call at CS base F0000h.
LOOP = rom_text(calling())
boot_loop = pytest.mark.boot(firmware=LOOP)
DIES = LOOP.replace("call work", "lidt [cs:none]\n ud2\n none: dq 0")
EXITS = LOOP.replace("call work", "mov al, 3\n out 0xf4, al")


@pytest.fixture
def stops() -> dict[str, int]:
    return {stop.name: stop.linear for stop in tour.stops()}


def test_the_first_instruction_of_the_cpu(gdb: Gdb) -> None:
    assert gdb.value("$pc") == 0xFFFFFFF0
    assert "ljmp   $0xf000," in gdb.cmd("x/i $pc")
    assert gdb.value("$ip") == 0xFFF0
    assert gdb.value("$cs") == 0xF000
    assert gdb.value("$cs_base") == 0xFFFF0000


def test_every_mode_s_breakpoint_is_recognised_without_the_helper(gdb: Gdb, stops: dict[str, int]) -> None:
    for number, (name, linear) in enumerate(stops.items(), 1):
        gdb.cmd(f"hbreak *{linear:#x}")
        text = gdb.cmd("continue")
        assert f"Breakpoint {number}, " in text, name
        assert gdb.value("$pc") & 0xFFFFFFFF == linear
        assert gdb.value("$mode") == WIDTH.get(name, 16)
    assert "exited normally" in gdb.cmd("continue")


@pytest.mark.slow
def test_the_helper_decodes_right_at_the_first_stop_in_each_mode(helped: Gdb, stops: dict[str, int]) -> None:
    for linear in stops.values():
        helped.cmd(f"break *{linear:#x}")
    helped.cmd("watch *(int *)0x500")  # the tour's tick counter: watchpoints survive the change, too
    hits = 0
    for name, linear in stops.items():
        while helped.value("$pc") != linear:
            hits += "Hardware watchpoint" in helped.cmd("continue")
        width = WIDTH.get(name, 16)
        architecture = {16: "i8086", 32: "i386", 64: "i386:x86-64"}[width]
        assert f'"auto" (currently "{architecture}")' in helped.cmd("show architecture"), name
        if name in DECODED:
            assert DECODED[name] in helped.cmd("x/i $pc")
        assert helped.value("sizeof($pc)") == (8 if width == 64 else 4)
    assert hits == len(stops) - 1  # one tick between each two stops
    assert helped.cmd("info breakpoints").count("breakpoint already hit 1 time") == len(stops)


#: Reports where it is and goes on for ever, with its data segment elsewhere than its code.
SECTOR = """
    bits 16
    org 0x7c00
    start:
        mov ax, 0x1000
        mov ds, ax
    turn:
        inc word [0x10]
        jmp turn
    times 510-($-$$) db 0
    dw 0xaa55
    """


@pytest.mark.slow
@pytest.mark.boot(image=SECTOR, firmware="seabios")
def test_a_boot_sector_s_breakpoint_under_seabios_is_met_by_its_number_and_left_again(gdb: Gdb) -> None:
    gdb.cmd("break *0x7c00")
    assert "Breakpoint 1, 0x00007c00" in gdb.cmd("continue")
    assert "mov    $0x1000,%ax" in gdb.cmd("x/i $pc")
    gdb.cmd("break *0x7c05")
    for turn in range(3):
        assert "Breakpoint 2, 0x00007c05" in gdb.cmd("continue")
        assert gdb.value("*(short *)($ds_base + 0x10)") == turn
    assert "breakpoint already hit 1 time" in gdb.cmd("info breakpoints 1")


@pytest.mark.slow
def test_software_breakpoints_where_the_base_of_cs_is_not_0(gdb: Gdb, stops: dict[str, int]) -> None:
    met = 0
    for linear in stops.values():
        gdb.cmd(f"break *{linear:#x}")
    for number, linear in enumerate(stops.values(), 1):
        assert f"Breakpoint {number}, " in gdb.cmd("continue")
        assert gdb.value("$pc") & 0xFFFFFFFF == linear
        met += gdb.value("$cs_base") != 0
    assert met >= 3


@pytest.mark.slow
@boot_loop
def test_groups_of_registers_with_the_helper(helped: Gdb) -> None:
    def shown(group: str) -> set[str]:
        return {line.split()[0] for line in helped.cmd(f"info registers {group}").splitlines()}

    assert {"eax", "eip", "eflags", "gs", "ip", "mode"} <= shown("general")
    assert not {"cr0", "cs_base", "st0"} & shown("general")
    assert {"cr0", "cr4", "gdtr", "dr7", "efer"} <= shown("system")
    assert "eax" not in shown("system")
    assert {"cs", "cs_base", "cs_limit", "cs_attr", "ldtr"} <= shown("segment")
    assert shown("eax $cs_base") == {"eax", "cs_base"}
    assert {"eax", "cr0", "cs_base"} <= shown("")
    assert "st0" in shown("float")
    with pytest.raises(GdbError, match="Invalid register `nope'"):
        helped.cmd("info registers nope")


@pytest.mark.slow
@boot_loop
def test_the_cpu_is_a_thread_that_says_its_mode(gdb: Gdb) -> None:
    text = gdb.cmd("info threads")
    assert "Thread 1" in text
    assert '"CPU 0"' in text
    assert "(real mode)" in text


@boot_loop
def test_registers_are_written(gdb: Gdb) -> None:
    gdb.cmd(f"break *{CALLED:#x}")
    gdb.cmd("continue")
    gdb.cmd("set $eax = 0x12345678")
    gdb.cmd("set $al = 1")
    gdb.cmd("stepi")
    assert gdb.value("$eax") == 0x12345601
    gdb.cmd("set $eflags = 0x3")
    assert "CF" in gdb.cmd("print $eflags")
    with pytest.raises(GdbError, match="mode is derived from other registers"):
        gdb.cmd("set $mode = 32")


@pytest.mark.slow
@boot_loop
def test_a_watchpoint_of_every_kind_goes_on_and_says_what_changed(gdb: Gdb) -> None:
    gdb.cmd("watch *(short *)0x502")
    for turn in range(1, 4):
        text = gdb.cmd("continue")
        assert f"New value = {turn}" in text
    gdb.cmd("delete")
    gdb.cmd("rwatch *(short *)0x502")
    assert "Value = " in gdb.cmd("continue")


@pytest.mark.slow
def test_hidden_state_is_shown_in_its_own_words(gdb: Gdb, stops: dict[str, int]) -> None:
    gdb.cmd(f"hbreak *{stops['pm32']:#x}")
    gdb.cmd("continue")
    assert "PE" in gdb.cmd("print $cr0")
    assert "{base = 0x1000, limit = " in gdb.cmd("print $gdtr")
    assert "DB" in gdb.cmd("print $cs_attr")
    assert "limit = " in gdb.cmd("print $tr")
    text = gdb.cmd("info registers")
    for name in ("eax", "eip", "eflags", "ip", "mode", "cs_base", "ds_limit", "ss_attr", "gdtr", "idtr", "ldtr", "tr",
                 "cr4", "dr7", "efer"):  # fmt: skip
        assert f"\n{name} " in "\n" + text


@pytest.mark.slow
def test_big_real_mode_shows_in_the_limit(gdb: Gdb, stops: dict[str, int]) -> None:
    gdb.cmd(f"hbreak *{stops['pm16']:#x}")
    gdb.cmd("continue")
    assert gdb.value("$cs_base") != gdb.value("$cs") * 16
    assert gdb.value("$ip") + gdb.value("$cs_base") == gdb.value("$pc")


@boot_loop
def test_breakpoints_count_ignore_and_condition(gdb: Gdb) -> None:
    gdb.cmd(f"break *{CALLED:#x}")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.value("*(short *)0x502") == 0
    gdb.cmd("ignore 1 10")
    gdb.cmd("continue")
    assert gdb.value("*(short *)0x502") == 11
    gdb.cmd("condition 1 *(short *)0x500 == 20")
    gdb.cmd("continue")
    assert gdb.value("*(short *)0x500") == 20
    assert gdb.value(f"*(unsigned char *){CALLED:#x}") == 0xFF  # the opcode of INC: nothing was patched


@pytest.mark.slow
@boot_loop
def test_adjacent_breakpoints_do_not_disturb_the_pc(gdb: Gdb) -> None:
    gdb.cmd(f"break *{CALLED:#x}")
    gdb.cmd(f"break *{CALLED + 4:#x}")
    gdb.cmd(f"break *{CALLED + 1:#x}")  # in the middle of an instruction: never reached
    for pc in (CALLED, CALLED + 4, CALLED, CALLED + 4):
        gdb.cmd("continue")
        assert gdb.value("$pc") == pc


@pytest.mark.slow
@boot_loop
def test_stepping(gdb: Gdb) -> None:
    gdb.cmd(f"break *{CALLED:#x}")
    gdb.cmd("continue")
    gdb.cmd("stepi")
    assert gdb.value("$pc") == CALLED + 4
    gdb.cmd("stepi")
    assert "mov    $0x5,%cx" in gdb.cmd("x/i $pc")
    spin = gdb.value("$pc") + 3
    gdb.cmd(f"until *{spin + 2:#x}")
    assert gdb.value("$pc") == spin + 2
    assert gdb.value("$ecx") == 0
    before = gdb.value("*(short *)0x500")
    gdb.cmd("delete")
    gdb.cmd("stepi 1000")
    # One turn: inc, call, inc, ret, mov, 5 times loop, jmp.
    assert gdb.value("*(short *)0x500") - before == pytest.approx(1000 / 11, abs=1)


@boot_loop
@pytest.mark.parametrize(("command", "word"), [("watch", "Hardware watchpoint"), ("awatch", "Hardware access"),
                                               ("rwatch", "Hardware read watchpoint")])  # fmt: skip
def test_watchpoints(gdb: Gdb, command: str, word: str) -> None:
    gdb.cmd(f"{command} *(short *)0x502")
    text = gdb.cmd("continue")
    assert word in text
    assert gdb.value("$pc") == CALLED + 4


@boot_loop
def test_ctrl_c(gdb: Gdb) -> None:
    gdb.start("continue")
    gdb.interrupt()
    text = gdb.wait_stop()
    assert "SIGINT" in text
    assert 0xF0000 <= gdb.value("$pc") < 0xF0110
    gdb.start("continue")  # and again
    gdb.interrupt()
    assert "SIGINT" in gdb.wait_stop()


@pytest.mark.slow
@boot_loop
@pytest.mark.parametrize("command", ["stepi", "nexti"])
def test_ctrl_c_ends_a_long_command_of_steps(gdb: Gdb, command: str) -> None:
    gdb.start(f"{command} 10000000")
    time.sleep(0.5)
    gdb.interrupt()
    assert "SIGINT" in gdb.wait_stop()
    assert 0xF0000 <= gdb.value("$pc") < 0xF0110
    assert gdb.value("*(short *)0x500") > 0


@pytest.mark.slow
@boot_loop
def test_memory_is_written_and_dumped(gdb: Gdb, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1024
    (tmp_path / "in").write_bytes(data)
    gdb.cmd(f"restore {tmp_path / 'in'} binary 0x20000")
    gdb.cmd(f"dump binary memory {tmp_path / 'out'} 0x20000 0x60000")
    assert (tmp_path / "out").read_bytes() == data
    assert "0x12345678" in gdb.cmd("print/x *(int *)0x30000 = 0x12345678")
    assert gdb.value("*(int *)0x30000") == 0x12345678
    with pytest.raises(GdbError, match="Cannot access memory at address"):
        gdb.cmd("x/4x 0xd0000000")


@pytest.mark.slow
@boot_loop
def test_the_pc_is_written_as_a_linear_address(gdb: Gdb) -> None:
    gdb.cmd(f"break *{CALLED:#x}")
    gdb.cmd("continue")
    gdb.cmd(f"set $pc = {CALLED + 4:#x}")
    assert gdb.value("$ip") in (0x100, 0x104)  # gdb keeps what it has read until it asks again
    gdb.cmd("maintenance flush register-cache")
    assert gdb.value("$ip") == 0x104
    with pytest.raises(GdbError, match=r"out of reach of CS f000 \(base 0xf0000, limit 0xffff"):
        gdb.cmd("set $pc = 0x7c00")
    with pytest.raises(GdbError, match=r"offset 0x12345 is out of reach of CS f000 \(base 0xf0000, limit 0xffff"):
        gdb.cmd("set $ip = 0x12345")


@pytest.mark.slow
@boot_loop
def test_the_helper_reads_registers_again_after_a_write(helped: Gdb) -> None:
    helped.cmd("stepi")
    helped.cmd("set $cs = 0x1000")
    assert helped.value("$cs_base") == 0x10000
    assert helped.value("$pc") == 0x10000


@boot_loop
def test_what_the_cpu_refuses_is_said(gdb: Gdb) -> None:
    with pytest.raises(GdbError, match="sets PG without PE"):
        gdb.cmd("set $cr0 = 0x80000000")
    gdb.cmd("set $cr4 = 0x10")
    assert "PSE" in gdb.cmd("print $cr4")


@boot_loop
def test_monitor(gdb: Gdb) -> None:
    text = gdb.cmd("monitor help")
    assert "pc [linear|offset]" in text
    assert "regs" in text
    assert "f000" in gdb.cmd("monitor sreg").lower()
    gdb.cmd("stepi")
    gdb.cmd("monitor pc offset")
    gdb.cmd("maintenance flush register-cache")
    assert gdb.value("$pc") == 0


@pytest.mark.slow
@boot_loop
def test_detach_takes_breakpoints_away_and_a_second_session_finds_the_guest(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd(f"break *{CALLED:#x}")
    first.cmd("continue")
    assert "detached" in first.cmd("detach")
    second = start_gdb(server)
    assert 0xF0000 <= second.value("$pc") < 0xF0110  # it ran on, and connecting stopped it
    seen = second.value("*(short *)0x500")
    second.cmd("stepi 11")
    assert (second.value("*(short *)0x500") - seen) & 0xFFFF == 1


@pytest.mark.slow
@boot_loop
def test_a_gdb_too_many_is_told_why_it_cannot_connect(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    host, _, port = server.address.rpartition(":")
    onlookers = [socket.create_connection((host, int(port))) for _ in range(MAX_ONLOOKERS)]
    text = batch(f"target remote {server.address}")
    assert f"and {MAX_ONLOOKERS} look on: disconnect it first" in text
    assert "another client is connected" in text
    for onlooker in onlookers:
        onlooker.close()
    assert first.value("$pc") == 0xFFFFFFF0


@boot_loop
def test_restart_in_extended_mode(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> None:
    server = v2e_server()
    gdb = start_gdb()
    gdb.connect(server.address, extended=True)
    gdb.cmd(f"break *{CALLED:#x}")
    gdb.cmd("continue")
    gdb.cmd("run")
    assert gdb.value("$pc") == CALLED  # through the reset vector to the breakpoint again
    assert gdb.value("*(short *)0x502") == 0


@boot_loop
def test_kill_ends_the_server_and_gdb_survives(v2e_server: Callable[..., Server]) -> None:
    server = v2e_server()
    assert "killed" in batch(f"target remote {server.address}", "stepi", "kill")
    assert server.wait() == 0


@pytest.mark.slow
@boot_loop
def test_batch_mode_ends_by_detaching(v2e_server: Callable[..., Server]) -> None:
    server = v2e_server()
    assert "0xfffffff0" in batch(f"target remote {server.address}", "print/x $pc")
    assert "detached" in batch(f"target remote {server.address}", "info registers eip")


@pytest.mark.boot(firmware=DIES)
def test_a_triple_fault_is_told_in_words(gdb: Gdb) -> None:
    text = gdb.cmd("continue")
    assert "triple fault" in text
    assert "SIGABRT" in text
    assert gdb.value("$cs") == 0xF000  # and can be looked at


@pytest.mark.boot(firmware=EXITS)
def test_the_guest_s_exit_code(gdb: Gdb) -> None:
    assert "exited with code 03" in gdb.cmd("continue")
