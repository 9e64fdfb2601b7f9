"""Real loaders, firmware and kernels boot: each row of the table reaches its event within its budget."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from bench import assets
from boots.images import USERSPACE, asset
from boots.machines import machine_of, walk
from boots.table import BOOTS, Boot
from emu.machine import Machine
from repl.boot_machine import BootMachine

pytestmark = pytest.mark.slow


#: Of rows of minutes of virtual time: instructions at which the state is taken on the way, each with so many to the
#: comparison. Kernels are decompressed, probe their devices, and run their userspace then.
ON_THE_WAY = {
    ("linux 686", "none"): (1_234_567_890, 3_456_789_012),
    ("linux 686 on pc", "seabios"): (3_456_789_012,),
    ("linux amd64 on pc", "none"): (4_567_890_123,),
}
COMPARED = 60_000_000


def _rows(*, on_the_way: bool) -> list[object]:
    """(row, firmware), each a test."""
    return [
        pytest.param(boot, firmware, id=f"{boot.name} {firmware}", marks=[pytest.mark.slow] if boot.slow else [])
        for boot in BOOTS
        for firmware in boot.firmwares
        if on_the_way == ((boot.name, firmware) in ON_THE_WAY)
    ]


def _boots(boot: Boot, machine: BootMachine) -> None:
    walk(boot, machine)
    if USERSPACE in boot.says:
        _check_digest(machine.serial)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), _rows(on_the_way=False))
def test_it_boots(boot: Boot, firmware: str, tmp_path: Path) -> None:
    machine = machine_of(boot, firmware, tmp_path)
    try:
        _boots(boot, machine)
    finally:
        machine.close()


def _check_digest(serial: str) -> None:
    """The guest computes the md5 of its busybox that the host does."""
    found = re.search(USERSPACE, serial)
    assert found is not None
    busybox = asset(lambda: assets.linux({"i686": "i386", "x86_64": "amd64"}[found[1]])).busybox
    assert found[2] == hashlib.md5(busybox.read_bytes(), usedforsecurity=False).hexdigest()


def _continues_equally(machine: Machine, other: Machine, at: int, count: int) -> None:
    """A state taken at instruction `at`, in `other`, in pieces of any size, is `count` instructions later what the
    machine is, which is there in the end."""
    machine.run(at)
    assert machine.executor.retired == at, "the guest ended before"
    end, piece = at + count, count // 8 + 777
    state = machine.save()
    machine.run(end)
    other.restore(state)
    for retired in range(at + piece, end, piece):
        other.run(retired)
    other.run(end)
    assert other.fingerprint() == machine.fingerprint()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), _rows(on_the_way=True))
def test_it_boots_and_states_taken_on_the_way_continue_equally(boot: Boot, firmware: str, tmp_path: Path) -> None:
    first, second = (machine_of(boot, firmware, tmp_path) for _ in range(2))
    try:
        for at in ON_THE_WAY[boot.name, firmware]:
            _continues_equally(first.debugger.machine, second.debugger.machine, at, COMPARED)
        _boots(boot, first)
    finally:
        first.close()
        second.close()


#: Row, firmware, instruction at which the state is taken, instructions to the comparison. What is under way then: the
#: floppy controller with DMA, the CD-ROM drive's packets; services of the built-in BIOS.
MIDDLES = [
    ("grub-legacy", "seabios", 12_345_678, 6_000_000),
    ("isolinux cd", "seabios", 9_876_543, 6_000_000),
    ("grub-legacy", "builtin", 600_001, 6_000_000),
    ("isolinux cd", "builtin", 2_345_678, 6_000_000),
    ("core.img", "seabios", 7_250_000, 6_000_000),
    ("core.img on pc", "seabios", 7_250_000, 6_000_000),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "firmware", "at", "count"), MIDDLES)
def test_a_state_taken_in_the_middle_of_a_boot_continues_equally(
    name: str, firmware: str, at: int, count: int, tmp_path: Path
) -> None:
    """In another machine."""
    boot = next(row for row in BOOTS if row.name == name)
    first, second = (machine_of(boot, firmware, tmp_path) for _ in range(2))
    try:
        _continues_equally(first.debugger.machine, second.debugger.machine, at, count)
    finally:
        first.close()
        second.close()
