; A boot sector that tells COM1 a line for each PER ticks of the timer, "NN hhhh", with a number that follows from the one
; of the line before, LINES lines and then "end". What it says is the same wherever it is interrupted and continued.
; It waits for the transmitter as PC software does, so COM1 may be anybody's. When it has said FIRST lines it waits, its
; timer ticking on, until LIMIT says that there may be more: who moves it meanwhile may be slow.
LINES   equ 48
PER     equ 4
TICKS   equ 0x600
VALUE   equ 0x604
LIMIT   equ 0x606
FIRST   equ 24
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov [TICKS], ax
        mov word [VALUE], 1
        mov word [LIMIT], FIRST
        mov dx, 0x3FB           ; 16550: 8 bits, no parity
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
        mov al, 0x34            ; 8254: counter 0, mode 2, 29830: 40 Hz
        out 0x43, al
        mov al, 29830 & 0xFF
        out 0x40, al
        mov al, 29830 >> 8
        out 0x40, al
        sti
        xor bp, bp              ; lines so far
line:   mov ax, bp
        inc ax
        mov bl, PER
        mul bl
wait_:  hlt
        cmp [TICKS], ax
        jb wait_
        cmp bp, [LIMIT]
        jae wait_
        mov ax, [VALUE]         ; the next of a linear congruential series
        mov dx, 25173
        mul dx
        add ax, 13849
        mov [VALUE], ax
        mov dx, bp
        mov cl, 8
        shl dx, cl
        mov cx, 2
        call hex
        mov al, ' '
        call put
        mov dx, [VALUE]
        mov cx, 4
        call hex
        mov al, 10
        call put
        inc bp
        cmp bp, LINES
        jb line
        mov al, 'e'
        call put
        mov al, 'n'
        call put
        mov al, 'd'
        call put
        mov al, 10
        call put
        cli
        hlt
hex:    rol dx, 4               ; CX digits from the top of DX
        mov al, dl
        and al, 15
        cmp al, 10
        sbb al, 0x69
        das
        call put
        loop hex
        ret
put:    push dx
        mov ah, al
.busy:  mov dx, 0x3FD
        in al, dx
        test al, 0x20           ; the transmitter's holding register is empty
        jz .busy
        mov dx, 0x3F8
        mov al, ah
        out dx, al
        pop dx
        ret
tick:   push ax
        inc word [TICKS]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
        times 510 - ($ - $$) db 0
        dw 0xAA55
