"""Tracepoints of a real gdb: what is collected is what was there, and the run is the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.firmware import tour
from gdb_batch import batch
from machines import rom_text
from repl.harness import Gdb, GdbError, Server
from stub.gdb import helper_path

#: A boot ROM: a loop that counts at 500h and calls what counts at 502h.
LOOP = rom_text("""
        mov ss, ax
        mov sp, 0x1000
    again:
        inc word [0x500]
        mov ax, [0x500]
        call work
        jmp again
    times 0x100-($-$$) nop
    work:
        inc word [0x502]
        ret
""")
AGAIN, WORK = 0xF000A, 0xF0100
COUNTS = "*(short *)0x500@2"
boot_loop = pytest.mark.boot(firmware=LOOP)


def act(gdb: Gdb, folder: Path, number: int, *lines: str) -> None:
    """The command `actions`, whose lines gdb reads from where it was typed."""
    script = folder / "actions.gdb"
    script.write_text("\n".join((f"actions {number}", *lines, "end", "")))
    gdb.cmd(f"source {script}")


def run_to(gdb: Gdb, count: int) -> None:
    """Until so many rounds are done, with all of them traced."""
    gdb.cmd(f"tbreak *{AGAIN:#x} if *(short *)0x500 == {count}")
    gdb.cmd("continue")


@boot_loop
def test_frames_show_registers_memory_and_variables_of_their_moment(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd("tvariable $calls = 5")
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, "collect $regs", f"collect {COUNTS}", "teval $calls = $calls + 1", "collect $calls")
    gdb.cmd("tstart")
    assert "Trace is running on the target" in gdb.cmd("tstatus")
    run_to(gdb, 10)
    gdb.cmd("tstop")
    text = gdb.cmd("tstatus")
    assert "Trace stopped by a tstop command" in text
    assert "Collected 10 trace frames" in text
    for frame in (0, 9, 4):
        assert f"Found trace frame {frame}, tracepoint 1" in gdb.cmd(f"tfind {frame}")
        assert gdb.value("$eax") == frame + 1
        assert gdb.value("$eip") == WORK
        assert gdb.value("$ip") == 0x100
        assert gdb.cmd(f"output {COUNTS}") == f"{{{frame + 1}, {frame}}}"
        assert gdb.value("$calls") == frame + 6
    dump = gdb.cmd("tdump")
    assert "Data collected at tracepoint 1, trace frame 4" in dump
    assert f"{COUNTS} = {{5, 4}}" in dump.replace("  ", " ")
    assert "<unavailable>" in gdb.cmd("x/hx 0x600")
    with pytest.raises(GdbError, match="while looking at trace frames"):
        gdb.cmd("continue")
    with pytest.raises(GdbError, match="cannot be changed"):
        gdb.cmd("set $eax = 1")


@boot_loop
def test_tfind_goes_through_all_frames_and_back_and_none_leaves_them(gdb: Gdb, tmp_path: Path) -> None:
    with pytest.raises(GdbError, match="failed to find requested trace frame"):
        gdb.cmd("tfind")
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, "collect $eax", f"collect {COUNTS}")
    gdb.cmd("tstart")
    run_to(gdb, 3)
    with pytest.raises(GdbError, match="while trace is running"):
        gdb.cmd("tfind")
    gdb.cmd("tstop")
    shown = [(gdb.cmd(command), gdb.cmd("tdump")) for command in ("tfind", "tfind", "tfind")]
    for frame, (found, dump) in enumerate(shown):
        assert found == f"Found trace frame {frame}, tracepoint 1\n#0  {WORK:#010x} in ?? ()\n"
        assert dump == (
            f"Data collected at tracepoint 1, trace frame {frame}:\n"
            f"$eax = {frame + 1}\n{COUNTS} = {{{frame + 1}, {frame}}}\n"
        )
    with pytest.raises(GdbError, match="failed to find requested trace frame"):
        gdb.cmd("tfind")
    assert gdb.value("$trace_frame") == 2, "the last one is still looked at"
    assert "Found trace frame 1, tracepoint 1" in gdb.cmd("tfind -")
    assert "Found trace frame 0, tracepoint 1" in gdb.cmd("tfind -")
    with pytest.raises(GdbError, match="already at start of trace buffer"):
        gdb.cmd("tfind -")
    for leave, enter in (("tfind none", "tfind 2"), ("tfind end", "tfind start"), ("tfind none", "tfind 1")):
        assert gdb.cmd(leave) == f"No longer looking at any trace frame\n#0  {AGAIN:#010x} in ?? ()\n"
        assert gdb.value("$trace_frame") == -1
        assert gdb.value("$eip") == AGAIN
        assert gdb.cmd(f"output {COUNTS}") == "{3, 3}"
        with pytest.raises(GdbError, match="No current trace frame"):
            gdb.cmd("tdump")
        assert "Found trace frame" in gdb.cmd(enter)
    gdb.cmd("tfind none")
    gdb.cmd("stepi")
    assert gdb.value("*(short *)0x500") == 4
    assert "Found trace frame 0, tracepoint 1" in gdb.cmd("tfind"), "the first one again"
    gdb.cmd("tfind none")
    gdb.cmd("tstart")
    assert "Collected 0 trace frames" in gdb.cmd("tstatus")
    run_to(gdb, 5)
    gdb.cmd("tstop")
    assert "Found trace frame 0, tracepoint 1" in gdb.cmd("tfind")
    assert gdb.cmd(f"output {COUNTS}") == "{4, 3}"


#: How gdb shows a buffer of 16 MiB that has hardly anything in it.
BUFFER = "Trace buffer has {free} bytes of 16777216 bytes free (0% full).\n"


@boot_loop
def test_tstatus_says_what_goes_on_and_why_it_ended(gdb: Gdb, tmp_path: Path) -> None:
    before = gdb.cmd("tstatus")
    assert before.startswith("No trace has been run on the target.\nCollected 0 trace frames.\n")
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, "collect *(short *)0x500")
    gdb.cmd("set trace-notes the counter")
    gdb.cmd("set trace-user somebody")
    gdb.cmd("tstart")
    said = ("Trace will stop if GDB disconnects.\n", "Not looking at any trace frame.\n")
    running = gdb.cmd("tstatus")
    assert running.startswith(
        "Trace is running on the target.\nCollected 0 trace frames.\n" + BUFFER.format(free=16777216) + said[0]
    )
    assert "Trace user is somebody.\n" in running
    assert "Trace notes: the counter.\n" in running
    run_to(gdb, 3)
    assert "Collected 3 trace frames.\n" in gdb.cmd("tstatus")
    gdb.cmd("tstop")
    stopped = gdb.cmd("tstatus")
    (free,) = re.findall(r"Trace buffer has (\d+) bytes", stopped)
    assert stopped.startswith(
        "Trace stopped by a tstop command ().\nCollected 3 trace frames.\n" + BUFFER.format(free=free) + said[0]
    )
    assert 16777216 - 3 * 100 < int(free) < 16777216 - 3 * 2
    assert said[1] in stopped
    gdb.cmd("tfind 2")
    assert "Looking at trace frame 2, tracepoint 1.\n" in gdb.cmd("tstatus")
    gdb.cmd("tfind none")
    assert said[1] in gdb.cmd("tstatus")
    gdb.cmd("passcount 2 1")
    gdb.cmd("tstart")
    run_to(gdb, 9)
    assert gdb.cmd("tstatus").startswith("Trace stopped by tracepoint 1.\nCollected 2 trace frames.\n")
    gdb.cmd("passcount 0 1")
    gdb.cmd("set trace-buffer-size 60")
    gdb.cmd("tstart")
    run_to(gdb, 20)
    assert gdb.cmd("tstatus").startswith("Trace stopped because the buffer was full.\n")
    gdb.cmd("set trace-buffer-size -1")
    gdb.cmd("set trace-stop-notes enough")
    gdb.cmd("tstart")
    gdb.cmd("tstop")
    assert gdb.cmd("tstatus").startswith("Trace stopped by a tstop command (enough).\n")


@boot_loop
def test_gdb_learns_from_the_frame_s_document_what_it_need_not_ask_for(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, "collect $regs", f"collect {COUNTS}")
    gdb.cmd("tstart")
    run_to(gdb, 3)
    gdb.cmd("tstop")
    assert "Looking at trace frame" not in gdb.cmd("tstatus")
    gdb.cmd("tfind 1")
    assert "Looking at trace frame 1, tracepoint 1" in gdb.cmd("tstatus")
    gdb.cmd("set debug remote 1")
    assert "{2, 1, <unavailable>, <unavailable>}" in gdb.cmd("output *(short *)0x500@4")
    assert "<unavailable>" in (text := gdb.cmd("x/4xb 0x600"))
    gdb.cmd("set debug remote 0")
    assert not re.search(r"Sending packet: \$[mx]600,", text), "what was not collected is asked for"


@pytest.mark.slow
@boot_loop
def test_conditions_pass_counts_and_searches(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x} if *(short *)0x500 % 3 == 0")
    act(gdb, tmp_path, 1, "collect $eax")
    gdb.cmd(f"trace *{AGAIN:#x}")
    act(gdb, tmp_path, 2, "collect *(short *)0x502")
    gdb.cmd("passcount 7 2")
    gdb.cmd("tstart")
    run_to(gdb, 30)
    assert "Trace stopped by tracepoint 2" in gdb.cmd("tstatus")
    text = gdb.cmd("info tracepoints")
    assert "already hit 2 times" in text
    assert "already hit 7 times" in text
    assert "Found trace frame 3, tracepoint 1" in gdb.cmd(f"tfind pc {WORK:#x}")
    assert gdb.value("$eax") == 3
    assert "Found trace frame 7, tracepoint 1" in gdb.cmd("tfind tracepoint 1")
    assert gdb.value("$eax") == 6
    assert "tracepoint 2" in gdb.cmd(f"tfind outside {WORK:#x}, {WORK + 1:#x}")
    assert gdb.value("*(short *)0x502") == 6
    with pytest.raises(GdbError, match="failed to find requested trace frame"):
        gdb.cmd(f"tfind range {WORK:#x}, {WORK + 1:#x}")


@pytest.mark.slow
@boot_loop
def test_stepping_and_stops_change_nothing_of_what_is_collected(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, f"collect {COUNTS}")
    gdb.cmd("tstart")
    gdb.cmd(f"break *{WORK:#x}")
    gdb.cmd("continue")
    gdb.cmd("stepi 11")
    for _ in range(7):
        gdb.cmd("stepi")
    gdb.cmd("continue")
    gdb.cmd("watch *(short *)0x502")
    for _ in range(3):
        gdb.cmd("continue")
    gdb.cmd("delete 2-3")
    run_to(gdb, 12)
    gdb.cmd("tstop")
    for frame in range(12):
        gdb.cmd(f"tfind {frame}")
        assert gdb.cmd(f"output {COUNTS}") == f"{{{frame + 1}, {frame}}}"
    with pytest.raises(GdbError, match="failed to find"):
        gdb.cmd("tfind 12")


@pytest.mark.slow
@boot_loop
def test_a_saved_trace_is_read_without_the_machine(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x}")
    act(gdb, tmp_path, 1, "collect $regs", f"collect {COUNTS}")
    gdb.cmd("tstart")
    run_to(gdb, 5)
    gdb.cmd("tstop")
    saved = tmp_path / "trace"
    assert "Trace data saved" in gdb.cmd(f"tsave {saved}")
    text = batch(
        f"target tfile {saved}", "tstatus", "tfind 3", "info registers eax ip", f"print {COUNTS}", "tfind none",
        "info tracepoints",
    )  # fmt: skip
    assert "Collected 5 trace frames" in text
    assert "eax            0x4" in text
    assert "ip             0x100" in text
    assert "$1 = {4, 3}" in text
    assert "No longer looking at any trace frame" in text
    assert "collect $regs" in text


@pytest.mark.slow
@boot_loop
def test_a_trace_goes_on_without_its_client_if_that_is_asked_for(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], tmp_path: Path
) -> None:
    server = v2e_server()
    first = start_gdb(server)
    first.cmd("set disconnected-tracing on")
    first.cmd("set circular-trace-buffer on")
    first.cmd("set trace-buffer-size 1000")
    first.cmd("set trace-notes the loop")
    first.cmd(f"trace *{WORK:#x} if *(short *)0x500 > 2")
    act(first, tmp_path, 1, "collect $eax", f"collect {COUNTS}")
    first.cmd("tstart")
    run_to(first, 20)
    first.cmd("monitor detach stop")
    first.cmd("detach")
    second = start_gdb(server)
    text = second.cmd("tstatus")
    assert "Trace is running on the target" in text
    assert "Trace notes: the loop" in text
    assert "Trace buffer is circular" in text
    text = second.cmd("info tracepoints")
    assert "trace only if *(short *)0x500 > 2" in text
    assert f"collect {COUNTS}" in text
    second.cmd(f"tbreak *{AGAIN:#x} if *(short *)0x500 == 30")
    second.cmd("continue")
    second.cmd("tstop")
    second.cmd("tfind start")
    assert second.cmd(f"output {COUNTS}") == "{30, 29}"  # one frame has room, and the newest is kept


@pytest.mark.slow
@boot_loop
def test_while_stepping_collects_the_instructions_behind_a_hit(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x} if *(short *)0x500 % 4 == 0")
    act(gdb, tmp_path, 1, f"collect {COUNTS}", "while-stepping 5", "collect $eax", f"collect {COUNTS}", "end")
    gdb.cmd("tstart")
    gdb.cmd(f"break *{AGAIN:#x}")  # stops and steps within the steps make no difference
    for _ in range(4):
        gdb.cmd("continue")
    gdb.cmd("stepi 9")
    gdb.cmd("delete 2")
    run_to(gdb, 9)
    gdb.cmd("tstop")
    assert "Collected 12 trace frames" in gdb.cmd("tstatus")
    # inc, ret, jmp, inc, mov
    places = [WORK, WORK + 4, AGAIN + 10, AGAIN, AGAIN + 4, AGAIN + 7]
    for round, count in enumerate((4, 8)):
        for step, place in enumerate(places):
            gdb.cmd(f"tfind {6 * round + step}")
            assert gdb.value("$eip") == place
            assert gdb.cmd(f"output {COUNTS}") == f"{{{count + (step >= 4)}, {count - (step == 0)}}}"
            if step:
                assert gdb.value("$eax") == count + (step == 5)
    assert f"{COUNTS} = {{9, 8}}" in gdb.cmd("tdump").replace("  ", " ")
    gdb.cmd("tfind start")
    assert "Found trace frame 3, tracepoint 1" in gdb.cmd(f"tfind pc {AGAIN:#x}")
    saved = tmp_path / "trace"
    gdb.cmd(f"tsave {saved}")
    text = batch(f"target tfile {saved}", "tfind 11", "info registers eip", "info tracepoints")
    assert f"{places[5]:#x}" in text
    assert "while-stepping 5" in text


@pytest.mark.slow
@boot_loop
def test_a_tracepoint_set_while_the_trace_runs_takes_part(gdb: Gdb, tmp_path: Path) -> None:
    gdb.cmd(f"trace *{WORK:#x}")
    gdb.cmd("tstart")
    run_to(gdb, 3)
    gdb.cmd(f"trace *{AGAIN:#x}")
    gdb.cmd("disable 1")
    run_to(gdb, 6)
    gdb.cmd("tstop")
    gdb.cmd("tstatus")
    text = gdb.cmd("info tracepoints")
    assert text.count("already hit 3 times") == 2


@pytest.mark.slow
def test_a_frame_is_decoded_as_the_mode_in_which_it_was_collected(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], tmp_path: Path
) -> None:
    """With the helper, on the tour through all modes; gdb's architecture is 16-bit code's all along."""
    places = {stop.name: stop.linear for stop in tour.stops()}
    gdb = start_gdb(v2e_server(), arguments=["-x", str(helper_path())])
    modes = {"pm32": ("mov    $0x10,%eax", 32), "long64": ("mov    $0x10,%ax", 64)}
    for number, name in enumerate(modes, 1):
        gdb.cmd(f"trace *{places[name]:#x}")
        act(gdb, tmp_path, number, "collect $regs", f"collect *(unsigned char *){places[name]:#x}@12")
    gdb.cmd("tstart")
    gdb.cmd(f"hbreak *{places['real-again']:#x}")
    gdb.cmd("continue")
    gdb.cmd("tstop")
    for frame, (text, width) in enumerate(modes.values()):
        assert "Python Exception" not in gdb.cmd(f"tfind {frame}")
        assert gdb.value("$mode") == width
        assert text in gdb.cmd("x/i $pc")
    assert gdb.value("$efer") & 0x500 == 0x500
