"""What MOV to a control register, LMSW and CLTS would write, from the instruction's bytes (SDM vol. 2A and 2B)."""

from __future__ import annotations

from collections.abc import Callable

from emu.x86.classes import split
from emu.x86.operands import decode
from emu.x86.state import CpuState

CR0_TS = 1 << 3
LMSW_BITS = 0xF  #: PE MP EM TS; LMSW cannot clear PE
REX_R, REX_B = 4, 1
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


def written_control(
    code: bytes, bits: int, state: CpuState, load: Callable[[int, int], bytes | None]
) -> tuple[int, int, int | None]:
    """The register's number, its value, and the one to be written; None where that is in memory which cannot be read,
    or is addressed by 64-bit code. `code` begins with the instruction; `load` reads linear memory, None: it cannot."""
    _, op, rex = split(code, bits)
    if op[1] == 0x06:
        return 0, state.cr0, state.cr0 & ~CR0_TS
    modrm = op[2]
    if op[1] == 0x22:
        number = modrm >> 3 & 7 | (8 if rex & REX_R else 0)
        old = {0: state.cr0, 2: state.cr2, 3: state.cr3, 4: state.cr4}.get(number)
        value = state.regs[modrm & 7 | (8 if rex & REX_B else 0)]
        return number, state.cr8 if old is None else old, value if bits == 64 else value & 0xFFFFFFFF
    word = _word(modrm, rex, code, bits, state, load)
    new = None if word is None else state.cr0 & ~LMSW_BITS | word & LMSW_BITS | state.cr0 & 1
    return 0, state.cr0, new


def _word(
    modrm: int, rex: int, code: bytes, bits: int, state: CpuState, load: Callable[[int, int], bytes | None]
) -> int | None:
    """LMSW's operand."""
    if modrm >= 0xC0:
        return state.regs[modrm & 7 | (8 if rex & REX_B else 0)] & 0xFFFF
    references = decode(code, bits, bits).references if bits != 64 else ()
    if not references:
        return None
    reference = references[0]
    offset = reference.address([value & 0xFFFFFFFF for value in state.regs[:8]])
    data = load(state.segment(_SEGMENTS[reference.segment]).base + offset & 0xFFFFFFFF, 2)
    return None if data is None else int.from_bytes(data, "little")
