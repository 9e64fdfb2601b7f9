"""Linux for tests: Debian's 686 kernel with a userspace that prints an md5 and ends the run."""

from __future__ import annotations

import functools
import hashlib

import pytest

from bench.assets import AssetMissing
from bench.assets import linux as linux_files
from bench.initramfs import userspace
from emu.debugger import Debugger
from emu.firmware.kernels import load
from emu.firmware.payload import Payload
from emu.machine import MachineConfig, build_machine

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


@functools.cache
def userspace_line() -> str:
    """What the userspace prints, as the host computes it."""
    digest = hashlib.md5(linux_files().busybox.read_bytes(), usedforsecurity=False).hexdigest()
    return f"userspace: i686 {digest} /bin/busybox"


def linux(**config: object) -> Debugger:
    """A debugger on a machine about to execute the kernel's first instruction."""
    machine = str(config.get("machine", "isapc"))
    options: dict[str, object] = {"memory": MEMORY, "payload": payload(machine), **config}
    return Debugger(build_machine(MachineConfig(**options)))  # type: ignore[arg-type]
