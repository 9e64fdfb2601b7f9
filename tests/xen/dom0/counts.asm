; Counts timer interrupts at 600h, on and on; between them it halts.
        org 0x7C00
        bits 16
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov al, 0x11            ; 8259: base 8, all but IRQ0 masked
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xFE
        out 0x21, al
        mov al, 0x34            ; 8254: counter 0, mode 2, 65536: 18.2 Hz
        out 0x43, al
        mov al, 0
        out 0x40, al
        out 0x40, al
        sti
again:  hlt
        inc dword [0x600]
        jmp again
tick:   times 4 nop             ; a test counts here
        mov al, 0x20
        out 0x20, al
        iret
        times 510 - ($ - $$) db 0
        dw 0xAA55
