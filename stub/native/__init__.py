"""The C part of `stub.known`: its source, and the shared library built from it."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32


def sources_checksum() -> int:
    """CRC-32 of the source and of the header that it shares with the engine's helper, which the library has of what it
    was built from (V2E_SOURCES, set by setup.py)."""
    checksum = 0
    folder = Path(__file__).parent
    for path in (*sorted(folder.glob("*.c")), folder.parents[1] / "emu" / "native" / "quiet.h"):
        checksum = crc32(path.read_bytes(), checksum)
    return checksum
