; A boot sector that counts timer interrupts, 5 first, then has its interrupts off until GO is set, then up to 15.
COUNT   equ 0x500               ; ticks so far
LATE    equ 0x510               ; 1: interrupts are off
GO      equ 0x514
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov word [8 * 4], tick
        mov [8 * 4 + 2], ax
        mov [COUNT], ax
        mov [LATE], ax
        mov [GO], ax
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
        mov al, 0x8B            ; the clock: 2 Hz, of which nothing else is known
        out 0x70, al
        mov al, 0x02
        out 0x71, al
        mov al, 0x34            ; 8254: counter 0, mode 2, 100 Hz
        out 0x43, al
        mov ax, 11932
        out 0x40, al
        mov al, ah
        out 0x40, al
first:  sti
        hlt
        cli
        cmp word [COUNT], 5
        jb first
        inc word [LATE]
late:   cmp word [GO], 0
        je late
again:  sti
        hlt
        cli
        cmp word [COUNT], 15
        jb again
        mov al, 7
        out 0xF4, al
        hlt
tick:   push ax
        inc word [COUNT]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
        times 510-($-$$) db 0
        dw 0xAA55
