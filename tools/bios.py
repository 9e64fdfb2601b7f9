"""Assembles the built-in BIOS: `python tools/bios.py [OUT]` draws its fonts and runs nasm; without OUT the package's
bios.bin is replaced."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "emu/firmware/bios"


def assemble(out: Path) -> None:
    """Write the ROM to `out`. Raises CalledProcessError where nasm refuses the source, OSError without nasm."""
    from tools.bios_font import font

    with tempfile.TemporaryDirectory() as folder:
        for height in (8, 14, 16):
            Path(folder, f"font{height}.bin").write_bytes(font(height))
        command = ["nasm", "-f", "bin", "-Werror", "-I", f"{folder}/", "-o", str(out), str(FOLDER / "bios.asm")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parents[2]))
    assemble(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "bios.bin")
