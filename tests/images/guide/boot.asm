; The boot sector of docs/gdb.md: reads a sector with INT 13h and prints what is in it.
        bits    16
        section .text
        global  start
start:
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        call    load
        mov     si, 0x8000
        call    print
stop:
        hlt
        jmp     stop

load:                           ; one sector to 0:8000
        mov     ax, 0x0201
        mov     bx, 0x8000
        mov     cx, 2
        mov     dx, 0x80
        int     0x13
loaded:
        ret

print:                          ; the text at DS:SI
        lodsb
        test    al, al
        jz      .end
        mov     ah, 0x0e
        mov     bx, 7
        int     0x10
        jmp     print
.end:
        ret

        times 510-($-$$) db 0
        dw      0xaa55
message:
        db      "hello from sector 2", 0
        times 1024-($-$$) db 0
