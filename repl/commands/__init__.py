"""The prompt's commands, one file a group; each is declared as data (`repl.command`)."""

from __future__ import annotations

from repl.command import Command, Table
from repl.commands import breaks, devices, general, memory, progress, qemu, record, run, segments, transitions


def all_commands() -> Table:
    """Every command, in the order of the files and of declaration."""
    modules = (segments, memory, breaks, run, transitions, progress, devices, qemu, record, general)
    return Table(tuple(c for module in modules for c in vars(module).values() if isinstance(c, Command)))
