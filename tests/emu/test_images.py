"""The small images of tests/images on our machine, beside QEMU and Bochs where those can say something."""

from __future__ import annotations

import struct

import pytest

import oracles
from emu.debugger import BreakKind, Debugger
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.stops import Stop, StopKind
from emu.x86.modes import Mode
from machines import seabios_debugger

#: 20 cylinders of 16 heads and 63 sectors, so that all BIOSes agree on the geometry.
DISK_SIZE = 20 * 16 * 63 * 512


def debugger(image: str, limit: int = 5_000_000) -> Debugger:
    run = Debugger(build_machine(MachineConfig(memory=2 << 20, firmware=oracles.assemble_image(image), shadow=False)))
    run.set_limit(limit)
    return run


def run(image: str, limit: int = 5_000_000) -> tuple[Stop, str]:
    made = debugger(image, limit)
    made.begin_continue()
    return made.run(), made.machine.debugcon_text()


def test_self_modified_code_is_never_stale() -> None:
    stop, text = run("selfmod")
    assert text.split("\n")[1:-1] == ["next ok", "page ok", "loop ok", "alias ok", "copy ok"]
    assert stop.exit_code == 0


@pytest.mark.parametrize("oracle", [oracles.qemu, oracles.bochs])
def test_the_oracles_agree_about_self_modified_code(oracle: type) -> None:
    assert "STALE" not in oracle(oracles.assemble_image("selfmod")).debugcon


def test_a_triple_fault_is_told_with_its_chain() -> None:
    stop, _ = run("triple")
    assert stop.kind is StopKind.SHUTDOWN
    # INT3 through an empty IDT: #GP of gate 3, then of gate 13 as #DF (SDM vol. 3A, 6.13 and table 6-5)
    assert [(fault.vector, fault.code) for fault in stop.faults if not fault.software] == [(13, 3 * 8 + 2), (8, 0)]


@pytest.mark.parametrize("oracle", [oracles.qemu, oracles.bochs])
def test_the_oracles_shut_down_at_the_triple_fault(oracle: type) -> None:
    assert oracle(oracles.assemble_image("triple")).shutdown


def test_halting_with_interrupts_off_is_a_deadlock() -> None:
    stop, text = run("hltif0")
    assert (stop.kind, text) == (StopKind.DEADLOCK, "halting\n")


def test_a_loop_runs_out_of_its_budget_to_the_instruction() -> None:
    made = debugger("loop", limit=100_001)
    made.begin_continue()
    stop = made.run()
    # the jump at the reset vector, CLI and XOR, then INC and JMP in turns
    assert (stop.kind, stop.retired) == (StopKind.LIMIT, 100_001)
    assert made.read_register("rax") == (100_001 - 3) // 2


def test_the_marks_are_met_in_the_modes_they_name() -> None:
    made = debugger("modes")
    rom = oracles.assemble_image("modes")
    marks = struct.unpack_from("<8I", rom, 0xFF00)
    modes = []
    for mark in marks:
        made.add_breakpoint(BreakKind.EXECUTE, mark)
    for number, mark in enumerate(marks, 1):
        made.begin_continue()
        stop = made.run()
        assert (stop.kind, stop.linear_pc) == (StopKind.BREAKPOINT, mark), stop.text
        assert made.read_register("rbx") == number
        modes.append(made.mode())
    assert modes == [
        Mode.REAL,
        Mode.BIG_REAL,
        Mode.PROTECTED16,
        Mode.PROTECTED32,
        Mode.PROTECTED32,
        Mode.LONG64,
        Mode.COMPAT32,
        Mode.REAL,
    ]
    made.begin_continue()
    assert made.run().exit_code == 0
    assert made.machine.debugcon_text() == "12345678\n"


@pytest.mark.parametrize("oracle", [oracles.qemu, oracles.bochs])
def test_the_oracles_visit_the_same_modes(oracle: type) -> None:
    assert oracle(oracles.assemble_image("modes")).debugcon == "12345678\n"


HELLO = ["hello from the boot sector, drive 80", "hello from sector 2"]


def test_the_boot_sector_says_hello_through_the_bios() -> None:
    made = seabios_debugger(b"", disks=(Disk.from_bytes(oracles.assemble_image("hello_mbr").ljust(DISK_SIZE, b"\0")),))
    made.set_limit(200_000_000)
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert made.machine.screen().text.rstrip().splitlines()[-2:] == HELLO


@pytest.mark.parametrize("oracle", [oracles.qemu, oracles.bochs])
def test_the_oracles_boot_the_same_sector(oracle: type) -> None:
    result = oracle(disk=oracles.assemble_image("hello_mbr").ljust(DISK_SIZE, b"\0"))
    assert result.debugcon.splitlines() == HELLO
