; A boot sector that counts timer interrupts, 50 a second, for ever.
COUNT   equ 0x600               ; ticks so far, a doubleword
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov dword [COUNT], 0
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
        mov al, 0x34            ; 8254: counter 0, mode 2, 23864: 50 Hz
        out 0x43, al
        mov al, 23864 & 0xFF
        out 0x40, al
        mov al, 23864 >> 8
        out 0x40, al
        sti
wait_:  hlt
        jmp wait_
tick:   push ax
        inc dword [COUNT]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
        times 510 - ($ - $$) db 0
        dw 0xAA55
