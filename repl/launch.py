"""`v2e run`: builds machine, debugger, thread, gdb server and front end from the options, and runs them to an end."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from emu.debugger import Debugger
from emu.engine import CheckLevel, EngineError
from emu.firmware.payload import KernelError
from emu.firmware.roms import FirmwareError, builtin_bios, find_firmware, find_vga_rom, read_rom, tour_rom
from emu.inspector import DebuggerError
from emu.machine import MACHINES, Machine, MachineConfig, MachineError, build_machine
from emu.media import Disk, MediaError
from emu.stops import Stop, StopKind
from emu.until import Until, UntilError, parse_until
from emu.worker import Worker
from emu.x86.cpuid import MODELS
from repl.media import open_media
from repl.natively import KVM, native_config
from repl.options import DEFAULT_GDB, GDB_OFF, UsageError, choose, parse_count, parse_memory

if TYPE_CHECKING:
    from repl.script import Line, Printer
    from repl.session import Session
    from stub.server import Server

STATUS_OK, STATUS_USAGE, STATUS_DIED, STATUS_BUDGET = 0, 2, 4, 6
#: Stops that end a run nobody looks at.
_DIED = frozenset((StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE))
_ENDS = _DIED | {StopKind.EXIT, StopKind.POWEROFF, StopKind.EVENT, StopKind.LIMIT}
#: Seconds between two looks at whether gdb has left a dead guest.
_LOOK = 0.2
#: What building a machine may fail with: each is one sentence.
BUILD_FAILURES = (MachineError, EngineError, FirmwareError, KernelError, MediaError, UntilError)
#: The name of the built-in image.
TOUR = "tour"


def notice(text: str) -> None:
    """One line on stderr."""
    print(f"v2e: {text}", file=sys.stderr, flush=True)


# -- options to configuration


def check_choices(options: argparse.Namespace) -> None:
    """Values that this version does not have. Raises UsageError."""
    choose("--machine", options.machine, MACHINES)
    if choose("--clock", options.clock, ("virtual", "host")) == "host" and options.hypervisor != KVM:
        raise UsageError(
            f"--clock host needs --hypervisor {KVM}, which cannot count instructions: time is virtual with all others"
        )
    choose("--cpus", options.cpus, ("1",))
    if options.kernel is None:
        for name, given in (("--initrd", bool(options.initrd)), ("--append", options.append is not None)):
            if given:
                raise UsageError(f"{name} belongs to a kernel: name one with --kernel FILE")
    choose("--cpu", options.cpu, tuple(MODELS))


def machine_config(options: argparse.Namespace) -> MachineConfig:
    """The machine the options ask for, without its outputs. Raises UsageError, or one of the builders' errors."""
    check_choices(options)
    memory = parse_memory(options.memory)
    piece = None if options.slice is None else parse_count("--slice", options.slice)
    image = options.image
    if image == TOUR and not os.path.exists(image):
        if options.firmware is not None:
            raise UsageError(f"--firmware {options.firmware}: the tour is a ROM of its own and takes no firmware")
        options.image, tour = None, True
    else:
        media = (*options.floppy, *options.disk, *options.cdrom, *options.virtio)
        tour = image is None and not media and options.firmware is None and options.kernel is None
        tour = tour and options.load_xen is None
    checks = CheckLevel(choose("--checks", options.checks, [level.value for level in CheckLevel]))
    config = MachineConfig(machine=options.machine, memory=memory, slice=piece, checks=checks, cpu=options.cpu)
    config.native = native_config(options, notice)
    open_media(options, config)
    roms = [(Path(path).name, read_rom(Path(path), "option ROM")) for path in options.option_rom]
    if tour:
        if options.kernel is not None:
            raise UsageError("the tour and --kernel: the machine can start in one of them")
        config.firmware, config.shadow = tour_rom(), False
    elif options.kernel is not None and options.firmware is not None:
        from emu.firmware import kernelrom
        from emu.firmware.kernels import load_kernel_after_post

        kernel = load_kernel_after_post(Path(options.kernel), map(Path, options.initrd), options.append or "", memory)
        # the last ROM's bootstrap is the one that counts
        _firmware(options.firmware, config, [*roms, ("kernel.rom", kernelrom.rom())])
        config.fw_cfg[kernelrom.FILE] = kernel.file()
    elif options.kernel is not None:
        if roms:
            raise UsageError(
                "--option-rom and --kernel: no firmware runs that would call the ROM: name one with --firmware"
            )
        from emu.firmware.kernels import load_kernel

        config.payload = load_kernel(
            Path(options.kernel), map(Path, options.initrd), options.append or "", memory, acpi=options.machine == "pc"
        )
    else:
        _firmware(options.firmware, config, roms)
    return config


