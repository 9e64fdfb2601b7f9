"""Real kernels and loaders to run, from Debian's packages: fetched once by apt into the user's cache, not installed."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

#: Seconds for one call of apt: an update of an architecture's lists takes a few.
APT_SECONDS = 300
LINUX = {"i386": "linux-image-686", "amd64": "linux-image-amd64"}
BUSYBOX = "busybox-static"
XEN, U_BOOT, GRUB = "xen-hypervisor-4.17-amd64", "u-boot-qemu", "grub-pc-bin"
INSTALLER = "debian-installer-12-netboot-i386"
PYTHON = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
#: Shared libraries that Python and Xen's libraries load.
LIBRARIES = (
    "libc6", "libffi8", "libexpat1", "zlib1g", "libbz2-1.0", "liblzma5", "libuuid1", "libzstd1", "libext2fs2",
    "libcom-err2", "libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1",
    "libxenhypfs1", "libxenmisc4.17", "libxenstore4", "libxentoolcore1", "libxentoollog1",
)  # fmt: skip
#: xl, the device model of its domains with its firmware, and the shared libraries of both beyond LIBRARIES.
XL = (
    "xen-utils-4.17", "qemu-system-xen", "qemu-system-data", "seabios", "libyajl2", "libfdt1", "libgcc-s1",
    "libglib2.0-0", "libpcre2-8-0", "libjpeg62-turbo", "libpixman-1-0", "libspice-server1", "libusb-1.0-0", "libudev1",
    "libssl3", "libopus0", "libgstreamer1.0-0", "libgstreamer-plugins-base1.0-0", "liborc-0.4-0", "liblz4-1",
    "libsasl2-2", "libstdc++6", "libunwind8", "libdw1", "libelf1", "libcap2",
)  # fmt: skip


class AssetMissing(Exception):
    """One sentence: what cannot be had, and why."""


class AssetGone(AssetMissing):
    """Debian's archive answers and does not have it: what names it is to be mended."""


@dataclass(frozen=True, slots=True)
class Set:
    """Packages of one of Debian's architectures that are fetched at one time, so that they are of one build. A kernel's
    package is what its name depends on; of its modules those below `modules` are kept."""

    architecture: str
    packages: tuple[str, ...]
    modules: str = ""


SETS = {
    "i386": Set("i386", (LINUX["i386"], BUSYBOX)),
    "amd64": Set("amd64", (LINUX["amd64"], BUSYBOX, XEN, U_BOOT, GRUB, INSTALLER)),
    # Xen's interfaces to its libraries (domctl) are of one release: hypervisor and libraries belong together.
    "dom0": Set("amd64", (XEN, LINUX["amd64"], BUSYBOX, *PYTHON, *LIBRARIES), modules="kernel/drivers/xen"),
    "xl": Set("amd64", XL),
}


@dataclass(frozen=True, slots=True)
class Linux:
    """Debian's kernel and its static busybox, both of one architecture."""

    kernel: Path
    busybox: Path


def linux(architecture: str = "i386") -> Linux:
    """i386 is the kernel for i686 without PAE, amd64 the 64-bit one. Raises AssetMissing where there is no apt, no
    archive, or no room."""
    return Linux(file(architecture, LINUX[architecture], "boot/vmlinuz-*"), file(architecture, BUSYBOX, "bin/busybox"))


def xen() -> Path:
    """The hypervisor, a multiboot image compressed by gzip. Raises AssetMissing."""
    return file("amd64", XEN, "boot/xen-*-amd64.gz")


def u_boot() -> Path:
    """U-Boot for QEMU's PC, a ROM. Raises AssetMissing."""
    return file("amd64", U_BOOT, "usr/lib/u-boot/qemu-x86/u-boot.rom")


def grub_modules() -> Path:
    """The folder of GRUB's modules for a BIOS, what `grub-mkimage -d` takes. Raises AssetMissing."""
    return file("amd64", GRUB, "usr/lib/grub/i386-pc/kernel.img").parent


def installer() -> tuple[Path, Path]:
    """Kernel and initrd of Debian's text installer for i386. Raises AssetMissing."""
    folder = "usr/lib/debian-installer/images/*/i386/text/debian-installer/i386"
    return file("amd64", INSTALLER, f"{folder}/linux"), file("amd64", INSTALLER, f"{folder}/initrd.gz")


