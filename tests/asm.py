"""nasm for tests: source text to flat binary."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest

from repl.harness import HarnessError, MissingTool
from repl.harness import assemble as assemble_file

#: Where the files that test sources include are.
IMAGES = Path(__file__).parent / "images"


@functools.cache
def assemble(source: str, org: int | None = None) -> bytes:
    """The flat binary of `source`; `org` puts an ORG before it. Skips the test when nasm is not installed."""
    text = source if org is None else f"org {org:#x}\n{source}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.asm")
        path.write_text(text)
        try:
            return assemble_file(path, Path(folder, "out.bin"), (IMAGES,)).read_bytes()
        except MissingTool as missing:
            pytest.skip(str(missing))
        except HarnessError as error:
            raise ValueError(f"{error}\n{text}") from None
