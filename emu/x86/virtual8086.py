"""Virtual-8086 mode extensions and protected-mode virtual interrupts: CR4.VME and CR4.PVI (SDM vol. 3A, 20.3, 20.4).

`emulate` is for an instruction that was refused with #GP(0) because IOPL is below 3, `redirected` for INT n.
"""

from __future__ import annotations

from emu.typed import Final
from emu.x86.core import ESP, MASK32, RFLAGS_NT, RFLAGS_RF, VECTOR_GP, Core, CpuFault, v86_segment
from emu.x86.state import CR4_PVI, CR4_VME, RFLAGS_IF, RFLAGS_TF, RFLAGS_VIF, RFLAGS_VIP

RFLAGS_IOPL: Final = 3 << 12
TSS_MAP: Final = 0x66  #: offset of the I/O map base; the redirection bitmap is the 32 bytes below the map
#: What POPF and IRET of 16 bits change here: CF PF AF ZF SF TF DF OF NT (SDM vol. 2B, POPF, table 4-16).
CHANGED: Final = 0x0DD5 | RFLAGS_NT
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
PUSHF, POPF, INT_N, IRET, CLI, STI = 0x9C, 0x9D, 0xCD, 0xCF, 0xFA, 0xFB


def opcode(data: bytes) -> tuple[int, bool, int]:
    """The opcode of an instruction, whether it has an operand-size prefix, and its offset."""
    wide = False
    for at, byte in enumerate(data):
        if byte not in PREFIXES:
            return byte, wide, at
        wide = wide or byte == 0x66
    return -1, wide, 0


def redirected(core: Core, vector: int) -> bool:
    """True when INT `vector` of a V86 program goes to its own interrupt table (SDM vol. 3A, table 20-2)."""
    state = core.state
    if not (core.vm and state.cr4 & CR4_VME) or state.tr.limit < TSS_MAP + 1:
        return False
    at = core.read(state.tr.base + TSS_MAP, 2) - 32 + (vector >> 3)
    return 0 <= at <= state.tr.limit and not core.read(state.tr.base + at, 1) >> (vector & 7) & 1


def redirect(core: Core, vector: int) -> None:
    """INT n by the 8086 program's interrupt table; `core.state.rip` is the next instruction (SDM vol. 3A, 20.3.3)."""
    state = core.state
    flags = state.rflags & 0xFFFF
    virtual = state.rflags & RFLAGS_IOPL != RFLAGS_IOPL
    if virtual:
        flags = flags & ~RFLAGS_IF | RFLAGS_IOPL | (RFLAGS_IF if state.rflags & RFLAGS_VIF else 0)
    offset, segment = core.read(vector * 4, 2, user=True), core.read(vector * 4 + 2, 2, user=True)
    _push(core, [flags, state.cs.selector, state.rip])
    state.cs, state.rip = v86_segment(segment), offset
    state.rflags &= ~(RFLAGS_TF | RFLAGS_RF | (RFLAGS_VIF if virtual else RFLAGS_IF))


def emulate(core: Core, data: bytes) -> bool:
    """The refused instruction whose bytes are `data`, at `core.state.rip`. False when the refusal stands."""
    state = core.state
    if state.rflags & RFLAGS_IOPL == RFLAGS_IOPL or core.cpl != 3:
        return False
    code, wide, at = opcode(data)
    if not core.vm:
        if not state.cr4 & CR4_PVI or code not in (CLI, STI):
            return False
        size_mask = MASK32 if state.cs.big else 0xFFFF
    elif state.cr4 & CR4_VME:
        size_mask = 0xFFFF
    else:
        return False
    state.rflags &= ~RFLAGS_RF  # it was set for the fault that this is not
    following = state.rip + at + 1 & size_mask
    if code == CLI:
        state.rflags &= ~RFLAGS_VIF
    elif code == STI:
        if state.rflags & RFLAGS_VIP:
            return False
        state.rflags |= RFLAGS_VIF
    elif wide:
        return False  # PUSHFD, POPFD and IRETD are refused (SDM vol. 3A, 20.3.2)
    elif code == PUSHF:
        flags = state.rflags & 0xFFFF & ~RFLAGS_IF | RFLAGS_IOPL
        _push(core, [flags | (RFLAGS_IF if state.rflags & RFLAGS_VIF else 0)])
    elif code == POPF:
        _load_flags(core, _pop(core, 0))
        _drop(core, 2)
    elif code == IRET:
        ip, cs = _pop(core, 0), _pop(core, 2)
        _load_flags(core, _pop(core, 4))
        _drop(core, 6)
        state.cs, following = v86_segment(cs), ip
    elif code == INT_N:
        if at + 1 >= len(data) or not redirected(core, data[at + 1]):
            return False
        state.rip = following + 1 & 0xFFFF
        redirect(core, data[at + 1])
        return True
    else:
        return False
    state.rip = following
    return True


def _load_flags(core: Core, flags: int) -> None:
    """Flags from the stack: IF goes to VIF, IOPL stays (SDM vol. 2B, POPF)."""
    state = core.state
    if flags & RFLAGS_TF or (flags & RFLAGS_IF and state.rflags & RFLAGS_VIP):
        raise CpuFault(VECTOR_GP)
    state.rflags = state.rflags & ~(CHANGED | RFLAGS_VIF | RFLAGS_RF) | flags & CHANGED
    state.rflags |= RFLAGS_VIF if flags & RFLAGS_IF else 0


def _push(core: Core, values: list[int]) -> None:
    """16 bits each, on the V86 stack, whose limit is 64 KiB."""
    state = core.state
    for number in range(len(values)):
        if state.regs[ESP] - 2 * (number + 1) & 0xFFFF == 0xFFFF:
            raise CpuFault(12)
    state.regs[ESP] = core.push_all(state.ss, state.regs[ESP], values, 2, user=True)


def _pop(core: Core, offset: int) -> int:
    state = core.state
    at = state.regs[ESP] + offset & 0xFFFF
    if at == 0xFFFF:
        raise CpuFault(12)
    return core.read(state.ss.base + at, 2, user=True)


def _drop(core: Core, length: int) -> None:
    esp = core.state.regs[ESP]
    core.state.regs[ESP] = esp & ~0xFFFF | esp + length & 0xFFFF