def _firmware(name: str | None, config: MachineConfig, roms: list[tuple[str, bytes]]) -> None:
    """Put the firmware in place, the built-in BIOS unless another is named. SeaBIOS finds its VGA BIOS in the ROM BAR
    of a pc's VGA, else as the option ROMs in fw_cfg, and deploys them itself; any other firmware finds the option ROMs
    at C0000h."""
    if name in (None, "builtin"):
        config.firmware, config.bios = builtin_bios(), True
        config.option_roms = [data for _, data in roms]
        return
    config.firmware = read_rom(find_firmware(name, config.machine), "firmware")
    if name == "seabios":
        vga_rom = read_rom(find_vga_rom(config.machine), "VGA BIOS")
        if config.machine == "pc":
            config.vga_rom = vga_rom
        else:
            config.fw_cfg = {"vgaroms/vgabios.bin": vga_rom}
        config.fw_cfg.update((f"genroms/{file}"[:55], data) for file, data in roms)
    else:
        config.option_roms = [data for _, data in roms]


class Sink:
    """Where a serial line or debug console goes. A failing write is kept for the end, never thrown into the guest."""

    def __init__(self, option: str, target: str, at_prompt: bool) -> None:
        """`target`: `stdio` or a file's path. Nothing is opened yet."""
        self.option, self._target, self._at_prompt = option, target, at_prompt
        self._stream: io.FileIO | None = None
        self.error: str | None = None

    def open(self, inputs: Iterable[Path]) -> None:
        """Raises UsageError when the file cannot be written, or is one of `inputs`; then it is untouched."""
        if self._target == "stdio":
            # At a prompt sys.stdout is one that keeps the line being typed below the output.
            self._stream = None if self._at_prompt else io.FileIO(1, "wb", closefd=False)
            return
        for path in inputs:
            if os.path.exists(self._target) and os.path.exists(path) and os.path.samefile(path, self._target):
                raise UsageError(f"{self.option} {self._target!r} is an image of this run: name another file")
        try:
            self._stream = io.FileIO(self._target, "wb")
        except OSError as error:
            raise UsageError(f"{self.option} {self._target!r} cannot be written: {error.strerror}") from None

    def __call__(self, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            if self._stream is not None:
                self._stream.write(data)
            else:
                sys.stdout.write(data.decode("latin-1"))
        except (OSError, ValueError) as error:
            self.error = f"{self.option}: {getattr(error, 'strerror', None) or error}"

    def close(self) -> None:
        if self._stream is not None and self._stream.fileno() > 2:
            self._stream.close()


# -- the rig


def _compared(config: MachineConfig) -> Machine:
    """A machine with a second CPU in lockstep."""
    from emu.lockstep import LockstepMachine
    from emu.seconds import second_named

    return LockstepMachine(config, second_named(config))


def _told(machine: Machine) -> str:
    """What its second CPU has seen, in a sentence."""
    from emu.lockstep import LockstepMachine

    assert isinstance(machine, LockstepMachine)
    view = machine.summary("")
    verdict = "no difference" if view.divergence is None else "a difference behind the last"
    masked = f", {view.masked} of them but for undefined flags" if view.masked else ""
    return f"lockstep of {view.first} and {view.second}: {view.compared} instructions compared{masked}, {verdict}"


class Rig:
    """A machine with its debugger, its thread, the commands, and perhaps a gdb server. Closed as a whole."""

    def __init__(self, config: MachineConfig, *, paced: bool, lockstep: bool = False) -> None:
        try:
            self.machine = _compared(config) if lockstep else build_machine(config)
        except BUILD_FAILURES as error:
            raise UsageError(str(error)) from error
        self.config = config
        for disk in self._media():
            disk.on_error = notice
        self.debugger = Debugger(self.machine)
        self.worker = Worker(self.debugger, paced=paced)
        self.server: Server | None = None
        self.guest_code: int | None = None
        self._stops: SimpleQueue[Stop | None] = SimpleQueue()
        self.worker.add_listener(self._note)
        gc.freeze()  # what was loaded and built stays: no need to look through it
        gc.enable()
        self.worker.start()

    @functools.cached_property
    def session(self) -> Session:
        """The commands' view of it; made when first used, as a headless run needs none."""
        from repl.commands import all_commands
        from repl.session import Session

        return Session(self.debugger, self.worker, all_commands())

    @functools.cached_property
    def _monitor_session(self) -> Session:
        return self.session.shared(may_resume=False, resumed_by="gdb")

    @functools.cached_property
    def _look_session(self) -> Session:
        return self.session.shared(may_resume=False, may_change=False, resumed_by="another client")

    def _note(self, stop: Stop) -> None:
        if stop.kind is StopKind.EXIT:
            self.guest_code = stop.exit_code
        if stop.kind in _ENDS:  # a debugger's steps are not to wake the main thread
            self._stops.put(stop)

    def killed(self) -> None:
        """A gdb client wants the guest ended for good."""
        self._stops.put(None)

    def wait_end(self) -> Stop | None:
        """The stop that ends the run; None when a client killed the guest. Other stops are for who caused them.

        A guest that died is kept while a gdb client is there: it wants to see why, and may restart it."""
        died: Stop | None = None
        while True:
            try:
                stop = self._stops.get(timeout=None if died is None else _LOOK)
            except Empty:
                if self.server is not None and self.server.connected:
                    continue
                if not self.worker.running:
                    return died
                died = None
                continue
            if stop is None:
                return died
            if stop.kind in _DIED and self.server is not None and self.server.connected:
                died = stop
            elif stop.kind in _ENDS:
                return stop

    def monitor(self, line: str) -> str:
        """A command for gdb's `monitor`: what it says. Raises one of the session's FAILURES."""
        from repl.render import Style, result_text

        return result_text(self._monitor_session.execute(line), Style())

    def look(self, line: str) -> str:
        """As `monitor`, for a client that only looks."""
        from repl.render import Style, result_text

        return result_text(self._look_session.execute(line), Style())

    def status(self, stop: Stop | None) -> int:
        """The exit status after `stop`; says on stderr why the guest died or what ran out."""
        if self.guest_code is not None:
            return (self.guest_code << 1 | 1) & 0xFF
        if stop is not None and stop.kind in _DIED:
            notice(f"the guest died: {stop.text} (after {stop.retired} instructions){self._waited(stop)}")
            return STATUS_DIED
        if stop is not None and stop.kind is StopKind.LIMIT:
            notice(stop.text + self._waited(stop))
            return STATUS_BUDGET
        return STATUS_OK

    def _waited(self, stop: Stop) -> str:
        """What the guest was waiting for where it got nowhere, as a sentence behind another."""
        if stop.kind not in (StopKind.LIMIT, StopKind.DEADLOCK):
            return ""
        view = self.worker.call(self.debugger.why_stuck)
        if stop.kind is StopKind.DEADLOCK:
            return f"; {view.details[0]}" if view.details else ""
        return f"; {view.summary}" if view.stuck or view.verdict == "idle" else ""

    def close(self) -> None:
        """Stop all. Guest writes kept with --write are in their files afterwards."""
        if self.server is not None:
            self.server.close()
        self.worker.close()
        self.machine.close()
        for disk in self._media():
            disk.close()

    def _media(self) -> list[Disk]:
        return [*self.config.floppies, *self.config.disks, *self.config.cdroms, *self.config.virtio]


def _inputs(options: argparse.Namespace) -> list[Path]:
    """The files that a run reads."""
    names = [
        options.image, *options.floppy, *options.disk, *options.cdrom, *options.virtio, *options.option_rom,
        options.firmware, options.kernel, *options.initrd,
    ]  # fmt: skip
    return [Path(name) for name in names if name is not None]


@contextlib.contextmanager
def rig_for(options: argparse.Namespace, *, paced: bool = False, at_prompt: bool = False) -> Iterator[Rig]:
    """Build what the options ask for, outputs included. Raises UsageError."""
    sinks: list[Sink] = []
    try:
        config = machine_config(options)
        for option in ("serial", "debugcon", "parallel"):
            if (target := getattr(options, option)) != "null":
                sinks.append(Sink(f"--{option}", target, at_prompt))
                setattr(config, f"{option}_out", sinks[-1])
        rig = Rig(config, paced=paced or options.clock == "host", lockstep=getattr(options, "lockstep", False))
        if rig.machine.executor.notice:
            notice(rig.machine.executor.notice)
    except BUILD_FAILURES as error:
        raise UsageError(str(error)) from error
    try:
        for sink in sinks:
            sink.open(_inputs(options))
        if options.load_xen is not None:
            _load_xen(rig, Path(options.load_xen))
        if options.limit is not None:
            limit = parse_count("--limit", options.limit)
            rig.worker.call(lambda: rig.debugger.set_limit(limit))
        yield rig
    finally:
        rig.close()
        for sink in sinks:
            sink.close()
            if sink.error is not None:
                notice(f"output was lost: {sink.error}")


def _load_xen(rig: Rig, path: Path) -> None:
    """Continue what a Xen save stream holds. Raises UsageError."""
    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import load_file

    def load() -> list[str]:
        notices = load_file(rig.machine, path)
        rig.debugger.loaded(f"loaded from {path}")
        return notices

    try:
        notices = rig.worker.call(load)
    except FileError as error:
        raise UsageError(f"--load-xen {error}") from error
    for text in notices:
        notice(text)


def serve(rig: Rig, address: str, *, announce: bool = True) -> str:
    """Serve gdb on the rig, and say where on stderr. Returns the address as gdb takes it. Raises UsageError when it
    cannot be had."""
    from stub.serve import serve_debugger
    from stub.server import STDIO, ServerError

    try:
        server = serve_debugger(
            rig.debugger,
            rig.worker,
            address,
            run_command=rig.monitor,
            look_command=rig.look,
            on_kill=rig.killed,
            on_error=lambda error: notice(f"in the gdb server: {type(error).__name__}: {error}"),
        )
        shown = server.start()
    except ServerError as error:
        raise UsageError(f"--gdb {address}: {error}") from error
    rig.server = server
    if shown == STDIO:
        # The client is gone when its pipe ends, and nobody else can come.

        def wait() -> None:
            server.wait()
            rig.killed()

        threading.Thread(target=wait, name="v2e-gdb-end", daemon=True).start()
    elif announce:
        print(f"gdb: target remote {shown}", file=sys.stderr, flush=True)
    return shown


# -- front ends


def script_lines(options: argparse.Namespace) -> tuple[Line, ...]:
    """The lines of -c and -x, in their order. Raises UsageError for a file that cannot be read."""
    if not options.script:
        return ()
    from repl.script import Line, ScriptError, file_lines

    lines: list[Line] = []
    try:
        for option, value in options.script:
            lines += [Line(value, "-c")] if option == "-c" else file_lines(Path(value))
    except ScriptError as error:
        raise UsageError(str(error)) from error
    return tuple(lines)


def script_printer(options: argparse.Namespace) -> Printer:
    """Where and how commands' results go."""
    from repl.render import terminal_style
    from repl.script import Printer

    return Printer(sys.stdout, terminal_style(sys.stdout), options.json)


def run_script(rig: Rig, lines: tuple[Line, ...], printer: Printer) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from repl.script import ScriptError, run_lines

    try:
        run_lines(rig.session, lines, printer)
    except ScriptError as error:
        notice(str(error))
        return STATUS_USAGE
    return STATUS_OK


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


def run_prompt(rig: Rig) -> None:
    """The interactive prompt, until the person leaves."""
    from platformdirs import user_config_path, user_state_path

    from repl.prompt import Prompt
    from repl.render import terminal_style
    from repl.script import Printer, file_lines

    style = terminal_style(sys.stdout)
    startup = user_config_path("v2e") / "startup"
    if startup.is_file():
        run_script(rig, file_lines(startup), Printer(sys.stdout, style))
    rig.session.waits = False
    Prompt(rig.session, style=style, history=user_state_path("v2e") / "history").run()


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
    if until is not None and until.kind == "insns" and options.hypervisor == KVM:
        raise UsageError(
            f"--until {until.spec}: {KVM} does not count instructions: wait for another event, or use "
            "--hypervisor model"
        )
    lines = script_lines(options)
    piped = sys.stdin is None or not sys.stdin.isatty()
    headless = options.headless or options.gdb == "stdio"
    interactive = not (piped or headless or options.script or until)
    _check_combinations(options, bool(options.script), interactive)
    address = (DEFAULT_GDB if interactive else GDB_OFF) if options.gdb is None else options.gdb
    _check_screenshot(options.screenshot)
    _check_save_xen(options)
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
        if options.screenshot is not None:
            failed = _screenshot(rig, Path(options.screenshot))
            status = status or failed
        if options.save_xen is not None:
            failed = _save_xen(rig, Path(options.save_xen))
            status = status or failed
        if options.lockstep:
            notice(rig.worker.call(lambda: _told(rig.machine)))
        return status


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


def _check_screenshot(name: str | None) -> None:
    """Raises UsageError, before anything runs, for a file that could not be written at the end."""
    if name is None:
        return
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--screenshot {name}: there is no folder for a file of this name")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--screenshot {name}: the file may not be written")


