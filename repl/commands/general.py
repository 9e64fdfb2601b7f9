"""Help, and leaving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import GROUPS, Argument, Command, Result, Table, command
from repl.kinds import COMMAND, LINE

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


def overview(table: Table, may_resume: bool = True) -> str:
    """Every command in one line, by group; without `may_resume` those that can be given."""
    lines = []
    width = max(len(entry.usage) for entry in table.commands if len(entry.usage) < 32)
    for group, title in GROUPS.items():
        entries = [entry for entry in table.commands if entry.group == group and (may_resume or not entry.resumes)]
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
         aliases=("h",), front=True, looks=True)  # fmt: skip
def help_command(session: Session, args: Args) -> Result:
    name = (args["command"] or "").strip()
    return Result(text=describe(session.table.find(name)) if name else overview(session.table, session.may_resume))


@command(
    "complete", "general", "list what the command line LINE may become, each as a whole line", Argument("line", LINE),
    details="As gdb's command of that name; gdb's `v2e COMMAND` completes by it.", looks=True,
)  # fmt: skip
def complete(session: Session, args: Args) -> Result:
    line = args["line"]
    typed, words = session.table.complete(session, line)
    return Result(text="\n".join(line.removesuffix(typed) + word for word in dict.fromkeys(words)))


@command(
    "quit", "general", "leave", aliases=("q", "exit"), front=True, resumes=True,
    instead="gdb's `detach` leaves, and its `kill` ends the machine, unless another client has it",
)  # fmt: skip
def leave(session: Session, args: Args) -> Result:
    return Result(leave=True)
