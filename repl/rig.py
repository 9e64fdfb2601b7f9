"""A machine with what front ends need of it: debugger, thread, commands, a gdb server; and how its run ended."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue

from emu.debugger import Debugger
from emu.engine import EngineError
from emu.machine import Machine, MachineConfig, build_machine
from emu.media import Disk
from emu.stops import Stop, StopKind
from emu.typed import TYPE_CHECKING
from emu.worker import Worker, WorkerClosed
from repl.machine_options import BUILD_FAILURES, input_files, machine_config
from repl.options import UsageError, parse_count
from repl.outcome import STATUS_BUDGET, STATUS_DIED, STATUS_OK, notice
from repl.sink import Sink

if TYPE_CHECKING:
    import argparse

    from repl.session import Session
    from stub.server import Server
    from xenbridge.signals import Signals

#: Stops that end a run nobody looks at.
_DIED = frozenset((StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE))
_OVER = frozenset((StopKind.EXIT, StopKind.POWEROFF))
_ENDS = _DIED | _OVER | {StopKind.EVENT, StopKind.LIMIT}
#: Seconds between two looks at whether gdb has left a dead guest.
_LOOK = 0.2
_HEARD = 2.0  #: seconds that a client has to hear of the end


def _compared(config: MachineConfig) -> Machine:
    """A machine with a second CPU in lockstep."""
    from emu.lockstep import LockstepMachine
    from emu.seconds import second_named

    return LockstepMachine(config, second_named(config))


class Rig:
    """A machine with its debugger, its thread, the commands, and perhaps a gdb server. Closed as a whole."""

    inputs: Sequence[str] = ()  #: files that it is made of

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
        self.worker.add_listener(self._note, steps=False)
        self._signals = self._hear()
        gc.freeze()  # what was loaded and built stays: no need to look through it
        gc.enable()
        self.worker.start()

    def _hear(self) -> Signals | None:
        """Have a hypervisor's interrupts stop the machine: a signal for each. None: it tells of none."""
        descriptor, keeper = self.machine.keeper.descriptor, self.machine.keeper
        if descriptor is None:
            return None
        from xenbridge.signals import Signals

        signals = Signals()
        keeper.wake = self._wake
        signals.add(descriptor, keeper.ring, keeper.flags)
        return signals

    def _wake(self) -> None:
        """Have the machine look at its keeper. An interrupt that comes while it is being closed is nobody's."""
        with contextlib.suppress(WorkerClosed):
            self.worker.post(lambda: None)

    @functools.cached_property
    def session(self) -> Session:
        """The commands' view of it; made when first used, as a headless run needs none."""
        from repl.commands import all_commands
        from repl.session import Session

        return Session(self.debugger, self.worker, all_commands(), inputs=self.inputs)

    @functools.cached_property
    def _monitor_session(self) -> Session:
        from repl.session import MONITOR

        return self.session.shared(may_resume=False, resumed_by="gdb", owner=MONITOR)

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

    def wait_end(self, *, ends: bool = True) -> Stop | None:
        """The stop that ends the run; None when a client killed the guest. Other stops are for who caused them.

        A guest that died is kept while a gdb client is there: it wants to see why, and may restart it. So is one that
        has ended by itself, unless its end `ends` the run for all: gdb hangs up itself where it cannot restart it."""
        died: Stop | None = None
        while True:
            try:
                stop = self._stops.get(timeout=None if died is None else _LOOK)
            except Empty:
                if self.server is not None and self.server.connected:
                    continue
                if not self.worker.running:
                    return died
                died = None  # it has been begun again
                continue
            if stop is None:
                return died if died is self.debugger.last_stop else None
            if stop.kind in _DIED or stop.kind is StopKind.LIMIT:
                self.guest_code = None  # of an end before this one
            kept = stop.kind in _DIED or (stop.kind in _OVER and not ends)
            if kept and self.server is not None and self.server.connected:
                died = stop
            elif stop.kind in _ENDS:
                if self.server is not None:
                    self.server.settle(_HEARD)
                return stop

    def monitor(self, line: str) -> str:
        """A command for gdb's `monitor`: what it says. Raises one of the session's FAILURES."""
        from repl.render import result_text
        from repl.style import Style

        return result_text(self._monitor_session.execute(line), Style())

    def look(self, line: str) -> str:
        """As `monitor`, for a client that only looks."""
        from repl.render import result_text
        from repl.style import Style

        return result_text(self._look_session.execute(line), Style())

    def status(self, stop: Stop | None) -> int:
        """The exit status after `stop`; says on stderr why the guest died or what ran out."""
        if self.guest_code is not None:
            return (self.guest_code << 1 | 1) & 0xFF
        if stop is not None and stop.kind in _DIED:
            # of two CPUs that part nobody died
            what = "" if getattr(self.machine, "divergence", None) is not None else "the guest died: "
            notice(f"{what}{stop.text} (after {stop.retired} instructions){self._waited(stop)}")
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
        if self._signals is not None:
            self._signals.close()
        with contextlib.suppress(EngineError):  # its thread has not come back, and the process ends with both
            self.machine.close()
        for disk in self._media():
            disk.close()

    def _media(self) -> list[Disk]:
        return [*self.config.floppies, *self.config.disks, *self.config.cdroms, *self.config.virtio]


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
        rig.inputs = input_files(options)
        for sink in sinks:
            sink.open(rig.inputs)
        if options.load_xen is not None:
            _load_xen(rig, options.load_xen)
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


def _load_xen(rig: Rig, name: str) -> None:
    """Continue what a Xen save stream holds. Raises UsageError."""
    from pathlib import Path

    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import load_file

    def load() -> list[str]:
        notices = load_file(rig.machine, Path(name))
        rig.debugger.loaded(f"loaded from {name}")
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
    from repl.session import MONITOR
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
            on_left=lambda: rig.debugger.remove_owned(MONITOR),
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
