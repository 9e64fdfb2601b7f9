"""The helper at gdb's prompt, where it acts between any two commands: what the user has selected and set stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from gdb_console import console
from machines import protected, rom_text
from repl.harness import Server
from stub.gdb import helper_path

#: A 16-bit protected frame calls a 32-bit one, that another, and that a 16-bit one with a leaf. A ROM at F0000h.
MIXED = rom_text(
    protected(
        "0x18:protected",
        """
        dw 0xffff, 0, 0x9a0f, 0x00cf          ; 08: code32, base F0000h
        dw 0xffff, 0, 0x9200, 0x00cf          ; 10: flat, 32-bit stack
        dw 0xffff, 0, 0x9a0f, 0x0000          ; 18: code16, base F0000h
        """,
    )
    + """
    times 0x80-($-$$) nop
    protected:
        mov ax, 0x10
        mov ds, ax
        mov ss, ax
        mov esp, 0x7000
    again:
        call word near_16                     ; returns to 90h
        jmp again
    times 0x100-($-$$) nop
    near_16:
        call dword 0x08:code_32               ; returns to 108h
        ret
    times 0x140-($-$$) nop
    bits 32
    code_32:
        push ebx
        call near_32                          ; returns to 146h
        pop ebx
        retf
    times 0x180-($-$$) nop
    near_32:
        push esi
        inc dword [0x500]
        call 0x18:code_16                     ; returns to 18Eh
        pop esi
        ret
    times 0x200-($-$$) nop
    bits 16
    code_16:
        push di
        call leaf                             ; returns to 204h
        pop di
        o32 retf
    times 0x240-($-$$) nop
    leaf:
        nop
        ret
