"""Real loaders boot under kvm to the event that they boot to without, as far as the host's KVM carries them."""

from __future__ import annotations

from pathlib import Path

import pytest

from boots.machines import options_of, walk
from boots.table import BOOTS, MILLION
from emu.firmware.roms import FirmwareError, find_firmware
from repl.boot_machine import BootMachine
from xenbridge.kvm.backend import Backend

pytestmark = pytest.mark.slow

#: Without memtest86+, which measures memory for longer than a KVM that emulates string instructions is worth waiting
#: for.
ROWS = (
    ("post", "builtin"), ("syslinux", "builtin"),
    *(
        pytest.param(name, firmware, marks=pytest.mark.soak)
        for name, firmware in (
            ("syslinux", "seabios"), ("memdisk raw", "builtin"), ("core.img", "builtin"), ("grub floppy", "builtin"),
            ("isolinux disk", "builtin"),
        )
    ),
)  # fmt: skip


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("policy", ("native", "dwell:1000", "learn"))
@pytest.mark.parametrize(("name", "firmware"), ROWS)
def test_a_loader_comes_as_far_as_without(
    backend: Backend, name: str, firmware: str, policy: str, tmp_path: Path
) -> None:
    boot = next(row for row in BOOTS if row.name == name)
    if firmware == "seabios":
        try:
            find_firmware("seabios", boot.machine)
        except FirmwareError as error:
            pytest.skip(str(error))
    options = [*options_of(boot, firmware, tmp_path), "--hypervisor", "kvm", "--policy", policy]
    machine = BootMachine(options, until=boot.event, limit=boot.budget * MILLION)
    machine.debugger.machine.native_limit = None  # the backend may be slow
    walk(boot, machine)
    transitions = machine.debugger.machine.transitions
    assert transitions is not None and transitions.ledger.hops_in > 0
    machine.close()
