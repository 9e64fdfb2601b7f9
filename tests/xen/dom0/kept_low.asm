; A boot sector whose interrupts are off until GO is 2. At GO = 1 it has the clock ask for IRQ 8, which comes before
; IRQ 12, within half a second, when that has been acknowledged; LOG has the vectors as they were delivered.
LATE    equ 0x510               ; 1: interrupts are off, 2: the timer runs
GO      equ 0x514
LOG     equ 0x520               ; its length, then the vectors
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [LOG], al
        mov [LATE], ax
        mov [GO], ax
        mov di, 0x70 * 4
        mov bx, clock
        call vector
        mov di, 0x74 * 4
        mov bx, line12
        call vector
        mov al, 0x11            ; 8259: bases 8 and 70h
        out 0x20, al
        out 0xA0, al
        mov al, 8
        out 0x21, al
        mov al, 0x70
        out 0xA1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xA1, al
        mov al, [icw4]
        out 0x21, al
        out 0xA1, al
        mov al, 0xFB            ; all masked but IRQ 8 and 12
        out 0x21, al
        mov al, 0xEE
        out 0xA1, al
        mov ax, 0x028B          ; the clock: 2 Hz, no interrupts
        call write
        mov ax, 0x2F8A
        call write
        inc word [LATE]
        mov cx, 1
        call wait_
        mov al, 0x8C            ; the clock's periodic interrupt, the next one: what has been is forgotten
        out 0x70, al
        in al, 0x71
        mov ax, 0x428B
        call write
        inc word [LATE]
        mov cx, 2
        call wait_
again:  sti
        nop
        cli
        cmp byte [LOG], 2
        jb again
        mov al, 7
        out 0xF4, al
        hlt
wait_:  cmp [GO], cx
        jb wait_
        ret
vector: mov ax, bx
        stosw
        xor ax, ax
        stosw
        ret
write:  out 0x70, al
        mov al, ah
        out 0x71, al
        ret
clock:  push ax
        mov ax, 0x028B
        call write
        mov al, 0x8C
        out 0x70, al
        in al, 0x71
        mov al, 0x70
        jmp log
line12: push ax
        mov al, 0x74
log:    push bx
        inc byte [LOG]
        movzx bx, byte [LOG]
        mov [LOG + bx], al
        mov al, 0x20
        out 0xA0, al
        out 0x20, al
        pop bx
        pop ax
        iret
        times 509-($-$$) db 0
icw4:   db 1                    ; ICW4 of both, at 7DFDh
        dw 0xAA55
