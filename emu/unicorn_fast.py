"""The fast run loop: one engine's use of the C helper, which counts and stops at the beginnings of translated blocks.

Besides, what the helper answers of ports and time by itself, as the devices have told it. `emu.unicorn_gate` is the
other loop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_int64, c_void_p

from emu.engine import EngineError, SharedDisplay
from emu.typed import Final
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_control import EMPTY, Control
from emu.unicorn_helper import PORT_IN, PORT_OUT, Helper
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.unicorn_shared import CELLS, TIME_BY_TSC, TIME_BY_TSCP, Cells, MemoryHook, Met, Place, Statistics, Watched
from emu.unicorn_system import System

#: How many translations an engine keeps before it begins anew; each takes 64 bytes here and about 1 KiB in Unicorn.
TRANSLATIONS: Final = 1 << 18
#: How a run ended: the numbers of emu/native/runs.c.
NOT_BEGUN, SPENT, AT_BREAKPOINT, NOT_PLAIN = range(4)
CODE_SHIFT: Final = 8

#: `Cells.noting`: what `answered` counts.
NOTE_ACCESSES, NOTE_INSTRUCTIONS = 1, 2
LONGEST: Final = 15  #: bytes of an instruction
#: Beyond Unicorn's numbering of RAM.
NO_RAM: Final = 1 << 62
#: Bytes that the helper collects of a port before it asks.
COLLECTED: Final = 8192
#: As long as the run lasts.
ALWAYS: Final = -1
#: More instructions than a run has left.
NOT_AT_ALL: Final = (1 << 63) - 1


class FastLoop:
    """The run loop of one engine in the helper. See `emu.unicorn_gate.GateLoop` for the other."""

    name = "fast"
    keeps_pc = True
    longest = 0  # the helper ends translations in time

    def __init__(
        self,
        helper: Helper,
        overlay: Overlay,
        control: Control,
        ram: int,
        callbacks: Callbacks,
        translations: int,
        tick: int = 0,
    ) -> None:
        """`tick` is what RDTSC's answer grows by with each instruction; 0: each is asked for."""
        self._helper, self._control = helper, control
        #: A run with what goes with it, of (`engine`, a c_int64, or an int that is one of C, whether a breakpoint is
        #: skipped). How it ended: NOT_BEGUN, SPENT, AT_BREAKPOINT, or NOT_PLAIN with what `enter` returns from
        #: CODE_SHIFT on (emu/native/runs.c).
        self.go: Callable[[object, object, bool], int] = helper.go
        self.go_few: Callable[[object, int, bool], int] = helper.go_few
        self.unsettled = False  # `settle` has something to tell
        #: Forgets the engine; set by whoever knows when it goes.
        self.close: Callable[[], object] = detacher(helper, overlay.uc)
        self._callbacks = PORT_IN(callbacks.port_in), PORT_OUT(callbacks.port_out)
        self._told = callbacks.instruction
        callbacks.before_port = self.settle
        callbacks.told_time = self._hold_time
        callbacks.set_time = self._forget_time
        self._hooks: list[MemoryHook] = []
        self._cells = Cells(tick=tick)
        end: int = Cells.end.offset  # type: ignore[attr-defined]
        #: instructions retired when the run has none left: one number, moved by the helper with each run that it makes
        self.run_end = memoryview((c_int64 * 1).from_buffer(self._cells, end)).cast("B").cast("q")
        #: bytes handed out as a stream: the port, how many, the bytes, and whom to tell how many were taken
        self._places: object = None  # kept, as the helper looks into it
        self._stream: tuple[int, int, object, Callable[[int], None]] | None = None
        #: where writes are collected, and whom to tell what was written while that is so
        self._collected = ctypes.create_string_buffer(COLLECTED)
        self._written: Callable[[bytes], None] | None = None
        self._code = ctypes.create_string_buffer(LONGEST)
        #: the first access since this was cleared that a watchpoint is met by
        self.met: Met | None = self._cells.met
        self._engine = helper.attach(
            overlay.uc, ctypes.addressof(control), ctypes.addressof(self._cells), translations, ram, *self._callbacks
        )  # fmt: skip
        if not self._engine:
            raise EngineError("too many engines at once, or no memory left for another one's translations")
        self.engine = c_void_p(self._engine)

    @property
    def library(self) -> str:
        """The helper's file."""
        name: str = self._helper.library._name
        return name

    def instruction_pc(self) -> int:
        """The linear address of the instruction that is executing."""
        pc: int = self._helper.instruction_pc(self._engine)
        return pc

    def serve(self, system: System) -> None:
        """Let `system` do the system instructions."""
        self._helper.system(self._engine, ctypes.cast(system.callback, c_void_p))

    def check(self, *, segments: bool, denied: int) -> None:
        """From now on check segments before instructions, and refuse those of the extensions `denied`, a mask of
        `emu.x86.vectors` (emu/native/checks.c)."""
        self._helper.checks(self._engine, segments, denied)

    def enter(self) -> int:
        """Run until the helper or Unicorn stops; uc_emu_start's error code."""
        code: int = self._helper.run(self._engine)
        if self.unsettled:
            self.settle()
        return code

    def hold(self, port: int, value: int, floor: int, answered: bool, kept: bool) -> None:
        """See Executor.hold_input; `floor` is how many instructions are then left of the run."""
        if answered:  # the access does nothing, so that what was held before it still holds
            self._cells.generation -= 1
        cell = self._cells.cell[port % CELLS]
        cell.port, cell.value, cell.streams, cell.floor, cell.kept = port, value, 0, floor, kept
        cell.generation = self._cells.generation

    def _hold_time(self, value: int, by_tscp: bool) -> None:
        """RDTSC or RDTSCP was answered with `value`; the helper answers on, where it knows how time goes on."""
        cells = self._cells
        cells.time, cells.time_left = value, self._control.remaining
        cells.time_known |= TIME_BY_TSCP if by_tscp else TIME_BY_TSC

    def _forget_time(self) -> None:
        self._cells.time_known = 0

    def stream(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int) -> None:
        """See Executor.stream_input."""
        self.settle()
        cell = self._cells.cell[port % CELLS]
        cell.port, cell.streams, cell.floor, cell.kept = port, sizes, ALWAYS, False
        cell.data, cell.left = data, len(data)
        cell.generation = self._cells.generation
        self._stream = port, len(data), data, taken
        self.unsettled = True

    def collect(self, port: int, room: int, written: Callable[[bytes], None], sizes: int) -> None:
        """See Executor.stream_output."""
        self.settle()
        sink = self._cells.sink
        sink.port, sink.sizes, sink.room = port, sizes, min(room, COLLECTED)
        sink.data = ctypes.addressof(self._collected)
        sink.generation = self._cells.generation
        self._written = written
        self.unsettled = True

    def settle(self) -> None:
        """Tell who handed out a stream what has been taken of it, or who takes one what was written, and end it."""
        self.unsettled = False
        if self._written is not None:
            written, self._written = self._written, None
            self._cells.sink.sizes = 0
            if count := self._cells.sink.data - ctypes.addressof(self._collected):
                written(ctypes.string_at(self._collected, count))
        if self._stream is not None:
            port, length, _, taken = self._stream
            self._stream = None
            cell = self._cells.cell[port % CELLS]
            if cell.port == port and cell.streams:
                cell.streams, cell.floor = 0, NOT_AT_ALL
                taken(length - cell.left)

    def stopped_code(self) -> bytes:
        """The bytes of the instruction at whose breakpoint the last run ended; empty if it ended otherwise."""
        count: int = self._helper.stopped_code(self._engine, self._code)
        return self._code.raw[:count]

    def note_instructions(self) -> None:
        """Count instructions whose accesses are answered, each once, in place of accesses."""
        self._cells.noting = NOTE_INSTRUCTIONS
        self._cells.answered_at = EMPTY

    def noted(self, at: int) -> bool:
        """The instruction with `at` retired before it accesses a device in Python. True: it is counted already."""
        known, self._cells.answered_at = self._cells.answered_at == at, at
        return known

    def uncount(self) -> None:
        """The access counted last is not to be."""
        self._cells.answered -= 1

    def tell(self, classes: int) -> None:
        """See Executor.tell_instructions."""
        self._helper.tell(self._engine, classes, ctypes.cast(self._told, c_void_p))
        self.flush()

    def note_answers(self) -> None:
        """See Executor."""
        self._cells.noting = NOTE_ACCESSES

    def take_answered(self) -> tuple[int, int]:
        """See Executor."""
        cells = self._cells
        count, cells.answered = cells.answered, 0
        return count, cells.answered_at

    def take_kept(self) -> int:
        """See Executor."""
        count, self._cells.kept = self._cells.kept, 0
        return count

    def serve_ports(self, address: int | None) -> bool:
        """See Executor. True: from now on it passes edges, too."""
        if not self._cells.tick:
            return False
        self._helper.ports(self._engine, address)
        return address is not None

    def serve_display(self, memory: GuestMemory, display: SharedDisplay) -> None:
        """Let the helper answer the display's window; again whenever the map of memory has changed."""
        helper = self._helper
        memory.serve(display.base, display.size, helper.display_read, helper.display_write, display.shared)
        ram = memory.number(display.memory)
        helper.display(self._engine, display.shared, display.base, NO_RAM if ram is None else ram)

    def repeating(self) -> bool:
        """The helper reports a repeated string instruction on arrival only."""
        return False

    def breakpoints_changed(self) -> None:
        self._helper.breakpoints(self._engine)

    def forget(self) -> None:
        """The CPU has been given another state: look at all of it before the next block."""
        self._control.leave = 1

    def memory_changed(self, ranges: Sequence[tuple[int, int]], *, running: bool) -> None:
        """Drop the translations made from the ranges."""
        for first, end in ranges:
            self._helper.memory_changed(self._engine, first, end)

    def mark_writes(
        self, host: int, pages: int, marks: int, places: Sequence[tuple[int, int, int, int]]
    ) -> Callable[[], None] | None:
        """See Executor; `places` are the (base, size, address in this process, number in Unicorn's RAM) of the
        regions."""
        self._places = (Place * len(places))(*(Place(*place) for place in places))
        self._helper.mark_writes(self._engine, host, pages, marks, ctypes.byref(self._places), len(places))
        return self._rearm

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._helper.trace_writes(self._engine, marks)
        return self._rearm

    def physical_changed(self, physical: int, length: int) -> bool:
        """Drop the translations made from a range of physical memory; False: `mark_writes` has not told where it is."""
        if self._places is None:
            return False
        self._helper.physical_changed(self._engine, physical, physical + length)
        return True

    def _rearm(self) -> None:
        if getattr(self.close, "alive", True):  # its record in the helper may be another engine's since
            self._helper.rearm(self._engine)

    def flush(self) -> None:
        """Drop all translations."""
        self._helper.flush(self._engine)

    def memory_hook(self, callback: int, number: int, watched: Watched | None = None) -> tuple[int, int]:
        """What to give Unicorn for a memory hook: the function, and its user data, kept until `forget_hooks`. Of what
        is `watched` no callback is told: it is looked for in `met`."""
        hook = (
            MemoryHook(self._engine, callback, number)
            if watched is None
            else MemoryHook(self._engine, None, number, *watched)
        )
        self._hooks.append(hook)
        return self._helper.memory_hook_address, ctypes.addressof(hook)

    def forget_hooks(self) -> None:
        self._hooks.clear()

    def statistics(self) -> Statistics:
        values = Statistics()
        self._helper.statistics(self._engine, ctypes.byref(values))
        return values


def detacher(helper: Helper, handle: int) -> Callable[[], None]:
    """Forgets the engine at `handle`, without keeping its objects alive."""
    return lambda: helper.detach(handle)
