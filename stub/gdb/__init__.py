"""Python that runs inside gdb. This file only says where it is; the other files import `gdb` and nothing of ours."""

from __future__ import annotations

from pathlib import Path


def helper_path() -> Path:
    """The script that `gdb -x` (or `source`) loads."""
    return Path(__file__).with_name("v2e_helper.py")
