"""A real gdb in non-stop mode: commands while the guest runs, stops that come by themselves."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from gdb_recording import Proxy
from machines import rom_text
from repl.harness import Gdb, GdbError, Server

#: A boot ROM: counts at 500h for ever.
LOOP = rom_text("""
    again:
        inc word [0x500]
        jmp again
""")
AGAIN = 0xF0005
EXITS = LOOP.replace("jmp again", "mov al, 3\n out 0xf4, al")
#: More than gdb sends while it is waited for.
PACKETS = 10_000
SETTINGS = ["-iex", "set non-stop on", "-iex", "set mi-async on"]
boot_loop = pytest.mark.boot(firmware=LOOP)


@pytest.fixture
def nonstop(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> Gdb:
    return start_gdb(v2e_server(), arguments=SETTINGS)


def interrupted(gdb: Gdb) -> None:
    """Interrupt a guest that gdb has found running, of which it has told nobody."""
    deadline = time.monotonic() + 30
    while "(running)" not in gdb.start("info threads"):
        assert time.monotonic() < deadline, "the guest was stopped"
    gdb.start("interrupt")
    while "(running)" in gdb.start("info threads"):
        assert time.monotonic() < deadline, "the guest is not stopped"
    gdb.running = False
    assert gdb.value("$pc") & 0xFFF00 == 0xF0000


def said(gdb: Gdb, packet: str) -> None:
    """Wait until gdb has sent `packet` since it attached last."""
    deadline = time.monotonic() + 30
    while packet not in "".join(gdb.packets(PACKETS)).rpartition("$vAttach")[2]:
        assert time.monotonic() < deadline, f"gdb has not said {packet}"
        gdb.start("info threads")


@boot_loop
def test_continue_in_the_background_breakpoints_and_steps(nonstop: Gdb) -> None:
    gdb = nonstop
    gdb.cmd(f"break *{AGAIN:#x}")
    for count in range(3):
        gdb.start("continue &")
        assert "Breakpoint 1, 0x000f0005" in gdb.wait_stop()
        assert gdb.value("*(short *)0x500") == count
    assert gdb.stop["stopped-threads"] == ["1"]
    gdb.cmd("stepi")
    assert gdb.value("$pc") == AGAIN + 4
    gdb.cmd("delete")
    gdb.cmd("watch *(short *)0x500 if *(short *)0x500 == 100")
    gdb.start("continue &")
    assert "New value = 100" in gdb.wait_stop()


@pytest.mark.slow
@boot_loop
def test_while_the_guest_runs_memory_threads_commands_and_breakpoints_are_there(nonstop: Gdb) -> None:
    gdb = nonstop
    gdb.start("continue &")
    assert "(running)" in gdb.start("info threads")
    deadline = time.monotonic() + 30
    while gdb.start("output *(short *)0x500") == "0":
        assert time.monotonic() < deadline, "the guest does not run"
    with pytest.raises(GdbError, match="Selected thread is running"):
        gdb.start("print $eax")
    assert "code16" in gdb.start("monitor sreg")
    assert gdb.running
    gdb.start(f"break *{AGAIN:#x}")
    assert "Breakpoint 1, 0x000f0005" in gdb.wait_stop()
    assert "real mode" in gdb.cmd("info threads")


@pytest.mark.slow
@boot_loop
@pytest.mark.parametrize("command", ["interrupt", "interrupt -a"])
def test_interrupt_stops_it_without_a_signal(nonstop: Gdb, command: str) -> None:
    gdb = nonstop
    for _ in range(2):
        gdb.start("continue &")
        gdb.start(command)
        gdb.wait_stop()
        assert (gdb.stop["reason"], gdb.stop["signal-name"]) == ("signal-received", "0")
        assert gdb.value("$pc") & 0xFFF00 == 0xF0000


@pytest.mark.slow
@boot_loop
def test_who_connects_leaves_a_running_guest_alone(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd("detach")
    second = start_gdb(arguments=SETTINGS)
    second.start(f"target remote {server.address}")
    interrupted(second)
    second.start("kill")


@pytest.mark.slow
@boot_loop
def test_run_and_attach_in_extended_mode(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> None:
    gdb = start_gdb(arguments=SETTINGS)
    gdb.connect(v2e_server().address, extended=True)
    gdb.cmd(f"break *{AGAIN:#x}")
    gdb.start("continue &")
    gdb.wait_stop()
    gdb.start("run &")
    gdb.wait_stop()
    assert gdb.value("*(short *)0x500") == 0
    gdb.cmd("delete")
    gdb.start("detach")
    gdb.running = False
    gdb.start("attach 1 &")
    said(gdb, "$vCont;c")  # it has its prompt back before it has stopped the guest and let it go on
    interrupted(gdb)


class Late(Proxy):
    """The stop that `attach &` asks for comes when `interrupt` has asked for it, too."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._attached = False
        self._asked = 0
        self._held = b""

    def passed(self, from_client: bool, data: bytes) -> bytes:
        if from_client:
            self._attached |= b"$vAttach" in data
            self._asked += self._attached and data.count(b"$vCont;t")
        elif self._attached and self._asked < 2:
            for stop in re.findall(rb"%Stop:[^#]*#..", data):
                self._held += stop
                data = data.replace(stop, b"")
        else:
            data, self._held = data + self._held, b""
        return data


@pytest.mark.slow
@boot_loop
def test_an_interrupt_before_attach_has_let_the_guest_go_on_leaves_a_gdb_that_can_attach_again(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    """gdb 13 does not let a guest go on that was to be stopped meanwhile, and does not say that it stands still."""
    gdb = start_gdb(arguments=SETTINGS)
    gdb.connect(Late(v2e_server().address).address, extended=True)
    gdb.start("detach")
    gdb.running = False
    gdb.start("attach 1 &")
    gdb.start("interrupt")
    said(gdb, "$vStopped")
    if "(running)" in gdb.start("info threads"):
        gdb.start("interrupt")
        for _ in range(5):
            gdb.start("info threads")  # a second notification of the same stop would end gdb by an assertion
        gdb.start("detach")
        gdb.running = False
        gdb.start("attach 1 &")
        said(gdb, "$vCont;c")
        interrupted(gdb)
    gdb.running = False
    pc = gdb.value("$pc")
    assert pc & 0xFFF00 == 0xF0000
    gdb.cmd("stepi")
    assert gdb.value("$pc") != pc


@pytest.mark.slow
@pytest.mark.boot(firmware=EXITS)
def test_the_guest_s_end_is_told(nonstop: Gdb) -> None:
    nonstop.start("continue &")
    assert "exited with code 03" in nonstop.wait_stop()
