"""Sessions on small machines, for the tests of commands and front ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.worker import Worker
from machines import debugger, rom
from repl.commands import all_commands
from repl.session import Session

#: Counts at 500h for ever, through a subroutine at 20h.
COUNTING = """
    mov ss, ax
    mov sp, 0x7000
main:
    call count
    jmp main
    times 0x20-($-$$) nop
count:
    inc word [0x500]
    ret
"""


@pytest.fixture
def session_for() -> Iterator[Callable[[str], Session]]:
    """Makes a session, waiting for stops as scripts do, on a machine whose ROM is the given nasm text."""
    made: list[Worker] = []

    def make(source: str = COUNTING) -> Session:
        target = debugger(rom(source))
        worker = Worker(target)
        worker.start()
        made.append(worker)
        return Session(target, worker, all_commands())

    yield make
    for worker in made:
        worker.close()
        worker.debugger.machine.close()


@pytest.fixture
def session(session_for: Callable[[str], Session]) -> Session:
    """A session on the counting machine."""
    return session_for(COUNTING)


@pytest.fixture(scope="module")
def lasting_session() -> Iterator[Session]:
    """A session on the counting machine for all tests of a module that change nothing of it."""
    worker = Worker(debugger(rom(COUNTING)))
    worker.start()
    yield Session(worker.debugger, worker, all_commands())
    worker.close()
    worker.debugger.machine.close()


@pytest.fixture
def say(session: Session) -> Callable[[str], str]:
    """Runs a command line in the session and returns what it prints."""
    from repl.render import result_text
    from repl.style import Style

    return lambda line: result_text(session.execute(line), Style())


@pytest.fixture
def firmware(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a firmware file of nasm text."""

    def make(source: str) -> Path:
        path = tmp_path / "firmware.bin"
        path.write_bytes(rom(source))
        return path

    return make
