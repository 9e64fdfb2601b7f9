"""Boot images from what Debian packages hold: floppies by mtools and syslinux, CDs by xorriso, GRUB's core, plain files
padded, userspaces."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from asm import assemble
from bench import assets, loaders
from bench.initramfs import userspace
from bench.loaders import DISK_SIZE, SYSLINUX
from repl.harness import MissingTool

T = TypeVar("T")

#: What the userspace says; the digest is checked by the test.
USERSPACE = "userspace: (\\w+) ([0-9a-f]{32}) /bin/busybox"


def need(path: str | Path, package: str) -> Path:
    """The file of a Debian package; skips the test when it is not installed."""
    if not Path(path).exists():
        pytest.skip(f"{path} is not installed: apt-get install {package}")
    return Path(path)


def asset(find: Callable[[], T]) -> T:
    """What `bench.assets` finds or `bench.loaders` makes; skips the test when it cannot be had."""
    try:
        return find()
    except (assets.AssetMissing, MissingTool) as missing:
        pytest.skip(str(missing))


def _run(*command: str | Path) -> None:
    program = str(command[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: make setup, as root, installs it")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    )
    assert done.returncode == 0, f"{program}: {done.stderr or done.stdout}"


def padded(path: Path, out: Path) -> Path:
    """As a hard disk. What is shorter than a boot sector gets its signature, as an installer would leave it."""
    data = path.read_bytes()
    if len(data) <= 510:
        data = data.ljust(510, b"\0") + b"\x55\xaa"
    out.write_bytes(data.ljust(DISK_SIZE, b"\0"))
    return out


def install_mbr(out: Path) -> Path:
    """Debian's mbr on a disk without partitions."""
    need("/sbin/install-mbr", "mbr")
    out.write_bytes(bytes(DISK_SIZE))
    _run("/sbin/install-mbr", "--force", out)
    return out


def syslinux_floppy(out: Path, config: str, files: Mapping[str, Path | bytes]) -> Path:
    """As `bench.loaders` has it; skips the test where a program is missing."""
    return asset(lambda: loaders.syslinux_floppy(out, config, files))


def small_floppy() -> bytes:
    """A bootable diskette of 160 KiB that says hello and halts."""
    sector = assemble(
        """
        bits 16
        org 0x7c00
        jmp 0:start
        start:
        mov si, text
        cld
        next: cs lodsb
        test al, al
        jz done
        mov ah, 0x0e
        mov bx, 7
        int 0x10
        jmp next
        done: hlt
        jmp done
        text: db "hello from the diskette", 0
        times 510-($-$$) db 0
        dw 0xaa55
        """
    )
    return sector.ljust(160 << 10, b"\0")


def memdisk_floppy(mode: str) -> Callable[[Path], Path]:
    """SYSLINUX that starts memdisk, in one of its ways to reach high memory, with a small diskette."""

    def build(out: Path) -> Path:
        memdisk = need(SYSLINUX / "memdisk", "syslinux-common")
        config = f"DEFAULT m\nLABEL m\nKERNEL memdisk\nAPPEND initrd=small.img floppy {mode}\n"
        return syslinux_floppy(out, config, {"memdisk": memdisk, "small.img": small_floppy()})

    return build


def meminfo_floppy(out: Path) -> Path:
    """SYSLINUX at its prompt, with meminfo.c32."""
    return asset(lambda: loaders.prompt_floppy(out))


def ipxe_floppy(out: Path) -> Path:
    """SYSLINUX that starts ipxe.lkrn."""
    return asset(lambda: loaders.ipxe_floppy(out))


def grub_legacy_floppy(out: Path) -> Path:
    """Stage 1, and stage 2 in the sectors behind it."""
    folder = Path("/usr/lib/grub/x86_64-pc")
    stages = [need(folder / name, "grub-legacy").read_bytes() for name in ("stage1", "stage2")]
    out.write_bytes((stages[0] + stages[1]).ljust(1440 << 10, b"\0"))
    return out


def isolinux_iso(out: Path) -> Path:
    """A hybrid ISO with ISOLINUX, which says a text of ours."""
    folder = out.parent / "iso"
    folder.mkdir(exist_ok=True)
    loader = need("/usr/lib/ISOLINUX/isolinux.bin", "isolinux")
    module = need(SYSLINUX / "modules/bios/ldlinux.c32", "syslinux-common")
    shutil.copy(loader, folder)
    shutil.copy(module, folder)
    (folder / "isolinux.cfg").write_text("SAY hello from the isolinux of a test\nPROMPT 1\nTIMEOUT 0\nDEFAULT none\n")
    _run(
        "xorriso", "-as", "mkisofs", "-quiet", "-o", out, "-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin",
        "-c", "boot.cat", "-b", "isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", folder,
    )  # fmt: skip
    return out


def core_disk(out: Path) -> Path:
    """GRUB's boot sector and a core with its shell behind it."""
    return asset(lambda: loaders.core_disk(out))


def xen_plain(out: Path) -> Path:
    """The hypervisor as the multiboot image that it is, for loaders that do not decompress."""
    out.write_bytes(gzip.decompress(asset(assets.xen).read_bytes()))
    return out


def installer_kernel(out: Path) -> Path:
    """Of Debian's text installer."""
    return asset(assets.installer)[0]


def installer_initrd(out: Path) -> Path:
    """Of Debian's text installer."""
    return asset(assets.installer)[1]


def userspace_file(architecture: str, end: str, out: Path) -> Path:
    """The initrd that says USERSPACE and ends as `end` says: see `bench.initramfs.userspace`."""
    out.write_bytes(userspace(asset(lambda: assets.linux(architecture)).busybox.read_bytes(), end))
    return out
