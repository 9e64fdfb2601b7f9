"""What C that serves a debugger's client asks of a standing CPU without the interpreter: single steps and looks at
memory (emu/native/quiet.h has the same structure)."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_uint32, c_uint64, c_void_p


class QuietRegion(ctypes.Structure):
    """struct quiet_region: a range of physical memory, and where its bytes are in this process."""

    _fields_ = (("base", c_uint64), ("size", c_uint64), ("host", c_uint64))


class Quiet(ctypes.Structure):
    """struct quiet. Good between `Debugger.begin_quiet` and `end_quiet`, on the machine's thread.

    A step is made where nothing comes before its instruction (no interrupt, no timer, nobody who wants a stop) and only
    its own end ends it; what the guest reaches of devices may call Python all the same. It leaves everything as a step
    of `Debugger.single_step` does, but that nobody is told before `end_quiet`. A look is made without paging."""

    _fields_ = (
        ("step", c_void_p), ("look", c_void_p), ("engine", c_void_p), ("hidden", c_void_p), ("regions", c_void_p),
        ("region_count", c_uint32), ("ended", c_int32), ("left", c_int64), ("made", c_uint64), ("brief", c_uint64 * 8),
        ("moded", c_uint32), ("looks", c_uint32), ("mode", c_uint32 * 8),
    )  # fmt: skip
    region_count: int
    ended: int
    left: int  #: steps that may be made
    made: int  #: steps that were
    moded: int  #: the CPU's mode, or whether it is halted, has changed since the last `begin_quiet`
    looks: int  #: looks may be made
