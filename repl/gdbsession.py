"""`v2e gdb`: a machine stopped at reset, and a real gdb attached to it in this terminal; others may look on."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from repl.options import GDB_OFF, UsageError
from repl.outcome import STATUS_OK, STATUS_USAGE, notice
from repl.rig import Rig, rig_for, serve

#: Without Python gdb has no helper, and no command of its. Extended, so that `run`, `start` and `starti` begin again.
_CONNECT = """\
if $_isvoid($_v2e_connects)
target extended-remote {address}
else
v2e-connect {address}
end
"""


def gdb_command(gdb: str, helper: Path, connect: Path, arguments: Sequence[str]) -> list[str]:
    """gdb's command line: the helper and the connection first, so that the person's own commands find both."""
    return [gdb, "-q", "-x", str(helper), "-x", str(connect), *arguments]


def _ignore(signum: int, frame: FrameType | None) -> None:
    """A handler, and not SIG_IGN, as gdb would inherit that."""


def _run_child(command: list[str]) -> int:
    """Run gdb on our terminal. Ctrl-C is gdb's: it interrupts the guest through the connection."""
    before = signal.signal(signal.SIGINT, _ignore)
    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        raise UsageError(f"gdb cannot be started: {error.strerror}") from None
    finally:
        signal.signal(signal.SIGINT, before)


def _attach(rig: Rig, gdb: str, address: str | None, arguments: Sequence[str]) -> int:
    """At `address`, where others find the machine too; None: at one that nobody else knows."""
    from stub.gdb import helper_path

    with tempfile.TemporaryDirectory(prefix="v2e-") as directory:
        connect = Path(directory, "connect.gdb")
        private = f"{directory}/gdb"
        served = serve(rig, private if address is None else address, announce=address is not None)
        connect.write_text(_CONNECT.format(address=served))
        code = _run_child(gdb_command(gdb, helper_path(), connect, arguments))
    if rig.guest_code is None and code:
        notice(f"gdb ended with {f'status {code}' if code > 0 else f'signal {-code}'}")
        return STATUS_USAGE
    return rig.status(None) or STATUS_OK


def run_gdb(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """`v2e gdb`. Returns the exit status; raises UsageError."""
    gdb = shutil.which("gdb")
    if gdb is None:
        raise UsageError("gdb is not installed: install it (Debian package gdb), or use `v2e run --gdb ADDRESS --wait`")
    for option in ("serial", "debugcon", "parallel"):
        if getattr(options, option) == "stdio":
            raise UsageError(f"--{option} stdio would write into gdb's terminal: name a file")
    if options.gdb == "stdio":
        raise UsageError("--gdb stdio is gdb's terminal: give PORT, HOST:PORT or a socket's path")
    with rig_for(options, paced=True) as rig:
        return _attach(rig, gdb, None if options.gdb == GDB_OFF else options.gdb, arguments)
