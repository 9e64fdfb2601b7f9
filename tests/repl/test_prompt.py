"""The prompt, driven through a pipe instead of a terminal."""

from __future__ import annotations

import threading
import time

import pytest
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from emu.stops import StopKind
from repl.prompt import CommandCompleter, Prompt, toolbar_text
from repl.shown import PositionView
from repl.style import Style


class Typist:
    """Types at a prompt that runs in this thread, and collects what it says."""

    def __init__(self, session, pipe):
        self.said: list[str] = []
        self.heard = threading.Condition()
        session.waits = False
        self.session = session
        self.pipe = pipe
        self.prompt = Prompt(session, style=Style(), emit=self._emit, input=pipe, output=DummyOutput())

    def _emit(self, text):
        with self.heard:
            self.said.append(text)
            self.heard.notify_all()

    def until(self, condition, seconds=30):
        end = time.monotonic() + seconds
        with self.heard:
            while not condition():
                assert time.monotonic() < end, f"waited in vain; it said {self.said}"
                self.heard.wait(0.02)


@pytest.fixture
def typist(session):
    with create_pipe_input() as pipe:
        yield Typist(session, pipe)


def test_commands_answer_and_ctrl_d_leaves(typist):
    typist.pipe.send_text("print 1 + 1\r\x04")
    typist.prompt.run()
    assert typist.said == ["0x2 = 2"]


def test_an_error_is_said_and_the_prompt_goes_on(typist):
    typist.pipe.send_text("nonsense\rprint 3\rquit\r")
    typist.prompt.run()
    assert "there is no command 'nonsense'" in typist.said[0]
    assert typist.said[1] == "0x3 = 3"


def test_an_empty_line_repeats_a_step_but_not_a_print(typist):
    typist.pipe.send_text("step 2\r\r\rprint 1\r\rquit\r")
    typist.prompt.run()
    assert typist.session.debugger.last_stop.retired == 6
    assert typist.said.count("0x1 = 1") == 1


def test_ctrl_c_clears_the_line_while_the_guest_is_stopped(typist):
    typist.pipe.send_text("nonsense\x03print 4\rquit\r")
    typist.prompt.run()
    assert typist.said == ["0x4 = 4"]


def test_commands_are_answered_while_the_guest_runs_and_ctrl_c_stops_it(typist):
    def person():
        typist.pipe.send_text("continue\r")
        typist.until(lambda: typist.session.worker.running)
        typist.pipe.send_text("status\r")
        typist.until(lambda: any("the guest runs" in said for said in typist.said))
        typist.pipe.send_text("\x03")
        typist.until(lambda: any(said.startswith("Interrupted") for said in typist.said))
        typist.pipe.send_text("\x04")

    thread = threading.Thread(target=person)
    thread.start()
    typist.prompt.run()
    thread.join()
    assert typist.session.debugger.last_stop.kind is StopKind.INTERRUPTED


def test_a_stop_is_announced_when_it_comes(typist):
    typist.pipe.send_text("break f000:0020\rcontinue\r")

    def person():
        typist.until(lambda: any(said.startswith("Breakpoint 1 at f000:0020") for said in typist.said))
        typist.pipe.send_text("\x04")

    thread = threading.Thread(target=person)
    thread.start()
    typist.prompt.run()
    thread.join()


def test_of_the_steps_that_gdb_makes_the_last_is_said(typist):
    debugger, worker = typist.session.debugger, typist.session.worker
    where: list[str] = []

    def gdb():
        try:
            for _ in range(600):
                worker.step()
                worker.wait()  # the prompt's own questions may come between
            where.append(f"linear {worker.call(debugger.linear_pc):08x}")
            typist.until(lambda: typist.said and where[0] in typist.said[-1])
        finally:
            typist.pipe.send_text("\x04")

    thread = threading.Thread(target=gdb)
    thread.start()
    typist.prompt.run()
    thread.join()
    assert where[0] in typist.said[-1]
    assert len(typist.said) < 50


def test_history_is_kept_in_a_file_and_a_home_that_cannot_be_written_is_borne(session, tmp_path):
    session.waits = False
    with create_pipe_input() as pipe:
        pipe.send_text("print 7\r\x04")
        path = tmp_path / "state" / "history"
        Prompt(session, style=Style(), history=path, emit=lambda text: None, input=pipe, output=DummyOutput()).run()
        assert "+print 7" in path.read_text()
        (tmp_path / "file").write_text("")
        pipe.send_text("\x04")
        blocked = tmp_path / "file" / "history"
        Prompt(session, style=Style(), history=blocked, emit=lambda text: None, input=pipe, output=DummyOutput()).run()


def test_tab_completes_commands_and_registers(session):
    completer = CommandCompleter(session)

    def completions(text):
        return [c.text for c in completer.get_completions(Document(text), None)]

    assert completions("finger") == ["fingerprint"]
    assert "$eflags" in completions("x/4x $e")
    assert completions('write 0 "') == []


def test_the_toolbar_shows_mode_place_count_and_state():
    position = PositionView("16-bit protected", 8, 0x100, 0xF0100, 1234567, 0, False, "start")
    text = toolbar_text(position, False)
    for part in ("16-bit protected", "0008:0100", "linear 000f0100", "<start>", "1,234,567 instructions", "stopped"):
        assert part in text
    assert "running" in toolbar_text(position, True)
    assert toolbar_text(None, False) == ""


def test_the_toolbar_follows_a_running_guest_without_waiting_for_it(typist):
    session, prompt = typist.session, typist.prompt
    session.execute("continue")
    prompt._toolbar()
    typist.until(lambda: prompt._position is not None)
    first = prompt._position.retired
    typist.until(lambda: (prompt._toolbar(), prompt._position.retired > first)[1])
    session.worker.interrupt()
