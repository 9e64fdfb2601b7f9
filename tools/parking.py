"""Assembles the borrowed vCPU's code: `python tools/parking.py [OUT]` runs nasm; without OUT the package's parking.bin
is replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "xenbridge/xen"


def assemble(out: Path) -> None:
    """Write the pages to `out`. Raises CalledProcessError where nasm refuses the source, OSError without nasm."""
    subprocess.run(["nasm", "-f", "bin", "-Werror", "-o", str(out), str(FOLDER / "parking.asm")], check=True)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "parking.bin")