"""
)
CODE_32, NEAR_32, LEAF = 0xF0140, 0xF0180, 0xF0240
#: Linear address, width and instruction of each frame at LEAF, innermost first.
FRAMES = (
    (LEAF, 16, "nop"),
    (0xF0204, 16, "pop    %di"),
    (0xF018E, 32, "pop    %esi"),
    (0xF0146, 32, "pop    %ebx"),
    (0xF0108, 16, "ret"),
    (0xF0090, 16, "jmp"),
)
pytestmark = pytest.mark.boot(firmware=MIXED)


class Ask(Protocol):
    """Types commands behind the helper and a connection; what each prints."""

    def __call__(self, *commands: str, arguments: Sequence[str] = ()) -> list[str]: ...


@pytest.fixture
def ask(v2e_server: Callable[..., Server]) -> Ask:
    """gdb with the helper at its prompt, on a machine with MIXED."""

    def typed(*commands: str, arguments: Sequence[str] = ("-x", str(helper_path()))) -> list[str]:
        connect = f"target remote {v2e_server().address}"
        return console(arguments, [connect, *commands])[1:]

    return typed


AT_LEAF = (f"hbreak *{LEAF:#x}", "continue")


def test_up_down_and_frame_hold_in_commands_that_follow(ask: Ask) -> None:
    moves = (("up", 1), ("up", 2), ("up 2", 4), ("down", 3), ("frame 5", 5), ("frame 2", 2), ("down 2", 0))
    follow = ("print $mode", "frame", "x/i $pc", "info registers eip", "print/x $pc")
    answers = ask(*AT_LEAF, *(command for move, _ in moves for command in (move, *follow)))[2:]
    for (move, level), at in zip(moves, range(0, len(answers), len(follow) + 1), strict=True):
        moved, mode, frame, code, eip, pc = answers[at : at + len(follow) + 1]
        linear, width, instruction = FRAMES[level]
        assert moved.startswith(f"#{level} "), move
        assert mode.endswith(f" = {width}"), move
        assert frame.startswith(f"#{level} "), move
        assert f"{linear:#x}" in code and instruction in code, move
        assert f"{linear:#x}" in eip, move
        assert pc.endswith(f"= {linear:#x}"), move


@pytest.mark.slow
def test_a_monitor_command_leaves_the_caller_selected_and_shows_what_it_wrote(ask: Ask) -> None:
    written = ask(*AT_LEAF, "up 2", "print $eax", "monitor set eax=0x4321", "frame", "print/x $eax", "v2e set eax=0x99",
                  "frame", "print/x $eax")  # fmt: skip
    assert written[5].startswith("#2 ")
    assert written[6].endswith("= 0x4321")
    assert written[8].startswith("#2 ")
    assert written[9].endswith("= 0x99")


def test_a_mode_switch_between_two_stops_renews_the_description_and_keeps_points(ask: Ask) -> None:
    before, points, first, inside, decoded, _, second, leaf, listed, hit = ask(
        "show architecture", f"hbreak *{CODE_32:#x}", "continue", "show architecture", "x/2i $pc",
        f"hbreak *{LEAF:#x}", "watch *(int *)0x500", "info breakpoints", "continue", "continue",
    )  # fmt: skip
    assert "i8086" in before
    assert "Hardware assisted breakpoint 1" in points
    assert f"{CODE_32:#010x}" in first
    assert '"i386"' in inside
    assert "push   %ebx" in decoded
    assert "Hardware watchpoint 3" in second
    assert len(re.findall(r"^[123] .* y ", leaf, re.MULTILINE)) == 3
    assert "Hardware watchpoint 3" in listed and "New value" in listed
    assert "Breakpoint 2" in hit and f"{LEAF:#010x}" in hit


@pytest.mark.slow
def test_finish_goes_through_frames_of_both_widths(ask: Ask) -> None:
    steps = [word for _ in FRAMES[1:] for word in ("finish", "print $mode", "x/i $pc", "show architecture")]
    answers = ask(*AT_LEAF, *steps)[2:]
    for (linear, width, instruction), at in zip(FRAMES[1:], range(0, len(answers), 4), strict=True):
        _, mode, code, architecture = answers[at : at + 4]
        assert mode.endswith(f" = {width}")
        assert f"{linear:#x}" in code and instruction in code
        assert ("i8086" if width == 16 else '"i386"') in architecture


@pytest.mark.slow
def test_finish_out_of_a_selected_caller_leaves_all_below_it(ask: Ask) -> None:
    *_, mode, frame = ask(*AT_LEAF, "up 2", "finish", "print $mode", "frame")
    assert mode.endswith(" = 32")
    assert frame.startswith(f"#0  {FRAMES[3][0]:#010x}")


@pytest.mark.slow
def test_nexti_runs_over_calls_of_either_width(ask: Ask) -> None:
    # from NEAR_32: PUSH, INC, the far call into 16-bit code; POP and RET; POP and RETF into 16-bit code
    *_, over, mode, caller, _, outer, place = ask(
        f"tbreak *{NEAR_32:#x}", "continue", "nexti 3", "x/i $pc", "print $mode", "up", "nexti 2", "nexti 2", "x/i $pc"
    )  # fmt: skip
    assert f"{FRAMES[2][0]:#x}" in over
    assert mode.endswith(" = 32")
    assert caller.startswith(f"#1  {FRAMES[3][0]:#010x}")
    assert f"{FRAMES[4][0]:#010x}" in outer
    assert "=> 0xf0108:\tret" in place


@pytest.mark.slow
def test_enter_repeats_the_command_that_switched_modes(ask: Ask) -> None:
    # RETF from 16-bit code at F0205h to 32-bit code at F018Eh is the second `stepi`; Enter is the third.
    *_, mode, place = ask(*AT_LEAF, "delete", "finish", "stepi", "repeat stepi", "print $mode", "x/i $pc")
    assert mode.endswith(" = 32")
    assert "=> 0xf018f:\tret" in place


@pytest.mark.slow
def test_sourced_behind_a_mode_switch_it_renews_the_description_at_once(ask: Ask) -> None:
    answers = ask(f"hbreak *{NEAR_32:#x}", "continue", "show architecture", f"source {helper_path()}",
                  "show architecture", "x/i $pc", arguments=())  # fmt: skip
    assert "i8086" in answers[2]
    assert '"i386"' in answers[4]
    assert "push   %esi" in answers[5]


@pytest.mark.slow
def test_a_description_that_the_user_gave_is_not_taken_away(ask: Ask, tmp_path: Path) -> None:
    own = tmp_path / "own.xml"
    own.write_text(ask("maintenance print xml-tdesc")[0])
    *_, mode, shown = ask(f"set tdesc filename {own}", f"hbreak *{NEAR_32:#x}", "continue", "print $mode",
                          "show tdesc filename")  # fmt: skip
    assert mode.endswith(" = 32")
    assert str(own) in shown


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_behind_monitor_a_hook_of_the_user_s_own_stays(ask: Ask, own: bool, tmp_path: Path) -> None:
    script = tmp_path / "hooks.gdb"
    script.write_text("define hookpost-monitor\necho mine\\n\nend\n" if own else "")
    (answer,) = ask("mon set eax=1", arguments=("-x", str(script), "-x", str(helper_path())))
    assert ("mine" in answer) == own


@pytest.mark.slow
def test_commands_of_a_breakpoint_act_in_the_caller_that_they_select(ask: Ask, tmp_path: Path) -> None:
    script = tmp_path / "commands.gdb"
    script.write_text(f"hbreak *{LEAF:#x}\ncommands\nsilent\nup 2\nprint $mode\nend\n")
    *_, stopped, frame, code = ask(f"source {script}", "continue", "frame", "x/i $pc")
    assert stopped.endswith(" = 32")
    assert frame.startswith("#2 ")
    assert FRAMES[2][2] in code


@pytest.mark.slow
def test_a_trace_frame_of_the_other_width_is_decoded_and_stays_selected(ask: Ask, tmp_path: Path) -> None:
    script = tmp_path / "trace.gdb"
    script.write_text(f"trace *{NEAR_32:#x}\nactions\ncollect $regs\ncollect *(char *){NEAR_32:#x}@16\nend\n")
    start = (f"source {script}", "tstart", f"hbreak *{LEAF:#x}", "continue", "tstop")
    *_, found, mode, code, pc, none, after, here = ask(
        *start, "tfind 0", "print $mode", "x/i $pc", "print/x $pc", "tfind none", "print $mode", "x/i $pc"
    )  # fmt: skip
    assert "Found trace frame 0" in found
    assert mode.endswith(" = 32")
    assert "push   %esi" in code
    assert pc.endswith(f"= {NEAR_32:#x}")
    assert "No longer looking at any trace frame" in none
    assert after.endswith(" = 16")
    assert f"{LEAF:#x}" in here and "nop" in here
