"""An engine's side of quiet steps (`emu.quiet`): the C helper's functions, and what they go by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint64, c_void_p
from functools import partial

from emu.engine import EngineError, MemoryRegion
from emu.quiet import Quiet, QuietRegion
from emu.unicorn_control import Hidden
from emu.unicorn_fast import FastLoop


class QuietEngine:
    """Of the engine that `loop` runs; `hidden` is what it is packed by. Raises EngineError when the helper has another
    layout than `emu.quiet`."""

    def __init__(self, loop: FastLoop, hidden: Hidden) -> None:
        library = ctypes.PyDLL(loop.library)  # nothing that is called from here waits
        library.v2e_quiet_layout.restype = c_uint64
        if library.v2e_quiet_layout() != ctypes.sizeof(Quiet):
            raise EngineError("the helper makes quiet steps otherwise than this package; install it again")
        step, look = (ctypes.cast(f, c_void_p).value for f in (library.v2e_quiet_step, library.v2e_quiet_look))
        self.quiet = Quiet(step=step, look=look, engine=loop.engine, hidden=ctypes.addressof(hidden))
        library.v2e_quiet_begin.restype = None
        self._begin: Callable[[int, bool], None] = partial(library.v2e_quiet_begin, ctypes.byref(self.quiet))
        self._mapped: Sequence[MemoryRegion] = ()
        self._regions: object = None  # kept, as the helper looks into it

    def begin(self, steps: int, regions: Sequence[MemoryRegion], halted: bool) -> Quiet:
        """At most so many may be made, of a CPU that is `halted` or not."""
        quiet = self.quiet
        self._begin(steps, halted)
        if regions is not self._mapped:
            self._mapped = regions
            table = (QuietRegion * len(regions))(*(QuietRegion(r.base, r.size, r.host_address) for r in regions))
            self._regions = table
            quiet.regions, quiet.region_count = ctypes.addressof(table), len(regions)
        return quiet
