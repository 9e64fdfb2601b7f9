; A boot sector that asks the BIOS for a key again and again: the CPU halts in the BIOS.
        org 0x7C00
        bits 16
next:   xor ax, ax
        int 0x16
        jmp next
        times 510 - ($ - $$) db 0
        dw 0xAA55
