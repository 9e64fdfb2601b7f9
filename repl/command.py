"""Commands declared as data: name, words, arguments with types and completers, help; parsing and completion from it.

A command is a function with a declaration in front::

    @command("page", "segments", "walk the page tables for ADDR", Argument("address", ADDRESS))
    def page(session, args): return Result((session.debugger.page_walk(args["address"]),))

Help, completion, parsing and docs/repl.md all come from the declaration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emu.record import dataclass, field
from repl.expr import ExpressionError
from repl.spelling import nearest

if TYPE_CHECKING:
    from repl.session import Session

#: Groups in the order of help: key and title.
GROUPS = {
    "segments": "CPU, segments and tables",
    "memory": "memory and code",
    "breaks": "breakpoints",
    "run": "running",
    "transitions": "emulated and native",
    "devices": "devices, screen and keyboard",
    "record": "what happened, saving",
    "general": "general",
}


class CommandError(Exception):
    """A command cannot be understood or carried out; one sentence."""


@dataclass(frozen=True)
class Result:
    """What a command says: views (a tuple among them is shown as one table), then text.

    `again` is the line that an empty line at the prompt runs next; `leave` ends the session."""

    views: tuple[object, ...] = ()
    text: str = ""
    again: str = ""
    leave: bool = False


@dataclass(frozen=True)
class Kind:
    """A type of argument: how it is read and completed. `rest`: takes the line's rest as typed, blanks included."""

    name: str
    help: str
    parse: Callable[[Session, str], Any]
    complete: Callable[[Session, str], Iterable[str]] = lambda session, prefix: ()
    rest: bool = False


@dataclass(frozen=True)
class Argument:
    """One argument. `many`: one or more of the kind (none if optional too), given to the function as a tuple. `form`:
    how it is shown in the usage, where its name does not say it."""

    name: str
    kind: Kind
    optional: bool = False
    many: bool = False
    form: str = ""

    @property
    def usage(self) -> str:
        word = (self.form or self.name.upper()) + ("..." if self.many else "")
        return f"[{word}]" if self.optional else word


Function = Callable[["Session", Mapping[str, Any]], Result]


@dataclass(frozen=True)
class Command:
    """One command. `slash` names what may follow the word behind a slash (`x/16xb`); it reaches the function as
    args["slash"]. `front` commands run on the front end's thread, the others on the machine's, between two
    instructions; `resumes` ones make the guest run, so they are refused where another front end does that. `looks`:
    nothing changes by it, neither the guest nor the session nor a file; a number: with at most so many arguments.
    `effect` says in words what else it does, to who may only look; `instead` what does it where another front end makes
    the guest run."""

    name: str
    group: str
    help: str
    function: Function
    arguments: tuple[Argument, ...] = ()
    aliases: tuple[str, ...] = ()
    details: str = ""
    slash: str = ""
    front: bool = False
    resumes: bool = False
    looks: bool | int = False
    effect: str = "changes something"
    instead: str = ""

    @property
    def usage(self) -> str:
        slash = f"[/{self.slash}]" if self.slash else ""
        return " ".join([self.name + slash, *(a.usage for a in self.arguments)])


def command(
    name: str,
    group: str,
    help: str,
    *arguments: Argument,
    aliases: Sequence[str] = (),
    details: str = "",
    slash: str = "",
    front: bool = False,
    resumes: bool = False,
    looks: bool | int = False,
    effect: str = "changes something",
    instead: str = "",
) -> Callable[[Function], Command]:
    """Declare the function behind it as a command."""

    def declare(function: Function) -> Command:
        return Command(
            name, group, help, function, arguments, tuple(aliases), details, slash, front or resumes, resumes, looks,
            effect, instead,
        )  # fmt: skip

    return declare


@dataclass(frozen=True)
class Invocation:
    """A line taken apart: the command, what followed the slash, the arguments' text."""

    command: Command
    slash: str
    rest: str


def _only_looks(invocation: Invocation) -> bool:
    looks = invocation.command.looks
    return looks if isinstance(looks, bool) else len(split_arguments(invocation.rest)) <= looks


_SHOWN = 60  #: characters of a word that is no command, as a line of a binary file may be
_OPERATOR_END = re.compile(r"[-+*/%&|<>:(\[~]$")
_OPERATOR_START = re.compile(r"^[+*/%&|<>:)\]]|^-$")


def split_arguments(text: str) -> list[str]:
    """Split at blanks, but not inside brackets, quotes or expressions written with blanks around operators.

    Raises CommandError for an open quote.
    """
    pieces: list[str] = []
    depth, quote, current = 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth = max(0, depth - 1)
        elif character.isspace() and depth == 0:
            if current:
                pieces.append(current)
            current = ""
            continue
        current += character
    if quote:
        raise CommandError(f"the quote {quote} in {text.strip()!r} is not closed")
    if current:
        pieces.append(current)
    merged: list[str] = []
    for piece in pieces:
        if merged and piece[0] not in "\"'" and (_OPERATOR_END.search(merged[-1]) or _OPERATOR_START.search(piece)):
            merged[-1] += " " + piece
        else:
            merged.append(piece)
    return merged


