"""`v2e doctor`: what this host offers. `v2e bench`: the benchmarks of a source tree."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from emu.engine import EngineError
from emu.firmware.roms import FirmwareError, find_firmware, find_vga_rom
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from repl.command import Result
from repl.json_text import result_json as to_json
from repl.options import UsageError
from repl.outcome import STATUS_OK, STATUS_USAGE
from repl.render import result_text
from repl.shown import FindingView
from repl.style import Style, wants_colour

#: gdb older than this lacks what the stub's target descriptions use; Debian 12 has 13.
GDB_FLOOR = 13
_PATIENCE = 10.0


def _tool_version(program: str, argument: str) -> str | None:
    """The first line `program argument` prints, None when it cannot be run."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run([path, argument], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout or done.stderr).partition("\n")[0].strip() or "version unknown"


def _engine() -> tuple[FindingView, ...]:
    """Builds a machine and runs the first instructions of the tour: calibration happens on the way. The findings of
    the engine, and of the checks that it does not make here."""
    try:
        from importlib.metadata import version

        from emu.debugger import Debugger
        from emu.engine import EngineError
        from emu.firmware.roms import tour_rom
        from emu.machine import MachineConfig, MachineError, build_machine
    except ImportError as error:
        return (FindingView("engine", False, f"cannot be loaded: {error}"),)
    try:
        machine = build_machine(MachineConfig(memory=1 << 20, firmware=tour_rom()))
        try:
            debugger = Debugger(machine)
            debugger.begin_step(100)
            stop = debugger.run()
            worked = stop.retired == 100
            notice, unkept = machine.executor.notice, machine.executor.unkept
        finally:
            machine.close()
    except (EngineError, MachineError, OSError) as error:
        return (FindingView("engine", False, str(error)),)
    text = f"Unicorn {version('unicorn')}, calibrated"
    if notice:
        text += f"; {notice}"
    engine = FindingView("engine", worked, text if worked else f"{text}, but a test run ended early: {stop.text}")
    summary = (
        f"{len(unkept)} promises of x86 are not kept on this host (docs/fidelity.md)" if unkept else "all are made"
    )
    checks = FindingView("checks", None if unkept else True, summary)
    return engine, checks, *(FindingView("not kept", None, gap) for gap in unkept)


def _gdb() -> FindingView:
    line = _tool_version("gdb", "--version")
    if line is None:
        return FindingView("gdb", None, "not installed: `v2e gdb` needs it (Debian package gdb)")
    major = re.search(r"(\d+)\.\d", line)
    old = major is None or int(major[1]) < GDB_FLOOR
    return FindingView("gdb", not old, f"{line} ({GDB_FLOOR} or newer is needed)" if old else line)


def _nasm() -> FindingView:
    line = _tool_version("nasm", "-v")
    return FindingView("nasm", True if line else None, line or "not installed: tests of boot code in source need it")


def _firmware(name: str, find: Callable[[], str]) -> FindingView:
    try:
        return FindingView(name, True, find())
    except FirmwareError as error:
        return FindingView(name, None, str(error))


def _kvm() -> tuple[FindingView, ...]:
    """What this host's KVM can and cannot do, found out by running a few instructions of each kind."""
    try:
        from xenbridge.kvm.abi import KvmError
        from xenbridge.kvm.bridge_probe import finding
        from xenbridge.kvm.hop import LIBRARY
        from xenbridge.kvm.probe import host_backend, host_costs
    except (ImportError, OSError, AttributeError) as error:
        return (FindingView("kvm", None, f"only Linux on x86-64 has KVM ({error})"),)
    try:
        model = MODELS[DEFAULT_MODEL]
        found = (*host_backend(model).findings(), finding())
        costs = host_costs(model)
    except (KvmError, EngineError) as error:
        return (FindingView("kvm", None, str(error)),)
    moves = "by the C library" if LIBRARY is not None else "in Python, slower: install with a C compiler"
    told = "not measured, as real mode does not run" if costs is None else (
        f"an exit {costs.exit} cycles, a hop {costs.hop}, an instruction {costs.emulated} emulated and {costs.native} "
        "native (real mode), measured now")  # fmt: skip
    return (
        *(FindingView(name, ok, text) for name, ok, text in found), FindingView("kvm costs", None, told),
        FindingView("kvm moves", LIBRARY is not None or None, f"the CPU's state {moves}"),
    )  # fmt: skip


def _xen() -> FindingView:
    """Whether domains can be attached to, or made."""
    try:
        from xenbridge.xen.libraries import XenError, check_dom0
    except ImportError as error:
        return FindingView("xen", None, str(error))
    try:
        return FindingView("xen", True, f"dom0 of Xen {check_dom0()}: `v2e attach` and `--hypervisor xen` can be had")
    except XenError as error:
        return FindingView("xen", None, str(error))


def _terminal() -> FindingView:
    if not sys.stdout.isatty():
        return FindingView("terminal", None, "stdout is no terminal: no colours")
    colours = "colours" if wants_colour(sys.stdout) else "no colours (NO_COLOR or TERM says so)"
    return FindingView("terminal", True, f"{os.environ.get('TERM', 'TERM is not set')}: {colours}")


def findings() -> tuple[FindingView, ...]:
    """All that is looked at."""
    return (
        *_engine(), _gdb(), _nasm(), _firmware("SeaBIOS", lambda: find_firmware("seabios")),
        _firmware("VGA BIOS", find_vga_rom), *_kvm(), _xen(), _terminal(),
    )  # fmt: skip


def doctor(json: bool) -> int:
    """Print the findings; 0 if the engine works, else 2."""
    found = findings()
    result = Result((found,))
    print(to_json("doctor", result) if json else result_text(result, Style(wants_colour(sys.stdout))))
    return STATUS_OK if found[0].ok else STATUS_USAGE


def bench(arguments: Sequence[str]) -> int:
    """Run the bench package in a process of its own, as nothing below it may import it. Raises UsageError."""
    try:
        found = importlib.util.find_spec("bench.__main__")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UsageError("the benchmarks are not installed: run `make bench` in the source tree")
    return subprocess.run([sys.executable, "-m", "bench", *arguments], check=False).returncode
