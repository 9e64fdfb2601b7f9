"""What the helper says of the innermost frame while code is stepped, in a real gdb: without asking for anything, and
right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from machines import rom_text
from repl.harness import Gdb, GdbError, Server
from stub.gdb import helper_path

#: A function that is called from two places by turns, with the same stack. The return address stands at 6FFEh.
TWICE = rom_text("""
        mov ss, ax
        mov sp, 0x7000
    again:
        call one
        inc di
        call one
        jmp again
    times 0x40-($-$$) nop
    one:
        inc bx
        push bx
        mov [0x500], bx
        add dx, bx
        dec cx
        pop bx
        inc si
        ret
""")


def sent(gdb: Gdb, command: str) -> list[str]:
    """What gdb sends for a command."""
    before = len(gdb.packets(1 << 30))
    gdb.cmd(command)
    return [line[3:] for line in gdb.packets(1 << 30)[before:] if line.startswith("w $")]


ONE, SLOT = 0xF0040, 0x6FFE
twice = pytest.mark.boot(firmware=TWICE)


def returns_to(gdb: Gdb) -> int:
    """As memory has it."""
    return 0xF0000 + (gdb.value(f"*(unsigned short *){SLOT:#x}") or 0)


def callers(gdb: Gdb) -> int:
    """The linear program counter of frame 1."""
    gdb.cmd("up")
    found = gdb.value("$pc")
    gdb.cmd("down")
    return found


def to_one(gdb: Gdb) -> None:
    gdb.cmd(f"tbreak *{ONE:#x}")
    gdb.cmd("continue")


@twice
def test_steps_within_a_function_are_a_packet_each(helped: Gdb) -> None:
    to_one(helped)
    helped.cmd("stepi 30")
    to_one(helped)
    helped.cmd("stepi")
    packets = sent(helped, "stepi 6")
    steps = [packet for packet in packets if packet.startswith("vCont;s")]
    assert len(steps) == 6
    first, last = packets.index(steps[0]), len(packets) - packets[::-1].index(steps[0])
    assert packets[first:last] == steps


@twice
def test_the_caller_is_the_one_that_the_stack_names_at_each_step(helped: Gdb) -> None:
    to_one(helped)
    found = set()
    for _ in range(40):
        helped.cmd("stepi")
        if helped.value("$pc") >= ONE:
            assert callers(helped) == returns_to(helped)
            found.add(returns_to(helped))
    assert len(found) == 2


@pytest.mark.slow
@twice
def test_a_breakpoint_s_own_python_finds_the_caller_in_the_midst_of_steps(helped: Gdb) -> None:
    to_one(helped)
    for line in (
        "python found, through = [], ('edi', 'eflags')",  # the function has changed one of them
        "python read = lambda: gdb.selected_inferior().read_memory(0x6ffe, 2).tobytes()",
        "python above = lambda: gdb.newest_frame().older()",
        "python values = lambda f: [int(f.read_register(name)) & 0xffff for name in through]",
        "python told = lambda f: (f.pc() - 0xf0000, int(f.read_register('esp')), values(f))",
        "python now = lambda: values(gdb.newest_frame())",
        "python B = type('B', (gdb.Breakpoint,), {'stop': lambda self: found.append((told(above()), read(), now()))})",
        f"python B('*{ONE + 9:#x}', internal=True)",
    ):
        helped.cmd(line)
    said = helped.cmd("stepi 60")
    text = helped.cmd("python print(found)")
    assert "Exception" not in said, said
    seen = eval(text.strip().splitlines()[-1], {"__builtins__": {}})
    assert len(seen) >= 4
    for (pc, sp, through), slot, now in seen:
        assert (pc, sp, through) == (int.from_bytes(slot, "little"), 0x7000, now)
    assert len({pc for (pc, _, _), _, _ in seen}) == 2


@twice
@pytest.mark.parametrize(
    "write",
    [
        f"set {{short}}{SLOT:#x} = %d",
        f"python gdb.selected_inferior().write_memory({SLOT:#x}, (%d).to_bytes(2, 'little'))",
    ],
)
def test_what_is_written_between_two_steps_counts(helped: Gdb, write: str) -> None:
    to_one(helped)
    helped.cmd("stepi 3")
    before = returns_to(helped)
    assert callers(helped) == before
    other = {0xD: 0x11, 0x11: 0xD}[before - 0xF0000]  # behind the other CALL
    helped.cmd(write % other)
    assert returns_to(helped) != before
    if "set" in write:  # else gdb keeps its frames until the guest runs
        assert callers(helped) == returns_to(helped)
    helped.cmd("stepi")
    assert callers(helped) == returns_to(helped) == 0xF0000 + other


@twice
def test_instructions_that_have_retired_are_counted_and_not_to_be_written(helped: Gdb) -> None:
    to_one(helped)
    first = helped.value("$icount")
    helped.cmd("stepi 25")
    assert helped.value("$icount") == first + 25
    with pytest.raises(GdbError, match="cannot be written"):
        helped.cmd("set $icount = 1")
    assert helped.value("$icount") == first + 25
    helped.cmd("up")
    assert "icount" in helped.cmd("info registers system")


#: Calls what was copied to 600h, for ever by turns: one of them loads DS, and the other a general register, by as many
#: bytes.
COPIED = rom_text("""
        mov ss, ax
        mov es, ax
        mov sp, 0x7000
        mov ax, 0x1234
        cld
    again:
        mov si, plain
        call copy
        mov si, loads
        call copy
        jmp again
    copy:
        push cs
        pop ds
        mov di, 0x600
        mov cx, 8
        rep movsb
        call 0:0x600
        ret
    plain:
        nop
        nop
        mov bx, ax
        nop
        nop
        retf
    loads:
        nop
        nop
        mov ds, ax
        nop
        nop
        retf
