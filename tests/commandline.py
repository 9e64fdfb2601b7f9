"""`v2e run` as a process of its own, whose stdin, stdout and stderr are pipes of text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import repl


def v2e(*arguments: object, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Started with `arguments`; the debug console is its stdout. `prepare` runs in the process before it."""
    return subprocess.Popen(
        [sys.executable, "-m", "repl.cli", "run", *map(str, arguments), "--debugcon", "stdio"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare,
        env={**os.environ, "PYTHONPATH": str(Path(repl.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
