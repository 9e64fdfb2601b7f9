"""Command lines that are plain, read without argparse: with `gettext` and `locale` it takes 8 ms of each start.

Options are declared once (`repl.cli`), by the calls that argparse takes. A line that is not plain (a word that is no
option's whole name, a value that begins with a dash, --help, a mistake) is argparse's, with its sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from emu.typed import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from argparse import Namespace

#: The action of -c and -x: (option, value) behind what `dest` has, in the order in which they stand.
SCRIPT = "script"
STORE, APPEND, STORE_TRUE = "store", "append", "store_true"


class Declares(Protocol):
    """Who is told of options: this module's parser, or argparse's."""

    def add_argument(self, *names: str, **how: Any) -> object: ...


class QuickParser:
    """The options of one sub-command, with at most one positional, which may be left out."""

    def __init__(self) -> None:
        self._options: dict[str, tuple[str, str]] = {}  # the attribute and action of each name
        self._defaults: dict[str, Any] = {}
        self._positional = ""

    def add_argument(self, *names: str, **how: Any) -> None:
        """As argparse's; actions, and of all else the name and default, are those that `repl.cli` uses."""
        action = how.get("action", STORE)
        if not names[0].startswith("-"):
            if self._positional or how.get("nargs") != "?":
                raise ValueError(f"{names[0]}: there can be one positional, with nargs='?'")
            self._positional = dest = names[0]
        elif len(names) > 1 or action not in (STORE, APPEND, STORE_TRUE, SCRIPT) or "nargs" in how:
            raise ValueError(f"{names[0]} is declared in a way that is argparse's alone")
        else:
            dest = how.get("dest") or names[0].lstrip("-").replace("-", "_")
            self._options[names[0]] = dest, action
        self._defaults.setdefault(dest, how.get("default", False if action == STORE_TRUE else None))

    def parse(self, arguments: Sequence[str]) -> Namespace | None:
        """What argparse makes of them; None: ask it."""
        found = dict(self._defaults)
        words = iter(arguments)
        seen = False
        for word in words:
            name, equals, value = word.partition("=")
            if not word.startswith("-"):
                if seen or not self._positional:
                    return None
                found[self._positional], seen = word, True
                continue
            if name not in self._options or (equals and not name.startswith("--")):
                return None
            dest, action = self._options[name]
            if action == STORE_TRUE:
                if equals:
                    return None
                found[dest] = True
                continue
            if not equals:
                value = next(words, "-")
                if value.startswith("-"):
                    return None
            if action == STORE:
                found[dest] = value
            else:
                found[dest] = [*found[dest], value if action == APPEND else (name, value)]
        return cast("Namespace", SimpleNamespace(**found))
