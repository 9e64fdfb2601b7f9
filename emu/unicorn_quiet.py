"""An engine's side of quiet steps (`emu.quiet`): the C helper's functions, and what they go by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint64, c_void_p
from functools import partial

from emu.engine import EngineError, MemoryRegion
from emu.quiet import HIT, MOST_HITS, Quiet, QuietRegion
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
        names = ("step", "go", "take", "put", "look")
        functions = {name: ctypes.cast(getattr(library, f"v2e_quiet_{name}"), c_void_p).value for name in names}
        self._hits = ctypes.create_string_buffer(MOST_HITS * HIT.size)
        self.quiet = Quiet(
            engine=loop.engine, hidden=ctypes.addressof(hidden), hits=ctypes.addressof(self._hits), hit_room=MOST_HITS,
            **functions,
        )  # fmt: skip
        library.v2e_quiet_begin.restype = None
        self._begin: Callable[[int, int, bool], None] = partial(library.v2e_quiet_begin, ctypes.byref(self.quiet))
        self._mapped: Sequence[MemoryRegion] = ()
        self._regions: object = None  # kept, as the helper looks into it

    def begin(self, steps: int, run: int, regions: Sequence[MemoryRegion], halted: bool) -> Quiet:
        """At most so many instructions may be executed, `run` in each run, by a CPU that is `halted` or not."""
        quiet = self.quiet
        self._begin(steps, run, halted)
        if regions is not self._mapped:
            self._mapped = regions
            table = (QuietRegion * len(regions))(*(QuietRegion(r.base, r.size, r.host_address) for r in regions))
            self._regions = table
            quiet.regions, quiet.region_count = ctypes.addressof(table), len(regions)
        return quiet
