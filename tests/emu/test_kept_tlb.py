"""What is behind an address while protected mode and paging come and go: the helper keeps the TLB over changes of CR0
that it does not depend on, and no others."""

from __future__ import annotations

import struct

import pytest

from reaching import run_reaching
from run_loops import needs_helper

TURNS = 3
#: With paging linear 5000h is physical 6000h, all else is as without. What is read at 5000h behind each change of CR0
#: is stored from 1000h on.
BODY = f"""
    xor ax, ax
    mov ds, ax
    mov es, ax
    cld
    mov dword [0x5000], 0x55555555
    mov dword [0x6000], 0x66666666
    mov di, 0x3000
    mov eax, 3
    mov cx, 1024
fill:
    stosd
    add eax, 0x1000
    loop fill
    mov dword [0x3000 + 5 * 4], 0x6003
    mov dword [0x2000], 0x3003
    mov eax, 0x2000
    mov cr3, eax
    mov di, 0x1000
    mov bl, {TURNS}
    mov edx, cr0
again:
    mov eax, edx
    or eax, 1
    call change             ; PE
    or eax, 0x10000
    call change             ; and WP
    or eax, 0x80000000
    call change             ; and PG
    and eax, ~0x10000
    call change
    and eax, 0x7fffffff
    call change
    and eax, ~1
    call change
    dec bl
    jnz again
    mov al, 0
    out 0xf4, al
    hlt
change:
    mov cr0, eax
    mov esi, eax
    mov eax, [0x5000]
    stosd
    mov eax, esi
    ret
"""


@needs_helper
@pytest.mark.parametrize(("loop", "length"), [("fast", None), ("fast", 1), ("fast", 7), ("gate", None)])
def test_paging_is_seen_with_the_instruction_that_turns_it_on_or_off(
    monkeypatch: pytest.MonkeyPatch, loop: str, length: int | None
) -> None:
    made, _ = run_reaching(monkeypatch, loop, "mov ax, 0x7000\nmov ss, ax\nmov sp, 0x1000\n" + BODY, slice=length)
    without, paged = 0x55555555, 0x66666666
    turn = (without, without, paged, paged, without, without)
    assert struct.unpack(f"<{6 * TURNS}I", made.machine.memory.read(0x1000, 24 * TURNS)) == turn * TURNS
