"""The interactive prompt: completion, history, a toolbar with the CPU's state, stop notices above the line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.patch_stdout import patch_stdout

from emu.stops import Stop, StopKind
from emu.worker import WorkerClosed
from repl.command import Result
from repl.render import result_text
from repl.session import FAILURES, Session
from repl.shown import PositionView
from repl.style import Style, hexadecimal

#: A command that makes the guest run gets this long (s) to stop again before the prompt comes back.
PATIENCE = 0.15
#: Seconds between two looks at a running guest for the toolbar.
REFRESH = 0.5


def toolbar_text(position: PositionView | None, running: bool) -> str:
    """Mode, CS:IP, linear address, instruction count, running or stopped."""
    if position is None:
        return ""
    far = f"{position.selector:04x}:{hexadecimal(position.offset, 16 if position.offset < 65536 else 32)}"
    label = f" <{position.label}>" if position.label else ""
    state = "running" if running else "stopped"
    linear = "unknown" if position.linear is None else hexadecimal(position.linear)
    count = "" if position.retired is None else f"{position.retired:,} instructions  "
    return f" {position.mode}  {far}  linear {linear}{label}  {count}{state} "


class CommandCompleter(Completer):
    """Completion from the command table."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        try:
            prefix, words = self._session.table.complete(self._session, document.text_before_cursor)
        except FAILURES:
            return
        for word in words:
            yield Completion(word, start_position=-len(prefix))


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return InMemoryHistory()  # a home that cannot be written is no reason to have no prompt
    return FileHistory(str(path))


class Prompt:
    """One prompt on a session whose `waits` is false. `emit` prints what commands and stops say."""

    def __init__(
        self,
        session: Session,
        *,
        style: Style,
        history: Path | None = None,
        emit: Callable[[str], None] = print,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._session, self._style, self._emit = session, style, emit
        self._again = ""
        self._position: PositionView | None = None
        self._told: Stop | None = None
        self._own = False  # a line typed here is being run
        self._prompt: PromptSession[str] = PromptSession(
            "v2e> ", completer=CommandCompleter(session), complete_while_typing=False, history=_history(history),
            bottom_toolbar=self._toolbar, refresh_interval=REFRESH, key_bindings=self._bindings(), input=input,
            output=output,
        )  # fmt: skip

    def run(self) -> None:
        """Read and run lines until the person leaves."""
        worker = self._session.worker
        worker.add_listener(self._stopped, steps=False)
        self._told = self._session.debugger.last_stop
        try:
            with patch_stdout(raw=True):
                self._look()
                while True:
                    try:
                        line = self._prompt.prompt()
                    except EOFError:
                        return
                    except KeyboardInterrupt:
                        continue
                    if not self._run(line):
                        return
        finally:
            worker.remove_listener(self._stopped)

    def _run(self, line: str) -> bool:
        """Run one line; False when it was to leave."""
        line = line.strip() or self._again
        self._again = ""
        session = self._session
        self._own = True
        try:
            result = session.execute(line)
            self._say(result)
            self._again = result.again
            if result.leave:
                return False
            if session.worker.running:
                session.worker.wait(PATIENCE)
            self._look()
        except WorkerClosed:
            self._emit(self._style("error", "the machine has ended"))
            return False
        except FAILURES as error:
            self._emit(self._style("error", str(error)))
        except KeyboardInterrupt:
            session.worker.interrupt()
        finally:
            self._own = False
        return True

    def _say(self, result: Result) -> None:
        if text := result_text(result, self._style):
            self._emit(text)

    def _stopped(self, stop: Stop) -> None:
        """On the machine's thread. Of steps that another front end makes, thousands of them, that is said which is the
        last when the toolbar is drawn."""
        if stop.kind is not StopKind.STEP or self._own:
            self._announce(stop)

    def _announce(self, stop: Stop) -> None:
        # A failing notice must not end the machine's thread.
        self._told = stop
        try:
            self._position = self._session.position()
            self._say(Result((stop, self._position)))
        except FAILURES as error:
            self._emit(self._style("error", f"{stop.text}; {error}"))
        self._prompt.app.invalidate()

    def _look(self) -> None:
        self._position = self._session.call(self._session.position)

    def _toolbar(self) -> ANSI:
        worker = self._session.worker
        running = worker.running
        if not self._own:
            # The answer comes for the next time; the line being typed never waits for the guest.
            with contextlib.suppress(WorkerClosed):
                worker.post(self._note)
        return ANSI(toolbar_text(self._position, running))

    def _note(self) -> None:
        stop = self._session.debugger.last_stop
        if stop is not self._told and stop.kind is StopKind.STEP and not self._session.worker.running:
            self._announce(stop)
        elif self._session.worker.running:
            self._position = self._session.position()

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add("c-c")
        def interrupt(event: KeyPressEvent) -> None:
            """Stop the guest when it runs, else clear the line."""
            if self._session.worker.running:
                self._session.worker.interrupt()
            else:
                event.current_buffer.reset()

        return bindings
