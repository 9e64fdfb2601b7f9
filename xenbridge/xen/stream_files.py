"""A machine saved to a file as a stream, and continued from one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from emu.machine import Machine
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import FileError, open_file


def check_target(path: Path) -> None:
    """Raises FileError, before anything runs, for a file that could not be written."""
    if path.exists() and not path.is_file():
        raise FileError(f"{str(path)!r} is no regular file")
    if not path.parent.is_dir():
        raise FileError(f"{str(path)!r}: there is no folder for a file of this name")
    if not os.access(path.resolve().parent, os.W_OK):
        raise FileError(f"{str(path)!r}: its folder may not be written")


def save_file(machine: Machine, path: Path) -> list[str]:
    """Write a stream of `machine` to `path`, whole or not at all. Gives what is not in it. Raises FileError. On the
    machine's thread."""
    check_target(path)
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        try:
            with open(unfinished, "xb") as file:
                notices = convert.save_stream(machine, file.write)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)
            raise
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror}") from None
    except ConvertError as error:
        raise FileError(f"{str(path)!r} is not written: {error}") from None
    return notices


def load_file(machine: Machine, path: Path) -> list[str]:
    """Put the domain that `path` holds into `machine`, which has just been built. Gives what could not be carried
    over. Raises FileError. On the machine's thread."""
    file = open_file(path)
    try:
        return convert.load(machine, file)
    except (ConvertError, WireError) as error:
        raise FileError(f"{str(path)!r}: {error}") from None
