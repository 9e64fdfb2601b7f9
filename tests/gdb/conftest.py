"""What tests with a real gdb share: gdbs that are connected in other ways than the fixture `gdb` is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from repl.harness import Gdb, Server
from stub.gdb import helper_path


@pytest.fixture
def helped(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> Gdb:
    """gdb with the helper, on the marker's machine."""
    return start_gdb(v2e_server(), arguments=["-x", str(helper_path())])


@pytest.fixture
def extended(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> Gdb:
    """gdb in extended mode, where it may kill, run and come back, on the marker's machine."""
    gdb = start_gdb()
    gdb.connect(v2e_server().address, extended=True)
    return gdb
