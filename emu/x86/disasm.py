"""Disassembly in Intel syntax by the CS's own width, and what `next` must know about an instruction."""

from __future__ import annotations

from emu.typed import Any
from emu.views import InstructionView
from emu.x86.repeats import PREFIXES, REPEATS, STRINGS

#: SDM vol. 2A, 2.3.11.
MAX_INSTRUCTION = 15

_CALL_NEAR, _CALL_FAR, _INT3, _INT, _INTO = 0xE8, 0x9A, 0xCC, 0xCD, 0xCE
_LOOPS = frozenset((0xE0, 0xE1, 0xE2))
#: Jcc, LOOPcc and JCXZ, CALL, JMP with a displacement and no second opcode byte.
_RELATIVE = frozenset((*range(0x70, 0x80), *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB))
_FAR_POINTERS = frozenset((0x9A, 0xEA))


def _capstone(bits: int) -> Any:
    import capstone  # here, because importing it costs more than most runs need

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    if bits not in modes:
        raise ValueError(f"code has 16, 32 or 64 bits, not {bits}")
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])


def decode(
    code: bytes, linear: int, bits: int, offset: int, count: int, *, current: int | None = None
) -> tuple[InstructionView, ...]:
    """At most `count` instructions of `code`, which lies at `linear` and at `offset` in CS.

    `bits` is the default operand size (16, 32, 64). Branch targets are offsets in CS, wrapped to the instruction's
    operand size as the CPU does. A byte that begins no instruction becomes `db`. `current` is the linear address of
    the instruction to mark.
    """
    engine = _capstone(bits)
    linear_mask = 0xFFFFFFFFFFFFFFFF if bits == 64 else 0xFFFFFFFF
    result: list[InstructionView] = []
    at = 0
    while at < len(code) and len(result) < count:
        place, here = (linear + at) & linear_mask, (offset + at) & linear_mask
        found = next(iter(engine.disasm_lite(code[at : at + MAX_INSTRUCTION], here, 1)), None)
        if found is None:
            raw, text = code[at : at + 1], f"db 0x{code[at]:02x}"
        else:
            _, size, mnemonic, operands = found
            raw = code[at : at + size]
            text = f"{mnemonic} {_target(raw, bits, here) or operands}".rstrip()
        result.append(InstructionView(place, here, raw, text, place == current))
        at += len(raw)
    return tuple(result)


def length(raw: bytes, bits: int) -> int:
    """Length in bytes of the instruction at the start of `raw`, 0 if there is none or it is cut short."""
    found = next(iter(_capstone(bits).disasm_lite(raw[:MAX_INSTRUCTION], 0, 1)), None)
    return 0 if found is None else int(found[1])


def _split(raw: bytes, bits: int) -> tuple[frozenset[int], bytes]:
    """The legacy prefixes, and what begins with the opcode (REX skipped)."""
    at = 0
    while at < len(raw) and raw[at] in PREFIXES:
        at += 1
    prefixes = frozenset(raw[:at])
    if bits == 64 and at < len(raw) and raw[at] & 0xF0 == 0x40:
        at += 1
    return prefixes, raw[at:]


def _target(raw: bytes, bits: int, offset: int) -> str:
    """Operand text of a relative branch or a far pointer, "" for anything else.

    Capstone leaves targets unwrapped (a 16-bit `jmp` at fff0 may show 10ff3) and writes far pointers in several ways.
    """
    prefixes, body = _split(raw, bits)
    if not body:
        return ""
    # In 64-bit mode near branches have 64-bit operands whatever the prefix (SDM vol. 2A, JMP; Intel's behaviour).
    wide = bits == 64 or (bits == 32) != (0x66 in prefixes)
    mask = 0xFFFFFFFFFFFFFFFF if bits == 64 else 0xFFFFFFFF if wide else 0xFFFF
    if body[0] in _FAR_POINTERS and bits != 64:
        size = 4 if wide else 2
        return f"0x{int.from_bytes(body[1 + size :], 'little'):x}:0x{int.from_bytes(body[1 : 1 + size], 'little'):x}"
    if body[0] in _RELATIVE:
        displacement = body[1:]
    elif len(body) > 2 and body[0] == 0x0F and body[1] & 0xF0 == 0x80:
        displacement = body[2:]
    else:
        return ""
    return f"0x{offset + len(raw) + int.from_bytes(displacement, 'little', signed=True) & mask:x}"


def is_rep_string(raw: bytes, bits: int) -> bool:
    """True for a string instruction with a REP, REPE or REPNE prefix."""
    prefixes, body = _split(raw, bits)
    return bool(prefixes & REPEATS) and bool(body) and body[0] in STRINGS


def is_interrupt(raw: bytes, bits: int) -> bool:
    """True for INT n."""
    body = _split(raw, bits)[1]
    return bool(body) and body[0] == _INT


def is_call_like(raw: bytes, bits: int) -> bool:
    """True for what `next` runs to its end: CALL, INT n, INT3, INTO, SYSCALL, a repeated string instruction, LOOP.

    After each of these the next instruction in memory is executed once the callee, the handler or the loop is done.
    """
    prefixes, body = _split(raw, bits)
    if not body:
        return False
    opcode = body[0]
    if opcode in _LOOPS or opcode in (_CALL_NEAR, _INT3, _INT):
        return True
    if opcode in (_CALL_FAR, _INTO):
        return bits != 64  # #UD in 64-bit mode
    if opcode == 0xFF and len(body) > 1:
        group = body[1] >> 3 & 7
        return group == 2 or (group == 3 and body[1] < 0xC0)  # a far pointer is in memory
    if opcode == 0x0F and len(body) > 1:
        return bits == 64 and body[1] == 0x05
    return bool(prefixes & REPEATS) and opcode in STRINGS
