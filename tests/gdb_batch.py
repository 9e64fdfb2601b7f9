"""Runs a real gdb without a terminal, by its command line."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def batch(*commands: str) -> str:
    """What `gdb -batch` prints for console commands."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        [gdb, "-nx", "-batch", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert "internal-error" not in done.stderr
    assert done.returncode >= 0, f"signal {-done.returncode} ended gdb:\n{done.stderr}"
    return done.stdout + done.stderr
