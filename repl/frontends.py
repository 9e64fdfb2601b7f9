"""Who looks at a run: a person at the prompt, a script's lines, commands from a pipe."""

from __future__ import annotations

import sys

from emu.typed import TYPE_CHECKING
from repl.options import UsageError
from repl.outcome import STATUS_OK, STATUS_USAGE, notice
from repl.rig import Rig

if TYPE_CHECKING:
    import argparse

    from repl.script import Line, Printer


def script_lines(options: argparse.Namespace) -> tuple[Line, ...]:
    """The lines of -c and -x, in their order. Raises UsageError for a file that cannot be read."""
    if not options.script:
        return ()
    from pathlib import Path

    from repl.script import Line, ScriptError, file_lines

    lines: list[Line] = []
    try:
        for option, value in options.script:
            lines += [Line(value, "-c")] if option == "-c" else file_lines(Path(value))
    except ScriptError as error:
        raise UsageError(str(error)) from error
    return tuple(lines)


def script_printer(options: argparse.Namespace) -> Printer:
    """Where and how commands' results go."""
    from repl.script import Printer
    from repl.style import terminal_style

    return Printer(sys.stdout, terminal_style(sys.stdout), options.json)


def run_script(rig: Rig, lines: tuple[Line, ...], printer: Printer) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from repl.script import ScriptError, run_lines

    try:
        run_lines(rig.session, lines, printer)
    except ScriptError as error:
        notice(str(error))
        return STATUS_USAGE
    return STATUS_OK


def run_prompt(rig: Rig) -> None:
    """The interactive prompt, until the person leaves."""
    from platformdirs import user_config_path, user_state_path

    from repl.prompt import Prompt
    from repl.script import Printer, file_lines
    from repl.style import terminal_style

    style = terminal_style(sys.stdout)
    startup = user_config_path("v2e") / "startup"
    if startup.is_file():
        run_script(rig, file_lines(startup), Printer(sys.stdout, style))
    rig.session.waits = False
    Prompt(rig.session, style=style, history=user_state_path("v2e") / "history").run()
