"""The boots that must pass: what is booted, on which machine and firmwares, what must come, within how many
instructions. The tests and `python -m bench.boots` read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import assets
from boots import images
from boots.images import SYSLINUX, need

MILLION = 1_000_000
#: What makes an image at a path, or names one that exists.
Build = Callable[[Path], Path]


@dataclass(frozen=True, slots=True)
class Kernel:
    """What `--kernel` and its companions are given; built in a folder."""

    build: Callable[[Path], Path]
    append: str = ""
    initrd: Callable[[Path], Path] | None = None


@dataclass(frozen=True, slots=True)
class Boot:
    """`media` are options and what makes their files, `firmwares` names of `firmware_options`, each of which makes a
    test. `event` ends the boot, as `--until` has it; `exit` is the debug-exit port with code 0, or power-off. Each
    step of `dialog` types a text, on COM1 where `serial` is waited for, else on the keyboard, and waits for its event.
    `says` are regular expressions that the serial line must have met in the end. `budget` is in millions of
    instructions, of the boot and of each step; `slow` boots are left out of `make test-fast`, and those
    under a firmware of `soak` left to `make soak`."""

    name: str
    event: str
    budget: int
    media: tuple[tuple[str, Build], ...] = ()
    kernel: Kernel | None = None
    machine: str = "isapc"
    memory: str = "64M"
    firmwares: tuple[str, ...] = ("seabios", "builtin")
    dialog: tuple[tuple[str, str], ...] = ()
    says: tuple[str, ...] = ()
    slow: bool = False
    soak: tuple[str, ...] = ()


DIRECT = "none"  #: the firmware of a kernel that is entered without any
BOCHS_BIOS, VGABIOS = "/usr/share/bochs/BIOS-bochs-legacy", "/usr/share/vgabios/vgabios.bin"


def firmware_options(name: str) -> list[str]:
    """Those of `v2e run`. Skips the test when a file is not installed."""
    if name == "bochs":
        return ["--firmware", str(need(BOCHS_BIOS, "bochsbios")), "--option-rom", str(need(VGABIOS, "vgabios"))]
    if name == "u-boot":
        return ["--firmware", str(images.asset(assets.u_boot))]
    return [] if name == DIRECT else ["--firmware", name]


def _floppy(build: Build) -> tuple[tuple[str, Build]]:
    return (("--floppy", build),)


def _disk(build: Build) -> tuple[tuple[str, Build]]:
    return (("--disk", build),)


def _cdrom(build: Build) -> tuple[tuple[str, Build]]:
    return (("--cdrom", build),)


def _file(path: str, package: str) -> Build:
    return lambda out: need(path, package)


def _mbr(name: str) -> Build:
    return lambda out: images.padded(need(SYSLINUX / "mbr" / name, "syslinux-common"), out)


def _memdisk(way: str) -> str:
    """What memdisk says about the way it goes, and then the diskette in its memory."""
    return f"text:Using {way} access to high memory[^$]*hello from the diskette"


_RESCUE = "/usr/lib/grub-rescue/grub-rescue-"
#: Types a command to GRUB's shell; what it answers.
_GRUB_SHELL = (("echo $grub_platform\n", "text:^pc$"), ("nonsense\n", "text:can't find command"))
_XEN = "console=com1 com1=115200,8n1"
_NO_DOM0 = "serial:dom0 kernel not specified"
#: What isapc has: no APIC, no ACPI, no PCI.
_PIC_ONLY = "console=ttyS0 nolapic noapic acpi=off pci=off tsc=unstable"
_FOUND_ON_PC = ("ACPI: Using IOAPIC for interrupt routing", "TSC deadline timer available", "hpet0: at MMIO")


def _linux(architecture: str, append: str, end: str) -> Kernel:
    return Kernel(
        lambda out: images.asset(lambda: assets.linux(architecture)).kernel,
        append,
        lambda out: images.userspace_file(architecture, end, out),
    )


#: Without nomodeset the kernel would drive the display itself, and show its text as a picture.
_INSTALLER = Kernel(images.installer_kernel, "vga=normal fb=false nomodeset quiet", images.installer_initrd)

BOOTS = (
    Boot("post", "text:No bootable device", 300),
    Boot("post on pc", "text:No bootable device", 300, machine="pc"),
    Boot("bochs bios", "text:FATAL: No bootable device", 100, firmwares=("bochs",)),
    Boot("mbr.bin", "text:Missing operating system", 300, _disk(_mbr("mbr.bin"))),
    Boot("handoff.bin", "text:DL: 80  DS: 0000", 300, _disk(_mbr("diag/handoff/handoff.bin"))),
    Boot("install-mbr", "text:MBR", 300, _disk(images.install_mbr)),
    Boot(
        "syslinux", "text:boot:", 600, _floppy(images.meminfo_floppy),
        dialog=(
            ("nosuch\n", "text:Loading nosuch\\.\\.\\. failed[^$]*boot:$"),
            ("meminfo.c32\n", "text:DOS RAM: 639K"),
        ),
    ),
    Boot("memdisk bigraw", _memdisk("big real mode raw"), 900, _floppy(images.memdisk_floppy("bigraw"))),
    Boot("memdisk raw", _memdisk("raw"), 900, _floppy(images.memdisk_floppy("raw"))),
    Boot("memdisk safeint", _memdisk("safe INT 15h"), 900, _floppy(images.memdisk_floppy("safeint"))),
    # it is its own code but for a floppy's sectors and a map of memory, which others ask SeaBIOS for
    Boot(
        "memtest86+", "text:Memtest86\\+ v6", 600,
        _floppy(_file("/boot/memtest86+ia32.bin", "memtest86+")), slow=True, soak=("seabios",),
    ),
    Boot("grub floppy", "text:GNU GRUB", 2000, _floppy(_file(f"{_RESCUE}floppy.img", "grub-rescue-pc")), slow=True),
    Boot("grub cd", "text:GNU GRUB", 2000, _cdrom(_file(f"{_RESCUE}cdrom.iso", "grub-rescue-pc")), slow=True),
    Boot("core.img", "text:GNU GRUB[^$]*grub>$", 2000, _disk(images.core_disk)),
    # each turn of its wait for a key changes its own code, of which a block is translated anew
    Boot("grub shell", "text:GNU GRUB[^$]*grub>$", 2000, _disk(images.core_disk), dialog=_GRUB_SHELL, slow=True),
    Boot("core.img on pc", "text:GNU GRUB[^$]*grub>$", 2000, _disk(images.core_disk), machine="pc"),
    Boot(
        "grub-legacy", "text:grub>", 600, _floppy(images.grub_legacy_floppy),
        dialog=(("displaymem\n", "text:Lower memory: 639K"),),
    ),
    Boot("isolinux cd", "text:hello from the isolinux of a test", 600, _cdrom(images.isolinux_iso)),
    Boot("isolinux disk", "text:hello from the isolinux of a test", 600, _disk(images.isolinux_iso)),
    Boot("ipxe.lkrn", "text:iPXE initialising devices\\.\\.\\.ok", 3000, _floppy(images.ipxe_floppy), slow=True),
    Boot(
        "ipxe.iso", "text:iPXE initialising devices\\.\\.\\.ok", 3000,
        _cdrom(_file("/usr/lib/ipxe/ipxe.iso", "ipxe")), slow=True,
    ),
    Boot(
        "u-boot", "serial:Hit any key", 600, machine="pc", memory="256M", firmwares=("u-boot",),
        dialog=((" ", "serial:=> $"), ("version\n", "serial:U-Boot 2023[^$]*=> $")),
    ),
    Boot("xen", _NO_DOM0, 900, kernel=Kernel(images.xen_plain, _XEN), machine="pc"),
    Boot(
        "xen directly", _NO_DOM0, 900, kernel=Kernel(images.xen_plain, f"no-real-mode {_XEN}"), machine="pc",
        firmwares=(DIRECT,),
    ),
    Boot(
        "linux 686", "exit", 12_000, kernel=_linux("i386", _PIC_ONLY, "exit"), memory="128M",
        firmwares=(DIRECT, "seabios", "builtin"), says=(images.USERSPACE,), slow=True,
    ),
    # the built-in BIOS has no ACPI tables: the kernel takes PCI and its interrupts as POST has set them up
    Boot(
        "linux 686 on pc without ACPI", "exit", 12_000, kernel=_linux("i386", "console=ttyS0", "exit"), machine="pc",
        memory="128M", firmwares=("builtin",), says=(images.USERSPACE, "PCI: Using configuration type 1"), slow=True,
    ),
    Boot(
        "linux 686 on pc", "exit", 12_000, kernel=_linux("i386", "console=ttyS0", "poweroff"), machine="pc",
        memory="128M", firmwares=(DIRECT, "seabios"), says=(images.USERSPACE, *_FOUND_ON_PC), slow=True,
    ),
    # to its question, up to 40 billion instructions, it takes three times as long as to its first daemons; what the
    # built-in BIOS leaves to such a kernel is "linux 686 on pc without ACPI"
    Boot(
        "installer daemons", "text:Starting system log daemon: syslogd, klogd", 15_000, machine="pc", memory="512M",
        kernel=_INSTALLER, firmwares=("seabios",), slow=True,
    ),
    Boot(
        "installer", "text:Select a language[^$]*English", 40_000, machine="pc", memory="512M", kernel=_INSTALLER,
        slow=True, soak=("seabios", "builtin"),
    ),
    Boot(
        "linux amd64 on pc", "exit", 12_000, kernel=_linux("amd64", "console=ttyS0", "poweroff"), machine="pc",
        memory="256M", firmwares=(DIRECT, "seabios"), says=(images.USERSPACE, *_FOUND_ON_PC), slow=True,
    ),
)  # fmt: skip
