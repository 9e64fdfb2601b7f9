"""Which kind of kernel a file is, and how it is started without firmware."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emu.firmware import linux, multiboot
from emu.firmware.payload import KernelError, Payload, read_file


def load_kernel(path: Path, initrds: Iterable[Path], append: str, memory: int) -> Payload:
    """The kernel in `path` for a machine with `memory` bytes of RAM.

    Raises KernelError for a file that cannot be read, is no kernel, or does not fit."""
    image = read_file(path, "kernel")
    modules = [(str(name), read_file(name, "initrd")) for name in initrds]
    if linux.is_linux(image):
        if len(modules) > 1:
            raise KernelError(f"--initrd is given {len(modules)} times, and a Linux kernel takes one: join the files")
        return linux.load(path.name, image, modules[0][1] if modules else b"", append, memory)
    if multiboot.find_header(image) is not None:
        return multiboot.load(path.name, image, modules, append, memory)
    raise KernelError(
        f"kernel {path} is neither a Linux bzImage (no setup header) nor a multiboot image (no header in its first "
        "8192 bytes): name another file"
    )
