"""Files that a real Xen wrote (tests/data/xen/README.md)."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "data" / "xen"


@cache
def sample(name: str) -> bytes:
    """`s_hvmctx.bin`, `s_stream.bin` or `s_dump.core`."""
    return gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
