"""The C helper (emu/native) seen from Python: loading it before Unicorn, proving it, and one engine's use of it.

The helper counts and stops at the beginnings of translated blocks instead of before each instruction. It replaces
internal functions of libunicorn by being loaded first, so `load` has to be called before the first `import unicorn`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from ctypes import c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

from emu.devices.shared_ports import SharedPorts
from emu.devices.vga_memory import Shared
from emu.engine import EngineError, SharedDisplay
from emu.native import sources_checksum
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_control import EMPTY, STOP_BUDGET, Control, offset
from emu.unicorn_fast_checks import instruction_maps
from emu.unicorn_layout import (
    CPU_CAN_DO_IO,
    CPU_CFLAGS_NEXT,
    CPU_ENV,
    CPU_EXCEPTION_INDEX,
    CPU_EXIT_REQUEST,
    CPU_HALTED,
    CPU_INTERRUPT_REQUEST,
    ENV_ICOUNT_DECR,
    ENV_TLB,
    HIDDEN_PAGE,
    UC_CPU,
    UC_INVALID_ERROR,
    UC_TCG,
    VERSION,
    Env,
    offset_of,
)
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.unicorn_system import System

ENV_RSP: Final = 0x20
#: GNU build ID of libunicorn.so.2 in the wheel of VERSION for x86-64 Linux with glibc.
BUILD_ID: Final = bytes.fromhex("44285d3e80527122e9e361928189385906ec813e")
#: How many translations an engine keeps before it begins anew; each takes 64 bytes here and about 1 KiB in Unicorn.
TRANSLATIONS: Final = 1 << 18

#: Why there is no helper when that is as asked.
FORCED: Final = "V2E_ENGINE=gate asks for that"

PORT_IN = ctypes.CFUNCTYPE(c_uint32, c_uint32, c_int)
PORT_OUT = ctypes.CFUNCTYPE(None, c_uint32, c_int, c_uint32)

#: NOP; NOP; IN AL,80h; NOP; INC BYTE of the next instruction, a NOP in the same block; and a jump to itself.
_PROOF = bytes.fromhex("90 90 e480 90 fe0500000000 90 ebfe")
_PROOF_AT = 0x800
_HLT = 0xF4
_PROOF_STORED = _PROOF_AT + 11
#: Runs of so many instructions, and where each must end.
_PROOF_RUNS = {1: 1, 2: 4, 50: 12}


class _Layout(ctypes.Structure):
    """struct layout of emu/native/fast.h."""

    _fields_ = (
        *((name, c_uint32) for name in (
            "uc_cpu", "uc_tcg", "uc_invalid_error", "cpu_exit_request", "cpu_cflags_next_tb",
            "cpu_interrupt_request", "cpu_can_do_io", "cpu_exception_index", "cpu_halted", "cpu_env",
            "env_eip", "env_eflags", "env_hflags", "env_cr", "env_rsp", "env_segs", "env_dr", "env_error_code",
            "env_tsc_aux", "env_cc_op", "env_old_exception",
        )),
        ("env_icount_decr", c_int32),
        ("env_tlb", c_int32),
    )  # fmt: skip


#: How a run ended: the numbers of emu/native/runs.c.
NOT_BEGUN, SPENT, AT_BREAKPOINT, NOT_PLAIN = range(4)
CODE_SHIFT: Final = 8

CELLS: Final = 64
#: `Cells.time_known`: by which instruction Python has told the time.
TIME_BY_TSC, TIME_BY_TSCP = 1, 2
#: Beyond Unicorn's numbering of RAM.
NO_RAM: Final = 1 << 62
#: Bytes that the helper collects of a port before it asks.
COLLECTED: Final = 8192
#: As long as the run lasts.
ALWAYS: Final = -1
#: More instructions than a run has left.
NOT_AT_ALL: Final = (1 << 63) - 1


class Cell(ctypes.Structure):
    """struct cell of emu/native/fast.h: an answer to reads of a port."""

    _fields_ = (
        ("port", c_uint16), ("value", c_uint8), ("streams", c_uint8), ("generation", c_uint32), ("floor", c_int64),
        ("data", c_void_p), ("left", c_uint64),
    )  # fmt: skip
    port: int
    value: int
    streams: int
    generation: int
    floor: int
    data: int
    left: int


class Sink(ctypes.Structure):
    """struct sink: where writes to a port are collected."""

    _fields_ = (
        ("port", c_uint16), ("sizes", c_uint8), ("_pad", c_uint8), ("generation", c_uint32),
        ("data", c_void_p), ("room", c_uint64),
    )  # fmt: skip
    port: int
    sizes: int
    generation: int
    data: int
    room: int


class Cells(ctypes.Structure):
    """struct cells."""

    _fields_ = (
        ("generation", c_uint32), ("time_known", c_uint32), ("tick", c_uint32), ("noting", c_uint32),
        ("time", c_uint64), ("time_left", c_int64), ("end", c_uint64), ("answered", c_uint64),
        ("answered_at", c_uint64), ("sink", Sink), ("cell", Cell * CELLS),
    )  # fmt: skip
    generation: int
    time_known: int
    tick: int
    time: int
    time_left: int
    end: int
    noting: int
    answered: int
    answered_at: int
    sink: Sink
    cell: ctypes.Array[Cell]


class MemoryHook(ctypes.Structure):
    """struct memory_hook of emu/native/count.c."""

    _fields_ = (("engine", c_void_p), ("callback", c_void_p), ("number", c_void_p))


class Place(ctypes.Structure):
    """struct place of emu/native/fast.h: a range of physical memory, and where its bytes are in this process."""

    _fields_ = (("base", c_uint64), ("size", c_uint64), ("host", c_uint64))


class Statistics(ctypes.Structure):
    """What the helper did for an engine: for benchmarks and tests."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            "translations",
            "partial",
            "retried",
            "unwound",
            "flushes",
            "slow",
            "slots",
            "code_pages",
            "begun",
            "made",
            "guarded",
            "asked",
        )
    )
    translations: int
    partial: int  #: blocks cut to the instructions that were left
    retried: int  #: blocks left before a device access
    unwound: int  #: blocks left in the middle otherwise
    flushes: int
    slow: int  #: blocks that needed a closer look at their beginning
    slots: int
    code_pages: int
    begun: int  #: instructions whose translation was seen to begin
    made: int  #: instructions in all translations; the same number where none was given up
    guarded: int  #: instructions translated with a check of their segments before them
    asked: int  #: how often such a check took the long way


