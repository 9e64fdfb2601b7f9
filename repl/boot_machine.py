"""The machine that a test holds: in this process, run by budgets, asked by names; what a failure shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from emu.debugger import BreakKind, Breakpoint, Debugger, Stop, StopKind
from emu.machine import build_machine
from emu.until import UntilError, parse_until
from emu.views import SegmentView
from emu.x86.registers import REGISTERS
from repl.cli import run_parser
from repl.harness import HarnessError, replay_command
from repl.machine_options import BUILD_FAILURES, machine_config
from repl.options import UsageError
from repl.render import view_lines
from repl.style import Style, printable

#: Events of the journal that a failure shows.
EVENTS_SHOWN = 20
#: Ends of a run that nobody waits for by saying nothing.
DEATHS = (StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE)
ENDS = (*DEATHS, StopKind.EXIT, StopKind.POWEROFF)


class Registers(Mapping[str, int]):
    """The CPU's registers by name: `registers["ax"]`, `registers["cr0"]`. KeyError names one
    that does not exist. Assignment writes."""

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger

    def __getitem__(self, name: str) -> int:
        if name not in REGISTERS:
            raise KeyError(f"no register is called {name!r}")
        return self._debugger.read_register(name)

    def __setitem__(self, name: str, value: int) -> None:
        self._debugger.write_register(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTERS)

    def __len__(self) -> int:
        return len(REGISTERS)


class Memory:
    """Linear memory as the CPU would see it now: `memory[0x7c00]`, `memory[0x7c00:0x7e00]`; assignment writes.

    Reading has no side effects. Raises MemoryUnavailable where nothing is mapped.
    """

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger

    def __getitem__(self, where: int | slice) -> int | bytes:
        if isinstance(where, int):
            return self._debugger.read_linear(where, 1)[0]
        first, last = _bounds(where)
        return self._debugger.read_linear(first, last - first)

    def __setitem__(self, where: int | slice, value: int | bytes) -> None:
        if isinstance(where, int):
            self._debugger.write_linear(where, bytes((value,)) if isinstance(value, int) else value)
            return
        first, last = _bounds(where)
        data = value if isinstance(value, bytes) else bytes((value,)) * (last - first)
        if len(data) != last - first:
            raise ValueError(f"{len(data)} bytes do not fill {first:#x} to {last:#x}, which takes {last - first}")
        self._debugger.write_linear(first, data)

    def word(self, address: int, size: int = 2) -> int:
        """`size` bytes from `address` as a little-endian unsigned integer."""
        return int.from_bytes(self._debugger.read_linear(address, size), "little")


def _shown(view: object) -> str:
    return "\n".join(view_lines(view, Style()))


def _bounds(where: slice) -> tuple[int, int]:
    if where.start is None or where.stop is None or where.step not in (None, 1) or where.stop < where.start:
        raise ValueError(f"memory[{where.start}:{where.stop}:{where.step}]: give a start and an end not before it")
    return where.start, where.stop


class BootMachine:
    """A PC stopped at reset. `debugger` has everything; what is here are the words that tests use most."""

    def __init__(self, options: Sequence[str], *, until: str | None, limit: int) -> None:
        """`options` are those of `v2e run`. Raises HarnessError for what the command line would refuse."""
        self.options = tuple(options)
        self.debugger = open_debugger(options)
        self.registers = Registers(self.debugger)
        self.memory = Memory(self.debugger)
        self._until, self._limit = until, limit

    def run(self, until: str | None = None, limit: int | None = None, *, check: bool = True) -> Stop:
        """Run until the event `until` (as `v2e run --until`), a breakpoint, or the guest's end.

        Both default to the marker's. `limit` counts the instructions of this run. Fails the test when the budget runs
        out, when the guest dies (triple fault, halted for ever), or ends before the event; with check=False it
        returns the Stop instead.
        """
        until = until or self._until
        limit = limit or self._limit
        debugger = self.debugger
        try:
            debugger.set_until(None if until is None else parse_until(until))
        except UntilError as error:
            raise pytest.fail.Exception(str(error)) from None
        debugger.set_limit(debugger.machine.executor.retired + limit)
        debugger.begin_continue()
        stop = debugger.run()
        debugger.set_limit(None)
        if not check:
            return stop
        awaited = f"{until} did not come" if until else "nothing stopped the guest"
        if stop.kind is StopKind.LIMIT:
            pytest.fail(f"budget exhausted: {awaited} within {limit:,} instructions; {self._position()}")
        expected = until == "exit" or until is None
        if stop.kind in DEATHS:
            pytest.fail(f"the guest died: {stop.text}" + (f"; {awaited}" if until else ""))
        if stop.kind in ENDS and not expected:
            pytest.fail(f"{stop.text}, but {awaited}")
        return stop

    def step(self, count: int = 1) -> Stop:
        """Execute `count` instructions."""
        self.debugger.begin_step(count)
        return self.debugger.run()

    def break_at(self, address: int) -> Breakpoint:
        """A breakpoint at a linear address."""
        return self.debugger.add_breakpoint(BreakKind.EXECUTE, address, owner="test")

    def type(self, text: str) -> None:
        """Type on the guest's keyboard."""
        self.debugger.type_text(text)

    def press(self, keys: str) -> None:
        """Strokes separated by blanks, keys of one joined by `+`: "ctrl+alt+delete"."""
        self.debugger.press(keys)

    @property
    def screen(self) -> str:
        """The screen's rows, without trailing blanks, joined by newlines."""
        return self.debugger.screen().text

    @property
    def serial(self) -> str:
        """What the guest has sent to COM1."""
        return self.debugger.machine.serial_text()

    @property
    def debugcon(self) -> str:
        """What the guest has sent to the debug console ports."""
        return self.debugger.machine.debugcon_text()

    @property
    def segments(self) -> dict[str, SegmentView]:
        """The segment registers with their caches: `segments["ds"].limit`."""
        return {view.name: view for view in self.debugger.segments()}

    @property
    def mode(self) -> str:
        """The CPU's mode in words, as the prompt says it."""
        return self.debugger.mode().label

    @property
    def retired(self) -> int:
        """Instructions retired since reset."""
        return self.debugger.machine.executor.retired

    @property
    def replay(self) -> str:
        """The command line that runs the same machine, to the same instruction."""
        words = [*self.options]
        if self._until:
            words += ["--until", self._until]
        return replay_command([*words, "--limit", str(max(1, self.retired))])

    def _position(self) -> str:
        cpu = self.debugger.cpu()
        return f"it stands at {cpu.cs.selector:04x}:{cpu.rip:04x} (linear {cpu.linear_pc:#x}, {self.mode})"

    def sections(self) -> list[tuple[str, str]]:
        """What a failure shows of this machine."""
        debugger = self.debugger
        parts = [
            ("v2e screen", _shown(debugger.screen())),
            ("v2e segments", _shown(debugger.segments())),
            ("v2e last events", _shown(debugger.machine.journal.last(EVENTS_SHOWN)) or "(none)"),
        ]
        for name, text in (("serial", self.serial), ("debugcon", self.debugcon)):
            if text:
                parts.append((f"v2e {name}", "\n".join(map(printable, text.splitlines()))))
        view = debugger.why_stuck()
        if view.stuck:
            parts.append(("v2e stuck", _shown(view)))
        return [*parts, ("v2e position", self._position()), ("v2e replay", self.replay)]

    def close(self) -> None:
        """Free the machine."""
        self.debugger.machine.close()


def open_debugger(options: Sequence[str]) -> Debugger:
    """A debugger on the machine that `v2e run OPTIONS` would build; options about outputs and front ends say nothing
    here. Raises HarnessError with the sentence that the command line would end with."""
    try:
        parsed = run_parser().parse_args(options)
        machine = build_machine(machine_config(parsed))
    except (UsageError, *BUILD_FAILURES) as error:
        raise HarnessError(str(error)) from error
    if machine.keeper.descriptor is not None:
        machine.close()
        raise HarnessError(
            f"--devices-in hypervisor with {parsed.hypervisor}: its time is the host's, and a test's machine waits for "
            "nobody: use --hypervisor model, or v2e run"
        )
    return Debugger(machine)
