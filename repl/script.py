"""Commands without a prompt: -c, -x, pipes, the startup file. A plain line loop; the first error ends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from emu.record import dataclass
from repl.command import Result
from repl.json_text import error_json, result_json
from repl.render import result_text
from repl.session import FAILURES, Session
from repl.style import Style
from repl.textfile import NotText, read_text


class ScriptError(Exception):
    """A command failed; one sentence that says which and why."""


@dataclass(frozen=True)
class Line:
    """One line, and where it comes from, for the error."""

    text: str
    where: str


@dataclass(frozen=True)
class Printer:
    """Where results go, and how."""

    stream: TextIO
    style: Style
    json: bool = False

    def result(self, line: str, result: Result) -> None:
        text = result_json(line, result) if self.json else result_text(result, self.style)
        if text:
            self.stream.write(text + "\n")
            self.stream.flush()  # a program at the other end of a pipe waits for the answer

    def error(self, line: str, sentence: str) -> None:
        """With JSON every command has one document on stdout, a failed one too."""
        if self.json:
            self.stream.write(error_json(line, sentence) + "\n")
            self.stream.flush()


def file_lines(path: Path) -> tuple[Line, ...]:
    """The lines of a command file. Raises ScriptError when it cannot be read."""
    try:
        text = read_text(path)
    except OSError as error:
        raise ScriptError(f"cannot read command file {str(path)!r}: {error.strerror}") from None
    except NotText:
        raise ScriptError(f"command file {str(path)!r} is not text") from None
    return tuple(Line(line, f"{path}:{number}") for number, line in enumerate(text.splitlines(), 1))


def stream_lines(stream: Iterable[str], name: str = "stdin") -> Iterator[Line]:
    """The lines of a pipe, as they come."""
    for number, line in enumerate(stream, 1):
        yield Line(line.rstrip("\r\n"), f"{name}:{number}")


def meaningful(line: Line) -> bool:
    """False for blank lines and comments."""
    return bool(line.text.strip()) and not line.text.lstrip().startswith("#")


def run_lines(session: Session, lines: Iterable[Line], printer: Printer) -> int:
    """Run the commands up to `quit` or the end; returns how many. Raises ScriptError at the first that fails."""
    count = 0
    for line in filter(meaningful, lines):
        count += 1
        try:
            result = session.execute(line.text)
        except FAILURES as error:
            printer.error(line.text, str(error))
            raise ScriptError(f"{line.where}: {error}") from error
        printer.result(line.text, result)
        if result.leave:
            break
    return count