class Helper:
    """The loaded library. Raises EngineError when it does not fit this Unicorn."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def f(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, f"v2e_fast_{name}")
            function.restype, function.argtypes = result, arguments
            return function

        self.library = library
        p = c_void_p
        self.open = f("open", c_char_p, c_char_p, p)
        self.too_late = f("too_late", c_int)
        self.sources = f("sources", c_uint32)
        self.attach = f("attach", p, p, p, p, c_uint32, c_uint64, PORT_IN, PORT_OUT)
        self.detach = f("detach", None, p)
        self.system = f("system", None, p, p)
        self.run = f("run", c_int, p)
        self.go = f("go", c_uint32, p, c_int64, c_int, c_uint64)
        self.class_of = f("class_of", c_uint32, c_char_p, c_int, c_int)
        self.breakpoints = f("breakpoints", None, p)
        self.memory_changed = f("memory_changed", None, p, c_uint64, c_uint64)
        self.flush = f("flush", None, p)
        self.mark_writes = f("mark_writes", None, p, c_uint64, c_uint64, p, p, c_uint32)
        self.rearm = f("rearm", None, p)
        self.instruction_pc = f("instruction_pc", c_uint64, p)
        self.trace_writes = f("trace_writes", None, p, p)
        self.transfers = f("transfers", c_int, p, p)
        self.statistics = f("statistics", None, p, p)
        self.checks = f("checks", None, p, c_int, c_uint32)
        #: the tables of instructions, which the library refers to
        self._maps = instruction_maps()
        library.v2e_decode_maps(ctypes.byref(self._maps))
        self.decode = library.v2e_decode
        self.control = f("control", c_uint64)
        self.ports = f("ports", None, p, p)
        self.ports_layout = f("ports_layout", c_uint64)
        self.display = f("display", None, p, p, c_uint64, c_uint64)
        self.display_read = ctypes.cast(library.v2e_vga_read, c_void_p).value or 0
        self.display_write = ctypes.cast(library.v2e_vga_write, c_void_p).value or 0
        library.v2e_vga_layout.restype = c_uint64
        self.display_layout: Callable[[], int] = library.v2e_vga_layout
        self.memory_hook_address = ctypes.cast(library.v2e_fast_memory_hook, c_void_p).value or 0
        self._refusal: str | None = None  # empty once it is proved to work

    def agree(self) -> None:
        """Raises EngineError when it was built from other sources than this package's."""
        sizes = ctypes.sizeof(Control) << 48 | ctypes.sizeof(_Layout) << 32 | ctypes.sizeof(Cells) << 16
        if (
            self.sources() not in (0, sources_checksum())
            or self.control() != sizes | offset("mode")
            or self.ports_layout() != ctypes.sizeof(SharedPorts)
            or self.display_layout() != ctypes.sizeof(Shared) << 32 | offset_of(Shared, "direct")
        ):
            raise EngineError("the helper was built from other sources than this package's; install it again")

    def _fit(self, unicorn_path: str) -> None:
        env = [offset_of(Env, name) for name in ("eip", "eflags", "hflags", "cr")]
        more = [offset_of(Env, name) for name in ("segs", "dr", "error_code", "tsc_aux", "cc_op", "old_exception")]
        layout = _Layout(
            UC_CPU, UC_TCG, UC_INVALID_ERROR, CPU_EXIT_REQUEST, CPU_CFLAGS_NEXT, CPU_INTERRUPT_REQUEST, CPU_CAN_DO_IO,
            CPU_EXCEPTION_INDEX, CPU_HALTED, CPU_ENV, *env, ENV_RSP, *more, ENV_ICOUNT_DECR, ENV_TLB,
        )  # fmt: skip
        missing = self.open(unicorn_path.encode(), ctypes.byref(layout))
        if missing is not None:
            raise EngineError(f"this build of Unicorn does not export {missing.decode()}")
        with open(unicorn_path, "rb") as file:
            if BUILD_ID not in file.read(0x1000):
                raise EngineError(f"{unicorn_path} is not the library in PyPI's wheel of unicorn {VERSION}")

    def fit(self, path: str) -> None:
        """Find Unicorn's functions in its library, loaded from `path`. Has to come before the first engine is made,
        as Unicorn calls the helper from then on."""
        try:
            self._fit(path)
        except EngineError as error:
            self._refusal = str(error)

    def prove(self, overlay: Overlay, control: Control, page: memoryview) -> None:
        """Once in a process: execute a few instructions of which every mechanism has its share, on a new engine whose
        hidden page is `page`. Raises EngineError when the helper is not to be used."""
        if self._refusal is None:
            try:
                self._prove(overlay, control, page)
                self._refusal = ""
            except EngineError as error:
                self._refusal = str(error)
        if self._refusal:
            raise EngineError(self._refusal)

    def _prove(self, overlay: Overlay, control: Control, page: memoryview) -> None:
        seen: list[int] = []

        def read(_port: int, _size: int) -> int:
            seen.append(control.remaining)
            return 0

        env = overlay.env
        before = env.eip
        page[_PROOF_AT : _PROOF_AT + len(_PROOF)] = _PROOF
        # Unicorn itself allows device accesses again when it leaves a block; the first instruction here is HLT.
        allowed = c_uint32.from_address(overlay.cpu + CPU_CAN_DO_IO)
        page[_PROOF_AT - 1] = _HLT
        env.eip, allowed.value = HIDDEN_PAGE + _PROOF_AT - 1, 0
        overlay.call.emu_start(overlay.uc, env.eip, 0, 0, 0)
        overlay.halted.value = 0
        if allowed.value != 1:
            raise EngineError(f"Unicorn {VERSION} keeps can_do_io elsewhere than the helper thinks")
        cells, port_in = Cells(), PORT_IN(read)
        engine = self.attach(
            overlay.uc, ctypes.addressof(control), ctypes.addressof(cells), 64, 0, port_in, PORT_OUT()
        )  # fmt: skip
        if not engine:
            raise EngineError("the helper has no memory left")
        env.eip, control.dr7 = HIDDEN_PAGE + _PROOF_AT, env.dr[7] & 0xFFFFFFFF
        places, reasons = [], []
        for part in _PROOF_RUNS:
            control.remaining, control.reason = part, 0
            self.run(engine)
            places.append(env.eip - HIDDEN_PAGE - _PROOF_AT)
            reasons.append(control.reason)
        counts = Statistics()
        self.statistics(engine, ctypes.byref(counts))
        found = (
            places,
            reasons,
            page[_PROOF_STORED],
            seen,
            counts.retried > 0,
            counts.unwound > 0,
            counts.begun >= counts.made > 0,
        )
        self.detach(overlay.uc)
        overlay.call.tb_flush(overlay.cpu)
        page[_PROOF_AT - 1 : _PROOF_AT + len(_PROOF)] = bytes(1 + len(_PROOF))
        env.eip, control.remaining, control.reason, control.last = before, 0, 0, EMPTY
        expected = (list(_PROOF_RUNS.values()), [STOP_BUDGET] * 3, 0x91, [0], True, True, True)
        if found != expected:
            raise EngineError(f"Unicorn does not call the helper as it should ({found!r} instead of {expected!r})")


