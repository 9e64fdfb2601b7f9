"""The boots that must pass: image, options, expected text, instruction budget. The test and the bench read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boots import images
from boots.images import SYSLINUX, need

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Boot:
    """`build` makes the image at a path or names one that exists; None: no image. `option` is how it is given.
    `expected` is a regular expression for the screen. `keys` are typed then, and `answer` must come. `budget` is in
    millions of instructions; `slow` boots are left out of `make test-fast`; `fails` says what
    keeps one from passing yet."""

    name: str
    build: Callable[[Path], Path] | None
    option: str
    expected: str
    budget: int
    keys: str = ""
    answer: str = ""
    slow: bool = False
    fails: str = ""
    firmware: tuple[str, ...] = ("--firmware", "seabios")  #: and, unless it is another, the built-in BIOS


def _file(path: str, package: str) -> Callable[[Path], Path]:
    return lambda out: need(path, package)


def _mbr(name: str) -> Callable[[Path], Path]:
    return lambda out: images.padded(need(SYSLINUX / "mbr" / name, "syslinux-common"), out)


def _memdisk(way: str) -> str:
    """What memdisk says about the way it goes, and then the diskette in its memory."""
    return f"Using {way} access to high memory[^$]*hello from the diskette"


_GRUB = "/usr/lib/grub-rescue/grub-rescue-"
_BOCHS = ("--firmware", "/usr/share/bochs/BIOS-bochs-legacy", "--option-rom", "/usr/share/vgabios/vgabios.bin")

BOOTS = (
    Boot("seabios", None, "", "No bootable device", 300),
    Boot("mbr.bin", _mbr("mbr.bin"), "--disk", "Missing operating system", 300),
    Boot("handoff.bin", _mbr("diag/handoff/handoff.bin"), "--disk", "DL: 80  DS: 0000", 300),
    Boot("install-mbr", images.install_mbr, "--disk", "MBR", 300),
    Boot("syslinux", images.meminfo_floppy, "--floppy", "boot:", 600, "\\n", "DOS RAM: 639K"),
    Boot("memdisk bigraw", images.memdisk_floppy("bigraw"), "--floppy", _memdisk("big real mode raw"), 900),
    Boot("memdisk raw", images.memdisk_floppy("raw"), "--floppy", _memdisk("raw"), 900),
    Boot("memdisk safeint", images.memdisk_floppy("safeint"), "--floppy", _memdisk("safe INT 15h"), 900),
    Boot("memtest86+", _file("/boot/memtest86+ia32.bin", "memtest86+"), "--floppy", "Memtest86\\+ v6", 600, slow=True),
    Boot("grub floppy", _file(f"{_GRUB}floppy.img", "grub-rescue-pc"), "--floppy", "GNU GRUB", 2000, slow=True),
    Boot("grub cd", _file(f"{_GRUB}cdrom.iso", "grub-rescue-pc"), "--cdrom", "GNU GRUB", 2000, slow=True),
    Boot("grub-legacy", images.grub_legacy_floppy, "--floppy", "grub>", 600),
    Boot("isolinux cd", images.isolinux_iso, "--cdrom", "hello from the isolinux of a test", 600),
    Boot("isolinux disk", images.isolinux_iso, "--disk", "hello from the isolinux of a test", 600),
    Boot("ipxe.lkrn", images.ipxe_floppy, "--floppy", "iPXE initialising devices", 600, slow=True),
    Boot("ipxe.iso", _file("/usr/lib/ipxe/ipxe.iso", "ipxe"), "--cdrom", "Loading ipxe.krn... ok", 600, slow=True),
    Boot("bochs bios", None, "", "FATAL: No bootable device", 100, firmware=_BOCHS),
)
