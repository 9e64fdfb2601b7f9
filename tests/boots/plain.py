"""Rows of the table booted without a hypervisor, each once in a run of the tests: that it boots is a claim of its own,
and how it ends is what the same boot under a hypervisor is compared with."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from bench import assets
from boots.images import USERSPACE, asset
from boots.machines import options_of, walk
from boots.table import MILLION, Boot
from emu.firmware.roms import FirmwareError, find_firmware
from emu.machine import Machine
from repl.boot_machine import BootMachine
from shared import once

#: Of rows of minutes of virtual time: instructions at which the state is taken on the way, each with so many to the
#: comparison. Kernels are decompressed, probe their devices, and run their userspace then.
ON_THE_WAY = {
    ("linux 686", "none"): (1_234_567_890, 3_456_789_012),
    ("linux 686 on pc", "seabios"): (3_456_789_012,),
    ("linux amd64 on pc", "none"): (4_567_890_123,),
}
COMPARED = 60_000_000


#: What a boot has come to: the fingerprint, the screen, and what was sent.
End = tuple[object, ...]


class Plain(NamedTuple):
    """Options of `v2e run`, whose files stay as long as the run of the tests does, and what the boot has come to."""

    options: list[str]
    end: End


def options_for(boot: Boot, firmware: str, folder: Path) -> list[str]:
    """As `options_of`. Skips the test when SeaBIOS is not installed, too."""
    if firmware == "seabios":
        try:
            find_firmware("seabios", boot.machine)
        except FirmwareError as error:
            pytest.skip(str(error))
    return options_of(boot, firmware, folder)


def machine_with(boot: Boot, options: list[str], *more: str) -> BootMachine:
    """At reset, with the row's event and budget."""
    return BootMachine([*options, *more], until=boot.event, limit=boot.budget * MILLION)


def end_of(machine: BootMachine) -> End:
    """What the boot in this machine has come to."""
    return machine.debugger.fingerprint(), machine.screen, machine.serial, machine.debugcon


def booted(boot: Boot, firmware: str, factory: pytest.TempPathFactory) -> Plain:
    """The row has booted under this firmware to its event, through its dialog, and said what it says; on the way, if
    that is asked of it, states were taken that continue equally. Fails the test where it does not; skips it where
    something is not installed."""
    return once(factory, f"{boot.name}, {firmware}", lambda folder: _boot(boot, firmware, folder))


def _boot(boot: Boot, firmware: str, folder: Path) -> Plain:
    # tools put the time of day into the images that they make
    options = options_for(boot, firmware, folder)
    machine = machine_with(boot, options)
    try:
        if (boot.name, firmware) in ON_THE_WAY:
            other = machine_with(boot, options)
            try:
                for at in ON_THE_WAY[boot.name, firmware]:
                    continues_equally(machine.debugger.machine, other.debugger.machine, at, COMPARED)
            finally:
                other.close()
        walk(boot, machine)
        if USERSPACE in boot.says:
            _check_digest(machine.serial)
        return Plain(options, end_of(machine))
    finally:
        machine.close()


def _check_digest(serial: str) -> None:
    """The guest computes the md5 of its busybox that the host does."""
    found = re.search(USERSPACE, serial)
    assert found is not None
    busybox = asset(lambda: assets.linux({"i686": "i386", "x86_64": "amd64"}[found[1]])).busybox
    assert found[2] == hashlib.md5(busybox.read_bytes(), usedforsecurity=False).hexdigest()


def continues_equally(machine: Machine, other: Machine, at: int, count: int) -> None:
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
