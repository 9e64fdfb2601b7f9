"""What the C helper needs to answer by itself the ports that kernels touch most while they do something else: counter 0
of the 8254, latched and read as a clock, the POST code port, written to wait for slow boards, of the master 8259 what
every interrupt's handler does, the HPET's main counter, read as a clock, and IRQ 0 as counter 0 drives it."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint8, c_uint16, c_uint32, c_uint64

DELIVERIES = 64  #: interrupts taken that `SharedPorts` has room for
HPET_TIMERS = 3


class SharedPorts(ctypes.Structure):
    """struct shared_ports of emu/native/shared_ports.h. While `ready`, counter 0 counts in mode 2, binary, is read by
    two bytes, and nothing of it is latched but what `left` says. While `pic_ready` an engine may acknowledge the
    master's inputs that are no slave's, and take its masks and ends of interrupts that leave INTR low."""

    _fields_ = (
        ("skipped", c_uint64), ("pulse", c_uint64), ("loaded", c_uint32), ("ce", c_uint32), ("latch", c_uint16),
        ("left", c_uint8), ("ready", c_uint8), ("post", c_uint8), ("_pad", c_uint8 * 3), ("pic_ready", c_uint8),
        ("imr", c_uint8), ("isr", c_uint8), ("requests", c_uint8), ("levels", c_uint8), ("slaves", c_uint8),
        ("served", c_uint8), ("kept", c_uint8), ("hpet_origin", c_int64), ("hpet_tick", c_uint32),
        ("rises", c_uint32), ("comparators", c_uint64 * HPET_TIMERS), ("edge", c_uint64), ("ticking", c_uint8),
        ("edges_ready", c_uint8), ("out", c_uint8), ("vectors", c_uint8), ("acknowledged", c_uint8),
        ("idle_timers", c_uint8), ("_pad3", c_uint8 * 2), ("logged", c_uint32), ("room", c_uint32),
        ("passed", c_uint32), ("_pad4", c_uint32), ("taken_at", c_uint64 * DELIVERIES), ("taken", c_uint8 * DELIVERIES),
    )  # fmt: skip
    skipped: int  #: ns by which virtual time is ahead of the instructions' time
    pulse: int  #: a CLK pulse, and what CE was at it
    ce: int
    loaded: int  #: the count that follows 1
    latch: int  #: OL
    left: int  #: its bytes that were not read yet: 0, 1 or 2
    ready: int
    post: int  #: the last POST code
    pic_ready: int  #: the master 8259 drives INTR, is initialised, fully nested with IR0 first, without AEOI
    imr: int
    isr: int
    requests: int  #: IRR
    levels: int  #: its inputs that are level triggered: an acknowledge leaves the request
    slaves: int  #: its inputs whose acknowledge is a slave's
    served: int  #: the input of which the engine has done the acknowledge since `pic_ready` was set last, as a mask
    kept: int  #: the 8254 and the 8259 are a hypervisor's own: accesses to them are counted apart
    hpet_origin: int  #: ns of virtual time at which the HPET's main counter was 0
    hpet_tick: int  #: ns from one count to the next; 0: it stands, or an engine is not to answer
    idle_timers: int  #: the HPET's timers whose comparator an engine may write, as nothing follows from it, as a mask
    comparators: ctypes.Array[c_uint64]
    # While `ticking`, and `ready`, `pic_ready` and `edges_ready`, runs go on behind the edges of counter 0's OUT.
    ticking: int
    edges_ready: int  #: IR0 is edge triggered and as `out`, and the vectors are those of 8086 mode
    edge: int  #: the CLK pulse at which OUT changes next
    out: int  #: its level
    passed: int  #: how many edges an engine has passed since somebody asked
    rises: int  #: how many of them were rises
    vectors: int  #: the vector of IR0; those of the others follow
    acknowledged: int  #: inputs of which the engine has done the acknowledge of those logged, as a mask
    logged: int  #: interrupts that were taken and of which Python is still to be told: when, and their vectors
    room: int  #: for how many of these there is
    taken_at: ctypes.Array[c_uint64]
    taken: ctypes.Array[c_uint8]
