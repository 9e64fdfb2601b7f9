; Counts timer interrupts of the machine's own 8254 and 8259 up to 20, telling each at COM1, then ends by the debug exit.
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [0x600], ax
        mov word [8 * 4], tick
        mov [8 * 4 + 2], ax
        mov dx, 0x3FB           ; 16550: 8 bits
        mov al, 3
        out dx, al
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
        cmp word [0x600], 20
        jb again
        cli
        mov dx, 0x3F8
        mov al, '.'
        out dx, al
        mov al, 3
        out 0xF4, al
        jmp $
tick:   push ax
        push dx
        inc word [0x600]
        mov al, [0x600]
        add al, 'a' - 1
        mov dx, 0x3F8
        out dx, al
        mov al, 0x20
        out 0x20, al
        pop dx
        pop ax
        iret
        times 510 - ($ - $$) db 0
        dw 0xAA55
