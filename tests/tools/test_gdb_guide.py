"""The sessions of docs/gdb.md are what gdb prints now."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "tools" / "gdb_guide.py"


@pytest.fixture(scope="module")
def guide() -> ModuleType:
    for program in ("gdb", "nasm", "gcc", "ld", "objcopy"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: make setup, as root, installs it")
    spec = importlib.util.spec_from_file_location("gdb_guide", GUIDE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "symbols", "kernel"])
def test_a_session_of_the_guide_prints_what_the_page_shows(guide: ModuleType, name: str) -> None:
    if name != "kernel" and not Path("/usr/share/seabios/bios.bin").exists():
        pytest.skip("SeaBIOS is not installed: apt-get install seabios")
    assert guide.masked(guide.transcript(name)) == guide.masked(guide.blocks()[name])


def test_the_page_shows_every_session(guide: ModuleType) -> None:
    assert set(guide.blocks()) == set(guide.SESSIONS)
