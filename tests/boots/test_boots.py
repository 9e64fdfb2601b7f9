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

SEABIOS, BUILTIN = ("--firmware", "seabios"), ("--firmware", "builtin")


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


@pytest.mark.parametrize(
    ("name", "firmware", "at"),
    [
        ("grub-legacy", "seabios", 12_345_678),
        ("isolinux cd", "seabios", 9_876_543),
        ("grub-legacy", "builtin", 600_001),
        ("isolinux cd", "builtin", 2_345_678),
    ],
)
def test_a_state_taken_in_the_middle_of_a_boot_continues_equally(
    name: str, firmware: str, at: int, tmp_path: Path
) -> None:
    """Floppy controller, DMA and CD-ROM drive are in the middle of their work, or services of the BIOS; pieces of any
    size change nothing."""
    boot = next(row for row in BOOTS if row.name == name)
    first, second = (machine_of(boot, firmware, tmp_path) for _ in range(2))
    end = at + 6_000_000
    try:
        machine, other = first.debugger.machine, second.debugger.machine
        machine.run(at)
        state = machine.save()
        machine.run(end)
        other.restore(state)
        for retired in range(at + 777_777, end, 777_777):
            other.run(retired)
        other.run(end)
        assert other.fingerprint() == machine.fingerprint()
    finally:
        first.close()
        second.close()
