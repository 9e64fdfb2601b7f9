"""Runs the fuzz target of the gdb stub under atheris, which steers by coverage: `python tests/fuzz.py [OPTIONS]`.

OPTIONS are libFuzzer's, as `-max_total_time=60`; folders among them keep what was found to be new.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stub"]):
    import stub_fuzzing


def main() -> None:
    """Until a finding, or what the options say."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in stub_fuzzing.seeds():
            Path(folder, name).write_bytes(data)
        atheris.Setup([*sys.argv, "-max_len=8192", folder], stub_fuzzing.feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
