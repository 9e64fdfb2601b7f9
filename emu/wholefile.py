"""A file written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def check_target(path: Path) -> str:
    """Why `path` could not be written, as words behind its name; empty: nothing is known against it."""
    if path.exists() and not path.is_file():
        return "is no regular file"
    if not path.parent.is_dir():
        return "cannot be made: there is no folder for it"
    if not os.access(path.resolve().parent, os.W_OK):
        return "is in a folder that may not be written"
    return ""


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, or beside what it links to, that takes its place when all of it is on the disk; on any
    exception an earlier file is as it was. Raises OSError."""
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
