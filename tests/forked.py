"""v2e's processes forked from one that has its modules loaded, in place of an interpreter that loads them each time.

The tests start some hundred. What is forked is a child of the test's process all the same (its parent ends at once, and
the test's process takes orphans), so that waiting, signals and exit statuses are the kernel's own. Processes that are
to be started in an unusual way are not forked, nor are those of tests marked `started`, as a person starts them.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PR_SET_CHILD_SUBREAPER = 36  #: prctl(2)
LARGEST = 1 << 17  #: of a request: arguments and environment
COMMAND = [sys.executable, "-m", "repl.cli"]
#: What is read of the environment before `main`; other values of these want another interpreter.
EARLY = ("LANG", "LC_", "PYTHON", "V2E_")
HARMLESS = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


class Nursery:
    """The process that has the modules loaded, on the other end of a socket; started by the first request."""

    def __init__(self) -> None:
        self.aside = False  #: processes are started, not forked
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def fork(self, words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> int:
        """The process id of `v2e words`, whose stdin, stdout and stderr are `files`. Raises OSError."""
        request = json.dumps([words, folder, environment]).encode("utf-8", "surrogateescape")
        with self._lock:
            if self._link is None:
                self._start()
            assert self._link is not None
            socket.send_fds(self._link, [request], files)
            answer = self._link.recv(64)
        if not answer:
            raise OSError("the process that forks v2e has ended")
        return int(answer)

    def _start(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._link, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
        with theirs:
            self._process = Started(
                [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT
            )

    def close(self) -> None:
        """End the process; those that it has forked go on."""
        if self._link is not None and self._process is not None:
            self._link.close()
            self._process.wait()


Started = subprocess.Popen


def usual(environment: dict[str, str]) -> bool:
    """Whether an interpreter with `environment` begins as this one has."""
    return all(
        environment.get(name) == os.environ.get(name)
        for name in environment.keys() | os.environ.keys()
        if name.startswith(EARLY) and name not in HARMLESS
    )


def popen_of(nursery: Nursery) -> type[subprocess.Popen[Any]]:
    """subprocess.Popen whose processes of v2e are the nursery's."""

    class Popen(Started):  # type: ignore[type-arg]
        def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any,
                           env: Any, startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int,
                           c2pread: int, c2pwrite: int, errread: int, errwrite: int, *others: Any) -> None:  # fmt: skip
            # restore_signals, gid, gids, uid, umask, start_new_session, process_group
            plain = not (nursery.aside or executable or preexec_fn or pass_fds or shell)
            plain = plain and others[-2:] == (False, -1)
            environment = dict(os.environ if env is None else env)
            if not plain or list(args[:3]) != COMMAND or not usual(environment):
                super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                                       creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
                                       *others)  # fmt: skip
                return
            files = [given if given != -1 else n for n, given in enumerate((p2cread, c2pwrite, errwrite))]
            self.pid = nursery.fork([os.fspath(word) for word in args[3:]], os.fspath(cwd or os.getcwd()), environment,
                                    files)  # fmt: skip
            self._child_created = True
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    return Popen


# ---- In the process that forks


def wait_for_birth(link: socket.socket) -> list[str] | None:
    """Forks for each request; returns in what is forked, with the arguments, or None when nobody asks any more."""
    while True:
        request, files, _, _ = socket.recv_fds(link, LARGEST, 3)
        if not request:
            return None
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            born = os.fork()
            if born:
                os.write(write, str(born).encode())
                os._exit(0)
            for file in (read, write, link.detach()):
                os.close(file)
            return begin(request, files)
        os.waitpid(between, 0)  # from now on it is the child of the process that asked
        link.send(os.read(read, 64))
        for file in (read, write, *files):
            os.close(file)


def begin(request: bytes, files: list[int]) -> list[str]:
    """Makes this process what the request wants; returns the arguments."""
    words, folder, environment = json.loads(request.decode("utf-8", "surrogateescape"))
    for n, file in enumerate(files):
        os.dup2(file, n)
    for file in files:
        if file > 2:
            os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdin = os.fdopen(0, errors=sys.stdin.errors, closefd=False)
    sys.stdout = os.fdopen(1, "w", errors=sys.stdout.errors, closefd=False)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=unbuffered)
    sys.stderr.reconfigure(line_buffering=True, write_through=unbuffered)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    return list(words)


#: What most of v2e's processes load, themselves or of others.
LOADED = (
    *(
        "repl.cli",
        "repl.launch",
        "repl.script",
        "repl.session",
        "repl.render_machine",
        "repl.render_runs",
        "stub.serve",
    ),
    *("emu.pc", "emu.stuck", "emu.unicorn_engine", "emu.firmware.tour", "emu.firmware.bios", "capstone", "difflib"),
)


def main() -> int | None:
    sys.path.insert(0, str(ROOT))
    modules = [importlib.import_module(name) for name in LOADED]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()
    words = wait_for_birth(socket.socket(fileno=int(sys.argv[1])))
    if words is None:
        return 0
    sys.argv = [str(modules[0].__file__), *words]
    return modules[0].main()  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
