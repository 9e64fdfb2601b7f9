"""nasm for tests: source text to flat binary. What was assembled once is kept, for other processes and later runs."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from repl.harness import HarnessError, MissingTool
from repl.harness import assemble as assemble_file

#: Where the files that test sources include are.
IMAGES = Path(__file__).parent / "images"
KEPT = Path(__file__).parents[1] / ".pytest_cache" / "assembled"


@functools.cache
def assemble(source: str, org: int | None = None) -> bytes:
    """The flat binary of `source`; `org` puts an ORG before it. Skips the test when nasm is not installed."""
    text = source if org is None else f"org {org:#x}\n{source}"
    kept = KEPT / hashlib.sha256(_surroundings() + text.encode()).hexdigest()
    if kept.exists():
        return kept.read_bytes()
    binary = _assembled(text)
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=KEPT, delete=False) as file:  # others may write the same at this moment
        file.write(binary)
    os.replace(file.name, kept)
    return binary


@functools.cache
def _surroundings() -> bytes:
    """Stands for all that a binary depends on besides its source: which nasm it is, and the files that are included."""
    nasm = shutil.which("nasm")
    about = os.stat(nasm) if nasm else None
    included = [path.read_bytes() for path in sorted(IMAGES.glob("*.inc"))]
    return repr((nasm, about and (about.st_size, about.st_mtime_ns), included)).encode()


def _assembled(text: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.asm")
        path.write_text(text)
        try:
            return assemble_file(path, Path(folder, "out.bin"), (IMAGES,)).read_bytes()
        except MissingTool as missing:
            pytest.skip(str(missing))
        except HarnessError as error:
            raise ValueError(f"{error}\n{text}") from None
