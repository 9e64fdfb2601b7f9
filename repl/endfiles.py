"""The files that `v2e run` writes when it ends: the display's picture, a Xen save stream."""

from __future__ import annotations

import os

from emu.inspector import DebuggerError
from emu.typed import TYPE_CHECKING
from repl.machine_options import input_files
from repl.options import UsageError, refuse_input
from repl.outcome import STATUS_OK, STATUS_USAGE, notice
from repl.rig import Rig

if TYPE_CHECKING:
    import argparse


def check_end_files(options: argparse.Namespace) -> None:
    """Before anything runs. Raises UsageError for a file that could not be written at the end."""
    if options.screenshot is not None:
        refuse_input("--screenshot", options.screenshot, input_files(options))
        _check_screenshot(options.screenshot)
    if options.save_xen is not None:
        _check_save_xen(options)


def write_end_files(rig: Rig, options: argparse.Namespace) -> int:
    """Write what the options ask for. STATUS_OK, or STATUS_USAGE after a sentence on stderr for each that failed."""
    written = []
    if options.screenshot is not None:
        written.append(_write_screenshot(rig, options.screenshot))
    if options.save_xen is not None:
        written.append(_write_save_xen(rig, options.save_xen))
    return max(written, default=STATUS_OK)


def _check_screenshot(name: str) -> None:
    if os.path.isdir(name):
        raise UsageError(f"--screenshot {name} is a directory: name a file in it")
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"--screenshot {name}: there is no folder for a file of this name")
    if not os.access(name if os.path.exists(name) else folder, os.W_OK):
        raise UsageError(f"--screenshot {name}: the file may not be written")


def _check_save_xen(options: argparse.Namespace) -> None:
    from pathlib import Path

    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import check_writable

    refuse_input("--save-xen", options.save_xen, input_files(options))
    try:
        check_writable(Path(options.save_xen))
    except FileError as error:
        raise UsageError(f"--save-xen {error}") from error


def _write_screenshot(rig: Rig, name: str) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from pathlib import Path

    from repl.plots import PlotError, write_png

    try:
        write_png(rig.worker.call(rig.debugger.picture), Path(name))
    except (PlotError, DebuggerError) as error:
        notice(f"--screenshot: {error}")
        return STATUS_USAGE
    return STATUS_OK


def _write_save_xen(rig: Rig, name: str) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from pathlib import Path

    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import save_file

    try:
        notices = rig.worker.call(lambda: save_file(rig.machine, Path(name)))
    except (FileError, DebuggerError) as error:
        notice(f"--save-xen: {error}")
        return STATUS_USAGE
    for text in notices:
        notice(text)
    return STATUS_OK
