"""What the C helper needs to answer by itself the ports that kernels touch most while they do something else: counter 0
of the 8254, latched and read as a clock, and the POST code port, written to wait for slow boards."""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64


class SharedPorts(ctypes.Structure):
    """struct shared_ports of emu/native/shared_ports.h. While `ready`, counter 0 counts in mode 2, binary, is read by
    two bytes, and nothing of it is latched but what `left` says."""

    _fields_ = (
        ("skipped", c_uint64), ("pulse", c_uint64), ("loaded", c_uint32), ("ce", c_uint32), ("latch", c_uint16),
        ("left", c_uint8), ("ready", c_uint8), ("post", c_uint8), ("_pad", c_uint8 * 3),
    )  # fmt: skip
    skipped: int  #: ns by which virtual time is ahead of the instructions' time
    pulse: int  #: a CLK pulse, and what CE was at it
    ce: int
    loaded: int  #: the count that follows 1
    latch: int  #: OL
    left: int  #: its bytes that were not read yet: 0, 1 or 2
    ready: int
    post: int  #: the last POST code
