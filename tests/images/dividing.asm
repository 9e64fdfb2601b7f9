; A boot sector that divides by zero: #DE is a fault, and a BIOS's handler of vector 0 returns to the DIV.
; Nothing but the count of faults tells it from a guest that works: v2e run dividing.bin --limit 600000 (status 6).
bits 16
org 0x7C00
        xor ax, ax
        xor cx, cx
again:  div cx
        jmp again
        times 510 - ($ - $$) db 0
        dw 0xAA55
