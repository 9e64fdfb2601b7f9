"""A look ahead writes to no device; what a write would end, and with it the run or this life of the CPU, is told as an
end of the look, and is no guest that gets nowhere."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.stops import StopKind
from machines import debugger, rom

#: What a guest does before it halts for good, and what is said of that.
WRITES = {
    "the debug exit": ("mov al, 3\nout 0xf4, al", "ends the run with code 3"),
    "the debug exit, by two bytes": ("mov ax, 0x0700\nmov dx, 0xf3\nout dx, ax", "ends the run with code 7"),
    "port 92h": ("mov al, 1\nout 0x92, al", "resets the CPU"),
    "a pulse of the keyboard controller's": ("mov al, 0xfe\nout 0x64, al", "resets the CPU"),
    "its output port": (  # which takes a byte when it has looked at the one before
        "mov al, 0xd1\nout 0x64, al\nw: in al, 0x64\ntest al, 2\njnz w\nmov al, 0xde\nout 0x60, al",
        "resets the CPU",
    ),
    "port CF9h, the CPU": ("mov dx, 0xcf9\nmov al, 4\nout dx, al", "resets the CPU"),
    "port CF9h": ("mov dx, 0xcf9\nmov al, 2\nout dx, al\nmov al, 6\nout dx, al", "resets the system"),
}
#: The same, of writes that end nothing.
OTHERS = {
    "A20 by port 92h": "mov al, 2\nout 0x92, al",
    "A20 by the output port": "mov al, 0xd1\nout 0x64, al\nmov al, 0xdf\nout 0x60, al",
    "a command byte": "mov al, 0x60\nout 0x64, al\nmov al, 0xde\nout 0x60, al",
    "a command that ends the one before": "mov al, 0xd1\nout 0x64, al\nmov al, 0xff\nout 0x64, al\nmov al, 0xde\n"
    "out 0x60, al",
    "the kind of reset": "mov dx, 0xcf9\nmov al, 2\nout dx, al",
    "the next port": "mov al, 3\nout 0xf5, al",
}


def stand(source: str, instructions: int = 3_000) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    return run


@pytest.mark.parametrize(("write", "told"), WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("before", ["sti\nhlt\ncli\n", ""], ids=["behind a HLT", "at once"])
def test_a_write_that_ends_the_run_or_resets_is_where_the_look_ends(write: str, told: str, before: str) -> None:
    """The HLT with interrupts off behind it is never come to."""
    run = stand(f"times 200 nop\n{before}{write}\nhlt", 100)
    view = run.why_stuck()
    assert (view.verdict, view.stuck) == ("moves", False), view
    assert view.summary.endswith(told), view
    run.machine.close()


def test_a_delay_before_the_end_is_told_as_a_delay() -> None:
    assert stand("mov cx, 50000\nd: loop d\nmov al, 3\nout 0xf4, al\nhlt").why_stuck().verdict == "counts"


@pytest.mark.parametrize(("write", "told"), WRITES.values(), ids=WRITES)
def test_the_machine_does_what_the_look_ahead_says(write: str, told: str) -> None:
    again = "cmp word [0x500], 0x55aa\nje again\nmov word [0x500], 0x55aa\n"
    run = debugger(
        rom(f"{again}{write}\nmov cx, 30000\nd: loop d\ncli\nhlt\nagain: mov al, 0x77\nout 0xe9, al\ncli\nhlt")
    )
    run.set_limit(200_000)
    run.begin_continue()
    stop = run.run()
    if told.startswith("ends"):
        assert (stop.kind, f"ends the run with code {stop.exit_code}") == (StopKind.EXIT, told)
    else:
        assert run.machine.debugcon_text() == "w", stop.text
    run.machine.close()


@pytest.mark.parametrize("write", OTHERS.values(), ids=OTHERS)
def test_other_writes_are_no_end(write: str) -> None:
    """The HLT behind them is."""
    view = stand("times 200 nop\n" + write + "\nhlt", 100).why_stuck()
    assert view.verdict == "ended" and "HLT before" in view.summary, view


def test_a_power_off_and_an_smi_are_ends_of_the_look() -> None:
    """PM I/O at B000h, as PCI configuration space of 00:01.3 says (82371AB data sheet); nothing has set SMM up."""
    base = """
        mov dx, 0xcf8
        mov eax, 0x80000b00 + {register:#x}
        out dx, eax
        mov dx, 0xcfc
        mov eax, {value:#x}
        out dx, eax
    """
    write = "".join(base.format(register=r, value=v) for r, v in ((0x40, 0xB001), (0x80, 1), (0x58, 1 << 25)))
    for then, told in (("mov dx, 0xb004\nmov ax, 0x2000\nout dx, ax", "turns the power off"),
                       ("mov dx, 0xb2\nmov al, 0x12\nout dx, al", "enters system management mode")):  # fmt: skip
        config = MachineConfig(machine="pc", memory=4 << 20, firmware=rom(write + "times 200 nop\n" + then + "\nhlt"))
        run = Debugger(build_machine(config))
        run.set_limit(100)
        run.begin_continue()
        run.run()
        view = run.why_stuck()
        assert view.verdict == "moves" and view.summary.endswith(told), view
        run.machine.close()


def test_a_reset_that_is_under_way_is_no_loop() -> None:
    """The keyboard controller takes some microseconds to look at its command."""
    view = stand("mov al, 0xfe\nout 0x64, al\njmp $", 12).why_stuck()
    assert view.verdict == "moves" and "about to reset the CPU" in view.summary, view
