"""Finding firmware: Debian's SeaBIOS, a file, and the built-in tour ROM."""

from __future__ import annotations

import os
import stat

SEABIOS_DIRECTORIES = ("/usr/share/seabios", "/usr/share/qemu")
MAX_FIRMWARE = 16 << 20


class FirmwareError(Exception):
    """One sentence: which firmware cannot be used and what to do."""


def _search(name: str, package: str) -> str:
    for directory in SEABIOS_DIRECTORIES:
        if os.path.isfile(path := os.path.join(directory, name)):
            return path
    where = " or ".join(SEABIOS_DIRECTORIES)
    raise FirmwareError(f"{name} is not in {where}: install the Debian package {package} or name a file")


def find_firmware(name: str, machine: str = "isapc") -> str:
    """`seabios` or a path. Debian's bios.bin is built without what the `pc` machine has, bios-256k.bin with it. Raises
    FirmwareError."""
    if name != "seabios":
        return name
    return _search("bios-256k.bin" if machine == "pc" else "bios.bin", "seabios")


def find_vga_rom(machine: str = "isapc") -> str:
    """SeaVGABIOS for a plain ISA VGA, or for the PCI one of a `pc`. Raises FirmwareError."""
    return _search("vgabios-stdvga.bin" if machine == "pc" else "vgabios-isavga.bin", "seabios")


def read_rom(path: str | os.PathLike[str], what: str = "firmware") -> bytes:
    """A ROM image: a multiple of 4 KiB is made by padding at the front, as the last byte must stay at the top.

    Raises FirmwareError for a file that is missing, empty, a directory, unreadable or over 16 MiB.
    """
    try:
        found = os.stat(path)
        size = found.st_size
        if stat.S_ISDIR(found.st_mode):
            raise FirmwareError(f"{what} {path} is a directory: name a ROM image")
        if not stat.S_ISREG(found.st_mode):
            raise FirmwareError(f"{what} {path} is not a regular file: name a ROM image")
        if size == 0:
            raise FirmwareError(f"{what} {path} is empty: name a ROM image")
        if size > MAX_FIRMWARE:
            raise FirmwareError(f"{what} {path} has {size} bytes, more than {MAX_FIRMWARE}: name a ROM image")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise FirmwareError(f"{what} {path} cannot be read: {error.strerror}") from error


def tour_rom() -> bytes:
    """The built-in tour image."""
    from emu.firmware.tour import rom

    return rom()


def builtin_bios() -> bytes:
    """The ROM of the built-in BIOS. Its services have to be there too: MachineConfig.bios."""
    from emu.firmware.bios.rom import rom

    return rom()