def load() -> Helper | str:
    """The helper, loaded; or the sentence that says why there is none. Nothing of Unicorn is touched."""
    if os.environ.get("V2E_ENGINE", "") == "gate":
        return FORCED
    machine = os.uname().machine
    # The module `platform` would read through the interpreter's file for the second.
    glibc = "CS_GNU_LIBC_VERSION" in os.confstr_names and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    if sys.platform != "linux" or machine != "x86_64" or not glibc:
        return f"it is for x86-64 Linux with glibc, not for {machine} {sys.platform}"
    folder = Path(__file__).parent / "native"
    path = next((p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_fast{suffix}").exists()), None)
    if path is None:
        return "it was not built; install a C compiler and then this package again"
    try:
        helper = Helper(ctypes.CDLL(str(path)))
        helper.agree()
        # Only now Unicorn, when it is loaded, is to find these functions before its own.
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except EngineError as error:
        return str(error)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}"
    if helper.too_late():
        return "unicorn was imported before emu.unicorn_engine; import that first"
    return helper


HELPER: Final = load()


class FastLoop:
    """The run loop of one engine in the helper. See `emu.unicorn_gate.GateLoop` for the other."""

    name = "fast"

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
        self._helper, self._control, self._go = helper, control, helper.go
        #: Forgets the engine; set by whoever knows when it goes.
        self.close: Callable[[], object] = detacher(helper, overlay.uc)
        self._callbacks = PORT_IN(callbacks.port_in), PORT_OUT(callbacks.port_out)
        callbacks.before_port = self.settle
        callbacks.told_time = self._hold_time
        callbacks.set_time = self._forget_time
        self._hooks: list[MemoryHook] = []
        self._cells = Cells(tick=tick)
        #: bytes handed out as a stream: the port, how many, the bytes, and whom to tell how many were taken
        self._places: object = None  # kept, as the helper looks into it
        self._stream: tuple[int, int, object, Callable[[int], None]] | None = None
        #: where writes are collected, and whom to tell what was written while that is so
        self._collected = ctypes.create_string_buffer(COLLECTED)
        self._written: Callable[[bytes], None] | None = None
        self._engine = helper.attach(
            overlay.uc, ctypes.addressof(control), ctypes.addressof(self._cells), translations, ram, *self._callbacks
        )  # fmt: skip
        if not self._engine:
            raise EngineError("too many engines at once, or no memory left for another one's translations")

    @property
    def library(self) -> str:
        """The helper's file."""
        name: str = self._helper.library._name
        return name

    @property
    def engine(self) -> int:
        """The address of the helper's record of the engine."""
        address: int = self._engine
        return address

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
        if self._stream is not None or self._written is not None:
            self.settle()
        return code

    def begins(self, end: int) -> None:
        """A run begins at whose end `end` instructions will have retired."""
        self._cells.end = end

    def go(self, budget: int, skip: bool, end: int) -> int:
        """A run of `budget` instructions up to `end`, and what goes with it. How it ended: NOT_BEGUN, SPENT,
        AT_BREAKPOINT, or NOT_PLAIN with what `enter` returns from CODE_SHIFT on (emu/native/runs.c)."""
        ended: int = self._go(self._engine, budget, skip, end)
        if self._stream is not None or self._written is not None:
            self.settle()
        return ended

    def hold(self, port: int, value: int, floor: int, answered: bool) -> None:
        """See Executor.hold_input; `floor` is how many instructions are then left of the run."""
        if answered:  # the access does nothing, so that what was held before it still holds
            self._cells.generation -= 1
        cell = self._cells.cell[port % CELLS]
        cell.port, cell.value, cell.streams, cell.floor = port, value, 0, floor
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
        kept = ctypes.c_char_p(data)
        cell = self._cells.cell[port % CELLS]
        cell.port, cell.streams, cell.floor = port, sizes, ALWAYS
        cell.data, cell.left = ctypes.cast(kept, c_void_p).value or 0, len(data)
        cell.generation = self._cells.generation
        self._stream = port, len(data), kept, taken

    def collect(self, port: int, room: int, written: Callable[[bytes], None], sizes: int) -> None:
        """See Executor.stream_output."""
        self.settle()
        sink = self._cells.sink
        sink.port, sink.sizes, sink.room = port, sizes, min(room, COLLECTED)
        sink.data = ctypes.addressof(self._collected)
        sink.generation = self._cells.generation
        self._written = written

    def settle(self) -> None:
        """Tell who handed out a stream what has been taken of it, or who takes one what was written, and end it."""
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

    def note_answers(self) -> None:
        """See Executor."""
        self._cells.noting = 1

    def take_answered(self) -> tuple[int, int]:
        """See Executor."""
        cells = self._cells
        count, cells.answered = cells.answered, 0
        return count, cells.answered_at

    def serve_ports(self, address: int | None) -> None:
        """See Executor."""
        if self._cells.tick:
            self._helper.ports(self._engine, address)

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
        self, host: int, pages: int, marks: int, places: Sequence[tuple[int, int, int]]
    ) -> Callable[[], None] | None:
        """See Executor; `places` are the (base, size, address in this process) of the regions."""
        self._places = (Place * len(places))(*(Place(*place) for place in places))
        self._helper.mark_writes(self._engine, host, pages, marks, ctypes.byref(self._places), len(places))
        return self._rearm

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._helper.trace_writes(self._engine, marks)
        return self._rearm

    def _rearm(self) -> None:
        if getattr(self.close, "alive", True):  # its record in the helper may be another engine's since
            self._helper.rearm(self._engine)

    def flush(self) -> None:
        """Drop all translations."""
        self._helper.flush(self._engine)

    def memory_hook(self, callback: int, number: int) -> tuple[int, int]:
        """What to give Unicorn for a memory hook: the function, and its user data, kept until `forget_hooks`."""
        hook = MemoryHook(self._engine, callback, number)
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
