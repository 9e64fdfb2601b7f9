"""A target for atheris: whatever a file holds, it is a subject that can be looked at, or refused with an offset in it.

`make fuzz` runs it. Not a test of the suite: atheris is installed for it alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

with atheris.instrument_imports(include=["xenbridge"]):
    from emu.inspector import DebuggerError
    from emu.onlooker import Onlooker
    from emu.subject import MemoryUnavailable
    from xen_samples import sample
    from xenbridge.wire import xl
    from xenbridge.wire.errors import WireError
    from xenbridge.xen.files import parse_file

#: What a person does first.
LOOKS = ("registers", "segments", "control", "gdt", "ivt", "devices", "disassemble", "msrs")


def look(data: bytes) -> None:
    """Read it as `v2e inspect` does, and look at it."""
    try:
        file = parse_file(data)
        debugger = Onlooker(file, file.about)
        file.memory_map()
    except WireError as error:
        assert 0 <= error.offset <= len(data), error
        return
    for name in LOOKS:
        try:
            getattr(debugger, name)()
        except (DebuggerError, MemoryUnavailable, WireError):
            continue


def main() -> None:
    """Seeds are the samples, and one of them as xl writes it."""
    with tempfile.TemporaryDirectory(prefix="v2e-fuzz-") as folder:
        for name in ("s_hvmctx.bin", "s_dump.core", "s_stream.bin"):
            (Path(folder) / name).write_bytes(sample(name))
        (Path(folder) / "xl").write_bytes(xl.build_xl(b"{}", sample("s_stream.bin")))
        atheris.Setup([*sys.argv, "-max_len=65536", folder], look)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
