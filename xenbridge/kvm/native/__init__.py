"""The C parts of `xenbridge.kvm.hop` and `requests`: their sources, and the shared library built from them."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32


def sources_checksum() -> int:
    """CRC-32 of the sources and of the header that it shares with the engine's helper, which the library has of what it
    was built from (V2E_SOURCES, set by setup.py)."""
    folder = Path(__file__).parent
    checksum = 0
    for path in (*sorted(folder.glob("*.c")), folder.parents[2] / "emu" / "native" / "packed.h"):
        checksum = crc32(path.read_bytes(), checksum)
    return checksum
