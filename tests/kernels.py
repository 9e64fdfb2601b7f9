"""Linux for tests: Debian's 686 kernel with a userspace that prints an md5 and ends the run."""

from __future__ import annotations

import functools

import pytest

from bench.assets import AssetMissing
from bench.assets import linux as linux_files
from bench.initramfs import userspace
from emu.debugger import Debugger
from emu.firmware.kernels import load
from emu.firmware.payload import Payload
from emu.machine import MachineConfig, MachineState, build_machine
from shared import once

MEMORY = 128 << 20
#: What isapc has.
APPEND = "console=ttyS0 nolapic noapic acpi=off pci=off tsc=unstable nokaslr"


#: What each machine lets the kernel find by itself, and not.
APPENDS = {"isapc": APPEND, "pc": "console=ttyS0 nokaslr"}


@functools.cache
def payload(machine: str = "isapc") -> Payload:
    """Kernel and userspace; skips when they cannot be had."""
    try:
        files = linux_files()
    except AssetMissing as missing:
        pytest.skip(str(missing))
    return load(
        files.kernel.name, files.kernel.read_bytes(), [("initrd", userspace(files.busybox.read_bytes()))],
        APPENDS[machine], MEMORY, acpi=machine == "pc",
    )  # fmt: skip


def linux(**config: object) -> Debugger:
    """A debugger on a machine about to execute the kernel's first instruction."""
    machine = str(config.get("machine", "isapc"))
    options: dict[str, object] = {"memory": MEMORY, "payload": payload(machine), **config}
    return Debugger(build_machine(MachineConfig(**options)))  # type: ignore[arg-type]


@functools.cache
def _reached() -> dict[int, tuple[MachineState, str]]:
    """States by instructions retired, each with what COM1 has sent before."""
    return {0: (linux().machine.save(), "")}


def state_at(retired: int, factory: pytest.TempPathFactory) -> tuple[MachineState, str]:
    """The boot on isapc at an instant, and what COM1 has sent before. It is booted once in a run for all that ask, from
    the last state before it on that this process has."""
    payload()  # skips, where it does
    reached = _reached()
    if retired not in reached:
        reached[retired] = once(factory, f"Linux on isapc at {retired}", lambda _: _from_the_last(retired))
    return reached[retired]


def _from_the_last(retired: int) -> tuple[MachineState, str]:
    reached = _reached()
    state, sent = reached[max(at for at in reached if at < retired)]
    machine = linux().machine
    machine.restore(state)
    machine.run(retired)
    assert machine.executor.retired == retired, "the guest ended before"
    found = machine.save(), sent + machine.serial_text()
    machine.close()
    return found
