"""Stops at events that `v2e catch` sets, in a real gdb with the helper."""

from __future__ import annotations

import re

import pytest

from machines import protected, rom_text
from repl.harness import Gdb

#: 32-bit code that calls the same two instructions at physical 8010h by turns through linear 400010h and by 8010h
#: itself, and behind them writes to physical 8020h the same way.
PAGED = rom_text(
    protected(
        "dword 0x08:0xf0000+flat",
        """
        dw 0xffff, 0, 0x9a00, 0x00cf          ; 08: code32, flat
        dw 0xffff, 0, 0x9200, 0x00cf          ; 10: data32, flat
        """,
    )
    + """
    bits 32
    flat:
        mov ax, 0x10
        mov ss, ax
        mov ds, ax
        mov es, ax
        mov edi, 0x11000                      ; the first 4 MiB as they are
        mov eax, 3
        mov ecx, 1024
    fill:
        stosd
        add eax, 0x1000
        loop fill
        mov dword [0x12000], 0x8003           ; 400000h
        mov dword [0x10000], 0x11003
        mov dword [0x10004], 0x12003
        mov dword [0x8010], 0x00c39090        ; NOP, NOP, RET
        mov eax, 0x10000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov ebx, 0x400000
    again:
        lea eax, [ebx + 0x10]
        call eax
        inc dword [ebx + 0x20]
        xor ebx, 0x408000
        jmp again
"""
)
paged = pytest.mark.boot(firmware=PAGED)


@paged
def test_execution_at_a_physical_address_stops_whatever_linear_address_leads_there(helped: Gdb) -> None:
    helped.cmd("v2e catch physical 0x8011")
    for linear in (0x400011, 0x8011, 0x400011):
        assert "execution at physical 0x8011" in helped.cmd("continue")
        assert helped.value("$pc") == linear
        assert "nop" in helped.cmd("x/i $pc")


@pytest.mark.slow
@paged
def test_accesses_to_physical_memory_stop_behind_them_with_a_length_and_their_kind(helped: Gdb) -> None:
    helped.cmd("v2e catch physical 0x8020 4 write")
    for value, linear in ((1, 0x400020), (2, 0x8020)):
        text = helped.cmd("continue")
        assert re.search(rf"wrote {value:#x} \(4 bytes\) at physical 0x8020", text), text
        assert helped.value("$ebx") + 0x20 == linear
        assert "xor" in helped.cmd("x/i $pc")
