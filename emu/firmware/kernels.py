"""Which kind of kernel a file is, and how it is started without firmware."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from emu.firmware import linux, multiboot
from emu.firmware.acpi import ROOM, placed_tables
from emu.firmware.payload import KernelError, Payload, read_file
from emu.record import replace


def load_kernel(path: Path, initrds: Iterable[Path], append: str, memory: int, *, acpi: bool = False) -> Payload:
    """As `load`, of files. Raises KernelError for one that cannot be read as well."""
    modules = [(str(name), read_file(name, "initrd")) for name in initrds]
    return load(path.name, read_file(path, "kernel"), modules, append, memory, acpi=acpi)


def load(
    name: str, image: bytes, modules: Sequence[tuple[str, bytes]], append: str, memory: int, *, acpi: bool = False
) -> Payload:
    """The kernel `image` for a machine with `memory` bytes of RAM; with `acpi` the last of them hold the tables of
    `--machine pc`.

    Raises KernelError for what is no kernel, or does not fit."""
    kept = ROOM if acpi else 0
    if linux.is_linux(image):
        if len(modules) > 1:
            raise KernelError(f"--initrd is given {len(modules)} times, and a Linux kernel takes one: join the files")
        payload = linux.load(name, image, modules[0][1] if modules else b"", append, memory - kept, kept)
    elif multiboot.find_header(image) is not None:
        payload = multiboot.load(name, image, modules, append, memory - kept, kept)
    else:
        raise KernelError(
            f"kernel {name} is neither a Linux bzImage (no setup header) nor a multiboot image (no header in its first "
            "8192 bytes): name another file"
        )
    if acpi:
        payload = replace(payload, pieces=(*payload.pieces, *placed_tables(memory - kept)))
    return payload
