"""nasm for tests: source text to flat binary."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def assemble_text(source: str) -> bytes:
    """The flat binary of `source`, which may include the files of tests/images."""
    return assemble(source, None, str(Path(__file__).parent / "images") + "/")


@functools.cache
def assemble(source: str, org: int | None = None, include: str | None = None) -> bytes:
    """The flat binary of `source`; `org` puts an ORG before it. Skips the test when nasm is not installed."""
    nasm = shutil.which("nasm")
    if nasm is None:
        pytest.skip("nasm is not installed")
    text = source if org is None else f"org {org:#x}\n{source}"
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "source.asm"), Path(folder, "out.bin")
        path.write_text(text)
        done = subprocess.run(
            [nasm, "-f", "bin", *(("-I", include) if include else ()), "-o", out, path],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise ValueError("\n".join([*errors, text]))
        return out.read_bytes()
