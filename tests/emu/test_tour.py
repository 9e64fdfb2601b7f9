"""The tour image: its bytes match its source, and it says the same on our machine, QEMU and Bochs."""

from __future__ import annotations

import importlib.resources
import shutil
import subprocess
from pathlib import Path

import pytest

import oracles
from emu.debugger import BreakKind, Debugger
from emu.firmware import tour
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.stops import StopKind
from emu.x86.modes import Mode
from emu.x86.state import CR0_PG, CR4_PAE, CR4_PSE

#: Much above what the tour needs (about 2.4 million, most of them waiting for the UART).
LIMIT = 20_000_000

LINES = (
    "tour: real, tick 1",
    "tour: big real, tick 2",
    "tour: 16-bit protected, tick 3",
    "tour: 32-bit protected, tick 4",
    "tour: 4 MiB paging, tick 5",
    "tour: PAE paging, tick 6",
    "tour: V86, tick 7",
    "tour: 64-bit long, tick 8",
    "tour: compatibility, tick 9",
    "tour: real again, tick 10",
    "tour: done",
)


def debugger(size: int | None = None) -> Debugger:
    """Asks the engine for `size` instructions at a time."""
    made = Debugger(build_machine(MachineConfig(memory=4 << 20, firmware=tour.rom(), shadow=False, slice=size)))
    made.set_limit(LIMIT)
    return made


def test_assembling_the_source_gives_the_shipped_bytes(tmp_path: Path) -> None:
    nasm = shutil.which("nasm")
    if nasm is None:
        pytest.skip("nasm is not installed")
    with importlib.resources.as_file(importlib.resources.files("emu.firmware")) as folder:
        subprocess.run([nasm, "-f", "bin", "-I", f"{folder}/", "-o", tmp_path / "rom", folder / "tour.asm"], check=True)
    assert (tmp_path / "rom").read_bytes() == tour.rom()


def test_the_rom_is_64_kib_and_starts_with_a_far_jump_to_its_low_copy() -> None:
    rom = tour.rom()
    offset = tour.stops()[0].linear - 0xF0000
    assert len(rom) == 0x10000
    assert rom[0xFFF0:0xFFF5] == b"\xea" + offset.to_bytes(2, "little") + b"\x00\xf0"


def test_the_lines_are_those_promised() -> None:
    assert tour.lines() == LINES


def test_ours_prints_every_line_on_serial_and_screen_and_ends_with_code_0() -> None:
    run = debugger()
    run.begin_continue()
    stop = run.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert run.machine.serial_text().splitlines() == list(LINES)
    assert run.machine.screen().text.rstrip().splitlines() == list(LINES)


def test_qemu_prints_the_same() -> None:
    result = oracles.qemu(tour.rom())
    assert tuple(result.serial.splitlines()) == LINES
    assert result.status == 1


def test_bochs_prints_the_same() -> None:
    result = oracles.bochs(tour.rom())
    assert tuple(result.serial.splitlines()) == LINES
    assert not result.shutdown


#: At each stop: the mode, and (CS base, CR0.PG, CR4.PSE, CR4.PAE).
AT = {
    "real": (Mode.REAL, 0xF0000, False, False, False),
    "big-real": (Mode.BIG_REAL, 0xF0000, False, False, False),
    "pm16": (Mode.PROTECTED16, 0xF0123, False, False, False),
    "pm32": (Mode.PROTECTED32, 0, False, False, False),
    "pse": (Mode.PROTECTED32, 0, True, True, False),
    "pae": (Mode.PROTECTED32, 0, True, True, True),
    "v86": (Mode.V86, 0xF0000, True, True, True),
    "long64": (Mode.LONG64, 0, True, True, True),
    "compat": (Mode.COMPAT32, 0, True, True, True),
    "real-again": (Mode.REAL, 0xF0000, False, False, False),
}


def test_breakpoints_from_the_roms_table_meet_each_mode_at_its_entry() -> None:
    run = debugger()
    for stop in tour.stops():
        run.add_breakpoint(BreakKind.EXECUTE, stop.linear)
    met = {}
    for stop in tour.stops():
        run.begin_continue()
        reached = run.run()
        assert (reached.kind, reached.linear_pc) == (StopKind.BREAKPOINT, stop.linear), reached.text
        cpu = run.cpu()
        paging = bool(cpu.cr0 & CR0_PG)
        met[stop.name] = (run.mode(), cpu.cs.base, paging, bool(cpu.cr4 & CR4_PSE), bool(cpu.cr4 & CR4_PAE))
    assert met == AT
    run.begin_continue()
    assert run.run().exit_code == 0


def test_the_paged_stop_is_where_linear_and_physical_addresses_differ() -> None:
    run = debugger()
    stop = next(stop for stop in tour.stops() if stop.name == "pse")
    run.add_breakpoint(BreakKind.EXECUTE, stop.linear)
    run.begin_continue()
    run.run()
    assert run.translate(stop.linear) == stop.linear - 0xC0000000


@pytest.mark.slow
@pytest.mark.parametrize("size", [137, 1000])
def test_the_run_does_not_depend_on_slices(size: int) -> None:
    whole, sliced = debugger(), debugger(size)
    for run in (whole, sliced):
        run.begin_continue()
        run.run()
    assert sliced.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("machine", ("isapc", "pc"))
def test_it_says_the_same_on_both_machines(machine: str) -> None:
    made = build_machine(MachineConfig(machine=machine, memory=4 << 20, firmware=tour.rom(), shadow=False))
    end = made.run(LIMIT)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0)
    assert tuple(made.outputs.text("serial").splitlines()) == LINES
    assert "tour: done" in made.screen().text
