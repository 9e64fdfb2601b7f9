"""Help, and leaving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import GROUPS, Argument, Command, Result, Table, command
from repl.kinds import COMMAND

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


def overview(table: Table) -> str:
    """Every command in one line, by group."""
    lines = []
    width = max(len(entry.usage) for entry in table.commands if len(entry.usage) < 32)
    for group, title in GROUPS.items():
        entries = [entry for entry in table.commands if entry.group == group]
        if entries:
            lines += ["", f"{title}:", *(f"  {entry.usage:<{width}}  {entry.help}" for entry in entries)]
    return "\n".join([*lines, "", "`help COMMAND` says more. ADDRESS is an expression: see `help print`."]).lstrip("\n")


def describe(entry: Command) -> str:
    """All about one command."""
    lines = [entry.usage, f"  {entry.help}"]
    if entry.details:
        lines += ["", *("  " + line for line in entry.details.splitlines())]
    if entry.arguments:
        lines += ["", *(f"  {a.name.upper()}: {a.kind.help}" for a in entry.arguments)]
    if entry.aliases:
        lines += ["", f"  also: {', '.join(entry.aliases)}"]
    return "\n".join(lines)


@command("help", "general", "list the commands, or explain one", Argument("command", COMMAND, optional=True),
         aliases=("h",), front=True)  # fmt: skip
def help_command(session: Session, args: Args) -> Result:
    name = (args["command"] or "").strip()
    return Result(text=describe(session.table.find(name)) if name else overview(session.table))


@command("quit", "general", "leave", aliases=("q", "exit"), front=True, resumes=True)
def leave(session: Session, args: Args) -> Result:
    return Result(leave=True)
