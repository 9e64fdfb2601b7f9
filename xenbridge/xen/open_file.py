"""A file that is open for reading, as bytes that are sliced: what is looked at is read, and no more.

It is not mapped: a file that somebody shortens meanwhile would end the process with SIGBUS, where a read is only short.
"""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path

from xenbridge.wire.errors import WireError

#: Bytes that are read at once where fewer are asked for: heads stand close to one another.
_BLOCK = 1 << 14


class OpenFile:
    """Implements `xenbridge.wire.schema.Buffer`. Its length, in bytes, is that at the time it was opened; a slice that
    the file no longer has, or that the host cannot read, raises WireError. Slices have no step."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be opened for reading, ValueError for what has no places to read at."""
        # A FIFO that nobody writes to would be waited for.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file; a pipe's data has to be stored in one first")
        self._size = status.st_size
        self._kept = (0, b"")  #: offset and bytes of the block that was read last

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, end, _ = part.indices(self._size)
        if end - start >= _BLOCK:
            return self._read(start, end)
        at, kept = self._kept
        if not at <= start <= end <= at + len(kept):
            at, kept = self._kept = start, self._read(start, min(start + _BLOCK, self._size))
        return kept[start - at : end - at]

    def _read(self, start: int, end: int) -> bytes:
        out = bytearray()
        while (at := start + len(out)) < end:
            try:
                piece = os.pread(self._fd, end - at, at)
            except OSError as error:
                raise WireError("file", "", at, f"it cannot be read: {error.strerror}") from None
            if not piece:
                raise WireError("file", "", at, f"it has been shortened: it had {self._size:#x} bytes when opened")
            out += piece
        return bytes(out)