def _check_save_xen(options: argparse.Namespace) -> None:
    """Raises UsageError, before anything runs, for a file that could not be written at the end, or is an image."""
    if options.save_xen is None:
        return
    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import check_writable

    path = Path(options.save_xen)
    for image in _inputs(options):
        if path.exists() and image.exists() and path.samefile(image):
            raise UsageError(f"--save-xen {options.save_xen!r} is an image of this run: name another file")
    try:
        check_writable(path)
    except FileError as error:
        raise UsageError(f"--save-xen {error}") from error


def _save_xen(rig: Rig, path: Path) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import save_file

    try:
        notices = rig.worker.call(lambda: save_file(rig.machine, path))
    except (FileError, DebuggerError) as error:
        notice(f"--save-xen: {error}")
        return STATUS_USAGE
    for text in notices:
        notice(text)
    return STATUS_OK


def _screenshot(rig: Rig, path: Path) -> int:
    """STATUS_OK, or STATUS_USAGE after a sentence on stderr."""
    from repl.plots import PlotError, write_png

    try:
        write_png(rig.worker.call(rig.debugger.picture), path)
    except (PlotError, DebuggerError) as error:
        notice(f"--screenshot: {error}")
        return STATUS_USAGE
    return STATUS_OK


def _run_interactive(rig: Rig, options: argparse.Namespace) -> int:
    if not options.wait:
        rig.worker.resume(rig.debugger.begin_continue)
    run_prompt(rig)
    return rig.status(None)  # whatever became of the guest, a person saw it


def _run_piped(rig: Rig, options: argparse.Namespace) -> int | None:
    """Commands from a pipe, on the stopped machine; None when there is none at all: then the guest just runs."""
    if sys.stdin is None:
        return None
    from repl.script import ScriptError, run_lines, stream_lines

    try:
        if run_lines(rig.session, stream_lines(sys.stdin), script_printer(options)) == 0:
            return None
    except ScriptError as error:
        notice(str(error))
        return rig.status(rig.debugger.last_stop) or STATUS_USAGE
    return rig.status(rig.debugger.last_stop)


def _run_to_end(rig: Rig, options: argparse.Namespace, until: Until | None, lines: tuple[Line, ...]) -> int:
    """Headless: to the event, the guest's end, or a client's kill; then the commands."""
    rig.worker.call(lambda: rig.debugger.set_until(until))
    if options.serial == "stdio" and options.gdb != "stdio" and sys.stdin is not None:
        _feed_serial(rig)
    if not options.wait:
        rig.worker.resume(rig.debugger.begin_continue)
    stop = rig.wait_end()
    failed = run_script(rig, lines, script_printer(options)) if lines and stop is not None else STATUS_OK
    return rig.status(stop) or failed
