; A hard disk that reads keys and the pointing device by the BIOS, and prints on port E9h what it is told: each keystroke
; (INT 16h, AH=10h) with the shift states (AH=12h) up to Esc, then the answers to the calls of INT 15h, AH=C2h, then the
; packets of the pointing device up to one with its right button.
;
; Run:  nasm -f bin -I tests/images/ -o input.img tests/images/bios_input.asm, padded to 10 MiB; see bios_probe.asm
bits 16
org 0x7C00
SECTORS equ 8
%include "bios_probe.inc"

probes: xor ax, ax
        mov es, ax
        mov word [0x1B * 4], break
        mov [0x1B * 4 + 2], cs
        mov word [0x05 * 4], print
        mov [0x05 * 4 + 2], cs
        call mark16
        db 10, 'keys', 0
key:    mov ah, 0x10
        int 0x16
        push ax
        mov ah, 0x12
        int 0x16
        mov bx, ax
        pop ax
        call told
        db A | B, 'key', 0
        cmp ax, 0x011B
        jne key

        mov bh, 3
        mov ax, 0xC205
        ASK 0x15, 'initialize', A | B | F
        mov ax, 0xC200
        mov bh, 1
        ASK 0x15, 'on without a handler', A | F
        mov ax, 0xC207
        mov bx, handler
        ASK 0x15, 'handler', F
        mov ax, 0xC204
        ASK 0x15, 'type', B | F
        mov ax, 0xC202
        mov bh, 5
        ASK 0x15, 'rate', F
        mov ax, 0xC203
        mov bh, 2
        ASK 0x15, 'resolution', F
        mov ax, 0xC206
        mov bh, 1
        ASK 0x15, 'scaling', F
        mov ax, 0xC209
        ASK 0x15, 'no such function', A | F
        mov ax, 0xC200
        mov bh, 1
        ASK 0x15, 'on', F
        mov ax, 0xC206
        mov bh, 0
        mov cx, 0
        mov dx, 0
        ASK 0x15, 'status', B | C | D | F
        sti
.wait:  hlt
        cmp byte [over], 0
        je .wait
        mov ax, 0xC200
        mov bh, 0
        ASK 0x15, 'off', F
        mov al, 0
        jmp finish16

handler:                                ; status, X, Y, Z are pushed
        push bp
        mov bp, sp
        push ax
        push bx
        push cx
        push di
        mov ax, [bp + 12]
        mov bx, [bp + 10]
        mov cx, [bp + 8]
        call told
        db A | B | C, 'packet', 0
        test al, 2
        jz .end
        mov byte [cs:over], 1
.end:   pop di
        pop cx
        pop bx
        pop ax
        pop bp
        retf
over:   db 0

break:  call told
        db 0, 'break', 0
        iret
print:  call told
        db 0, 'print screen', 0
        iret
        times 512 * (SECTORS + 1) - ($ - $$) db 0
