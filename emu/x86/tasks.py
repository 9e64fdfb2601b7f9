"""The task switch: JMP, CALL, a task gate, or IRET with NT (SDM vol. 3A, chapter 7)."""

from __future__ import annotations

from emu.named import Enum
from emu.typed import Final
from emu.x86.core import (
    ESP,
    MASK32,
    RFLAGS_NT,
    SELECTOR_TI,
    VECTOR_GP,
    VECTOR_NP,
    VECTOR_SS,
    VECTOR_TS,
    Core,
    CpuFault,
    Entry,
    null_segment,
    v86_segment,
)
from emu.x86.state import CR0_PG, RFLAGS_VM, SEGMENTS, Segment

#: Types of TSS descriptors (SDM vol. 3A, table 3-2), and the bit that makes one busy.
AVAILABLE: Final = frozenset((1, 9))
BUSY: Final = frozenset((3, 11))
BUSY_BIT: Final = 2
#: The largest limit that is too small: less than 68h or 2Ch bytes (SDM vol. 3A, 7.2.2; table 7-1).
LEAST_LIMIT_32, LEAST_LIMIT_16 = 0x67, 0x2B
CR0_TS: Final = 1 << 3
DR6_BT: Final = 1 << 15
#: L0 to L3 and LE, cleared by each switch (SDM vol. 3B, 17.2.4; of LE the 80386 Programmer's Reference Manual, 12.2.2)
DR7_LOCAL: Final = 0x155
#: Flags a TSS can load (SDM vol. 1, 3.4.3).
FLAGS_KEPT: Final = 0x3F7FD7


class Source(Enum):
    """What began the switch."""

    JUMP = "jmp"
    CALL = "call"
    EVENT = "event"  #: INT n, an exception or an interrupt through a task gate
    RETURN = "iret"


def check_available(core: Core, selector: int) -> Entry:
    """The TSS that a task gate names. Raises #GP or #NP with its selector (SDM vol. 2A, CALL and INT n, TASK-GATE)."""
    code = selector & 0xFFFC | core.external
    entry = None if selector & SELECTOR_TI or not selector & 0xFFFC else core.entry(selector)
    if entry is None or entry.system_type not in AVAILABLE:
        raise CpuFault(VECTOR_GP, code)
    if not entry.present:
        raise CpuFault(VECTOR_NP, code)
    return entry


def switch(core: Core, new: Entry, source: Source, error_code: int | None = None) -> None:
    """Switch to the task of `new`, whose type and presence have been checked. `core.state.rip` is what the old task
    goes on at. A fault up to the check of the limit and of the pages belongs to the old task, the rest to the new."""
    state = core.state
    old = state.tr
    ext = core.external
    wide_old, wide = bool(old.access & 8), bool(new.access & 8)
    tss, limit = new.descriptor.base, new.descriptor.limit
    if limit < (LEAST_LIMIT_32 if wide else LEAST_LIMIT_16):
        raise CpuFault(VECTOR_TS, new.selector & 0xFFFC | ext)
    nests = source in (Source.CALL, Source.EVENT)
    core.probe(tss, 0x68 if wide else 0x2C)
    if nests:
        core.probe(tss, 2, write=True)
    first, length = (0x20, 0x40) if wide_old else (0x0E, 0x1C)
    core.probe(old.base + first & MASK32, length, write=True)

    old_address = state.gdtr.base + (old.selector & 0xFFF8) & MASK32
    flags = state.rflags & MASK32
    if source in (Source.JUMP, Source.RETURN):
        raw = core.read(old_address + 5, 1)
        core.write(old_address + 5, 1, raw & ~BUSY_BIT)
    if source is Source.RETURN:
        flags &= ~RFLAGS_NT
    _save(core, old, wide_old, flags)

    # From here on the new task runs (SDM vol. 3A, 7.3, steps 9 to 13).
    image = core.read(tss, 0x68 if wide else 0x2C).to_bytes(0x68, "little")
    if nests:
        core.write(tss, 2, old.selector)
    if source is not Source.RETURN:
        core.write(new.address + 5, 1, core.read(new.address + 5, 1) | BUSY_BIT)
    state.tr = Segment(new.selector, tss, limit, new.access | BUSY_BIT)
    state.cr0 |= CR0_TS
    state.dr[7] &= ~DR7_LOCAL
    selectors, ldt, trap = _load_registers(core, image, wide)
    if nests:
        state.rflags |= RFLAGS_NT
    _load_segments(core, selectors, ldt)
    if state.rip > state.cs.limit:
        raise CpuFault(VECTOR_GP, ext)
    if error_code is not None:
        size = 4 if wide else 2
        if not core.has_room(state.ss, state.regs[ESP], size):
            raise CpuFault(VECTOR_SS, ext)
        state.regs[ESP] = core.push_all(state.ss, state.regs[ESP], [error_code], size, user=core.cpl == 3)
    if trap:
        state.dr[6] |= DR6_BT
        core.debug_trap = True


