"""The structures through which Python steers the run loops: a page of memory, the set of breakpoints that they search,
and what of the CPU Unicorn is not shown."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from emu.typed import Final
from emu.unicorn_layout import offset_of

#: Multiplier of the breakpoint table's hash: 2**64 divided by the golden ratio, odd (multiplicative hashing).
HASH: Final = 0x9E3779B97F4A7C15
EMPTY: Final = (1 << 64) - 1  #: a free slot of the table; no instruction begins at the last byte of the address space

#: What uc_emu_start returns behind a single step; no uc_err has this number.
STEP_DONE: Final = 0x100
#: What the checks depend on in hflags besides the caches: CPL, PE and CS64. VM changes only with CPL.
CHECKED_MODE: Final = 0x8083
#: What a checker answers when it has executed the instruction itself and moved EIP.
INSTEAD: Final = 0x200
#: `Control.reason`: why the gate stopped the engine.
STOP_BUDGET, STOP_ASKED, STOP_BREAKPOINT, STOP_CHANGED, STOP_EVENT = 1, 2, 3, 4, 5


class Control(ctypes.Structure):
    """The first bytes of the shared page. It is a VMCB to the engine: `vector` is at offset 100, where it looks for the
    vector of a virtual interrupt (AMD APM vol. 2, table B-1: V_INTR_VECTOR, 064h); two more fields name theirs."""

    _fields_ = (
        ("remaining", ctypes.c_uint64),  # instructions that may still be counted
        ("last", ctypes.c_uint64),  # linear address of the instruction counted last
        ("invalidated", ctypes.c_uint64),  # the engine's count of dropped translations at that time
        ("rcx", ctypes.c_uint64),
        ("rsp", ctypes.c_uint64),
        ("running", ctypes.c_uint32),  # fast loop: the block entered last
        ("masked", ctypes.c_uint8),  # fast loop: INTR is high, but IF was clear when that was looked at last
        ("hold", ctypes.c_uint8),  # gate: the shadow goes on, though the CPU is not told so (emu.unicorn_shadow)
        ("flags_before", ctypes.c_uint8),  # gate: the second byte of EFLAGS before the instruction counted last
        # The gate tests the eight bytes from `stop` as one, the fast loop the seven from `checks`: 0 lets an
        # instruction or a block pass on the short way.
        ("checks", ctypes.c_uint8),  # ask the checker before each instruction even while the caches are the same
        ("stop", ctypes.c_uint8),  # request_stop(), from any thread
        ("halt_run", ctypes.c_uint8),  # a callback wants this run to end
        ("interrupt", ctypes.c_uint8),  # INTR is high
        ("leave", ctypes.c_uint8),  # translations changed under the running one: leave it
        ("trap", ctypes.c_uint8),  # a data breakpoint of DR0 to DR3 was met: raise #DB
        ("step", ctypes.c_uint8),  # have the engine return right behind the next instruction
        ("breakpoints", ctypes.c_uint8),  # the table has entries
        ("paging", ctypes.c_uint8),  # compare CR0, CR3, CR4 and DR0 to DR3 with the copies below
        ("taken", ctypes.c_uint8),  # an interrupt was delivered; 2: and the run goes on (fast loop)
        ("suppress", ctypes.c_uint8),  # do not deliver the exception being reported
        ("taken_vector", ctypes.c_uint8),
        ("ports", ctypes.c_uint8),  # a breakpoint on ports is enabled in DR7: each access is to reach Python
        ("reason", ctypes.c_uint32),  # STOP_*
        ("skip", ctypes.c_uint64),  # linear address not to be checked once ...
        ("msr_map", ctypes.c_uint64),  # physical address of the map of intercepted MSRs (MSRPM_BASE_PA, 048h)
        ("skip_rsp", ctypes.c_uint64),  # ... while RSP has this value
        ("table", ctypes.c_uint64),  # address of the breakpoint table
        ("dr7", ctypes.c_uint32),  # copy to compare
        ("vector", ctypes.c_uint32),
        ("mask", ctypes.c_uint64),  # the table's size in entries, a power of two, less 1
        ("cr0", ctypes.c_uint64),
        ("cr3", ctypes.c_uint64),
        ("cr4", ctypes.c_uint64),
        ("dr", ctypes.c_uint64 * 4),
        ("event", ctypes.c_uint64),  # the engine notes here what it delivers (EVENTINJ, 0A8h)
        ("checker", ctypes.c_uint64),  # address of the function asked before an instruction executes, 0: nobody
        ("caches", ctypes.c_uint64 * 6),  # limit and flags of ES CS SS DS FS GS for which `checks` was decided
        ("mode", ctypes.c_uint32),  # and the bits CHECKED_MODE of hflags
        ("_pad4", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),  # bits of emu.x86.classes to stop at
        ("changes", ctypes.c_uint32),  # CHANGE_*: stop behind these
        ("physical", ctypes.c_uint64),  # address of the places in Unicorn's numbering of RAM to stop at
        ("physical_count", ctypes.c_uint32),
        ("seen_mode", ctypes.c_uint32),  # what `changes` compares with
        ("seen_task", ctypes.c_uint64),
        ("taken_at", ctypes.c_uint64),  # fast loop: instructions retired when the interrupt was taken
        ("last_for_now", ctypes.c_uint8),  # fast loop: a run goes on behind the interrupt
        ("_pad5", ctypes.c_uint8 * 7),
        ("ranges", ctypes.c_uint64),  # address of pairs of linear addresses, first and last, to stop in
        ("range_count", ctypes.c_uint32),
        ("_pad6", ctypes.c_uint32),
    )

    remaining: int
    last: int
    invalidated: int
    rcx: int
    rsp: int
    stop: int
    halt_run: int
    interrupt: int
    masked: int
    hold: int
    flags_before: int
    leave: int
    breakpoints: int
    paging: int
    step: int
    trap: int
    taken: int
    suppress: int
    taken_vector: int
    ports: int
    reason: int
    skip: int
    skip_rsp: int
    table: int
    msr_map: int
    mask: int
    dr7: int
    vector: int
    classes: int
    changes: int
    physical: int
    physical_count: int
    seen_mode: int
    seen_task: int
    taken_at: int
    last_for_now: int
    ranges: int
    range_count: int
    cr0: int
    cr3: int
    cr4: int
    dr: ctypes.Array[ctypes.c_uint64]
    checker: int
    caches: ctypes.Array[ctypes.c_uint64]
    mode: int
    checks: int


#: Where in it `stop` is, in bytes.
STOP_AT: Final[int] = Control.stop.offset  # type: ignore[attr-defined]


class Hidden(ctypes.Structure):
    """struct packing of emu/native/pack.c: the engine's side of a move, and what Unicorn is not shown, or forgets."""

    _fields_ = (
        ("engine", ctypes.c_void_p), ("packed", ctypes.c_void_p),
        ("sysenter_cs", ctypes.c_uint64), ("tsc_adjust", ctypes.c_uint64),
        ("sce", ctypes.c_uint32), ("halted", ctypes.c_uint32), ("parts", ctypes.c_uint32), ("smm", ctypes.c_uint32),
    )  # fmt: skip
    sysenter_cs: int
    tsc_adjust: int
    sce: int
    halted: int
    parts: int
    smm: int


def offset(name: str) -> int:
    """Where a field of `Control` is, in bytes."""
    return offset_of(Control, name)


class BreakpointTable:
    """The open-addressing hash set of linear addresses that the gate searches."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._slots = (ctypes.c_uint64 * 1)(EMPTY)
        self._held: set[int] | None = None
        self.replace(())

    def replace(self, addresses: Iterable[int]) -> bool:
        """Hold exactly `addresses` (linear, below 2**64 - 1); False when nothing changes."""
        wanted = {a & EMPTY for a in addresses} - {EMPTY}
        if wanted == self._held:
            return False
        self._held = wanted
        size = 16
        while size < 4 * len(wanted):
            size *= 2
        slots = (ctypes.c_uint64 * size)(*([EMPTY] * size))
        for address in wanted:
            at = address * HASH % (1 << 64) >> 32
            while slots[at % size] != EMPTY:
                at += 1
            slots[at % size] = address
        self._control.breakpoints = 0
        self._control.table, self._control.mask = ctypes.addressof(slots), size - 1
        self._slots = slots
        self._control.breakpoints = 1 if wanted else 0
        return True
