"""`v2e inspect`: prompt, script and gdb on a file that Xen wrote. Nothing of it runs or is written. The front ends are
those of `v2e attach` too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from emu.onlooker import Onlooker, Visitor
from emu.stops import Stop, StopKind
from emu.worker import Worker
from repl.frontends import run_prompt, run_script, script_lines, script_printer
from repl.options import DEFAULT_GDB, GDB_OFF, UsageError, parse_count
from repl.outcome import STATUS_OK, STATUS_USAGE, notice
from repl.rig import Rig, serve
from xenbridge.xen.files import FileError, XenFile, open_file

#: Stops behind which there is nothing to look at.
_GONE = frozenset((StopKind.POWEROFF, StopKind.FAILURE))


class LookRig(Rig):
    """What front ends hold of what is no machine of ours: a debugger, its thread, perhaps a gdb server."""

    def __init__(self, debugger: Visitor) -> None:
        self.debugger = debugger
        self.worker = Worker(self.debugger)
        self.server = None
        self.guest_code = None
        self._stops: SimpleQueue[Stop | None] = SimpleQueue()
        self.worker.add_listener(self._note)
        self.worker.start()

    def _note(self, stop: Stop) -> None:
        if stop.kind in _GONE:
            self._stops.put(stop)

    def close(self) -> None:
        """End gdb's session and the thread."""
        if self.server is not None:
            self.server.close()
        self.worker.close()


def _open(options: argparse.Namespace) -> XenFile:
    cpu = parse_count("--vcpu", options.vcpu, 0)
    try:
        return open_file(Path(options.file), cpu)
    except FileError as error:
        raise UsageError(str(error)) from error


def _run_pipe(rig: Rig, options: argparse.Namespace) -> int:
    from repl.script import ScriptError, run_lines, stream_lines

    try:
        run_lines(rig.session, stream_lines(sys.stdin), script_printer(options))
    except ScriptError as error:
        notice(str(error))
        return STATUS_USAGE
    return STATUS_OK


def inspect(options: argparse.Namespace) -> int:
    """`v2e inspect`. Returns the exit status; raises UsageError."""

    def onlooker() -> Onlooker:
        file = _open(options)
        return Onlooker(file, file.about)

    return look(options, onlooker)


def look(options: argparse.Namespace, visitor: Callable[[], Visitor]) -> int:
    """The front ends that `options` ask for, on what `visitor` gives. Returns the exit status; raises UsageError."""
    lines = script_lines(options)
    headless = options.headless or options.gdb == "stdio"
    if options.gdb == "stdio" and (options.script or options.json):
        raise UsageError(f"--gdb stdio and {'-c and -x' if options.script else '--json'} cannot share stdout")
    piped = sys.stdin is None or not sys.stdin.isatty()
    interactive = not (piped or headless or options.script)
    if headless and options.gdb in (None, GDB_OFF):
        raise UsageError("--headless needs --gdb ADDRESS: nobody could look at it")
    rig = LookRig(visitor())
    try:
        address = (DEFAULT_GDB if interactive else GDB_OFF) if options.gdb is None else options.gdb
        if address != GDB_OFF:
            try:
                serve(rig, address)
                if rig.debugger.linear_pc() is None:
                    notice("CS's base is not in the file: gdb's eip is the offset in CS, as ip is")
            except UsageError as error:
                if options.gdb is not None:
                    raise
                notice(f"gdb is not served: {error}")
        if options.script and run_script(rig, lines, script_printer(options)) != STATUS_OK:
            return STATUS_USAGE
        if headless:
            rig.wait_end()
        elif interactive:
            run_prompt(rig)
        elif not options.script and sys.stdin is not None:
            return _run_pipe(rig, options)
        return STATUS_OK
    finally:
        rig.close()
