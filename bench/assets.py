"""Real kernels to run, from Debian's packages: fetched once by apt into the user's cache, without being installed."""

from __future__ import annotations

import fcntl
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


class AssetMissing(Exception):
    """One sentence: what cannot be had, and why."""


@dataclass(frozen=True, slots=True)
class Linux:
    """Debian's kernel for i686 without PAE, and its static busybox for i386."""

    kernel: Path
    busybox: Path


def linux_686() -> Linux:
    """Raises AssetMissing where there is no apt, no archive, or no room."""
    folder = user_cache_path("v2e") / "assets" / "i386"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes that want it at the same time wait for the first
            if not (found := _find(folder)):
                _fetch(folder)
                found = _find(folder)
    except OSError as error:
        raise AssetMissing(f"{folder} cannot be used: {error.strerror}") from error
    if found is None:
        raise AssetMissing("the packages of Debian's linux-image-686 and busybox-static do not hold what is expected")
    return found


def _find(folder: Path) -> Linux | None:
    kernels, busybox = sorted(folder.glob("root/boot/vmlinuz-*")), folder / "root" / "bin" / "busybox"
    return Linux(kernels[-1], busybox) if kernels and busybox.is_file() else None


def _fetch(folder: Path) -> None:
    """Debian's i386 lists are read into a place of our own, so that the system's apt knows nothing of it."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise AssetMissing(f"{program} is not there to fetch Debian's linux-image-686 with")
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    options = [
        "APT::Architecture=i386", "APT::Architectures=i386", f"Dir::State={state}", "Dir::State::status=/dev/null",
        f"Dir::State::lists={state / 'lists'}", f"Dir::Cache={state / 'cache'}", "APT::Sandbox::User=root",
    ]  # fmt: skip
    settings = [word for option in options for word in ("-o", option)]
    # An update that misses some of the lists ends with an error; whether the needed ones are there is seen next.
    _run(["apt-get", *settings, "update", "-qq"], folder, check=False)
    depends = _run(["apt-cache", *settings, "depends", "linux-image-686"], folder)
    wanted = re.search(r"Depends: (linux-image-\S+-686)\b", depends)
    if wanted is None:
        raise AssetMissing("apt knows no i386 package linux-image-686: is Debian's archive reachable?")
    _run(["apt-get", *settings, "download", "-qq", wanted[1], "busybox-static"], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(folder / "part")], folder)
        package.unlink()
    # Modules take most of the room and are not needed.
    shutil.rmtree(folder / "part" / "lib", ignore_errors=True)
    os.rename(folder / "part", folder / "root")
    shutil.rmtree(state)


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
