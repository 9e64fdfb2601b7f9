"""Real loaders and firmware boot: each row of the table reaches its text within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from boots.table import BOOTS, MILLION, Boot
from emu.firmware.roms import FirmwareError, find_firmware
from repl.boot_machine import BootMachine

SEABIOS, BUILTIN = ("--firmware", "seabios"), ("--firmware", "builtin")


def _machine(boot: Boot, folder: Path, firmware: tuple[str, ...] | None = None) -> BootMachine:
    """With the row's firmware, or another."""
    options = list(firmware or boot.firmware)
    if options[:2] == list(SEABIOS):
        try:
            find_firmware("seabios")
        except FirmwareError as error:
            pytest.skip(str(error))
    for path in options[1::2]:
        if path.startswith("/") and not Path(path).exists():
            pytest.skip(f"{path} is not installed: make setup, as root, installs it")
    if boot.build is not None:
        options += [boot.option, str(boot.build(folder / "image.img"))]
    return BootMachine(options, until=f"text:{boot.expected}", limit=boot.budget * MILLION)


def _row(boot: Boot, firmware: tuple[str, ...]) -> object:
    marks = [pytest.mark.slow] if boot.slow else []
    if boot.fails:
        marks.append(pytest.mark.xfail(reason=boot.fails, run=False))
    name = f"{boot.name}, builtin" if firmware == BUILTIN else boot.name
    return pytest.param(boot, firmware, id=name, marks=marks)


ROWS = [
    _row(boot, firmware) for boot in BOOTS for firmware in dict.fromkeys((boot.firmware, BUILTIN))
    if firmware == boot.firmware or boot.firmware == SEABIOS
]  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), ROWS)
def test_it_boots(boot: Boot, firmware: tuple[str, ...], tmp_path: Path) -> None:
    machine = _machine(boot, tmp_path, firmware)
    try:
        machine.run()
        if boot.keys:
            machine.type(boot.keys.encode().decode("unicode_escape"))
            machine.run(until=f"text:{boot.answer}")
    finally:
        machine.close()


@pytest.mark.parametrize(
    ("name", "firmware", "at"),
    [
        ("grub-legacy", SEABIOS, 12_345_678), ("isolinux cd", SEABIOS, 9_876_543), ("grub-legacy", BUILTIN, 600_001),
        ("isolinux cd", BUILTIN, 2_345_678),
    ],
)  # fmt: skip
def test_a_state_taken_in_the_middle_of_a_boot_continues_equally(
    name: str, firmware: tuple[str, ...], at: int, tmp_path: Path
) -> None:
    """Floppy controller, DMA and CD-ROM drive are in the middle of their work, or services of the BIOS; pieces of any
    size change nothing."""
    boot = next(row for row in BOOTS if row.name == name)
    first, second = _machine(boot, tmp_path, firmware), _machine(boot, tmp_path, firmware)
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
