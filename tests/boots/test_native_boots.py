"""Real loaders boot to the same instant, memory and devices whoever executes: without a hypervisor, and on the model by
each policy."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from boots.machines import options_of, walk
from boots.table import BOOTS, MILLION, Boot
from emu.firmware.roms import FirmwareError, find_firmware
from emu.machine import MachineStop
from emu.transitions import Transitions
from repl.boot_machine import BootMachine

POLICIES = ("native", "dwell:20", "dwell:1000", "learn")
#: Row and firmware of each boot, and the policies under which it is not left to `make soak`. Those take 3 to 30 s of
#: processor time beside a run without a hypervisor; what is left out takes as long, or moves 10,000 times and more.
ROWS = (
    ("post", "builtin", POLICIES),
    ("post", "seabios", ("native", "dwell:1000", "learn")),
    ("syslinux", "builtin", POLICIES),
    ("syslinux", "seabios", ("native", "dwell:1000", "learn")),
    ("memdisk raw", "builtin", ("native", "dwell:1000")),
    ("core.img", "builtin", ("native", "dwell:1000", "learn")),
    ("grub floppy", "builtin", ("native", "learn")),
    ("memtest86+", "builtin", ("native",)),
    ("ipxe.lkrn", "seabios", ("native", "learn")),
    ("linux 686", "none", ("native",)),
    ("linux amd64 on pc", "none", ("native",)),
)


def _rows() -> list[object]:
    rows: list[object] = []
    for name, firmware, chosen in ROWS:
        for policy in POLICIES:
            quick = name == "post" and firmware == "builtin" and policy == "dwell:20"
            marks = [] if quick else [pytest.mark.slow] if policy in chosen else [pytest.mark.slow, pytest.mark.soak]
            rows.append(pytest.param(name, firmware, policy, id=f"{name} {firmware} {policy}", marks=marks))
    return rows


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
@pytest.mark.parametrize(("name", "firmware", "policy"), _rows())
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
        pytest.param("syslinux", "builtin", 100, marks=pytest.mark.slow),
        pytest.param("core.img", "builtin", 1000, marks=[pytest.mark.slow, pytest.mark.soak]),
        pytest.param("syslinux", "seabios", 1000, marks=[pytest.mark.slow, pytest.mark.soak]),
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
    end = plain.retired - 1  # an instant of the guest's: the boot may end while it idles
    plain.close()
    plain = _machine(boot, options)
    plain.debugger.machine.run(end)
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
