"""Loaders as a distribution has them: floppies by mtools and syslinux, GRUB's core on a disk, iPXE, memtest86+.

An image is the same to the byte each time: what a file system stamps on its files is of one instant.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench import assets
from repl.harness import HarnessError, MissingTool

SYSLINUX = Path("/usr/lib/syslinux")
MEMTEST, IPXE = Path("/boot/memtest86+ia32.bin"), Path("/usr/lib/ipxe/ipxe.lkrn")
#: 20 cylinders of 16 heads and 63 sectors, so that all BIOSes agree on the geometry.
DISK_SIZE = 20 * 16 * 63 * 512
FLOPPY_SIZE = 1440 << 10
CORE_MODULES = ("biosdisk", "normal", "minicmd", "echo", "ls")
#: The serial number of a floppy, and seconds since 1970 of all its files (mtools takes them from this variable).
SERIAL, STAMP = "7632e000", {"SOURCE_DATE_EPOCH": "1000000000", "MTOOLS_SKIP_CHECK": "1"}


def installed(path: Path, package: str) -> Path:
    """The file of a Debian package. Raises MissingTool."""
    if not path.exists():
        raise MissingTool(f"{path} is not installed (Debian: apt-get install {package})")
    return path


def made(program: str, package: str, *arguments: str | Path) -> None:
    """Run one of the programs that make images. Raises MissingTool, or HarnessError with its own words."""
    if shutil.which(program) is None:
        raise MissingTool(f"{program} is not installed (Debian: apt-get install {package})")
    done = subprocess.run(
        [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, **STAMP},
    )  # fmt: skip
    if done.returncode:
        raise HarnessError(f"{program}: {(done.stderr or done.stdout).strip()}")


def syslinux_floppy(out: Path, config: str, files: Mapping[str, Path | bytes]) -> Path:
    """A FAT floppy of 1440 KiB with SYSLINUX, syslinux.cfg and `files`. Raises MissingTool, HarnessError."""
    out.write_bytes(bytes(FLOPPY_SIZE))
    made("mformat", "mtools", "-i", out, "-f", "1440", "-N", SERIAL, "::")
    made("syslinux", "syslinux", "--install", out)
    parts: dict[str, Path | bytes] = {"syslinux.cfg": config.encode(), **files}
    for name, content in parts.items():
        source = content
        if isinstance(source, bytes):
            source = out.with_suffix(".part")
            source.write_bytes(content)  # type: ignore[arg-type]
        made("mcopy", "mtools", "-o", "-i", out, source, f"::{name}")
    return out


def prompt_floppy(out: Path) -> Path:
    """SYSLINUX at its prompt, with meminfo.c32. Raises MissingTool, HarnessError."""
    modules = SYSLINUX / "modules/bios"
    files = {name: installed(modules / name, "syslinux-common") for name in ("meminfo.c32", "libcom32.c32")}
    return syslinux_floppy(out, "PROMPT 1\nTIMEOUT 0\nDEFAULT meminfo.c32\n", files)


def ipxe_floppy(out: Path) -> Path:
    """SYSLINUX that starts ipxe.lkrn. Raises MissingTool, HarnessError."""
    return syslinux_floppy(out, "DEFAULT i\nLABEL i\nKERNEL ipxe.krn\n", {"ipxe.krn": installed(IPXE, "ipxe")})


def core_disk(out: Path) -> Path:
    """GRUB's boot sector and, in the sectors behind it, a core of our choice: its shell, no configuration. Raises
    AssetMissing, MissingTool, HarnessError."""
    modules = assets.grub_modules()
    core = out.with_suffix(".core")
    made(
        "grub-mkimage", "grub-common", "-O", "i386-pc", "-d", modules, "-o", core, "-p", "(hd0)/boot/grub",
        *CORE_MODULES,
    )  # fmt: skip
    # boot.img looks for the core in sector 1 unless an installer has written another number
    out.write_bytes(((modules / "boot.img").read_bytes() + core.read_bytes()).ljust(DISK_SIZE, b"\0"))
    return out


def memtest() -> Path:
    """memtest86+ of 32 bits, which boots from a floppy as it is. Raises MissingTool."""
    return installed(MEMTEST, "memtest86+")
