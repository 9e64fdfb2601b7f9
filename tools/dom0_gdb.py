"""gdb on the host for a test in dom0, whose stub is at the other end of the emulated serial line COM4.

The test asks for it in a line of the results, {"gdb": [COMMAND, ...]}, and is answered on the same line with what gdb
has printed, {"gdb": TEXT}, or null where there is no gdb.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

#: QEMU's end of COM4, in the folder that it runs in.
SOCKET = "com4"
#: Seconds that gdb waits for an answer: more than any host takes. A dom0 that hangs is ended by who watches QEMU, and
#: with it the line to gdb.
ANSWER = 86400


def serial_lines() -> list[str]:
    """QEMU's options of COM3, which is nobody's (Xen's console has its interrupt), and of COM4."""
    return ["-serial", "null", "-serial", f"unix:{SOCKET},server=on,wait=off"]


def wanted(line: str) -> list[str] | None:
    """The commands that a line of the results asks gdb for; None: it is another line."""
    if not line.startswith('{"gdb"'):
        return None
    return [str(command) for command in json.loads(line)["gdb"]]


def answer(folder: Path, commands: list[str]) -> str:
    """Run gdb with them; the line that tells dom0 what it said."""
    gdb, text = shutil.which("gdb"), None
    if gdb is not None:
        words = [f"set remotetimeout {ANSWER}", f"target remote {SOCKET}", *commands]
        text = subprocess.run(
            [gdb, "-nx", "-batch", *(word for command in words for word in ("-ex", command))], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        ).stdout  # fmt: skip
    return json.dumps({"gdb": text}) + "\n"
