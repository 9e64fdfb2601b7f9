"""What C that serves a debugger's client asks of a standing CPU without the interpreter: single steps, runs to
watchpoints, looks at memory and stores to it (emu/native/quiet.h has the same structure)."""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_int32, c_int64, c_uint32, c_uint64, c_void_p

from emu.named import NamedTuple
from emu.typed import Final

MOST_HITS: Final = 256  #: watchpoints' that one `Quiet` has room for


class QuietRegion(ctypes.Structure):
    """struct quiet_region: a range of physical memory, and where its bytes are in this process."""

    _fields_ = (("base", c_uint64), ("size", c_uint64), ("host", c_uint64))


class QuietHit(NamedTuple):
    """struct quiet_hit: a watchpoint that has ended a run. `linear`, `value` and `size` (bytes) are the access's, made
    by what hook `number` of the engine watches; behind it `retired` instructions had, and the CPU was at linear
    `pc`, cs:ip."""

    linear: int
    value: int
    retired: int
    pc: int
    ip: int
    number: int
    size: int
    is_write: int
    cs: int


HIT: Final = struct.Struct("=5Q4I")


class Begun(NamedTuple):
    """A step or run that was quiet until it `ended` (emu/native/runs.c) in a way that Python is to look at. `before` it
    so many instructions had retired, and its budget was `budget` of them."""

    ended: int
    before: int
    budget: int


class Quiet(ctypes.Structure):
    """struct quiet. Good between `Debugger.begin_quiet` and `end_quiet`, on the machine's thread.

    A step is made where nothing comes before its instruction (no interrupt, no timer, nobody who wants a stop) and only
    its own end ends it; what the guest reaches of devices may call Python all the same. It leaves everything as a step
    of `Debugger.single_step` does, but that nobody is told before `end_quiet`. A run that a watchpoint ends leaves
    everything as one of `Debugger.begin_continue` does, likewise. Looks and stores are made without paging."""

    _fields_ = (
        ("step", c_void_p), ("go", c_void_p), ("take", c_void_p), ("put", c_void_p), ("look", c_void_p),
        ("engine", c_void_p), ("hidden", c_void_p), ("regions", c_void_p), ("region_count", c_uint32),
        ("ended", c_int32), ("left", c_int64), ("most", c_int64), ("budget", c_int64), ("from_", c_uint64),
        ("made", c_uint64), ("brief", c_uint64 * 16), ("moded", c_uint32), ("looks", c_uint32),
        ("mode", c_uint32 * 8),
        ("hit_count", c_uint32), ("hit_room", c_uint32), ("hits", c_void_p), ("hit", c_uint64 * 7),
    )  # fmt: skip
    region_count: int
    ended: int
    left: int  #: instructions that may be executed
    most: int  #: not 0: no steps may be made, but runs of so many
    budget: int  #: how many the step or run made last had
    from_: int  #: instructions retired before it
    made: int  #: steps that were
    moded: int  #: the CPU's mode, or whether it is halted, has changed since the last `begin_quiet`
    looks: int  #: looks and stores may be made
    hit_count: int  #: hits that ended runs
    hits: int

    def hits_from(self, first: int) -> list[QuietHit]:
        """Those taken since `begin_quiet`, but for the `first` of them."""
        data = ctypes.string_at(self.hits + first * HIT.size, (self.hit_count - first) * HIT.size)
        return [QuietHit(*fields) for fields in HIT.iter_unpack(data)]
