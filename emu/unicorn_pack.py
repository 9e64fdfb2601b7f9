"""UnicornEngine's state to and from the flat structure of `emu.packed`, by the C helper (emu/native/pack.c)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, c_void_p
from functools import partial
from typing import Final

from emu.engine import EngineError
from emu.packed import PART_DEBUG, PART_TSC, Flat, Packed
from emu.unicorn_control import Hidden
from emu.unicorn_fast import FastLoop
from emu.unicorn_layout import Env, XmmReg, offset_of

_WORDS: Final = struct.Struct("<15Q")
_OFFSETS: Final = (
    "hflags2", "a20_mask", "efer", "v_tpr", "features", "df", "cc_src", "cc_dst", "cc_src2",
    "fpstt", "fpus", "fpuc", "fptags", "fpregs", "fpop", "fpcs", "fpds", "fpip", "fpdp", "mxcsr", "xmm",
    "sysenter_esp", "sysenter_eip", "star", "lstar", "cstar", "fmask", "kernelgsbase", "tsc_aux", "exception_is_int",
    "pat", "xcr0",
)  # fmt: skip


class Packer:
    """The helper's functions for the engine that `loop` runs; `hidden` is kept up to date by whoever knows. Raises
    EngineError when the helper has another layout than `emu.packed`."""

    debug: Final = PART_DEBUG
    tsc: Final = PART_TSC

    def __init__(self, loop: FastLoop, hidden: Hidden) -> None:
        # Nothing in them waits, so they keep Python's lock; that, and more than one argument, is most of a call's cost.
        library = ctypes.PyDLL(loop.library)
        layout = (c_uint32 * (len(_OFFSETS) + 1))(*(offset_of(Env, name) for name in _OFFSETS), ctypes.sizeof(XmmReg))
        describe = library.v2e_pack_layout
        describe.restype, describe.argtypes = c_uint64, (c_void_p,)
        sizes = ctypes.sizeof(layout) << 48 | ctypes.sizeof(Hidden) << 32 | ctypes.sizeof(Flat)
        if describe(layout) != sizes:
            raise EngineError("the helper packs a CPU's state otherwise than this package; install it again")
        self.packed, self.flat = Packed(), Flat()
        self._engine, self._hidden = loop.engine, hidden
        hidden.engine, hidden.packed = loop.engine.value, ctypes.addressof(self.packed)
        at = ctypes.byref(hidden)
        #: see emu.packed.Packing.packer
        self.function = ctypes.cast(library.v2e_fast_pack, c_void_p).value or 0, ctypes.addressof(hidden)
        #: the same, called
        self.pack: Callable[[], int] = partial(library.v2e_fast_pack, at)
        #: fills in `flat`, but for what Unicorn does not have
        self.look: Callable[[], None] = partial(library.v2e_fast_look, at, ctypes.byref(self.flat))
        library.v2e_fast_look.restype = None
        self._words = (c_uint64 * 15)()
        self._brief: Callable[[], None] = partial(library.v2e_fast_brief, at, self._words)
        library.v2e_fast_brief.restype = None
        self._words_view = memoryview(self._words).cast("B")
        self._unpack: Callable[[], None] = partial(library.v2e_fast_unpack, at)
        library.v2e_fast_unpack.restype = None
        self._host_changed = library.v2e_fast_pieces_changed
        self._host_changed.restype, self._host_changed.argtypes = None, (c_void_p, c_void_p, c_uint32)

    def brief(self) -> tuple[int, ...]:
        """See emu.x86.state.CpuState."""
        self._brief()
        return _WORDS.unpack(self._words_view)

    def unpack(self, parts: int) -> None:
        """See emu.packed.Packing."""
        self._hidden.parts = parts
        self._unpack()

    def host_changed(self, pieces: int, count: int) -> None:
        """See emu.packed.Packing."""
        self._host_changed(self._engine, pieces, count)
