"""Runs what is done with bad files (tests/xen_fuzzing.py, xen_loading.py) under atheris, which steers by coverage.

`make fuzz` and `make soak` run it, and a sample the suite (test_files_fuzz_coverage.py); options are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

with atheris.instrument_imports(include=["xenbridge"]):
    import xen_fuzzing
    import xen_loading


def tried(loader: xen_loading.Loader, data: bytes) -> None:
    """As libFuzzer wants it: nothing is given back. Each stream is for the machine that its bytes say."""
    xen_fuzzing.look(data)
    loader.load(data, xen_loading.KINDS[sum(data[:256]) % len(xen_loading.KINDS)])


def main() -> None:
    """Until a finding, or what the options say."""
    with tempfile.TemporaryDirectory(prefix="v2e-fuzz-") as folder:
        for number, seed in enumerate(xen_fuzzing.seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, "-max_len=65536", folder], partial(tried, xen_loading.Loader()))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