def _save(core: Core, old: Segment, wide: bool, flags: int) -> None:
    """Into the old task's TSS (SDM vol. 3A, figures 7-2 and 7-10)."""
    state = core.state
    size = 4 if wide else 2
    at = old.base + (0x20 if wide else 0x0E)
    for value in (state.rip, flags, *state.regs[:8]):
        core.write(at, size, value)
        at += size
    for name in SEGMENTS if wide else SEGMENTS[:4]:
        core.write(at, 2, state.segment(name).selector)
        at += size


def _load_registers(core: Core, image: bytes, wide: bool) -> tuple[list[int], int, bool]:
    """Everything but the segments. Returns the selectors of ES CS SS DS FS GS, of LDTR, and the T bit."""
    state = core.state

    def value(offset: int, size: int) -> int:
        return int.from_bytes(image[offset : offset + size], "little")

    if wide:
        if state.cr0 & CR0_PG:
            state.cr3 = value(0x1C, 4)
        state.rip, flags = value(0x20, 4), value(0x24, 4)
        state.regs[:8] = [value(0x28 + 4 * i, 4) for i in range(8)]
        selectors, ldt = [value(0x48 + 4 * i, 2) for i in range(6)], value(0x60, 2)
        trap = bool(image[0x64] & 1)
    else:
        state.rip, flags = value(0x0E, 2), value(0x10, 2)
        # The upper halves are undefined; they read as ones.
        state.regs[:8] = [0xFFFF0000 | value(0x12 + 2 * i, 2) for i in range(8)]
        selectors, ldt = [value(0x22 + 2 * i, 2) for i in range(4)] + [0, 0], value(0x2A, 2)
        trap = False
    state.rflags = flags & FLAGS_KEPT | 2
    return selectors, ldt, trap


def _load_segments(core: Core, selectors: list[int], ldt: int) -> None:
    """LDTR, CS, SS and the data segments, with the checks of SDM vol. 3A, table 7-1. Until one is loaded it holds its
    selector and no descriptor."""
    state, ext = core.state, core.external
    core.vm = bool(state.rflags & RFLAGS_VM)
    core.cpl = 3 if core.vm else selectors[1] & 3
    for name, selector in zip(SEGMENTS, selectors, strict=True):
        setattr(state, name, null_segment(selector, core.cpl if name == "ss" else 0))
    state.ldtr = null_segment(ldt)
    _load_ldt(core, ldt)
    if core.vm:
        for name, selector in zip(SEGMENTS, selectors, strict=True):
            setattr(state, name, v86_segment(selector))
        return
    _, cs, ss, *_ = selectors
    entry = core.entry(cs) if cs & 0xFFFC else None
    if entry is None or not entry.code:
        raise CpuFault(VECTOR_TS, cs & 0xFFFC | ext)
    if entry.dpl > core.cpl if entry.conforming else entry.dpl != core.cpl:
        raise CpuFault(VECTOR_TS, cs & 0xFFFC | ext)
    if not entry.present:
        raise CpuFault(VECTOR_NP, cs & 0xFFFC | ext)
    state.cs = core.load(entry)
    entry = core.entry(ss) if ss & 0xFFFC else None
    if entry is None or not entry.writable or entry.dpl != core.cpl or ss & 3 != core.cpl:
        raise CpuFault(VECTOR_TS, ss & 0xFFFC | ext)
    if not entry.present:
        raise CpuFault(VECTOR_SS, ss & 0xFFFC | ext)
    state.ss = core.load(entry)
    for name, selector in zip(SEGMENTS, selectors, strict=True):
        if name in ("cs", "ss") or not selector & 0xFFFC:
            continue
        entry = core.entry(selector)
        code = selector & 0xFFFC | ext
        if entry is None or not entry.readable:
            raise CpuFault(VECTOR_TS, code)
        if not entry.conforming and entry.dpl < max(core.cpl, selector & 3):
            raise CpuFault(VECTOR_TS, code)
        if not entry.present:
            raise CpuFault(VECTOR_NP, code)
        setattr(state, name, core.load(entry))


def _load_ldt(core: Core, selector: int) -> None:
    if not selector & 0xFFFC:
        return
    code = selector & 0xFFFC | core.external
    entry = None if selector & SELECTOR_TI else core.entry(selector)
    if entry is None or entry.system_type != 2 or not entry.present:
        raise CpuFault(VECTOR_TS, code)
    core.state.ldtr = entry.segment()


def task_return(core: Core) -> None:
    """IRET with NT: back to the task that the TSS links to (SDM vol. 2A, IRET, TASK-RETURN)."""
    state = core.state
    selector = core.read(state.tr.base, 2)
    code = selector & 0xFFFC
    entry = None if selector & SELECTOR_TI or not code else core.entry(selector)
    if entry is None or entry.system_type not in BUSY:
        raise CpuFault(VECTOR_TS, code)
    if not entry.present:
        raise CpuFault(VECTOR_NP, code)
    switch(core, entry, Source.RETURN)
