"""Real loaders, firmware and kernels boot: each row of the table reaches its event within its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from boots.machines import machine_of
from boots.plain import ON_THE_WAY, booted, continues_equally
from boots.table import BOOTS, Boot

pytestmark = pytest.mark.slow


def _rows(*, on_the_way: bool) -> list[object]:
    """(row, firmware), each a test."""
    return [
        pytest.param(
            boot, firmware, id=f"{boot.name} {firmware}",
            marks=[pytest.mark.slow] * boot.slow + [pytest.mark.soak] * (firmware in boot.soak),
        )
        for boot in BOOTS
        for firmware in boot.firmwares
        if on_the_way == ((boot.name, firmware) in ON_THE_WAY)
    ]  # fmt: skip


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), _rows(on_the_way=False))
def test_it_boots(boot: Boot, firmware: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    booted(boot, firmware, tmp_path_factory)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("boot", "firmware"), _rows(on_the_way=True))
def test_it_boots_and_states_taken_on_the_way_continue_equally(
    boot: Boot, firmware: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    booted(boot, firmware, tmp_path_factory)


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
        continues_equally(first.debugger.machine, second.debugger.machine, at, count)
    finally:
        first.close()
        second.close()
