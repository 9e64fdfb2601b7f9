"""A real gdb on a guest that runs natively: register `engine`, and breakpoints and watchpoints on both sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gdb_console import console
from machines import CALLED, calling, rom_text
from repl.harness import Gdb, GdbError, Server
from stub.gdb import helper_path

#: A loop with a call at CS base F0000h, which counts at 500h and 502h; from `spin` on the state can be entered.
LOOP = rom_text(calling("mov es, ax"))
native_loop = pytest.mark.boot(firmware=LOOP, options=("--hypervisor", "model"))


@native_loop
def test_one_session_on_both_sides(gdb: Gdb) -> None:
    assert gdb.cmd("p $engine").strip().endswith("emulator")  # the reset vector's CS base is no selector << 4
    gdb.cmd(f"hbreak *{CALLED:#x}")
    for _ in range(4):  # whether it can be entered is looked at after 16 instructions, 32, and so on
        assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.cmd("p $engine").strip().endswith("native")
    assert "the CPU is emulated; emulated is forced" in gdb.cmd("monitor emulate")
    gdb.cmd("stepi")
    assert gdb.cmd("p $engine").strip().endswith("emulator")
    gdb.cmd("watch *(short *)0x500")
    assert "watchpoint 2" in gdb.cmd("continue")  # emulated
    assert gdb.cmd("p $engine").strip().endswith("emulator")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert "native is forced" in gdb.cmd("monitor native")
    assert "watchpoint 2" in gdb.cmd("continue")  # native
    assert gdb.cmd("p $engine").strip().endswith("native")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.cmd("p $engine").strip().endswith("native")
    gdb.cmd("stepi")
    assert gdb.value("*(short *)0x500") == gdb.value("*(short *)0x502") == 6


@pytest.mark.slow
@native_loop
def test_a_step_ends_where_it_does_on_either_side(gdb: Gdb) -> None:
    """gdb takes the same steps from the same place, and sees the same addresses."""
    gdb.cmd(f"hbreak *{CALLED:#x}")
    gdb.cmd("continue")
    seen = []
    for who in ("native", "emulate"):
        gdb.cmd(f"monitor {who}")
        places = []
        for _ in range(9):
            gdb.cmd("stepi")
            places.append(gdb.value("$pc"))
        gdb.cmd("continue")
        seen.append(places)
    assert seen[0] == seen[1]


@pytest.mark.slow
@native_loop
def test_native_where_the_state_cannot_be_entered_is_refused_with_reasons(gdb: Gdb) -> None:
    assert "CS base 0xffff0000 is not selector 0xf000 << 4" in gdb.cmd("monitor native")
    with pytest.raises(GdbError):
        gdb.cmd("set $engine = 1")
    assert gdb.cmd("p $engine").strip().endswith("emulator")


@native_loop
def test_the_helper_s_commands_move_the_cpu_and_show_it(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    gdb = start_gdb(v2e_server(), arguments=["-x", str(helper_path())])
    gdb.cmd(f"hbreak *{CALLED:#x}")
    gdb.cmd("continue")
    for who, engine in (("emulate", "emulator"), ("native", "native")):
        gdb.cmd(f"v2e {who}")
        assert gdb.cmd("p $engine").strip().endswith(engine)
    assert "vtx2006" in gdb.cmd("v2e why")


@pytest.mark.slow
@native_loop
def test_with_the_helper_monitor_shows_who_executes_at_once(v2e_server: Callable[..., Server]) -> None:
    who = ("emulate", "native", "emulate")
    typed = [word for name in who for word in (f"monitor {name}", "print $engine")]
    start = (f"target remote {v2e_server().address}", f"hbreak *{CALLED:#x}", *("continue",) * 4)
    answers = console(("-x", str(helper_path())), (*start, *typed))[len(start) :]
    assert [answer.split(" = ")[1] for answer in answers[1::2]] == ["emulator", "native", "emulator"]


@pytest.mark.slow
@pytest.mark.boot(firmware=LOOP)
def test_without_a_hypervisor_there_is_no_engine_to_show(gdb: Gdb) -> None:
    assert "without --hypervisor" in gdb.cmd("monitor native")
    assert "void" in gdb.cmd("p $engine")