def file(name: str, package: str, pattern: str) -> Path:
    """The last of the files that match, of a package of the set `name`. Raises AssetMissing."""
    found = sorted((_fetched(name)[0] / package).glob(pattern))
    if not found:
        raise AssetMissing(
            f"the package {package} of Debian's {SETS[name].architecture} was not fetched or has no {pattern}"
        )
    return found[-1]


def whole(name: str) -> Path:
    """The folder of a set, all packages of which could be had: one folder for each. Raises AssetMissing, and AssetGone
    where it is not for the network."""
    folder, answered = _fetched(name)
    if missing := [package for package in SETS[name].packages if not (folder / package).is_dir()]:
        kind = AssetGone if answered else AssetMissing
        raise kind(f"Debian's {SETS[name].architecture} packages {' '.join(missing)} were not fetched")
    return folder


@functools.cache
def _fetched(name: str) -> tuple[Path, bool]:
    """The folder that holds one for each package, and whether the archive answered where it was asked. Packages that
    cannot be had are asked for once in a process."""
    wanted, answered = SETS[name], False
    folder = user_cache_path("v2e") / "assets" / name / "packages"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes that want it at the same time wait for the first
            if missing := [package for package in wanted.packages if not (folder / package).is_dir()]:
                answered = _fetch(folder, wanted, missing)
    except OSError as error:
        raise AssetMissing(f"{folder} cannot be used: {error.strerror}") from error
    return folder, answered


def _fetch(folder: Path, wanted: Set, packages: Sequence[str]) -> bool:
    """An architecture's lists are read into a place of our own, so that the system's apt knows nothing of it. Returns
    whether there were any, so that an archive has answered."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise AssetMissing(f"{program} is not there to fetch Debian's {packages[0]} with")
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    options = [
        f"APT::Architecture={wanted.architecture}", f"APT::Architectures={wanted.architecture}", f"Dir::State={state}",
        "Dir::State::status=/dev/null", f"Dir::State::lists={state / 'lists'}", f"Dir::Cache={state / 'cache'}",
        "APT::Sandbox::User=root",
    ]  # fmt: skip
    settings = [word for option in options for word in ("-o", option)]
    try:
        # An update that misses some of the lists ends with an error; whether the needed ones are there is seen next.
        _run(["apt-get", *settings, "update", "-qq"], folder, check=False)
        answered = any((state / "lists").glob("*_Packages*"))
        failures = []
        for package in packages:
            try:
                _fetch_one(folder, settings, package, wanted.modules)
            except AssetMissing as missing:
                failures.append(missing)
        if len(failures) == len(packages):
            raise AssetGone(str(failures[0])) if answered else failures[0]
        return answered
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _fetch_one(folder: Path, settings: Sequence[str], package: str, modules: str) -> None:
    """Extract `package` into a folder of its name, which appears when it is complete."""
    name = package
    if package in LINUX.values():
        depends = _run(["apt-cache", *settings, "depends", package], folder)
        wanted = re.search(r"Depends: (linux-image-\d\S+)", depends)
        if wanted is None:
            raise AssetMissing(f"apt knows no package {package}: is Debian's archive reachable?")
        name = wanted[1]
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    _run(["apt-get", *settings, "download", "-qq", name], part)
    for archive in part.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(archive), str(part)], folder)
        archive.unlink()
    if name != package:
        _drop_modules(part, modules)
    os.rename(part, folder / package)


def _drop_modules(kernel: Path, kept: str) -> None:
    """Modules take most of the room: keep those below `kept`, as kernel/drivers/xen, in a folder `modules`."""
    if kept:
        for release in (kernel / "lib/modules").iterdir():
            os.rename(release / kept, kernel / "modules")
    shutil.rmtree(kernel / "lib", ignore_errors=True)


def _run(command: Sequence[str], folder: Path, *, check: bool = True) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssetMissing(f"{command[0]} was not done in {APT_SECONDS} s") from None
    if check and done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise AssetMissing(f"{command[0]} ended with status {done.returncode} and said: {said[-1]}")
    return done.stdout
