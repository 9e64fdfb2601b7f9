"""A running QEMU, asked through its monitor."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

PATIENCE = 60  #: seconds


def ask(rom: bytes, folder: Path, commands: Sequence[str], ready: tuple[str, str]) -> dict[str, str]:
    """What the monitor answers to each command, on a guest that runs `rom`, as soon as the answer to the first of
    `ready` holds the second. Skips the test when QEMU is not installed."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    (folder / "rom").write_bytes(rom)
    process = subprocess.Popen(
        [program, "-M", "pc", "-cpu", "qemu64", "-accel", "tcg", "-m", "16", "-net", "none", "-display", "none",
         "-serial", "null", "-parallel", "null", "-monitor", "unix:monitor,server=on,wait=on", "-bios", "rom"],
        cwd=folder,
    )  # fmt: skip
    try:
        return _asked(folder / "monitor", commands, ready)
    finally:
        process.kill()
        process.wait()


def _asked(path: Path, commands: Sequence[str], ready: tuple[str, str]) -> dict[str, str]:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(str(path))
        monitor.settimeout(PATIENCE)

        def prompt() -> str:
            text = b""
            while not text.endswith(b"(qemu) "):
                text += monitor.recv(65536)
            return text.decode().replace("\r", "")

        def answer(command: str) -> str:
            monitor.sendall(f"{command}\n".encode())
            return prompt().partition("\n")[2].removesuffix("(qemu) ")  # behind the echo

        prompt()
        while ready[1] not in answer(ready[0]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return {command: answer(command) for command in commands}
