"""argparse as `v2e` uses it: errors that are one sentence, and commands in the order in which they stand."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from repl.options import UsageError
from repl.quick import SCRIPT


def _formatter(prog: str) -> argparse.HelpFormatter:
    """As argparse makes for each option to check it, without asking `shutil` for the width: its import, of every
    archive format, takes longer than the options."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (ValueError, OSError):
        columns = 80
    return argparse.HelpFormatter(prog, width=max(columns, 20) - 2)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=_formatter, **more)
        self.register("action", SCRIPT, _Script)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _Script(argparse.Action):
    """-c and -x, in the order in which they stand."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.script = [*namespace.script, (option_string, values)]
