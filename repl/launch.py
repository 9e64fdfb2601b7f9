"""`v2e run`: runs the machine of the options to an end, for whoever looks."""

from __future__ import annotations

import os
import sys
import threading
from itertools import chain

from emu.inspector import DebuggerError
from emu.machine import Machine
from emu.typed import TYPE_CHECKING
from emu.until import Until, UntilError, parse_until
from repl.endfiles import check_end_files, write_end_files
from repl.frontends import run_prompt, run_script, script_lines, script_printer
from repl.natively import HOSTS
from repl.options import DEFAULT_GDB, GDB_OFF, UsageError
from repl.outcome import STATUS_OK, STATUS_USAGE, notice
from repl.rig import Rig, rig_for, serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from emu.views import StuckView
    from repl.script import Line


def _check_combinations(options: argparse.Namespace, script: bool, interactive: bool) -> None:
    stdio = [
        f"--{name} stdio" for name in ("serial", "debugcon", "parallel", "gdb") if getattr(options, name) == "stdio"
    ]
    if options.json:
        stdio.append("--json")
    if options.gdb == "stdio":
        if script:
            stdio.append("-c and -x")
        if len(stdio) > 1:
            raise UsageError(f"{' and '.join(stdio)} cannot share stdout")
    elif options.json and len(stdio) > 1:
        raise UsageError(f"{' and '.join(stdio)} cannot share stdout")
    if options.wait and not interactive and not script and options.gdb in (None, "off"):
        raise UsageError("--wait without a prompt needs --gdb ADDRESS: nobody could let the guest go on")


def run(options: argparse.Namespace) -> int:
    """`v2e run`. Returns the exit status; raises UsageError."""
    try:
        until = None if options.until is None else parse_until(options.until)
    except UntilError as error:
        raise UsageError(str(error)) from error
    if until is not None and until.kind == "insns" and options.hypervisor in HOSTS:
        raise UsageError(
            f"--until {until.spec}: {options.hypervisor} does not count instructions: wait for another event, or use "
            "--hypervisor model"
        )
    lines = script_lines(options)
    piped = sys.stdin is None or not sys.stdin.isatty()
    headless = options.headless or options.gdb == "stdio"
    interactive = not (piped or headless or options.script or until)
    _check_combinations(options, bool(options.script), interactive)
    address = (DEFAULT_GDB if interactive else GDB_OFF) if options.gdb is None else options.gdb
    check_end_files(options)
    with rig_for(options, paced=interactive, at_prompt=interactive) as rig:
        if address != GDB_OFF:
            try:
                serve(rig, address)
            except UsageError as error:
                if options.gdb is not None:
                    raise
                notice(f"gdb is not served: {error}")
        if interactive:
            status = _run_interactive(rig, options)
        else:
            status = _run_unattended(rig, options, until, lines, headless=headless)
        failed = write_end_files(rig, options)
        if options.lockstep:
            notice(rig.worker.call(lambda: _told(rig.machine)))
        return status or failed


def _run_unattended(
    rig: Rig, options: argparse.Namespace, until: Until | None, lines: tuple[Line, ...], *, headless: bool
) -> int:
    if not until and not headless and not options.script:
        found = _run_piped(rig, options)
        if found is not None:
            return found
    if options.script and not until:
        failed = run_script(rig, lines, script_printer(options))
        return rig.status(rig.debugger.last_stop) or failed
    return _run_to_end(rig, options, until, lines)


def _told(machine: Machine) -> str:
    """What its second CPU has seen, in a sentence."""
    from emu.lockstep import LockstepMachine

    assert isinstance(machine, LockstepMachine)
    view = machine.summary("")
    verdict = "no difference" if view.divergence is None else "a difference behind the last"
    masked = f", {view.masked} of them but for undefined flags" if view.masked else ""
    return f"lockstep of {view.first} and {view.second}: {view.compared} instructions compared{masked}, {verdict}"


def _feed_serial(rig: Rig) -> None:
    """Send what comes on stdin to the guest's COM1."""

    def pump() -> None:
        while data := os.read(0, 4096):
            text = data.decode("latin-1")
            try:
                rig.worker.call(lambda text=text: rig.debugger.send_serial(text))  # type: ignore[misc]
            except DebuggerError:
                return

    threading.Thread(target=pump, name="v2e-serial-input", daemon=True).start()


def _run_interactive(rig: Rig, options: argparse.Namespace) -> int:
    if not options.wait:
        rig.worker.resume(rig.debugger.begin_continue)
    run_prompt(rig)
    return rig.status(None)  # whatever became of the guest, a person saw it


def _run_piped(rig: Rig, options: argparse.Namespace) -> int | None:
    """Commands from a pipe, on the stopped machine; None when there is none at all: then the guest just runs."""
    if sys.stdin is None:
        return None
    first = sys.stdin.readline()
    if not first:  # commands and how they are shown are a third of what there is to load, 45 ms
        return None
    from repl.script import ScriptError, run_lines, stream_lines

    try:
        if run_lines(rig.session, stream_lines(chain((first,), sys.stdin)), script_printer(options)) == 0:
            return None
    except ScriptError as error:
        notice(str(error))
        return rig.status(rig.debugger.last_stop) or STATUS_USAGE
    return rig.status(rig.debugger.last_stop)


def _first_told(rig: Rig) -> Callable[[StuckView], None]:
    """Says on stderr that the guest gets nowhere, the first time; `journal` has it each time."""
    told = False

    def say(view: StuckView) -> None:
        nonlocal told
        if not told:
            told = True
            notice(f"the guest gets nowhere after {rig.machine.executor.retired} instructions: {view.summary}")

    return say


def _run_to_end(rig: Rig, options: argparse.Namespace, until: Until | None, lines: tuple[Line, ...]) -> int:
    """Headless: to the event, the guest's end, or a client's kill; then the commands."""
    rig.worker.call(lambda: rig.debugger.set_until(until))
    rig.debugger.on_stuck = _first_told(rig)
    if options.serial == "stdio" and options.gdb != "stdio" and sys.stdin is not None:
        _feed_serial(rig)
    if not options.wait:
        rig.worker.resume(rig.debugger.begin_continue)
    stop = rig.wait_end(ends=until is not None)
    failed = run_script(rig, lines, script_printer(options)) if lines and stop is not None else STATUS_OK
    return rig.status(stop) or failed
