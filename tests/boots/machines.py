"""A row of the table as a machine that a test holds, and the walk through its dialog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boots.table import MILLION, Boot, firmware_options
from emu.firmware.roms import FirmwareError, find_firmware
from emu.stops import StopKind
from repl.boot_machine import BootMachine


def options_of(boot: Boot, firmware: str, folder: Path) -> list[str]:
    """Those of `v2e run`; what they name is built in `folder`. Skips the test when something is not installed."""
    options = ["--machine", boot.machine, "--memory", boot.memory, *firmware_options(firmware)]
    for number, (option, build) in enumerate(boot.media):
        options += [option, str(build(folder / f"image{number}.img"))]
    if boot.kernel is not None:
        options += ["--kernel", str(boot.kernel.build(folder / "kernel")), "--append", boot.kernel.append]
        if boot.kernel.initrd is not None:
            options += ["--initrd", str(boot.kernel.initrd(folder / "initrd"))]
    return options


def machine_of(boot: Boot, firmware: str, folder: Path, event: str | None = None) -> BootMachine:
    """At reset; runs until the row's event unless another is given."""
    if firmware == "seabios":
        try:
            find_firmware("seabios", boot.machine)
        except FirmwareError as error:
            pytest.skip(str(error))
    options = options_of(boot, firmware, folder)
    return BootMachine(options, until=event or boot.event, limit=boot.budget * MILLION)


def walk(boot: Boot, machine: BootMachine) -> None:
    """Run to the event and through the dialog. Fails the test when something does not come."""
    stop = machine.run()
    if boot.event == "exit":
        assert stop.kind is StopKind.POWEROFF or (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    for typed, event in boot.dialog:
        if event.startswith("serial:"):
            machine.debugger.send_serial(typed)
        else:
            machine.type(typed)
        machine.run(until=event)
    for pattern in boot.says:
        assert re.search(pattern, machine.serial), f"{pattern!r} was not said"
