"""The media of a run: which drive IMAGE belongs in, the files of --floppy, --disk and so on, what to boot from."""

from __future__ import annotations

from emu.devices.floppy_drive import FORMATS
from emu.machine import MachineConfig
from emu.media import SECTOR, Disk
from emu.typed import TYPE_CHECKING
from repl.options import UsageError, choose

if TYPE_CHECKING:
    import argparse

BOOT_DEVICES = ("floppy", "disk", "cdrom")
#: ISO 9660: the primary volume descriptor is in logical sector 16 and has "CD001" behind its type.
_VOLUME_DESCRIPTOR = 16 * 2048
_MOST = {"floppy": 2, "disk": 4, "cdrom": 1}


def kind_of(disk: Disk) -> str:
    """`floppy` by size, `cdrom` by an ISO 9660 volume (a hybrid one too), else `disk`."""
    if disk.sectors % 2 == 0 and disk.sectors // 2 in FORMATS:
        return "floppy"
    first = _VOLUME_DESCRIPTOR // SECTOR
    if disk.sectors > first and disk.read(first, 1)[1:6] == b"CD001":
        return "cdrom"
    return "disk"


def open_media(options: argparse.Namespace, config: MachineConfig) -> None:
    """Open what the options name, and put it and the order of booting into `config`. IMAGE comes before the others of
    its kind. Raises UsageError and MediaError."""
    found: dict[str, list[Disk]] = {kind: [] for kind in BOOT_DEVICES}
    opened: list[Disk] = []
    try:
        image = None
        if options.image is not None:
            disk = Disk.open(options.image, write=options.write)
            opened.append(disk)
            image = kind_of(disk)
            found[image].append(disk)
        for kind in BOOT_DEVICES:
            for path in getattr(options, kind):
                opened.append(Disk.open(path, write=options.write and kind != "cdrom"))
                found[kind].append(opened[-1])
            if len(found[kind]) > _MOST[kind]:
                raise UsageError(f"{len(found[kind])} images are {kind} images: {_MOST[kind]} can be there")
        virtio = [Disk.open(path, write=options.write) for path in options.virtio]
        opened += virtio
        config.boot = _order(options.boot, image, {**found, "disk": found["disk"] + virtio})
    except BaseException:
        for disk in opened:
            disk.close()
        raise
    config.floppies, config.disks, config.cdroms = found["floppy"], found["disk"], found["cdrom"]
    config.virtio = virtio


def _order(wanted: str | None, image: str | None, found: dict[str, list[Disk]]) -> list[str]:
    """What --boot names first, without it IMAGE's kind; then whatever else is there."""
    if wanted is not None:
        choose("--boot", wanted, BOOT_DEVICES)
        if not found[wanted]:
            raise UsageError(f"--boot {wanted}: no {wanted} image is given; add --{wanted} FILE")
    there = [kind for kind in BOOT_DEVICES if found[kind]] or ["disk"]
    first = wanted or image
    return sorted(there, key=lambda kind: kind != first)
