; A boot sector that makes the accesses of a table by itself, in flat 32-bit code with interrupts off, then writes 1 to DONE.
; An entry has four doublewords: what to do, an address, a value to write, and the result.
DONE    equ 0x0FF8
COUNT   equ 0x0FFC
TABLE   equ 0x1000
IDT     equ 0x3000
VECTOR  equ 0x61                ; the one interrupt that is expected
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        lgdt [gdtr]
        lidt [idtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:flat
        bits 32
flat:   mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7C00
        mov dword [IDT + VECTOR * 8], 8 << 16
        mov word [IDT + VECTOR * 8], taken
        mov dword [IDT + VECTOR * 8 + 4], 0x8E00
        mov esi, TABLE
next:   cmp dword [COUNT], 0
        je done
        dec dword [COUNT]
        mov ecx, [esi]
        mov edx, [esi + 4]
        mov eax, [esi + 8]
        call [does + ecx * 4]
        mov [esi + 12], eax
        add esi, 16
        jmp next
done:   mov dword [DONE], 1
        hlt
in8:    xor eax, eax
        in al, dx
        ret
out8:   out dx, al
        xor eax, eax
        ret
load:   mov eax, [edx]
        ret
store:  mov [edx], eax
        xor eax, eax
        ret
deliver:                        ; what is due is taken: the result is its vector, or 0
        xor eax, eax
        sti
        nop
        nop
        cli
        ret
taken:  mov eax, VECTOR
        iret
        align 4
does:   dd in8, out8, load, store, deliver
gdt:    dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdtr:   dw 23
        dd gdt
idtr:   dw 256 * 8 - 1
        dd IDT
        times 510 - ($ - $$) db 0
        dw 0xAA55
