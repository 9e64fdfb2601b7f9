"""`v2e COMMAND`: the commands of v2e's prompt in gdb, with help and completion that the stub itself gives.

What there is comes from `monitor help`, so a command that v2e learns is here, too. Completion of arguments is the
prompt's (`monitor complete LINE`).
"""

from __future__ import annotations

import re

import gdb

#: A line of `monitor help`: name, arguments, help.
_ENTRY = re.compile(r"^  ([a-z]\w*)(\S*(?: \S+)*?)  +(\S.*)$", re.MULTILINE)


def monitor(line: str) -> str:
    """What `monitor LINE` prints. Raises gdb.GdbError with the stub's or gdb's sentence."""
    try:
        return str(gdb.execute(f"monitor {line}", to_string=True))
    except gdb.error as error:
        raise gdb.GdbError(str(error)) from None


def entries() -> dict[str, tuple[str, str]]:
    """Name to usage and help, of every command that the stub has; none where no v2e is connected."""
    try:
        text = monitor("help")
    except gdb.GdbError:
        return {}
    return {name: (name + arguments, help) for name, arguments, help in _ENTRY.findall(text)}


def completions(line: str, word: str) -> list[str]:
    """What `word`, at the end of `line`, may become: the prompt answers with whole lines."""
    try:
        lines = monitor(f'complete "{line}"').splitlines()
    except gdb.GdbError:
        return []
    return [word + whole[len(line) :] for whole in lines if whole.startswith(line)]


class PromptCommand(gdb.Command):  # type: ignore[misc]  # only gdb knows its own module
    """One command of the prompt."""

    def __init__(self, name: str, usage: str, help: str) -> None:
        self.__doc__ = f"{help[0].upper()}{help[1:]}.\nUsage: v2e {usage}\n`v2e help {name}' says more."
        self._name = name
        super().__init__(f"v2e {name}", gdb.COMMAND_STATUS)

    def _line(self, argument: str) -> str:
        return f"{self._name}{'' if argument.startswith('/') else ' '}{argument}"

    def invoke(self, argument: str, from_tty: bool) -> None:
        gdb.write(monitor(self._line(argument).rstrip()))

    def complete(self, text: str, word: str) -> list[str]:
        return completions(self._line(text), word)


class V2e(gdb.Command):  # type: ignore[misc]
    """Commands of v2e's prompt. `v2e help' lists them; `help v2e COMMAND' explains one.
    The list is the connected stub's own, so it is there once gdb is connected.
    Those that run the guest are gdb's: continue, stepi, next and so on."""

    def __init__(self) -> None:
        super().__init__("v2e", gdb.COMMAND_STATUS, gdb.COMPLETE_NONE, True)
        self._known: set[str] = set()
        gdb.events.before_prompt.connect(self.learn)
        gdb.events.stop.connect(self._stopped)
        self.learn()

    def learn(self, event: object = None) -> None:
        """Make a gdb command of each that the stub lists, once a connection shows a v2e."""
        if self._known or not is_connected():
            return
        for name, (usage, help) in entries().items():
            PromptCommand(name, usage, help)
            self._known.add(name)

    def _stopped(self, event: object) -> None:
        """In a script, which has no prompt, connecting is the first stop. A command of gdb's that is executed at a stop
        makes it execute those of the breakpoint too early, so a stop where there may be some is none to learn at."""
        if not self._known and not any(point.commands for point in gdb.breakpoints() or ()):
            self.learn()

    def invoke(self, argument: str, from_tty: bool) -> None:
        # A command's beginning or alias is the stub's to judge.
        self.learn()
        gdb.write(monitor(argument.strip() or "help"))


def is_connected() -> bool:
    """Whether the target has v2e's registers and stands still."""
    try:
        return bool(gdb.parse_and_eval("$cs_attr").type.code != gdb.TYPE_CODE_VOID)
    except gdb.error:
        return False


def install(guest: object) -> None:
    """Define the prefix; its commands follow when a stub is there."""
    V2e()
