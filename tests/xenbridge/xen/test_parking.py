"""The code of the borrowed vCPU is what its source says."""

import shutil

import pytest

from tools.parking import FOLDER, assemble


def test_the_bytes_are_those_of_the_source(tmp_path) -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not there")
    assemble(tmp_path / "out")
    assert (FOLDER / "parking.bin").read_bytes() == (tmp_path / "out").read_bytes()
