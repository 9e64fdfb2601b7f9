"""The C helper that makes Unicorn exact and fast: its sources, and the shared library built from them."""

from __future__ import annotations

import os
from zlib import crc32


def sources_checksum() -> int:
    """CRC-32 of every source file, in the order of their names: the library has that of what it was built from
    (V2E_SOURCES, set by setup.py)."""
    checksum = 0
    folder = os.path.dirname(__file__)
    for name in sorted(os.listdir(folder)):
        if name.endswith((".c", ".h")):
            with open(os.path.join(folder, name), "rb", buffering=0) as source:
                checksum = crc32(source.read(), checksum)
    return checksum
