; Code of every plain kind to step through, then a far jump with another base and 32-bit code.
        org 0x7C00
        bits 16
        xor ax, ax
        mov ss, ax
        mov sp, 0x7C00
        mov cx, 3
again:  inc ax
        loop again
        push ax
        pop bx
        call near_
        jmp 0x7C0:there - 0x7C00
near_:  add bx, 5
        ret
        align 16
there:  mov dx, cs
        mov ds, dx
        lgdt [cs:table - 0x7C00]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:flat
        bits 32
flat:   mov ecx, 0x12345678
        mov eax, 0xFFFFFFFF
        add eax, ecx
        jmp $
        align 8
gdt:    dq 0, 0x00CF9B000000FFFF
table:  dw 15
        dd gdt
        times 510 - ($ - $$) db 0
        dw 0xAA55
