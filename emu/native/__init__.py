"""The C helper that makes Unicorn exact and fast: its sources, and the shared library built from them."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32


def sources_checksum() -> int:
    """CRC-32 of every source file, in the order of their names: the library has that of what it was built from
    (V2E_SOURCES, set by setup.py)."""
    checksum = 0
    for path in sorted(Path(__file__).parent.glob("*.[ch]")):
        checksum = crc32(path.read_bytes(), checksum)
    return checksum
