"""The assembled ROM of the built-in BIOS."""

from __future__ import annotations

from emu.firmware.assembled import assembled


def rom() -> bytes:
    """64 KiB that end at 4 GiB, and at 1 MiB in the low copy."""
    return assembled("bios/bios.bin")
