"""Undefined flags are those of the SDM's table A-2 (vol. 1) and of "Flags Affected" (vol. 2), a row an instruction."""

from __future__ import annotations

import pytest

from emu.x86.state import CpuState
from emu.x86.statediff import differences
from emu.x86.undefined import AF, ALL, CF, OF, PF, SF, ZF, undefined_flags

#: (bytes, bits of code, CL, undefined)
ROWS = {
    "add eax, ebx": ("01d8", 32, 0, 0),
    "cmp al, 5": ("3c05", 16, 0, 0),
    "and eax, ebx": ("21d8", 32, 0, AF),
    "or al, 1": ("0c01", 16, 0, AF),
    "xor [bx], ax": ("3107", 16, 0, AF),
    "test al, 1": ("a801", 16, 0, AF),
    "test ecx, ecx": ("85c9", 32, 0, AF),
    "and byte [bx], 1": ("802701", 16, 0, AF),
    "add byte [bx], 1": ("800701", 16, 0, 0),
    "cmp byte [bx], 1": ("803f01", 16, 0, 0),
    "aaa": ("37", 16, 0, OF | SF | ZF | PF),
    "das": ("2f", 16, 0, OF),
    "aam": ("d40a", 16, 0, OF | AF | CF),
    "mul bx": ("f7e3", 16, 0, SF | ZF | AF | PF),
    "imul eax, ebx": ("0fafc3", 32, 0, SF | ZF | AF | PF),
    "imul ax, bx, 3": ("6bc303", 16, 0, SF | ZF | AF | PF),
    "div bx": ("f7f3", 16, 0, ALL),
    "not bx": ("f7d3", 16, 0, 0),
    "neg bx": ("f7db", 16, 0, 0),
    "test bl, 3": ("f6c303", 16, 0, AF),
    "shl ax, 1": ("d1e0", 16, 0, AF),
    "shl ax, 3": ("c1e003", 16, 0, AF | OF),
    "shl ax, 0": ("c1e000", 16, 0, 0),
    "shl ax, 32, masked to 0": ("c1e020", 16, 0, 0),
    "shl al, 9": ("c0e009", 16, 0, AF | OF | CF),
    "shl al, 7": ("c0e007", 16, 0, AF | OF),
    "shl al, 8": ("c0e008", 16, 0, AF | OF | CF),
    "shr ax, cl = 15": ("d3e8", 16, 15, AF | OF),
    "shr ax, cl = 16": ("d3e8", 16, 16, AF | OF | CF),
    "sar al, 9": ("c0f809", 16, 0, AF | OF),
    "shr ax, cl = 17": ("d3e8", 16, 17, AF | OF | CF),
    "shr eax, cl = 17": ("66d3e8", 16, 17, AF | OF),
    "shr [bp + si + 1234h], 3": ("c1aa341203", 16, 0, AF | OF),
    "shl dword [esp + 8], 3": ("c164240803", 32, 0, AF | OF),
    "rol ax, 1": ("d1c0", 16, 0, 0),
    "rcl ax, 3": ("c1d003", 16, 0, OF),
    "shld eax, ebx, 3": ("0fa4d803", 32, 0, AF | OF),
    "shld ax, bx, 17": ("0fa4d811", 16, 0, ALL),
    "shld ax, bx, 16": ("0fa4d810", 16, 0, AF | OF),
    "shrd eax, ebx, cl = 1": ("0fadd8", 32, 1, AF),
    "bt ax, bx": ("0fa3d8", 16, 0, OF | SF | AF | PF),
    "bts word [bx], 3": ("0fba2f03", 16, 0, OF | SF | AF | PF),
    "bsf eax, ebx": ("0fbcc3", 32, 0, CF | OF | SF | AF | PF),
    "bsr eax, ebx": ("0fbdc3", 32, 0, CF | OF | SF | AF | PF),
    "tzcnt cx, bx": ("f30fbccb", 16, 0, OF | SF | AF | PF),
    "tzcnt ecx, ebx in 16-bit code": ("66f30fbccb", 16, 0, OF | SF | AF | PF),
    "lzcnt rcx, rbx": ("f3480fbdcb", 64, 0, OF | SF | AF | PF),
    "popcnt ecx, ebx": ("f30fb8cb", 32, 0, 0),
    "shl rax, 40": ("48c1e028", 64, 0, AF | OF),
    "mov eax, ebx": ("89d8", 32, 0, 0),
    "a prefix and nothing": ("66", 32, 0, 0),
    "nothing": ("", 32, 0, 0),
}


@pytest.mark.parametrize(("code", "bits", "cl", "expected"), ROWS.values(), ids=ROWS)
def test_the_flags_are_those_of_the_table(code: str, bits: int, cl: int, expected: int) -> None:
    assert undefined_flags(bytes.fromhex(code), bits, cl) == expected


def test_equal_states_do_not_differ() -> None:
    assert list(differences(CpuState(), CpuState())) == []


def test_every_part_of_a_state_is_named_where_it_differs() -> None:
    one, other = CpuState(), CpuState()
    other.regs[3], other.ss.base, other.gdtr.limit, other.msrs[0x10] = 5, 0x12340, 0x27, 9
    other.fpu.xmm[2], other.dr[7], other.shadow = 1 << 100, 0x401, True
    assert list(differences(one, other)) == [
        ("rbx", 0, 5), ("ss.base", 0, 0x12340), ("gdtr.limit", 0xFFFF, 0x27), ("dr7", 0x400, 0x401),
        ("msr 0x10", 0, 9), ("fpu.xmm2", 0, 1 << 100), ("shadow", 0, 1),
    ]  # fmt: skip
