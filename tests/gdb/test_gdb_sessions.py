"""A real gdb comes, goes, kills, runs again and comes back; a second one looks on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from machines import rom_text
from repl.harness import Gdb, GdbError, Server

#: A boot ROM: counts at 500h for ever.
LOOP = rom_text("""
    again:
        inc word [0x500]
        jmp again
""")
AGAIN = 0xF0005
boot_loop = pytest.mark.boot(firmware=LOOP)


@boot_loop
def test_kill_and_run_begin_at_the_first_instruction_again(extended: Gdb) -> None:
    gdb = extended
    gdb.cmd(f"break *{AGAIN:#x}")
    assert "Breakpoint 1" in gdb.cmd("continue")
    gdb.cmd("continue")
    assert gdb.value("*(short *)0x500") == 1
    assert "Inferior 1 (process 1) killed" in gdb.cmd("kill")
    with pytest.raises(GdbError, match="The program is not being run"):
        gdb.cmd("stepi")
    assert "Breakpoint 1" in gdb.cmd("run")
    assert gdb.value("*(short *)0x500") == 0
    gdb.cmd("starti")
    assert gdb.value("$pc") == 0xFFFFFFF0


@pytest.mark.slow
@boot_loop
def test_the_machine_is_process_1_with_a_thread_for_each_cpu(gdb: Gdb) -> None:
    assert "process 1" in gdb.cmd("info inferiors")
    assert "Thread 1.1" in gdb.cmd("info threads")
    assert "CPU 0" in gdb.cmd("info threads")


@pytest.mark.slow
@boot_loop
def test_detach_and_attach_in_extended_mode(extended: Gdb) -> None:
    gdb = extended
    gdb.cmd(f"break *{AGAIN:#x}")
    gdb.cmd("continue")
    gdb.cmd("monitor detach stop")
    gdb.cmd("detach")
    gdb.cmd("delete")
    gdb.cmd("attach 1")
    assert gdb.value("$pc") == AGAIN
    assert "run on" in gdb.cmd("monitor detach run")
    gdb.cmd("detach")
    gdb.cmd("attach 1")
    assert gdb.value("*(unsigned short *)0x500") != 0
    with pytest.raises(GdbError, match="Attaching to process 7 failed"):
        gdb.cmd("detach")
        gdb.cmd("attach 7")


@boot_loop
@pytest.mark.parametrize("policy", ["run", "stop"])
def test_who_reconnects_finds_the_guest_as_it_was_left(
    policy: str, v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd(f"break *{AGAIN:#x}")
    first.cmd("continue")
    first.cmd(f"monitor detach {policy}")
    first.cmd("detach")
    second = start_gdb(server)
    count = second.value("*(short *)0x500")
    assert (count == 0) == (policy == "stop")
    assert (second.value("$pc") == AGAIN) or policy == "run"
    assert second.cmd("info breakpoints") == "No breakpoints or watchpoints.\n"


@boot_loop
def test_a_second_gdb_looks_on_and_is_told_of_stops_and_of_what_it_may_not_do(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd(f"break *{AGAIN:#x}")
    first.cmd("continue")
    second = start_gdb(server)
    assert second.value("$pc") == AGAIN
    assert second.value("*(short *)0x500") == 0
    with pytest.raises(GdbError, match="Cannot access memory"):  # gdb has no other words for it
        second.cmd("set {char} 0x500 = 1")
    with pytest.raises(GdbError, match="another client came first"):
        second.cmd("set $eax = 1")
    for refused in ("stepi", "monitor reset", "monitor set eax 1", "monitor msr 10 1"):
        assert "another client came first" in second.cmd(refused), refused
    assert "code16" in second.cmd("monitor sreg")
    assert "PIC" in second.cmd("monitor dev").upper()
    assert "another client came first" in second.cmd("maintenance packet Z0,f0000,1")
    assert first.value("$eax") == 0
    second.start("continue")
    assert "Breakpoint 1" in first.cmd("continue")
    assert "received signal SIGTRAP" in second.wait_stop()
    assert second.value("*(short *)0x500") == 1
    second.cmd("detach")
    assert "Breakpoint 1" in first.cmd("continue")
    assert first.value("*(short *)0x500") == 2


@boot_loop
@pytest.mark.parametrize("again", ["target extended-remote", "disconnect"])
def test_a_second_gdb_has_the_machine_by_connecting_again_when_the_first_has_gone(
    again: str, v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first, second = start_gdb(), start_gdb()
    first.connect(server.address, extended=True)
    second.connect(server.address, extended=True)
    first.cmd(f"tbreak *{AGAIN:#x}")
    first.cmd("continue")
    with pytest.raises(GdbError, match="Can't kill process"):
        second.cmd("kill")  # the first has it
    first.cmd("disconnect")
    with pytest.raises(GdbError, match=r"has gone: connect again to have it \(in gdb `disconnect`, then `target`\)"):
        second.cmd("set $eax = 5")
    if again == "disconnect":
        second.cmd("disconnect")
    second.connect(server.address, extended=True)
    assert second.value("$pc") == AGAIN  # the guest is as it was
    second.cmd("set $eax = 5")
    second.cmd("stepi")
    assert second.value("$eax") == 5


@boot_loop
def test_a_second_gdb_sees_a_guest_that_runs_and_does_not_stop_it(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.start("continue")
    second = start_gdb(server)
    counts = {second.value("*(unsigned short *)0x500") for _ in range(3)}
    second.start("continue")
    second.interrupt()
    assert "SIGINT" in second.wait_stop()
    with pytest.raises(GdbError, match="Can't kill process"):
        second.cmd("kill")
    second.cmd("detach")
    first.interrupt()
    assert "SIGINT" in first.wait_stop()
    assert counts
    assert first.value("$pc") & 0xFFF00 == 0xF0000