""")
COPY = 0x600


@pytest.mark.boot(firmware=COPIED)
def test_other_code_where_code_was_stepped_through_before_is_seen(helped: Gdb) -> None:
    found = []
    for _ in range(4):
        helped.cmd(f"tbreak *{COPY:#x}")
        helped.cmd("continue")
        for _ in range(3):
            helped.cmd("stepi")
        helped.cmd("up")
        found.append((helped.value("$ds"), helped.value("$ds_base")))
        helped.cmd("down")
        assert found[-1] == (helped.value("$ds"), helped.value("$ds_base"))
    assert found == [(0xF000, 0xF0000), (0x1234, 0x12340)] * 2


@twice
def test_what_gdb_is_told_to_forget_is_looked_at_anew(helped: Gdb, tmp_path: Path) -> None:
    """gdb tells nobody of memory that `restore` writes, and goes on with the frames that it has: `maintenance flush`
    is its own remedy."""
    to_one(helped)
    helped.cmd("stepi 3")
    other = {0xD: 0x11, 0x11: 0xD}[returns_to(helped) - 0xF0000]
    assert callers(helped) != 0xF0000 + other
    image = tmp_path / "stack"
    image.write_bytes(other.to_bytes(2, "little"))
    helped.cmd(f"restore {image} binary {SLOT:#x}")
    helped.cmd("maintenance flush register-cache")
    assert callers(helped) == 0xF0000 + other


@twice
def test_a_helper_that_is_loaded_at_a_stop_looks_anew_at_it_too(
    v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb], tmp_path: Path
) -> None:
    gdb = start_gdb(v2e_server())
    to_one(gdb)
    gdb.cmd(f"source {helper_path()}")
    before = callers(gdb)
    assert before == returns_to(gdb)
    other = {0xD: 0x11, 0x11: 0xD}[before - 0xF0000]
    image = tmp_path / "stack"
    image.write_bytes(other.to_bytes(2, "little"))
    gdb.cmd(f"restore {image} binary {SLOT:#x}")
    gdb.cmd("maintenance flush register-cache")
    assert callers(gdb) == 0xF0000 + other


@twice
def test_a_frame_of_a_trace_is_not_taken_for_the_stop_of_the_same_instruction(helped: Gdb, tmp_path: Path) -> None:
    script = tmp_path / "trace.gdb"
    script.write_text(f"break *{ONE:#x}\ntrace *{ONE:#x}\nactions\ncollect $regs\nend\ntstart\n")
    helped.cmd(f"source {script}")
    helped.cmd("continue")
    helped.cmd("continue")
    live = callers(helped)
    assert live == returns_to(helped)
    helped.cmd("tstop")
    for frame in (0, 1):
        assert "#1" not in helped.cmd(f"tfind {frame}") + helped.cmd("bt")  # its stack was not collected
    helped.cmd("tfind none")
    assert callers(helped) == live


@twice
def test_a_hook_that_looks_at_a_trace_before_the_stop_is_shown_sees_each_for_itself(
    helped: Gdb, tmp_path: Path
) -> None:
    """gdb runs `hook-stop` before it tells anybody of the stop. The trace has two frames, of an instruction and the
    next, and the guest stands at the second."""
    script = tmp_path / "hook.gdb"
    script.write_text(
        f"""
        trace *{ONE:#x}
        actions
        collect $regs
        while-stepping 1
        collect $regs
        end
        end
        tstart
        python
ways = ("tfind none", "tfind 1", "tfind none", "tfind 0", "tfind 1", "tfind none")
def look(way):
    gdb.execute(way, to_string=True)
    above = gdb.newest_frame().older()
    return int(gdb.parse_and_eval("$icount")), None if above is None else above.pc()
        end
        define hook-stop
        tstop
        python found = [look(way) for way in ways]
        end
        """
    )
    helped.cmd(f"tbreak *{ONE + 1:#x}")
    helped.cmd(f"source {script}")
    said = helped.cmd("continue")
    assert "Error" not in said, said
    seen = eval(helped.cmd("python print(found)").strip().splitlines()[-1], {"__builtins__": {}})
    now, caller = helped.value("$icount"), returns_to(helped)
    live = (now, caller)
    assert seen == [live, (now, None), live, (now - 1, None), (now, None), live]  # a trace's stack was not collected


#: A function that takes its return address off the stack.
TAKES = rom_text("""
        mov ss, ax
        mov sp, 0x7000
    again:
        call one
        inc di
        jmp again
    times 0x40-($-$$) nop
    one:
        inc bx
        nop
        pop bx
        nop
        jmp bx
""")


@pytest.mark.boot(firmware=TAKES)
def test_a_function_that_has_taken_its_return_address_away_has_no_caller_in_the_midst_of_steps(helped: Gdb) -> None:
    for line in (
        "python found = []",
        "python above = lambda f: None if f is None else f.pc()",
        "python look = lambda self: found.append((gdb.newest_frame().pc(), above(gdb.newest_frame().older())))",
        "python B = type('B', (gdb.Breakpoint,), {'stop': look})",
        f"python both = [B(f'*{{{ONE} + at:#x}}', internal=True) for at in (1, 3)]",
    ):
        helped.cmd(line)
    to_one(helped)
    helped.cmd("stepi 12")
    seen = eval(helped.cmd("python print(found)").strip().splitlines()[-1], {"__builtins__": {}})
    assert dict(seen) == {ONE + 1: 0xF000D, ONE + 3: None}


#: Calls what was copied to 600h: once what loads a general register, and then for ever what loads DS. With what, the
#: helper does not foresee: it does not know what ROL gives.
REPLACED = rom_text("""
        mov ss, ax
        mov es, ax
        mov sp, 0x7000
        cld
        mov si, plain
        call copy
    again:
        mov si, loads
        call copy
        jmp again
    copy:
        push cs
        pop ds
        mov ax, 0x4123
        mov di, 0x600
        mov cx, 9
        rep movsb
        call 0:0x600
        ret
    plain:
        nop
        rol ax, 4
        mov bx, ax
        nop
        nop
        retf
    loads:
        nop
        rol ax, 4
        mov ds, ax
        nop
        nop
        retf
""")


@pytest.mark.boot(firmware=REPLACED)
def test_code_that_was_seen_to_be_other_code_at_a_stop_is_read_anew_for_the_steps_that_follow(helped: Gdb) -> None:
    """The instructions are as long as those before. What tells is the caller's DS, in the midst of steps."""
    for _ in range(2):
        helped.cmd(f"tbreak *{COPY:#x}")
        helped.cmd("continue")
        for _ in range(4):
            helped.cmd("stepi")
    assert helped.value("$ds") == 0x1234
    for line in (
        "python found, ds = [], lambda frame: str(frame.read_register('ds'))",
        "python look = lambda self: found.append((ds(gdb.newest_frame().older()), ds(gdb.newest_frame())))",
        "python B = type('B', (gdb.Breakpoint,), {'stop': look})",
        f"tbreak *{COPY:#x}",
        "continue",
        f"python B('*{COPY + 6:#x}', internal=True)",
        "stepi 5",
    ):
        helped.cmd(line)
    assert eval(helped.cmd("python print(found)").strip().splitlines()[-1], {"__builtins__": {}}) == [("4660", "4660")]


#: Calls what was copied to 600h, by turns of instructions of one byte and of three.
LENGTHS = COPIED.replace("nop\n        nop\n        mov ds, ax\n        nop\n        nop", "times 6 add bx, 5")
LENGTHS = LENGTHS.replace("mov cx, 8", "mov cx, 24").replace("nop\n        nop\n        mov bx, ax", "times 18 nop")


@pytest.mark.boot(firmware=LENGTHS)
def test_steps_in_code_that_has_replaced_other_code_are_a_packet_each_again(helped: Gdb) -> None:
    for _ in range(2):
        helped.cmd(f"tbreak *{COPY:#x}")
        helped.cmd("continue")
        helped.cmd("stepi")
        packets = sent(helped, "stepi 4")
        helped.cmd(f"x/2i {COPY:#x}")
    steps = [at for at, packet in enumerate(packets) if packet.startswith("vCont;s")]
    assert steps[3] - steps[1] == 2, packets  # behind the first one the code is read
