"""The operand decoder agrees with an independent one, capstone, on lengths, addresses and sizes."""

from __future__ import annotations

import random

import capstone
import pytest
from capstone import x86

from emu.x86.operands import decode

SEED = 20240601
STREAMS = 40_000
#: What capstone 5 gets wrong or shows otherwise: sizes of these are checked against Bochs by tests/cpu.
SIZES_NOT_COMPARED = (
    "lds",
    "les",
    "lss",
    "lfs",
    "lgs",
    "lcall",
    "ljmp",
    "call",
    "jmp",
    "bound",
    "fnsave",
    "fsave",
    "frstor",
    "fldenv",
    "fnstenv",
    "fstenv",
    "fx",
    "sgdt",
    "sidt",
    "lgdt",
    "lidt",
)


def registers(detail: object) -> tuple[int | None, int | None]:
    numbers = {
        **{
            getattr(x86, f"X86_REG_{n}"): i
            for i, n in enumerate(("EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"))
        },
        **{getattr(x86, f"X86_REG_{n}"): i for i, n in enumerate(("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"))},
    }
    return numbers.get(detail.base), numbers.get(detail.index)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [16, 32])
def test_lengths_and_explicit_operands_are_those_of_capstone(bits: int) -> None:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16 if bits == 16 else capstone.CS_MODE_32)
    engine.detail = True
    source = random.Random(SEED + bits)
    compared = 0
    wrong = []
    for _ in range(STREAMS):
        prefixes = bytes(source.sample((0x66, 0x67, 0x2E, 0x64, 0xF3, 0xF2), source.choice((0, 0, 0, 1, 2))))
        escape = source.choice((b"", b"", b"\x0f"))
        code = prefixes + escape + source.randbytes(15)
        if escape and code[len(prefixes) + 1] in (0x38, 0x3A, 0x0F):
            continue
        found = next(engine.disasm(code[:15], 0), None)
        if found is None or (
            found.mnemonic.startswith(("v", "x", "enc", "k"))
            and not found.mnemonic.startswith(("verr", "verw", "xchg", "xadd", "xor", "xlat"))
        ):
            continue
        if {0xF2, 0xF3} & set(prefixes) and 0x66 in prefixes:
            continue
        if escape and code[len(prefixes) + 1] in (0x78, 0x79):
            continue  # SSE4a
        ours = decode(code[:15], bits, bits)
        compared += 1
        if ours.length != found.size:
            wrong.append((code.hex(), found.mnemonic, found.op_str, "length", found.size, ours.length))
            continue
        explicit = [op for op in found.operands if op.type == x86.X86_OP_MEM]
        opcode = code[len(prefixes)]
        if escape == b"" and opcode in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3):
            continue  # more prefixes than were meant
        implicit = opcode in (0x6C, 0x6D, 0x6E, 0x6F, *range(0xA4, 0xB0), 0xD7) and not escape
        if (
            len(explicit) == 1
            and not implicit
            and ours.references
            and found.mnemonic not in ("lea", "nop", "bt", "bts", "btr", "btc")
        ):
            mine = [
                r
                for r in ours.references
                if not (r.base == 4 and r.segment == 2 and r.displacement <= 0) or len(ours.references) == 1
            ]
            base, index = registers(explicit[0].mem)
            displacement = explicit[0].mem.disp
            one = mine[-1] if found.mnemonic == "pop" else mine[0]
            width = one.mask
            extra = one.size if found.mnemonic == "pop" and one.base == 4 else 0
            if (one.base, one.index, (one.displacement - extra) & width) != (base, index, displacement & width):
                wrong.append((code.hex(), found.mnemonic, found.op_str, "address", one))
            elif opcode == 0x0F and {0x66, 0xF2, 0xF3} & {*prefixes}:
                continue  # capstone shows the sizes of another mandatory prefix
            elif one.size != explicit[0].size and not found.mnemonic.startswith(SIZES_NOT_COMPARED):
                wrong.append((code.hex(), found.mnemonic, found.op_str, "size", explicit[0].size, one.size))
    assert compared > STREAMS // 3
    assert wrong == []
