"""When the fast loop is used, and what is said where it is not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

from run_loops import needs_helper


def fresh(code: str, **environment: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **{k: v for k, v in os.environ.items() if k != "V2E_ENGINE"},
            "PYTHONPATH": ":".join(sys.path),
            **environment,
        },
    )
    return done.stdout.strip()


SHOW = "from bare_cpu import bare_cpu; c = bare_cpu('hlt'); c.run(); print(c.engine.run_loop, c.engine.notice)"


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or shutil.which("cc") is None,
    reason="the helper is for Linux on x86-64, and made by a C compiler",
)
def test_the_fast_loop_is_used_where_it_can_be() -> None:
    """Else the sentence says why, as of a helper that does not compile: all that needs it is skipped."""
    assert fresh(SHOW) == "fast"


@needs_helper
def test_the_environment_asks_for_the_gate_and_nobody_is_told() -> None:
    assert fresh(SHOW, V2E_ENGINE="gate") == "gate"


@needs_helper
def test_unicorn_loaded_first_is_noticed_and_said() -> None:
    assert fresh(f"import unicorn; {SHOW}") == (
        "gate the engine runs without its C helper, slower: unicorn was imported before emu.unicorn_engine; "
        "import that first"
    )


@needs_helper
def test_a_helper_built_from_other_sources_is_refused() -> None:
    code = f"import emu.native as n; n.sources_checksum = lambda: 1; {SHOW}"
    assert "the helper was built from other sources than this package's; install it again" in fresh(code)


@needs_helper
def test_another_build_of_unicorn_is_refused() -> None:
    code = f"import emu.unicorn_helper as f; f.BUILD_ID = b'another'; {SHOW}"
    assert "is not the library in PyPI's wheel" in fresh(code)


@needs_helper
def test_another_layout_of_unicorn_is_refused() -> None:
    code = f"import emu.unicorn_layout as l; l.CPU_CAN_DO_IO += 8; {SHOW}"
    assert fresh(code).startswith("gate the engine runs without its C helper, slower: Unicorn 2.1.4 keeps can_do_io")
