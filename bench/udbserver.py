"""udbserver, a gdb server for Unicorn, as a third side of gdb's figures: installed from PyPI into an environment in the
user's cache, as it wants Unicorn's Python binding.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from bench import guests
from bench.sides import BenchError, FigureUnavailable, Served, Side, serving

#: What is installed: the last releases that were there when the figures were made.
PACKAGES = ("udbserver==0.3.0", "unicorn==2.1.4")
PIP_SECONDS = 300
GUEST = Path(__file__).with_name("udbserver_guest.py")


class Udbserver(Side):
    """It has no PC around its CPU: its guest is a loop in flat 32-bit code, where the others have one in real mode, and
    there are no firmware and no disk."""

    def __init__(self, python: Path) -> None:
        # -P, as this folder has a module of the same name.
        super().__init__("udbserver", (str(python), "-P", str(GUEST)))

    @property
    def environment(self) -> dict[str, str]:
        # It asks for registers that Unicorn warns about, by the thousand.
        return {**super().environment, "UC_IGNORE_REG_BREAK": "1"}

    def run(self, firmware: str, disk: Path | None, bus: str = "isa") -> float:
        raise BenchError(f"{self.name} runs no machine")

    @contextlib.contextmanager
    def serve(self, firmware: str, disk: Path | None) -> Iterator[Served]:
        with serving(self, lambda port: [str(port), f"{guests.BOOT_ADDRESS:x}", guests.FLAT_LOOP_CODE.hex()]) as served:
            yield served


def side() -> Udbserver:
    """The side, installed when it is first asked for. Raises FigureUnavailable where it cannot be had."""
    folder = user_cache_path("v2e") / "assets" / "udbserver"
    python = folder / "environment" / "bin" / "python"
    done = folder / " ".join(PACKAGES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes that want it at the same time wait for the first
            if not done.exists():
                shutil.rmtree(folder / "environment", ignore_errors=True)
                _call([sys.executable, "-m", "venv", str(folder / "environment")])
                _call([str(python), "-m", "pip", "install", "--quiet", *PACKAGES])
                done.touch()
    except OSError as error:
        raise FigureUnavailable(f"{folder} cannot be used: {error.strerror}") from error
    return Udbserver(python)


def _call(command: list[str]) -> None:
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_SECONDS, check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FigureUnavailable(f"`{' '.join(command[1:4])}` was not done in {PIP_SECONDS} s") from None
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or ["nothing"]
        raise FigureUnavailable(f"udbserver cannot be installed ({said[-1]})")
