"""What a Linux kernel takes: Debian's 686 kernel, decompressed and to its userspace, on each side's isapc and pc, and
the amd64 one on pc."""

from __future__ import annotations

from pathlib import Path

from bench.assets import AssetMissing, Linux, linux
from bench.initramfs import userspace
from bench.sides import FigureUnavailable, Kernel, Side

#: What isapc has: no APIC, no ACPI, no PCI.
APPEND = "console=ttyS0 earlyprintk=serial,ttyS0,115200 nolapic noapic acpi=off pci=off tsc=unstable"
#: On the pc the kernel finds everything by itself.
PC_APPEND = "console=ttyS0 earlyprintk=serial,ttyS0,115200"
#: The decompressed kernel's first words, and the userspace's.
FIRST_TEXT, USERSPACE_TEXT = b"Linux version", b"userspace: "


def _files(architecture: str) -> Linux:
    try:
        return linux(architecture)
    except AssetMissing as missing:
        raise FigureUnavailable(str(missing)) from missing


def _seconds(side: Side, folder: Path, text: bytes, machine: str = "isapc", architecture: str = "i386") -> float:
    files = _files(architecture)
    initrd = folder / f"initrd-{architecture}"
    if not initrd.exists():
        initrd.write_bytes(userspace(files.busybox.read_bytes()))
    append = PC_APPEND if machine == "pc" else APPEND
    return side.kernel_to(
        Kernel(files.kernel, initrd, append, machine, bits=64 if architecture == "amd64" else 32), text
    )


def decompression(side: Side, folder: Path) -> float:
    """Process start to the decompressed kernel's first text on the serial line, s."""
    return _seconds(side, folder, FIRST_TEXT)


def to_userspace(side: Side, folder: Path) -> float:
    """Process start to the first text of the userspace on the serial line, s."""
    return _seconds(side, folder, USERSPACE_TEXT)


def to_userspace_on_pc(side: Side, folder: Path) -> float:
    """As `to_userspace`, on the pc: ACPI, I/O APIC, local APIC, HPET."""
    return _seconds(side, folder, USERSPACE_TEXT, "pc")


def amd64_to_userspace_on_pc(side: Side, folder: Path) -> float:
    """As `to_userspace_on_pc`, of the 64-bit kernel."""
    return _seconds(side, folder, USERSPACE_TEXT, "pc", "amd64")
