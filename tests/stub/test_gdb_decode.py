"""Instruction lengths and operands of the gdb helper's decoder, against capstone."""

from __future__ import annotations

import random

import capstone
import pytest
from capstone import x86

from stub.gdb.decode import decode

#: UD0 and UD1 have a ModR/M byte (SDM vol. 2B, "UD"), which capstone leaves away; the others are AMD's alone.
OTHERWISE = {"ud0", "ud1", "extrq", "insertq"}


def streams(seed: int, count: int) -> list[bytes]:
    """Half uniform bytes, half with an opcode of each first byte and prefixes."""
    source = random.Random(seed)
    prefixes = (b"", b"\x66", b"\x67", b"\x66\x67", b"\x2e", b"\x66\x0f", b"\x0f")
    return [source.choice(prefixes) + source.randbytes(16) for _ in range(count)]


@pytest.mark.slow_variants
@pytest.mark.parametrize(("wide", "mode"), [(False, capstone.CS_MODE_16), (True, capstone.CS_MODE_32)])
def test_lengths_are_capstone_s(wide: bool, mode: int) -> None:
    oracle = capstone.Cs(capstone.CS_ARCH_X86, mode)
    compared = 0
    for code in streams(5, 20000):
        known = next(oracle.disasm(code, 0, 1), None)
        ours = decode(code, wide)
        if known is None or ours is None or known.mnemonic in OTHERWISE:
            continue
        assert ours.length == known.size, (code.hex(), known.mnemonic, known.op_str)
        compared += 1
    assert compared > 12000


@pytest.mark.slow_variants
@pytest.mark.parametrize(("wide", "mode"), [(False, capstone.CS_MODE_16), (True, capstone.CS_MODE_32)])
def test_what_capstone_decodes_is_decoded(wide: bool, mode: int) -> None:
    oracle = capstone.Cs(capstone.CS_ARCH_X86, mode)
    missed = set()
    for code in streams(6, 20000):
        known = next(oracle.disasm(code, 0, 1), None)
        if known is not None and decode(code, wide) is None:
            missed.add(known.mnemonic)
    # VEX-encoded ones and VIA's PadLock, which need an operating system or a VIA.
    assert {name for name in missed if name[0] not in "vkx"} == set()


@pytest.mark.slow_variants
@pytest.mark.parametrize(("wide", "mode"), [(False, capstone.CS_MODE_16), (True, capstone.CS_MODE_32)])
def test_memory_operands_are_capstone_s(wide: bool, mode: int) -> None:
    oracle = capstone.Cs(capstone.CS_ARCH_X86, mode)
    oracle.detail = True
    short = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    names = {16: short, 32: tuple("e" + name for name in short)}
    compared = 0
    source = random.Random(7)
    for _ in range(4000):
        code = source.choice((b"", b"\x67", b"\x66")) + b"\x8b" + source.randbytes(12)
        ours = decode(code, wide)
        known = next(oracle.disasm(code, 0, 1), None)
        if ours is None or known is None or not ours.is_memory:
            continue
        operand = next(o for o in known.operands if o.type == x86.X86_OP_MEM)
        row = names[ours.address * 8]
        base = known.reg_name(operand.mem.base) if operand.mem.base else None
        index = known.reg_name(operand.mem.index) if operand.mem.index else None
        index = None if index in ("eiz", "riz") else index
        assert (None if ours.base is None else row[ours.base]) == base
        assert (None if ours.index is None else row[ours.index]) == index
        mask = (1 << 8 * ours.address) - 1
        assert ours.displacement & mask == operand.mem.disp & mask
        assert index is None or ours.scale == operand.mem.scale
        compared += 1
    assert compared > 2000
