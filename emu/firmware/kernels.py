"""Which kind of kernel a file is, and how it is started without firmware or behind one."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from emu.firmware import linux, linux16, multiboot
from emu.firmware.acpi import ROOM, placed_tables
from emu.firmware.kernelrom import AfterPost
from emu.firmware.payload import MAX_FILE, KernelError, Payload, read_file
from emu.record import replace

GZIP_MAGIC = b"\x1f\x8b"
_Modules = Sequence[tuple[str, bytes]]


def load_kernel(path: Path, initrds: Iterable[Path], append: str, memory: int, *, acpi: bool = False) -> Payload:
    """As `load`, of files. Raises KernelError for one that cannot be read as well."""
    image, modules = _read(path, initrds)
    return load(path.name, image, modules, append, memory, acpi=acpi)


def load_kernel_after_post(path: Path, initrds: Iterable[Path], append: str, memory: int) -> AfterPost:
    """As `load_after_post`, of files. Raises KernelError for one that cannot be read as well."""
    image, modules = _read(path, initrds)
    return load_after_post(path.name, image, modules, append, memory)


def load(name: str, image: bytes, modules: _Modules, append: str, memory: int, *, acpi: bool = False) -> Payload:
    """The kernel `image` for a machine with `memory` bytes of RAM and no firmware; with `acpi` the last of them hold
    the tables of `--machine pc`.

    Raises KernelError for what is no kernel, or does not fit."""
    kept = ROOM if acpi else 0
    if _is_linux(name, image):
        payload = linux.load(name, image, _initrd(modules), append, memory - kept, kept)
    else:
        payload = multiboot.load(name, image, modules, append, memory - kept, kept)
    if acpi:
        payload = replace(payload, pieces=(*payload.pieces, *placed_tables(memory - kept)))
    return payload


def load_after_post(name: str, image: bytes, modules: _Modules, append: str, memory: int) -> AfterPost:
    """The kernel `image` for the kernel ROM, on a machine with `memory` bytes of RAM.

    Raises KernelError for what is no kernel, or does not fit."""
    if _is_linux(name, image):
        return linux16.load(name, image, _initrd(modules), append, memory)
    return multiboot.load_after_post(name, image, modules, append, memory)


def _read(path: Path, initrds: Iterable[Path]) -> tuple[bytes, list[tuple[str, bytes]]]:
    """A kernel that is compressed by gzip as a whole, as Xen is distributed, is decompressed."""
    image = read_file(path, "kernel")
    if image.startswith(GZIP_MAGIC):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(image)) as stream:
                image = stream.read(MAX_FILE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise KernelError(f"kernel {path} looks compressed by gzip and cannot be read: {error}") from None
        if len(image) > MAX_FILE:
            raise KernelError(f"kernel {path} has more than {MAX_FILE} bytes when decompressed: name another file")
    return image, [(str(name), read_file(name, "initrd")) for name in initrds]


def _is_linux(name: str, image: bytes) -> bool:
    """Else it is a multiboot image. Raises KernelError for what is neither."""
    if linux.is_linux(image):
        return True
    if multiboot.find_header(image) is not None:
        return False
    raise KernelError(
        f"kernel {name} is neither a Linux bzImage (no setup header) nor a multiboot image (no header in its first "
        "8192 bytes): name another file"
    )


def _initrd(modules: _Modules) -> bytes:
    if len(modules) > 1:
        raise KernelError(f"--initrd is given {len(modules)} times, and a Linux kernel takes one: join the files")
    return modules[0][1] if modules else b""
