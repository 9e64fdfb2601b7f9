"""The assembled ROM of the built-in BIOS."""

from __future__ import annotations

import importlib.resources


def rom() -> bytes:
    """64 KiB that end at 4 GiB, and at 1 MiB in the low copy."""
    return importlib.resources.files("emu.firmware.bios").joinpath("bios.bin").read_bytes()
