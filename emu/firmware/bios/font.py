"""The fonts of the BIOS."""

from __future__ import annotations


def font(height: int) -> bytes:
    """256 characters of `height` bytes each."""
    return bytes(256 * height)
