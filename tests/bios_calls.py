"""A boot sector that asks BIOS services from a table and prints what each leaves in the registers."""

from __future__ import annotations

from typing import NamedTuple

from asm import assemble


class Call(NamedTuple):
    """Registers before `INT number`; DS, ES, SI and DI are 0, 0, `BLOCK` and 0."""

    number: int
    ax: int
    bx: int = 0
    cx: int = 0
    dx: int = 0


class Answer(NamedTuple):
    """Registers after it; `carry` 0 or 1."""

    ax: int
    bx: int
    cx: int
    dx: int
    carry: int

    @property
    def ah(self) -> int:
        return self.ax >> 8


BLOCK = 0x600  #: where `block` of `sector` lies when the calls begin
_SECTOR = """
    bits 16
    org 0x7c00
    jmp 0:start
start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    sti
    cld
    mov si, block
    mov di, 0x600
    mov cx, end - block
    rep movsb
    mov bp, table
next:
    cmp bp, block
    je over
    mov al, [bp]
    mov [number + 1], al
    mov ax, [bp + 2]
    mov bx, [bp + 4]
    mov cx, [bp + 6]
    mov dx, [bp + 8]
    mov si, 0x600
    xor di, di
    push bp
number:
    int 0
    pop bp
    push word 0
    pop ds
    push word 0
    pop es
    pushf
    push dx
    push cx
    push bx
    push ax
    mov cx, 5
one:
    pop dx
    cmp cl, 1
    jne plain
    and dx, 1
plain:
    push cx
    mov cx, 4
digit:
    rol dx, 4
    mov al, dl
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das
    out 0xe9, al
    loop digit
    mov al, ' '
    out 0xe9, al
    pop cx
    loop one
    mov al, 10
    out 0xe9, al
    add bp, 10
    jmp next
over:
    mov al, 0
    out 0xf4, al
    hlt
table:
"""


def sector(calls: list[Call], block: bytes = b"") -> bytes:
    """512 bytes."""
    lines = [f"    dw {c.number}, {c.ax}, {c.bx}, {c.cx}, {c.dx}" for c in calls]
    data = "".join(f"    db {byte}\n" for byte in block)
    return assemble(_SECTOR + "\n".join(lines) + "\nblock:\n" + data + "end:\n times 510-($-$$) db 0\n dw 0xaa55\n")


def answers(printed: str) -> list[Answer]:
    """What the sector printed, whatever a firmware printed before."""
    lines = [line.split() for line in printed.splitlines()]
    return [
        Answer(*(int(word, 16) for word in line)) for line in lines if len(line) == 5 and {len(w) for w in line} == {4}
    ]
