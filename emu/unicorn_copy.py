"""The CPU's whole state from one of Unicorn's CPU structures to another's, without values of Python in between.

As `read_state` and `write_state` (emu/unicorn_state.py) one behind the other, for two engines of the same CPU model
between two runs, in a twentieth of their time. What is an engine's own stays: pending exceptions, breakpoints, what
Unicorn is set up with, and the bits of hflags that are the helper's. For two engines of the helper's it does the same
(emu/native/copy.c), and more, in one call: `Copier`; `copy_state` is for all others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint32, c_uint64, c_void_p
from functools import partial
from itertools import chain

from emu.engine import EngineError
from emu.typed import Final, cast
from emu.unicorn_fast import FastLoop
from emu.unicorn_layout import CPU_INTERRUPT_NMI, HF2_NMI, HF2_VINTR, NO_EXCEPTION, Env, offset_of
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import DR7_FIXED, HF_DERIVED

#: From the general registers to the last MSR before the exception that is being delivered: registers, tables, segments,
#: FPU and vectors with what follows from their control words, MSRs. Nothing in it is a pointer (qemu/target/i386/cpu.h,
#: CPUX86State).
_BULK: Final = offset_of(Env, "error_code")
_MTRR_AT: Final = offset_of(Env, "mtrr_fixed")
_MTRR_SIZE: Final = ctypes.sizeof(Env) - _MTRR_AT
_DR_AT: Final = offset_of(Env, "dr")
_DR_SIZE: Final = 64
#: What `Copier.copy` may return, one or more: an NMI is pending, DR7 enables breakpoints, there is an instruction to be
#: passed.
NMI, BREAKPOINTS, SKIP = 1, 2, 4
_ADDRESSES: Final = (0, 1, 2, 3, 6)  #: of DR0 to DR7 those that are plain values


class _Copying(ctypes.Structure):
    """struct copying of emu/native/copy.c."""

    _fields_ = (
        ("to", c_void_p), ("from", c_void_p), ("traces", c_void_p), ("pieces", c_void_p),
        ("bulk", c_uint32), ("mtrr", c_uint32), ("mtrr_size", c_uint32), ("hflags2", c_uint32), ("v_tpr", c_uint32),
        ("exception_is_int", c_uint32), ("derived", c_uint32), ("piece_count", c_uint32),
    )  # fmt: skip
    traces: int
    pieces: int
    piece_count: int


class Copier:
    """Moves the CPU from the engine that the loop `source` runs to that of `target`. Raises EngineError where the
    helper has another layout."""

    def __init__(self, target: FastLoop, source: FastLoop) -> None:
        library = ctypes.PyDLL(target.library)  # nothing in it waits, so it keeps Python's lock
        layout, copy = library.v2e_copy_layout, library.v2e_fast_copy
        layout.restype = c_uint64
        if layout() != ctypes.sizeof(_Copying):
            raise EngineError("the helper copies a CPU's state otherwise than this package; install it again")
        self._what = _Copying(
            target.engine.value, source.engine.value, None, None, _BULK, _MTRR_AT, _MTRR_SIZE,
            offset_of(Env, "hflags2"), offset_of(Env, "v_tpr"), offset_of(Env, "exception_is_int"), HF_DERIVED,
        )  # fmt: skip
        self._traces, self._unmarked = 0, cast("Sequence[tuple[int, int]]", ())
        #: does it, and returns what more there is to the state: NMI, BREAKPOINTS, SKIP
        self.copy: Callable[[], int] = partial(copy, ctypes.byref(self._what))

    def memory(self, traces: int, unmarked: Sequence[tuple[int, int]]) -> None:
        """The source marks the pages that it writes at the address `traces` (0: nowhere), and somebody may write the
        bytes at the (first, end) host addresses `unmarked`: translations made from them are dropped at each move, and
        the marks cleared."""
        if traces == self._traces and unmarked == self._unmarked:
            return
        self._traces, self._unmarked = traces, unmarked
        self._pieces = (c_uint64 * (2 * len(unmarked)))(*chain.from_iterable(unmarked))
        self._what.traces, self._what.pieces = traces, ctypes.addressof(self._pieces)
        self._what.piece_count = len(unmarked)


def copy_state(target: Overlay, source: Overlay) -> None:
    """All but what the engines keep from Unicorn: `halted`, system management mode, the time stamp."""
    env, other, address = target.env, source.env, target.env_address
    hflags, hflags2 = env.hflags, env.hflags2
    ctypes.memmove(address, source.env_address, _BULK)
    env.hflags = hflags & ~HF_DERIVED | other.hflags & HF_DERIVED
    env.hflags2 = hflags2 & ~HF2_NMI | HF2_VINTR | other.hflags2 & HF2_NMI
    ctypes.memmove(address + _MTRR_AT, source.env_address + _MTRR_AT, _MTRR_SIZE)
    env.v_tpr = other.v_tpr
    wanted = ctypes.string_at(source.env_address + _DR_AT, _DR_SIZE)
    if ctypes.string_at(address + _DR_AT, _DR_SIZE) != wanted:
        target.call.update_dr7(address, DR7_FIXED)  # takes the old breakpoints out before their addresses go
        for i in _ADDRESSES:
            env.dr[i] = other.dr[i]
        target.call.update_dr7(address, other.dr[7] & 0xFFFFFFFF)
    env.old_exception, env.error_code, env.exception_is_int = NO_EXCEPTION, 0, 0
    target.request.value = source.request.value & CPU_INTERRUPT_NMI
    target.call.tlb_flush(target.cpu)
