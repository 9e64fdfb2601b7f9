"""What a gdb user is told of a stop: places for the breakpoints that gdb numbers, `monitor`'s numbers for the others,
and the same refusal of a device's registers wherever they are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.debugger import BreakKind
from emu.stops import Condition, ConditionFailed
from machines import TIMER_100US, rom
from stub_fakes import GDB_FEATURES
from stub_rig import Rig

#: The place is F0100h: it counts at 500h.
LOOP = rom(
    """
    times 0x100-($-$$) nop
    inc word [0x500]
    jmp 0xf000:0x100
    """
)
PLACE = 0xF0100
BEHIND = 0xF0104
#: Agent expressions: `*(int *)0xfee00000`, a register of the local APIC; and 1.
DEVICE, ONE = "24fee000001927", "220127"


def hooked(code: str) -> str:
    return f"X{len(code) // 2:x},{code}"


@pytest.fixture
def rig(rigs: Callable[..., Rig]) -> Rig:
    made = rigs(LOOP, machine="pc")
    made.ask(GDB_FEATURES + ";error-message+")
    for address in (0x1000, 0x2000):  # so that the stub's numbers are not those of a gdb that begins with 1
        assert made.one(f"Z0,{address:x},1") == b"OK"
    return made


def words(packets: list[bytes]) -> str:
    """What `O` packets say."""
    return "".join(bytes.fromhex(packet[1:].decode()).decode() for packet in packets if packet[:1] == b"O")


def refused(rig: Rig) -> str:
    """What `m` says of the local APIC."""
    return rig.one("mfee00000,4").decode().removeprefix("E.")


def test_a_condition_of_gdbs_that_fails_is_told_by_its_place_and_not_by_a_number(rig: Rig) -> None:
    assert rig.one(f"Z0,{PLACE:x},1;{hooked(DEVICE)}") == b"OK"
    told = words(rig.resume())
    assert told == f"the condition of the breakpoint at 0xf0100 cannot be evaluated: {refused(rig)}\n"
    assert "registers of" in told


def test_commands_of_gdbs_that_fail_are_told_by_their_place(rig: Rig) -> None:
    assert rig.one(f"Z0,{PLACE:x},1;cmds:0,{hooked(DEVICE)}") == b"OK"
    told = words(rig.resume())
    assert told == f"the commands of the breakpoint at 0xf0100 cannot be carried out: {refused(rig)}\n"


def test_a_step_onto_commands_that_fail_says_so(rig: Rig) -> None:
    rig.one(f"Z0,{BEHIND:x},1")
    rig.resume()
    assert rig.one(f"Z0,{PLACE:x},1;cmds:0,{hooked(DEVICE)}") == b"OK"
    console, stop = rig.resume("vCont;s:1;c")
    assert "the commands of the breakpoint at 0xf0100 cannot be carried out: 0xfee00000: " in words([console])
    assert stop.startswith(b"T05")


def test_a_breakpoint_of_monitors_is_told_by_the_number_that_monitor_shows(rig: Rig) -> None:
    point = rig.worker.call(lambda: rig.debugger.add_breakpoint(BreakKind.EXECUTE, PLACE, owner="monitor"))
    assert words(rig.resume()) == f"breakpoint {point.id} of monitor at f000:0100\n"


def test_a_watchpoint_of_monitors_is_told_by_the_number_that_monitor_shows(rig: Rig) -> None:
    point = rig.worker.call(lambda: rig.debugger.add_breakpoint(BreakKind.WRITE, 0x500, 2, owner="monitor"))
    assert words(rig.resume()).startswith(f"watchpoint {point.id} of monitor: wrote 0x1 (2 bytes) at 0x500")


def test_breakpoints_of_several_at_one_place_are_all_told_but_gdbs_own(rig: Rig) -> None:
    assert rig.one(f"Z0,{PLACE:x},1;{hooked(ONE)}") == b"OK"
    for owner in ("monitor", "prompt"):
        rig.worker.call(lambda: rig.debugger.add_breakpoint(BreakKind.EXECUTE, PLACE, owner=owner))  # noqa: B023
    console, stop = rig.resume()
    assert words([console]) == "breakpoint 4 of monitor and 5 of the prompt at f000:0100\n"
    assert b"swbreak:" in stop


def test_a_condition_of_monitors_that_fails_says_it_once(rig: Rig) -> None:
    def fails() -> bool:
        raise ConditionFailed("`[1]` cannot be evaluated: there is no such thing")

    rig.worker.call(
        lambda: rig.debugger.add_breakpoint(
            BreakKind.EXECUTE, PLACE, owner="monitor", condition=Condition("[1]", fails)
        )
    )
    assert words(rig.resume()) == (
        "breakpoint 3 of monitor at f000:0100; `[1]` cannot be evaluated: there is no such thing\n"
    )


def test_a_guest_that_ends_where_commands_fail_is_told_by_both(rigs: Callable[..., Rig]) -> None:
    rig = rigs(rom("cli\nhlt"))
    assert rig.one(f"Z0,f0001,1;cmds:0,{hooked(DEVICE)}") == b"OK"
    rig.resume()
    told = words(rig.resume())
    assert "nothing can wake the CPU" in told
    assert "1: " not in told


def test_memory_that_is_not_there_is_refused_to_a_condition_as_to_a_look(rig: Rig) -> None:
    assert rig.one(f"Z0,{PLACE:x},1;{hooked('24a00000001927')}") == b"OK"
    told = words(rig.resume())
    assert told.endswith(f": {rig.one('ma0000000,4').decode().removeprefix('E.')}\n")
    assert "no memory behind this address" in told


#: Sleeps at F0100h; the tick's handler, at F0200h, goes on with something else.
SCHEDULER = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], 0x200
    mov word [8*4+2], 0xf000
{TIMER_100US}
    sti
    jmp 0xf000:0x100
    times 0x100-($-$$) nop
    hlt
    jmp 0xf000:0x100
    times 0x200-($-$$) nop
    mov sp, 0x6000
    mov al, 0x20
    out 0x20, al
    sti
other:
    hlt
    jmp other
    """
)


def test_a_step_whose_handler_does_not_return_is_told_of_while_it_goes_on(rigs: Callable[..., Rig]) -> None:
    rig = rigs(SCHEDULER)
    rig.one(f"Z0,{PLACE:x},1")
    rig.resume()
    rig.resume("vCont;s:1;c")  # HLT itself
    told = words(rig.resume("vCont;s:1;c"))
    assert told.startswith("the step goes on: no handler has come back to f000:0101 in ")
    assert "(0.5 s of virtual time)" in told
    assert told.endswith("`monitor handlers into` a step stops in a handler instead of running through it\n")
    assert rig.debugger.running
    rig.target.interrupt()
    (stop,) = rig.wait()
    assert stop.startswith(b"T02")  # nothing more was said until then


@pytest.mark.slow
def test_a_client_that_has_gone_is_not_told(rigs: Callable[..., Rig]) -> None:
    rig = rigs(SCHEDULER)
    rig.one(f"Z0,{PLACE:x},1")
    rig.resume()
    rig.resume("vCont;s:1;c")
    rig.worker.call(rig.session.disconnected)
    said = rig.session.data_to_send()
    rig.worker.resume(rig.debugger.begin_step)
    while rig.worker.call(lambda: rig.debugger.virtual_ns) < 1_000_000_000:
        assert rig.worker.wait(0.01) is None
    assert rig.session.data_to_send() == said == b""
