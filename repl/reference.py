"""Writes docs/repl.md, the reference of the prompt's commands, from the command table: `python -m repl.reference`."""

from __future__ import annotations

from pathlib import Path

from repl.command import GROUPS, Command, Table
from repl.commands import all_commands

TARGET = Path("docs") / "repl.md"
_HEAD = """# Commands of the prompt
Written by `python -m repl.reference` from the command table: change the declarations in `repl/commands/`, not this
file.

The same commands run at the prompt of `v2e run`, by `-c COMMAND` and `-x FILE`, from a pipe, and as `monitor COMMAND`
in gdb (there, those that run the guest are gdb's own). With `--json` each prints one JSON document. A beginning that
fits only one command is enough. ADDRESS and other numbers are expressions: see [print](#print).
"""


def _entry(entry: Command) -> list[str]:
    lines = [f"### {entry.name}", f"`{entry.usage}`", "", f"{entry.help[0].upper()}{entry.help[1:]}."]
    if entry.details:
        lines += ["", *(line.rstrip() for line in entry.details.splitlines())]
    lines += [""] if entry.arguments else []
    lines += [f"- `{a.name.upper()}`: {a.kind.help}" for a in entry.arguments]
    if entry.aliases:
        lines += ["", "Also: " + ", ".join(f"`{alias}`" for alias in entry.aliases)]
    return [*lines, ""]


def _looking(table: Table) -> str:
    """What a second client of gdb's may use."""
    words = []
    for entry in table.commands:
        if entry.looks is not False:
            bare = "" if entry.looks is True else " (to show)"
            words.append(f"[{entry.name}](#{entry.name.replace(' ', '-')}){bare}")
    return f"A second gdb on the same machine looks on: of these commands it has {', '.join(words)}.\n"


def reference(table: Table) -> str:
    """The whole page."""
    lines = [_HEAD, _looking(table)]
    for group, title in GROUPS.items():
        entries = [entry for entry in table.commands if entry.group == group]
        lines += [f"## {title[0].upper()}{title[1:]}", "", "| command | |", "|---|---|"]
        lines += [f"| `{e.usage.replace('|', chr(92) + '|')}` | {e.help} |" for e in entries]
        lines += ["", *(line for e in entries for line in _entry(e))]
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    """Write the page into the source tree that this module is in."""
    (Path(__file__).resolve().parent.parent / TARGET).write_text(reference(all_commands()), "utf-8")


if __name__ == "__main__":
    main()
