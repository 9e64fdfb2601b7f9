"""A real gdb's conditions, `dprintf` and commands, evaluated in the stub: gdb's own evaluation is the oracle."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import pytest

from gdb_batch import batch
from machines import rom_text
from repl.harness import Gdb, Server

#: Counts in CX and at 500h, and puts functions of both into other registers.
COUNTER = rom_text("""
        mov ss, ax
        mov sp, 0x1000
        mov ecx, 0xfffffffb
    again:
        inc ecx
        mov [0x500], ecx
        mov eax, ecx
        imul eax, 0x12345677
        mov edx, eax
        neg edx
    times 0x100-($-$$) nop
    here:
        nop
        jmp again
""")
HERE = 0xF0100
counting = pytest.mark.boot(firmware=COUNTER)


@counting
def test_a_condition_is_evaluated_in_the_stub(gdb: Gdb) -> None:
    gdb.cmd("set breakpoint condition-evaluation target")
    gdb.cmd(f"break *{HERE:#x} if $ecx == 20 || *(int *)0x500 == 40")
    for expected in (20, 40):
        assert "Breakpoint 1, " in gdb.cmd("continue")
        assert gdb.value("$ecx") == expected
    assert "(target evals)" in gdb.cmd("info breakpoints")
    gdb.cmd("condition 1 $ecx == 50")
    gdb.cmd("continue")
    assert gdb.value("$ecx") == 50
    gdb.cmd("condition 1")
    gdb.cmd("continue")
    assert gdb.value("$ecx") == 51


@pytest.mark.slow
@counting
def test_an_unconditional_breakpoint_at_the_same_address_stops_always(gdb: Gdb) -> None:
    gdb.cmd(f"break *{HERE:#x} if $ecx == 1000")
    gdb.cmd(f"break *{HERE:#x}")
    gdb.cmd("continue")
    assert gdb.value("$ecx") == -4


@pytest.mark.slow
@counting
def test_a_condition_that_cannot_be_evaluated_stops_there_and_says_why(gdb: Gdb) -> None:
    gdb.cmd("set breakpoint condition-evaluation target")
    gdb.cmd("break *0x1000")  # gdb's numbers are not the stub's
    gdb.cmd(f"break *{HERE:#x} if *(int *)0xa0000000 == 1 || 7 / ($ecx - $ecx)")
    text = gdb.cmd("continue")
    assert f"the condition of the breakpoint at {HERE:#x} cannot be evaluated: " in text
    assert text.index("cannot be evaluated") < text.index("Breakpoint 2, ")


def _expressions(count: int) -> list[str]:
    """C expressions over registers and memory, from a fixed seed."""
    chance = random.Random(20)
    leaves = (
        "$ecx", "$eax", "$edx", "(int)$esp", "(int)$cs_base", "*(int *)0x500", "*(unsigned char *)0x501", "(short)$eax",
        "*(unsigned short *)((int)$esp - 0xb00)", "(unsigned char)$edx", "5", "-3", "0x7fffffff", "1000000007LL",
    )  # fmt: skip

    def make(depth: int) -> str:
        if depth == 0 or chance.random() < 0.15:
            return chance.choice(leaves)
        kind = chance.random()
        if kind < 0.15:
            return f"({chance.choice(('-', '~', '!'))}{make(depth - 1)})"
        if kind < 0.25:
            return f"({make(depth - 1)} ? {make(depth - 1)} : {make(depth - 1)})"
        if kind < 0.35:
            return f"({make(depth - 1)} {chance.choice(('>>', '<<'))} {chance.randrange(1, 31)})"
        if kind < 0.45:
            return f"({make(depth - 1)} {chance.choice(('/', '%'))} {chance.choice((3, 7, 1000))})"
        operator = chance.choice(("+", "-", "*", "&", "|", "^", "==", "!=", "<", ">", "<=", ">=", "&&", "||"))
        return f"({make(depth - 1)} {operator} {make(depth - 1)})"

    return [make(3) for _ in range(count)]


@pytest.mark.slow
@counting
def test_random_expressions_have_the_values_that_gdb_gives_them(v2e_server: Callable[..., Server]) -> None:
    expressions = list(enumerate(_expressions(60)))
    text = batch(
        f"target remote {v2e_server().address}",
        "set dprintf-style agent",
        f"break *{HERE - 101:#x} if $ecx == 9",
        "continue",
        "delete 1",
        *(f'printf "[{number}=%d]", (int)({expression})' for number, expression in expressions),
        *(
            f'dprintf *{HERE - 100 + number:#x},"<{number}=%d>",(int)({expression})'
            for number, expression in expressions
        ),
        f"break *{HERE + 1:#x}",
        "continue",
    )
    expected = dict(re.findall(r"\[(\d+)=(-?\d+)\]", text))
    printed = dict(re.findall(r"<(\d+)=(-?\d+)>", text))
    assert len(expected) == 60
    assert printed == {number: expected[number] for number in printed}
    assert len(printed) > 40  # gdb 13 cannot compile all that it can evaluate


@pytest.mark.slow
@counting
def test_dprintf_in_agent_style_prints_and_runs_on(v2e_server: Callable[..., Server]) -> None:
    text = batch(
        f"target remote {v2e_server().address}", "set dprintf-style agent",
        f'dprintf *{HERE:#x},"count %d\\n", $ecx', f"break *{HERE + 1:#x} if $ecx == 3", "continue",
    )  # fmt: skip
    assert [int(n) for n in re.findall(r"count (-?\d+)", text)] == [-4, -3, -2, -1, 0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["behind a breakpoint", "by steps"])
@counting
def test_dprintf_in_agent_style_prints_where_a_step_ends_too(v2e_server: Callable[..., Server], before: bool) -> None:
    """gdb leaves a breakpoint by a step, which may end at the dprintf's instruction."""
    go = [f"break *{HERE - 1:#x}", *["continue"] * 5]
    if not before:
        go = [f"tbreak *{HERE - 1:#x}", "continue", "stepi"] * 4
    text = batch(
        f"target remote {v2e_server().address}", "set dprintf-style agent",
        f'dprintf *{HERE:#x},"count %d\\n", $ecx', *go,
    )  # fmt: skip
    assert [int(n) for n in re.findall(r"count (-?\d+)", text)][:4] == [-4, -3, -2, -1]


