"""Real loaders boot to the same instant, memory and devices whoever executes: without a hypervisor, and on the model by
each policy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from boots.machines import options_of, walk
from boots.table import BOOTS, MILLION, Boot
from emu.firmware.roms import FirmwareError, find_firmware
from emu.machine import MachineStop
from emu.transitions import Transitions
from repl.boot_machine import BootMachine

#: Row and firmware of each boot, and whether it takes but a second or two.
ROWS = (
    ("post", "builtin", True),
    ("post", "seabios", False),
    ("syslinux", "builtin", False),
    ("syslinux", "seabios", False),
    ("memdisk raw", "builtin", False),
    ("core.img", "builtin", False),
    ("grub floppy", "builtin", False),
    ("memtest86+", "builtin", False),
    ("ipxe.lkrn", "seabios", False),
)
POLICIES = ("native", "dwell:20", "dwell:1000", "learn")


def _rows(*policies: str) -> Iterator[object]:
    for name, firmware, quick in ROWS:
        for policy in policies:
            fast = quick and policy == "dwell:20"
            yield pytest.param(
                name, firmware, policy, id=f"{name} {firmware} {policy}", marks=[] if fast else [pytest.mark.slow]
            )


def _row(name: str) -> Boot:
    return next(row for row in BOOTS if row.name == name)


def _options(boot: Boot, firmware: str, folder: Path) -> list[str]:
    """Built once: tools put the time of day into the images that they make."""
    if firmware == "seabios":
        try:
            find_firmware("seabios", boot.machine)
        except FirmwareError as error:
            pytest.skip(str(error))
    return options_of(boot, firmware, folder)


def _machine(boot: Boot, options: list[str], *more: str) -> BootMachine:
    return BootMachine([*options, *more], until=boot.event, limit=boot.budget * MILLION)


def _transitions(machine: BootMachine) -> Transitions:
    transitions = machine.debugger.machine.transitions
    assert transitions is not None
    return transitions


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "firmware", "policy"), _rows(*POLICIES))
def test_a_boot_is_the_same_to_the_byte_under_the_model(name: str, firmware: str, policy: str, tmp_path: Path) -> None:
    boot, found = _row(name), []
    options = _options(boot, firmware, tmp_path)
    for more in ((), ("--hypervisor", "model", "--policy", policy)):
        machine = _machine(boot, options, *more)
        walk(boot, machine)
        found.append((machine.debugger.fingerprint(), machine.screen, machine.serial, machine.debugcon))
        if policy == "native" and more:
            assert _transitions(machine).ledger.native > 0
        machine.close()
    assert found[1] == found[0]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "firmware", "count"),
    [
        ("syslinux", "builtin", 100),
        pytest.param("core.img", "builtin", 1000, marks=pytest.mark.slow),
        pytest.param("syslinux", "seabios", 1000, marks=pytest.mark.slow),
    ],
)
def test_round_trips_at_any_place_of_a_boot_change_nothing(
    name: str, firmware: str, count: int, tmp_path: Path
) -> None:
    """A move to native execution and one back, of one instruction or some, wherever the state can be entered."""
    boot = _row(name)
    options = _options(boot, firmware, tmp_path)
    plain = _machine(boot, options)
    plain.run()
    end = plain.retired
    expected = plain.debugger.fingerprint(), plain.screen
    plain.close()
    held = _machine(boot, options, "--hypervisor", "model", "--policy", "emulated")
    machine, transitions, numbers = held.debugger.machine, _transitions(held), random.Random(count)
    moved = 0
    for place in sorted(numbers.sample(range(1, end - 1000), count)):
        assert machine.run(place).reason is MachineStop.LIMIT
        machine.service()
        if transitions.vcpu.refused(state := transitions.state()):
            continue
        transitions.force(True)
        assert transitions.state() == state
        machine.run(place + numbers.choice((1, 2, 100)))
        transitions.force(False)
        moved += 1
    assert moved > count // 4
    machine.run(end)
    assert (held.debugger.fingerprint(), held.screen) == expected
    held.close()