@dataclass
class Table:
    """All commands of a front end, found by name, alias or unambiguous beginning."""

    commands: tuple[Command, ...]
    _words: dict[str, Command] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for entry in self.commands:
            for word in (entry.name, *entry.aliases):
                if word in self._words:
                    raise ValueError(f"two commands are called {word!r}")
                self._words[word] = entry

    @property
    def words(self) -> tuple[str, ...]:
        """Names and aliases, sorted."""
        return tuple(sorted(self._words))

    def find(self, name: str, help: str = "help") -> Command:
        """The command of that name, alias or unambiguous beginning of a name. Raises CommandError, which may name
        `help`, the line that lists what there is."""
        if name in self._words:
            return self._words[name]
        matches = sorted({c.name for word, c in self._words.items() if word.startswith(name)}) if name else []
        if matches and all(name.startswith(matches[0]) for name in matches):
            return self._words[matches[0]]  # the others only begin with its name
        if matches:
            raise CommandError(f"{name!r} could be {' or '.join(matches)}")
        near = nearest(name, (word.split(" ", 1)[0] for word in self._words)) if len(name) <= _SHOWN else ""
        hint = f"did you mean {near!r}?" if near else f"`{help}` lists them all"
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        raise CommandError(f"there is no command {shown!r}; {hint}")

    def invocation(self, line: str, help: str = "help") -> Invocation:
        """Take a line apart. Two-word aliases (`info registers`) win over one word. Raises CommandError, see `find`."""
        line = line.strip()
        first = re.match(r"([^\s/]*)(?:/(\S*))?\s*", line)
        assert first is not None  # every part may be empty
        word, slash, rest = first[1], first[2], line[first.end() :]
        if slash is None and (alias := self._pair(word, rest)):
            behind = re.match(r"\S+\s*", rest)
            assert behind is not None  # the alias's second word
            return Invocation(self._words[alias], "", rest[behind.end() :])
        entry = self.find(word, help)
        if slash is None and entry.slash and (format := re.match(r"/(\S+)\s*", rest)):
            slash, rest = format[1], rest[format.end() :]  # gdb allows a blank before the slash
        if slash is not None and not entry.slash:
            raise CommandError(f"{entry.name} takes nothing behind a slash")
        return Invocation(entry, slash or "", rest)

    def _pair(self, word: str, rest: str) -> str:
        """The two-word alias that `word` and the first word of `rest` make, "" for none. The second may be an
        unambiguous beginning where `word` alone is no command. Raises CommandError when it must be a pair and is not.
        """
        seconds = {w.split(" ", 1)[1]: w for w in self._words if word and w.startswith(word + " ")}
        typed = rest.split(maxsplit=1)[0] if rest.strip() else ""
        if typed in seconds or not seconds or word in self._words:
            return seconds.get(typed, "")
        matches = {self._words[alias].name: alias for second, alias in seconds.items() if second.startswith(typed)}
        if typed and len(matches) == 1:
            return next(iter(matches.values()))
        raise CommandError(f"{word} wants one of {', '.join(sorted(seconds))}" + (f", not {typed!r}" if typed else ""))

    def arguments(self, session: Session, invocation: Invocation) -> dict[str, Any]:
        """Read the arguments by their kinds. Raises CommandError or ExpressionError."""
        entry = invocation.command
        values: dict[str, Any] = {"slash": invocation.slash}
        if entry.arguments and entry.arguments[0].kind.rest:
            texts = [invocation.rest] if invocation.rest.strip() else []
        else:
            texts = split_arguments(invocation.rest)
        for argument in entry.arguments:
            if argument.many:
                values[argument.name] = tuple(argument.kind.parse(session, text) for text in texts)
                missing, texts = not values[argument.name], []
            elif texts:
                values[argument.name] = argument.kind.parse(session, texts.pop(0))
                missing = False
            else:
                values[argument.name] = None
                missing = True
            if missing and not argument.optional:
                raise CommandError(f"{entry.name} needs {argument.name.upper()}: {entry.usage}")
        if texts:
            raise CommandError(f"{entry.name} does not know what to do with {texts[0]!r}: {entry.usage}")
        return values

    def execute(self, session: Session, line: str) -> Result:
        """Run one line. Raises CommandError, ExpressionError and what the session's `failures` names."""
        if not line.strip() or line.lstrip().startswith("#"):
            return Result()
        # `help` is gdb's own there
        invocation = self.invocation(line, "help" if session.may_resume else "monitor help")
        entry = invocation.command
        if entry.resumes and not session.may_resume:
            why = entry.instead or f"{session.resumed_by} runs and stops the guest"
            raise CommandError(f"{entry.name} is not for here: {why}")
        if not session.may_change and not _only_looks(invocation):
            raise CommandError(
                f"{entry.name} {entry.effect}: another client came first and has the machine, this one looks"
            )
        if entry.front:
            return entry.function(session, session.call(lambda: self.arguments(session, invocation)))
        return session.call(lambda: entry.function(session, self.arguments(session, invocation)))

    def complete(self, session: Session, line: str) -> tuple[str, list[str]]:
        """The beginning of the word being typed at the end of `line`, and what it may become."""
        words = line.lstrip()
        candidates = [w for w in self.words if w.startswith(words) and w != words]
        if " " not in words:
            return words, candidates
        if candidates:
            return words, candidates
        try:
            invocation = self.invocation(words)
            texts = split_arguments(invocation.rest)
        except (CommandError, ExpressionError):
            return "", []
        prefix = "" if not texts or words[-1].isspace() else texts.pop()
        arguments = invocation.command.arguments
        if not arguments:
            return prefix, []
        at = min(len(texts), len(arguments) - 1)
        if len(texts) >= len(arguments) and not arguments[at].many:
            return prefix, []
        # Inside an expression the word behind the last operator is what is completed.
        tail = re.split(r"[^\w.@?$-]", prefix)[-1]
        return tail, [c for c in arguments[at].kind.complete(session, tail) if c.startswith(tail)]
