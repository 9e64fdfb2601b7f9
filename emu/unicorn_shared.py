"""What Python and the C helper share of memory: the structures of emu/native/fast.h, and their numbers."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

from emu.named import NamedTuple
from emu.typed import Final

CELLS: Final = 64
#: `Cells.time_known`: by which instruction Python has told the time.
TIME_BY_TSC, TIME_BY_TSCP = 1, 2
#: `Met.kind`: the access was this.
MET_READ, MET_WRITE = 1, 2


class Layout(ctypes.Structure):
    """struct layout of emu/native/fast.h."""

    _fields_ = (
        *((name, c_uint32) for name in (
            "uc_cpu", "uc_tcg", "uc_invalid_error", "cpu_exit_request", "cpu_cflags_next_tb",
            "cpu_interrupt_request", "cpu_can_do_io", "cpu_exception_index", "cpu_halted", "cpu_env",
            "env_eip", "env_eflags", "env_hflags", "env_cr", "env_rsp", "env_segs", "env_dr", "env_error_code",
            "env_tsc_aux", "env_cc_op", "env_old_exception", "env_fpstt", "env_fpuc", "env_fpregs", "env_cc_src",
            "env_mxcsr", "env_fpus", "env_fptags", "env_fpop", "env_fpcs", "env_fpds", "env_fpip", "env_fpdp",
        )),
        ("env_icount_decr", c_int32),
        ("env_tlb", c_int32),
    )  # fmt: skip


class Cell(ctypes.Structure):
    """struct cell of emu/native/fast.h: an answer to reads of a port."""

    _fields_ = (
        ("port", c_uint16), ("value", c_uint8), ("streams", c_uint8), ("generation", c_uint32), ("floor", c_int64),
        ("data", c_char_p), ("left", c_uint64), ("kept", c_uint64),
    )  # fmt: skip
    port: int
    value: int
    streams: int
    generation: int
    floor: int
    data: bytes  #: written only: the helper moves the pointer
    left: int
    kept: int


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


class Met(ctypes.Structure):
    """struct met: the first access of a run that a watchpoint is met by. `kind`: MET_*; 0: there was none."""

    _fields_ = (
        ("linear", c_uint64), ("value", c_uint64), ("number", c_uint32), ("size", c_uint32), ("kind", c_uint32),
        ("_pad", c_uint32),
    )  # fmt: skip
    linear: int
    value: int
    number: int
    size: int
    kind: int


class Cells(ctypes.Structure):
    """struct cells."""

    _fields_ = (
        ("generation", c_uint32), ("time_known", c_uint32), ("tick", c_uint32), ("noting", c_uint32),
        ("time", c_uint64), ("time_left", c_int64), ("end", c_uint64), ("answered", c_uint64),
        ("answered_at", c_uint64), ("kept", c_uint64), ("sink", Sink), ("met", Met),
        ("cell", Cell * CELLS),
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
    kept: int
    sink: Sink
    met: Met
    cell: ctypes.Array[Cell]


class MemoryHook(ctypes.Structure):
    """struct memory_hook of emu/native/alone.c."""

    _fields_ = (
        ("engine", c_void_p), ("callback", c_void_p), ("number", c_uint64), ("first", c_uint64), ("length", c_uint64),
        ("physical", c_uint64), ("linear", c_uint64),
    )  # fmt: skip


class Watched(NamedTuple):
    """Of a hook: the `length` bytes from linear `first` on, where what begins at `physical` is seen at `linear`."""

    first: int
    length: int
    physical: int
    linear: int


class Hole(ctypes.Structure):
    """struct hole of emu/native/mmio.c: memory of devices."""

    _fields_ = (("read", c_void_p), ("write", c_void_p), ("base", c_uint64))


class Place(ctypes.Structure):
    """struct place of emu/native/fast.h: a range of physical memory, where its bytes are in this process, and where in
    Unicorn's numbering of RAM."""

    _fields_ = (("base", c_uint64), ("size", c_uint64), ("host", c_uint64), ("ram", c_uint64))


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
