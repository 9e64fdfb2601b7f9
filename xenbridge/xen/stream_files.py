"""A machine saved to a file as a stream, and continued from one."""

from __future__ import annotations

from pathlib import Path

from emu.inspector import DebuggerError
from emu.machine import Machine
from emu.wholefile import check_target, written_whole
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import FileError, open_file


def check_writable(path: Path) -> None:
    """Raises FileError, before anything runs, for a file that could not be written."""
    if reason := check_target(path):
        raise FileError(f"{str(path)!r} {reason}")


def save_file(machine: Machine, path: Path) -> list[str]:
    """Write a stream of `machine` to `path`, whole or not at all. Gives what is not in it. Raises FileError. On the
    machine's thread."""
    check_writable(path)
    try:
        with written_whole(path) as file:
            notices = convert.save_stream(machine, file.write)
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
    except (ConvertError, WireError, DebuggerError) as error:
        raise FileError(f"{str(path)!r}: {error}") from None
