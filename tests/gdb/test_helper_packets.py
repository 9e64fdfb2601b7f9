"""How many packets the helper's search for a caller costs a real gdb. The counts are the same at each run."""

from __future__ import annotations

import re

import pytest

from machines import rom_text
from repl.harness import Gdb

#: A loop that never returns below a stack full of words that lead all over memory, as what BIOS calls have left; it
#: writes a CALL into RAM while it turns. Stepping it from `turn` on takes 5 instructions a turn.
LOOP = rom_text("""
        mov ss, ax
        mov sp, 0x7000
        mov bx, 0x7000
    fill:
        add ax, 0x4d3
        mov [bx], ax
        add bx, 2
        cmp bx, 0x7100
        jb fill
    times 0x40-($-$$) nop
    turn:
        inc ecx
        mov [0x500], ecx
        add ax, cx
        nop
        jmp turn
""")
TURN = 0xF0040
#: A loop in RAM that writes, at a return address that has been on the stack before, the CALL that it is of.
WRITTEN = rom_text("""
        mov ss, ax
        mov sp, 0x7000
        push word 0x8103
        mov cx, end - begin
        mov si, begin
        mov di, 0x8000
        rep cs movsb
        jmp 0:0x8000
    begin:
        mov byte [0x8100], 0xe8
        mov word [0x8101], 0xfefd
        nop
        jmp begin
    end:
""")


def sent(gdb: Gdb, command: str) -> list[str]:
    """What gdb sends for a command."""
    before = len(gdb.packets(1 << 30))
    gdb.cmd(command)
    return [line[3:] for line in gdb.packets(1 << 30)[before:] if line.startswith("w $")]


def to_loop(gdb: Gdb) -> None:
    gdb.cmd(f"tbreak *{TURN:#x}")
    gdb.cmd("continue")
    gdb.cmd("stepi 5")


@pytest.mark.slow
@pytest.mark.boot(firmware=LOOP)
def test_a_step_where_no_caller_is_to_be_found_is_few_packets(helped: Gdb) -> None:
    to_loop(helped)
    packets = sent(helped, "stepi")
    assert len(packets) <= 8, [packet[:20] for packet in packets]
    packets = sent(helped, "stepi 50")
    assert len(packets) <= 50 * 4 + 4, packets
    assert sum(packet.startswith("vCont") for packet in packets) == 50
    assert helped.value("$pc") in range(TURN, TURN + 0x20)


@pytest.mark.boot(firmware=LOOP)
def test_the_first_look_at_a_full_stack_is_few_packets(helped: Gdb) -> None:
    helped.cmd(f"tbreak *{TURN:#x}")
    packets = sent(helped, "continue")
    assert len(packets) <= 20, packets
    assert "f000:0040" in helped.cmd("backtrace")


@pytest.mark.boot(firmware=LOOP)
def test_commands_of_a_breakpoint_are_run_when_the_stop_is_shown_and_once(helped: Gdb) -> None:
    """gdb would run them as soon as the helper executes a command of gdb's in the middle of the stop."""
    to_loop(helped)
    helped.cmd(f"break *{TURN:#x}")
    helped.cmd('python gdb.breakpoints()[-1].commands = "silent\\nset $hits = $hits + 1\\nset $at = $pc"')
    helped.cmd("set $hits = 0")
    for number in range(1, 4):
        packets = sent(helped, "continue")
        assert not any(packet.startswith("qv2e") for packet in packets)
        assert helped.value("$hits") == number
        assert helped.value("$at") == TURN
    helped.cmd("delete")
    assert any(packet.startswith("qv2e") for packet in sent(helped, "stepi 2") + sent(helped, "backtrace"))


@pytest.mark.slow
@pytest.mark.boot(firmware=LOOP)
@pytest.mark.parametrize("point", [f"tbreak *{TURN:#x}", "watch *(int *)0x500"])
def test_commands_of_other_points_are_run_too(helped: Gdb, point: str) -> None:
    to_loop(helped)
    helped.cmd(point)
    helped.cmd('python gdb.breakpoints()[-1].commands = "set $hits = $hits + 1"')
    helped.cmd("set $hits = 0")
    helped.cmd("continue")
    assert helped.value("$hits") == 1


@pytest.mark.slow
@pytest.mark.boot(firmware=LOOP)
def test_a_dprintf_is_stepped_over_with_the_helper(helped: Gdb) -> None:
    to_loop(helped)
    helped.cmd(f'dprintf *{TURN:#x}, "turn %d\\n", $ecx')
    first = helped.value("$ecx")
    helped.cmd("stepi 15")
    assert helped.value("$ecx") == first + 3


@pytest.mark.slow
@pytest.mark.boot(firmware=LOOP)
def test_the_helper_s_questions_leave_no_trace_at_the_prompt(helped: Gdb) -> None:
    to_loop(helped)
    text = helped.cmd("stepi")
    assert "qv2e" not in text and "sending" not in text
    assert re.fullmatch(r"(0x[0-9a-f]+ in .*\n|\s*)*", text), text


@pytest.mark.slow
@pytest.mark.boot(firmware=WRITTEN)
def test_a_guess_sees_what_the_guest_has_written_since_the_step_before(helped: Gdb) -> None:
    helped.cmd("tbreak *0x8000")
    helped.cmd("continue")
    assert "guessed" not in helped.cmd("backtrace")
    helped.cmd("stepi")
    assert "guessed" not in helped.cmd("backtrace")
    helped.cmd("stepi")
    assert "0000:8103 [guessed]" in helped.cmd("backtrace")
    helped.cmd("set {char}0x8100 = 0x90")
    assert "guessed" not in helped.cmd("backtrace")
