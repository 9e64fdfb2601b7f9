"""`v2e` as a process, for the tests of its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import repl

V2E = (sys.executable, "-m", "repl.cli")
ROOT = Path(repl.__file__).parent.parent
SECONDS = 120

#: Sends 'ok' on COM1 in characters of 8 bits, waits until the line is idle, and ends by writing the code 5 to port F4h.
EXITING = """
    mov ss, ax
    mov sp, 0x7000
    mov dx, 0x3fb
    mov al, 3
    out dx, al
    mov dx, 0x3f8
    mov al, 'o'
    call send
    mov al, 'k'
    call send
    mov al, 5
    out 0xf4, al
    hlt
send:
    out dx, al
    add dx, 5
wait_idle:
    in al, dx
    test al, 0x40
    jz wait_idle
    sub dx, 5
    ret
"""
SPINNING = "jmp $"
#: INT 3 with an IDT limit of 0: #BP cannot be delivered, nor #DF (SDM vol. 3A, 6.15, interrupt 8).
TRIPLE = "lidt [cs:empty]\nint3\nempty: dw 0\ndd 0"
DEADLOCK = "hlt"
XEN_INSIDE = ["run", "--hypervisor", "xen", "--machine", "isapc", "--devices-in", "hypervisor", "--clock", "host"]


def v2e(*arguments, stdin="", cwd=None, env=None):
    """Run `v2e` to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [*V2E, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False,
        cwd=cwd, env=environment,
    )  # fmt: skip


def refused(done):
    """The one sentence of a refusal: status 2, one line on stderr, nothing on stdout."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("v2e: ")
    assert "Traceback" not in lines[0]
    return lines[0]