@pytest.mark.slow
@counting
def test_what_monitor_has_set_goes_with_the_client(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    """Nobody else could take it away, and it would stop a guest that nobody looks at."""
    server = v2e_server()
    first = start_gdb(server)
    first.cmd("monitor catch port 80h")
    first.cmd(f"monitor break {HERE:#x}")
    assert first.cmd("monitor breaks").count("by monitor") == 2
    listed = first.cmd("monitor help")
    assert "catch EVENT" in listed and "  continue" not in listed and "  step" not in listed
    first.cmd("monitor detach stop")
    first.cmd("detach")
    assert "monitor" not in start_gdb(server).cmd("monitor breaks")


#: From a breakpoint of the prompt's sort to what gdb's person reads.
WORDS = (
    ("catch port 80h", r"Catch \d+ of monitor: OUT of 0x5a to port 0x80 \(1 byte\); now at f000:0004"),
    ("catch int 21h", r"INT 0x21 at f000:0104; now at f000:0200"),
    ("catch exception de", r"exception #DE at f000:0108; now at f000:0300"),
    ("catch exception bp", r"exception #BP at f000:010e; now at f000:0200"),
    ("catch int 3", r"INT 0x03 at f000:010f; now at f000:0200"),
    ("catch physical 0xf0104", r"execution at physical 0xf0104; now at f000:0104"),
    ("catch magic", r"about to execute xchg bx, bx; now at f000:010c"),
    ("catch insns 3", r"3 instructions retired; now at"),
)

TALKING = """
    bits 16
    org 0
    start:
        mov al, 0x5a
        out 0x80, al
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
        mov word [0x21*4], 0x200
        mov word [0x21*4+2], 0xf000
        mov word [0xc], 0x200
        mov word [0xe], 0xf000
        mov word [0], 0x300
        mov word [2], 0xf000
        jmp 0x100
    times 0x100-($-$$) nop
        mov ax, 1
        nop
        int 0x21
        xor cx, cx
        div cx
        nop
        nop
        xchg bx, bx
        int3
        db 0xcd, 3
        cli
        hlt
    times 0x200-($-$$) nop
        iret
    times 0x300-($-$$) nop
        add sp, 6
        jmp 0x10c
    times 0xfff0-($-$$) db 0xf4
        jmp 0xf000:start
    times 0x10000-($-$$) db 0
    """


@pytest.mark.slow
@pytest.mark.boot(firmware=TALKING)
def test_events_are_told_to_gdb_in_words(gdb: Gdb) -> None:
    for command, words in WORDS:
        gdb.cmd("monitor reset")
        gdb.cmd(f"monitor {command}")
        text = gdb.cmd("continue")
        assert re.search(words, text, re.IGNORECASE), (command, text)
        assert "SIGTRAP" in text
        assert "catch" in gdb.cmd("monitor breaks")
        gdb.cmd("monitor delete")


@pytest.mark.slow
@counting
def test_the_prompt_s_condition_holds_for_its_breakpoint_under_gdb(gdb: Gdb) -> None:
    gdb.cmd(f"monitor break {HERE:#x} if ecx == 30 && dword [0x500] == 30")
    gdb.cmd("continue")
    assert gdb.value("$ecx") == 30
    gdb.cmd("monitor delete")
    gdb.cmd(f"monitor break {HERE:#x} if [0xa0000000] == 1")
    assert "cannot be evaluated: cannot read" in gdb.cmd("continue")


@pytest.mark.slow
@counting
def test_ctrl_c_gets_through_where_a_hundred_slow_conditions_take_all_the_time(gdb: Gdb) -> None:
    """One place, met each 8 instructions, whose conditions load 40 words each and never hold: a hit takes the stub some
    tens of milliseconds, the guest's own instructions nothing."""
    words = " + ".join(["*(int *)0x500"] * 40)
    for number in range(100):
        gdb.cmd(f"break *{HERE:#x} if {words} == {40 * 0x1000000 + number + 1}")
    gdb.cmd("set remotetimeout 10")
    turns = []
    for _ in range(3):
        gdb.start("continue")
        while not any("w $vCont;c" in line for line in gdb.packets(2)):  # gdb puts the conditions into bytecode first
            time.sleep(0.05)
        time.sleep(0.5)
        begin = time.monotonic()
        gdb.interrupt()
        assert "SIGINT" in gdb.wait_stop()
        assert time.monotonic() - begin < 5
        turns.append(gdb.value("$ecx"))
        assert gdb.value("*(int *)0x500") in (turns[-1], turns[-1] - 1)
        assert gdb.cmd("print 40 + 2").strip().endswith("42")
    assert turns == sorted(set(turns)), "the guest gets on"
    assert "already hit" not in gdb.cmd("info breakpoints")
    gdb.cmd(f"condition 100 $ecx == {turns[-1] + 5}")
    assert "Breakpoint 100, " in gdb.cmd("continue")
    assert gdb.value("$ecx") == turns[-1] + 5
