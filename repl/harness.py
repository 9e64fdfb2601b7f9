"""What tests of boot code hold in their hands: a v2e server process, a real gdb on it, an assembled image."""

from __future__ import annotations

import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pygdbmi.gdbcontroller import GdbController

#: A server that has not said where it listens after this many seconds never will.
START_SECONDS = 30.0
#: What a gdb command may take, in seconds of the host; guests are bounded by instructions, this only ends a hang.
GDB_SECONDS = 60.0
FAILURE_SECONDS = 5.0
PACKETS_SHOWN = 40
#: What is asked of the stub for a failed test: title of the section, monitor command.
FAILURE_COMMANDS = (("v2e screen", "screen"), ("v2e segments", "sreg"), ("v2e last events", "journal"))
ADDRESS_LINE = "gdb: target remote "


class HarnessError(Exception):
    """One sentence: which tool is missing or failed, and what it said."""


class MissingTool(HarnessError):
    """A program that is not installed."""


def replay_command(options: Sequence[str]) -> str:
    """The command line that runs the same machine again, quoted for a shell."""
    return shlex.join(["v2e", "run", *options])


def assemble(source: Path, output: Path, include: Sequence[Path] = ()) -> Path:
    """Assemble `source` (nasm, flat binary) to `output`. Raises MissingTool, or HarnessError with nasm's own words."""
    if shutil.which("nasm") is None:
        raise MissingTool(f"{source.name} cannot be assembled: nasm is not installed (Debian: apt-get install nasm)")
    folders = [f"-i{folder}/" for folder in (source.parent, *include)]
    command = ["nasm", "-f", "bin", *folders, "-o", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise HarnessError(f"nasm refuses {source.name}:\n{done.stderr.strip()}")
    return output


class Server:
    """A process `v2e run ... --headless --wait --gdb 0`: a machine stopped at reset until a client continues it."""

    def __init__(self, options: Sequence[str], *, wait: bool = True, cwd: Path | None = None) -> None:
        """`options` are those of `v2e run`. Raises HarnessError when the process ends or says nothing."""
        self.options = tuple(options)
        self.command = ["run", *options, "--headless", *(["--wait"] if wait else []), "--gdb", "0"]
        #: what the process wrote to its standard error, line by line
        self.errors: deque[str] = deque(maxlen=1000)
        self.address = ""  #: what `target remote` takes
        self._output: deque[bytes] = deque(maxlen=1000)
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "repl.cli", *self.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
        )
        self._readers = [
            threading.Thread(target=self._read_errors, daemon=True),
            threading.Thread(target=self._read_output, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if not self._ready.wait(START_SECONDS) or not self.address:
            self.close()
            said = "\n".join(self.errors) or "(nothing)"
            raise HarnessError(f"{self} has not opened its gdb port; it said:\n{said}")

    def __str__(self) -> str:
        return shlex.join(["v2e", *self.command])

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode(errors="replace").rstrip("\n")
            self.errors.append(line)
            if line.startswith(ADDRESS_LINE):
                self.address = line.removeprefix(ADDRESS_LINE).strip()
                self._ready.set()
        self._ready.set()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        while chunk := self.process.stdout.read1(65536):  # type: ignore[attr-defined]
            self._output.append(chunk)

    @property
    def output(self) -> str:
        """What the process has written to its standard output."""
        return b"".join(tuple(self._output)).decode(errors="replace")

    def sections(self) -> list[tuple[str, str]]:
        """What a failed test shows of this server: how it was started and what it said."""
        said = "\n".join(self.errors) or "(nothing)"
        status = self.process.poll()
        state = "is running" if status is None else f"ended with status {status}"
        return [("v2e server", f"{self}\n{state}; on its standard error:\n{said}")]

    def wait(self, seconds: float = START_SECONDS) -> int:
        """The exit status. Raises HarnessError when the process goes on for longer than `seconds`."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise HarnessError(f"{self} still runs after {seconds:g} s") from None
        for reader in self._readers:
            reader.join(seconds)
        return status

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(START_SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class GdbError(HarnessError):
    """gdb's own error text for a command."""


class Gdb:
    """A real gdb, spoken to through its machine interface.

    `cmd` takes what one would type and returns what one would read. A command that resumes the guest returns when
    it has stopped again; `start` returns at once, and `wait_stop` waits.
    """

    def __init__(self, log: Path, *, arguments: Sequence[str] = ()) -> None:
        """`log` receives gdb's packet log. Raises MissingTool."""
        if shutil.which("gdb") is None:
            raise MissingTool("gdb is not installed (Debian: apt-get install gdb)")
        from pygdbmi.gdbcontroller import GdbController

        self.log = log
        self.stop: dict[str, Any] = {}  #: the last *stopped record
        self.running = False
        self.connected = False
        self._token = 0
        self._pending: deque[dict[str, Any]] = deque()
        self._rest = b""  # of a line that has not come whole
        command = ["gdb", "-q", "-nx", "--interpreter=mi3", *arguments]
        self._controller: GdbController = GdbController(command, time_to_check_for_additional_output_sec=0.001)
        for setting in ("pagination off", "confirm off", "width 0", "height 0", "style enabled off"):
            self.cmd(f"set {setting}")
        self.cmd(f"set remotelogfile {log}")

    def connect(self, address: str, *, extended: bool = False) -> str:
        """`target remote ADDRESS`; returns gdb's text."""
        text = self.cmd(f"target {'extended-remote' if extended else 'remote'} {address}")
        self.connected = True
        return text

    def cmd(self, command: str, seconds: float = GDB_SECONDS) -> str:
        """Run a console command and return all it printed; after one that resumes, when the guest has stopped.

        Raises GdbError with gdb's text if it refuses, HarnessError after `seconds`.
        """
        text = self.start(command, seconds)
        return text + self.wait_stop(seconds) if self.running else text

    def start(self, command: str, seconds: float = GDB_SECONDS) -> str:
        """As `cmd`, but do not wait for the guest to stop."""
        self._token += 1
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        try:
            self._controller.write(f'{self._token}-interpreter-exec console "{quoted}"', read_response=False)
        except OSError as error:
            raise HarnessError(f"gdb has ended, and does not take {command!r}: {error.strerror}") from None
        text, deadline = "", time.monotonic() + seconds
        while True:
            record = self._next(deadline, command)
            text += self._note(record)
            if record["type"] == "result" and record["token"] == self._token:
                if record["message"] == "error":
                    raise GdbError((record["payload"] or {}).get("msg", "gdb gave no reason"))
                return text

    def wait_stop(self, seconds: float = GDB_SECONDS) -> str:
        """Wait until the guest is stopped; returns what gdb printed meanwhile. `stop` has the record."""
        text, deadline = "", time.monotonic() + seconds
        while self.running:
            text += self._note(self._next(deadline, "the guest to stop"))
        return text

    def interrupt(self) -> None:
        """Ctrl-C; `wait_stop` then returns."""
        process = self._controller.gdb_process
        if process is not None:
            process.send_signal(signal.SIGINT)

    def value(self, expression: str) -> int:
        """An expression as an integer: `value("$pc")`."""
        return int(self.cmd(f"output/d (long long)({expression})"))

    def packets(self, count: int = PACKETS_SHOWN) -> tuple[str, ...]:
        """The last `count` packets exchanged, `w` written by gdb and `r` read by it."""
        if not self.log.exists():
            return ()
        lines = self.log.read_text(errors="replace").splitlines()
        return tuple([line for line in lines if line[:2] in ("w ", "r ")][-count:])

    def sections(self) -> list[tuple[str, str]]:
        """What a failed test shows of this gdb: what the guest's screen, segments and events are, as far as the stub
        still answers, and the last packets."""
        parts = []
        for title, command in FAILURE_COMMANDS if self.connected and not self.running else ():
            try:
                parts.append((title, self.cmd(f"monitor {command}", FAILURE_SECONDS).rstrip()))
            except HarnessError as error:
                parts.append((title, str(error)))
                break
        return [*parts, ("v2e last packets", "\n".join(self.packets()) or "(none)")]

    def close(self) -> None:
        """End gdb without asking it."""
        process = self._controller.gdb_process
        if process is not None and process.poll() is None:
            process.kill()
        self._controller.exit()

    def _note(self, record: dict[str, Any]) -> str:
        """Keep track of running and stopped; returns the text a person would see."""
        kind, message = record["type"], record["message"]
        if kind == "notify" and message == "stopped":
            self.running, self.stop = False, record["payload"] or {}
        elif message == "running":  # the result of a command, or a notice of its own
            self.running = True
        return str(record["payload"]) if kind in ("console", "target", "log") else ""

    def _records(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What gdb has said, waited for so long. Read line by line, as pygdbmi's own reader loses all that it has read
        where it cannot take one line apart: `=traceframe-changed,end`, by which gdb says that a trace is left."""
        from pygdbmi.gdbmiparser import parse_response, response_is_finished

        process = self._controller.gdb_process
        if process is None or process.stdout is None or process.stderr is None:
            return
        ready = select.select([process.stdout, process.stderr], [], [], seconds)[0]
        if process.stderr in ready:
            process.stderr.read()  # nothing of gdb's in this mode, and room for what it starts
        if process.stdout not in ready:
            return
        *lines, self._rest = (self._rest + (process.stdout.read() or b"")).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if not text or response_is_finished(text):
                continue
            try:
                yield parse_response(text)
            except TypeError:
                yield {"type": "notify", "message": text, "payload": None, "token": None}

    def _next(self, deadline: float, awaited: str) -> dict[str, Any]:
        while not self._pending:
            process = self._controller.gdb_process
            gone = process is None or process.poll() is not None
            self._pending.extend(self._records(0.1))
            if self._pending:
                break
            if gone:
                raise HarnessError(f"gdb ended while it was to answer: {awaited}")
            if time.monotonic() > deadline:
                raise HarnessError(f"gdb gave no answer in time: {awaited}")
        return self._pending.popleft()
