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

pytestmark = pytest.mark.slow


def _rows() -> list[object]:
    """(row, firmware), each a test."""
    return [
        pytest.param(boot, firmware, id=f"{boot.name} {firmware}", marks=[pytest.mark.slow] if boot.slow else [])
        for boot in BOOTS
        for firmware in boot.firmwares
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), _rows())
def test_it_boots(boot: Boot, firmware: str, tmp_path: Path) -> None:
    machine = machine_of(boot, firmware, tmp_path)
    try:
        walk(boot, machine)
        if USERSPACE in boot.says:
            _check_digest(machine.serial)
    finally:
        machine.close()


def _check_digest(serial: str) -> None:
    """The guest computes the md5 of its busybox that the host does."""
    found = re.search(USERSPACE, serial)
    assert found is not None
    busybox = asset(lambda: assets.linux({"i686": "i386", "x86_64": "amd64"}[found[1]])).busybox
    assert found[2] == hashlib.md5(busybox.read_bytes(), usedforsecurity=False).hexdigest()


#: Row, firmware, instruction at which the state is taken, instructions to the comparison. What is under way then: the
#: floppy controller with DMA, the CD-ROM drive's packets, kernels that are decompressed, probe their devices, and run
#: their userspace; services of the built-in BIOS.
MIDDLES = [
    ("grub-legacy", "seabios", 12_345_678, 6_000_000),
    ("isolinux cd", "seabios", 9_876_543, 6_000_000),
    ("grub-legacy", "builtin", 600_001, 6_000_000),
    ("isolinux cd", "builtin", 2_345_678, 6_000_000),
    ("core.img", "seabios", 7_250_000, 6_000_000),
    ("core.img on pc", "seabios", 7_250_000, 6_000_000),
    pytest.param("linux 686", "none", 1_234_567_890, 60_000_000, marks=pytest.mark.slow),
    pytest.param("linux 686", "none", 3_456_789_012, 60_000_000, marks=pytest.mark.slow),
    pytest.param("linux 686 on pc", "seabios", 3_456_789_012, 60_000_000, marks=pytest.mark.slow),
    pytest.param("linux amd64 on pc", "none", 4_567_890_123, 60_000_000, marks=pytest.mark.slow),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "firmware", "at", "count"), MIDDLES)
def test_a_state_taken_in_the_middle_of_a_boot_continues_equally(
    name: str, firmware: str, at: int, count: int, tmp_path: Path
) -> None:
    """In another machine, in pieces of any size."""
    boot = next(row for row in BOOTS if row.name == name)
    first, second = (machine_of(boot, firmware, tmp_path) for _ in range(2))
    end, piece = at + count, count // 8 + 777
    try:
        machine, other = first.debugger.machine, second.debugger.machine
        machine.run(at)
        assert machine.executor.retired == at, "the guest ended before"
        state = machine.save()
        machine.run(end)
        other.restore(state)
        for retired in range(at + piece, end, piece):
            other.run(retired)
        other.run(end)
        assert other.fingerprint() == machine.fingerprint()
    finally:
        first.close()
        second.close()
