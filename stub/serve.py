"""Puts the room together: a gdb server for a debugger and the worker that owns its machine."""

from __future__ import annotations

from collections.abc import Callable

from emu.debugger import Debugger
from emu.worker import Worker
from stub.adapter import DebuggerTarget
from stub.server import Server
from stub.session import Session


def serve_debugger(
    debugger: Debugger,
    worker: Worker,
    address: str,
    *,
    run_command: Callable[[str], str] | None = None,
    look_command: Callable[[str], str] | None = None,
    on_kill: Callable[[], None] = lambda: None,
    on_left: Callable[[], None] = lambda: None,
    on_error: Callable[[BaseException], None] = lambda error: None,
    pipes: tuple[int, int] = (0, 1),
) -> Server:
    """A server at `address` (see `stub.server.parse_address`), not started yet: `start` gives gdb's form of it.

    `run_command` runs a `monitor` command and returns its output; it is called on a thread of its own, and what it
    raises is shown to the person. `look_command` is the same for clients that only look. On the machine's thread are
    called `on_kill`, when a client has killed the guest, and `on_left`, when the one that has it leaves. `on_error` is
    told what went wrong inside. Raises ServerError for an address that makes no sense.
    """
    target = DebuggerTarget(debugger, worker, on_kill=on_kill)

    def make_session(compressed: bool, on_output: Callable[[], None]) -> Session:
        return Session(
            target,
            has_runner=run_command is not None,
            compressed=compressed,
            on_error=on_error,
            on_output=on_output,
            on_left=on_left,
        )

    def make_onlooker(compressed: bool, on_output: Callable[[], None]) -> Session:
        # A target of its own: which breakpoints are this client's, and how it sees eip, is told by it.
        seen = DebuggerTarget(debugger, worker)
        seen.experiment = target.experiment
        return Session(
            seen,
            has_runner=look_command is not None,
            compressed=compressed,
            looks_on=True,
            on_error=on_error,
            on_output=on_output,
        )

    return Server(
        address,
        make_session,
        make_onlooker=make_onlooker,
        call=worker.call,
        wanted=worker.wanted,
        run_command=run_command,
        look_command=look_command,
        on_error=on_error,
        prepare=target.prepare,
        pipes=pipes,
    )
