; Asks INT 10h for what can be compared (bios_probe.inc): registers, data area and DAC of each mode, cursor and
; teletype, scrolling, pages, pixels, palettes, VBE.
;
; Run:  nasm -f bin -I tests/images/ -o probe.img tests/images/bios_video.asm, padded to 10 MiB; see bios_probe.asm
bits 16
org 0x7C00
SECTORS equ 16
%include "bios_probe.inc"

buffer  equ 0xC000

; Print the bytes of an indexed group of registers: index port, first, end.
%macro GROUP 3
        mov dx, %1
        mov bx, %2 | %3 << 8
        call group
%endmacro
group:  mov al, ' '
        out 0xE9, al
.next:  mov al, bl
        out dx, al
        inc dx
        in al, dx
        dec dx
        call hex2_16
        inc bl
        cmp bl, bh
        jne .next
        ret

; Print a rectangle of the text screen: AL first row, AH end, BL columns.
rows:   push ds
        push ax
        mov ax, 0xB800
        mov ds, ax
        pop ax
.row:   push ax
        mov ah, 160
        mul ah
        mov si, ax
        mov al, 10
        out 0xE9, al
        mov cl, bl
        mov ch, 0
        shl cx, 1
        call dump
        pop ax
        inc al
        cmp al, ah
        jne .row
        pop ds
        ret

probes: xor ax, ax
        mov es, ax
        mov byte [number], 0
.mode:  mov ah, 0
        mov al, [number]
        int 0x10
        call mark16
        db 10, 'mode ', 0
        mov al, [number]
        call hex2_16
        mov dx, 0x3CC
        in al, dx
        and al, 0xEF                    ; bit 4 is not used
        call mark16
        db ' ', 0
        call hex2_16
        GROUP 0x3C4, 1, 5
        mov dx, [0x463]
        mov bx, 0 | 0x19 << 8
        call group
        GROUP 0x3CE, 0, 9
        mov al, ' '
        out 0xE9, al
        mov cx, 0
.attribute:
        mov dx, [0x463]
        add dx, 6
        in al, dx
        mov dx, 0x3C0
        mov al, cl
        out dx, al
        inc dx
        in al, dx
        call hex2_16
        inc cx
        cmp cx, 0x15
        jne .attribute
        mov dx, [0x463]
        add dx, 6
        in al, dx
        mov dx, 0x3C0
        mov al, 0x20
        out dx, al
        DUMP '  data', 0x449, 26
        DUMP '  more', 0x484, 1
        mov si, 0x485
        mov cx, 3
        call dump
        mov ah, 0x0F
        ASK 0x10, '  is', A | B
        mov dx, 0x3C7                   ; the DAC: a sum, each byte at its place
        mov al, 0
        out dx, al
        mov dx, 0x3C9
        mov cx, 248 * 3
        xor bx, bx
.dac:   in al, dx
        rol bx, 1
        add bl, al
        adc bh, 0
        loop .dac
        call told
        db B, '  DAC', 0
.next:  inc byte [number]
        cmp byte [number], 7
        je .next                        ; monochrome is not SeaVGABIOS's
        cmp byte [number], 8
        jne .not_8
        mov byte [number], 0x0D
.not_8: cmp byte [number], 0x0F
        je .next
        cmp byte [number], 0x14
        jne .mode

        ; -- text
        mov ax, 3
        int 0x10
        mov ax, 0x0100
        mov cx, 0x0607
        int 0x10
        call mark16
        db 10, 'cursor lines', 0
        GROUP 0x3D4, 0x0A, 0x0C
        mov ah, 1
        mov cx, 0x0407
        int 0x10
        GROUP 0x3D4, 0x0A, 0x0C
        mov ah, 1
        mov cx, 0x2000
        int 0x10
        GROUP 0x3D4, 0x0A, 0x0C
        mov ah, 1
        mov cx, 0x0607
        int 0x10
        mov ah, 2
        mov bh, 0
        mov dx, 0x184E
        int 0x10
        call mark16
        db 10, 'cursor at', 0
        GROUP 0x3D4, 0x0E, 0x10
        mov ah, 3
        mov bh, 0
        ASK 0x10, 'cursor', C | D
        mov ah, 9
        mov al, 'x'
        mov bx, 0x001E
        mov cx, 3
        int 0x10
        mov ah, 8
        mov bh, 0
        ASK 0x10, 'character', A
        mov ah, 2
        mov bh, 0
        mov dx, 0x1700
        int 0x10
        mov ah, 0x0A
        mov al, 'y'
        mov bx, 0x0000
        mov cx, 5
        int 0x10
        mov si, text
        call type
        mov ah, 3
        mov bh, 0
        ASK 0x10, 'after typing', D
        mov ax, 0x1915
        mov bl, 12
        call rows
        mov ax, 0x0602                  ; scroll a window
        mov bh, 0x2F
        mov cx, 0x1501
        mov dx, 0x1804
        int 0x10
        mov ax, 0x1915
        mov bl, 6
        call rows
        mov ax, 0x0701
        mov bh, 0x4F
        mov cx, 0x1500
        mov dx, 0x184F
        int 0x10
        mov ax, 0x1915
        mov bl, 6
        call rows
        mov ax, 0x0600
        mov bh, 0x07
        mov cx, 0
        mov dx, 0x184F
        int 0x10
        mov ax, 0x1301
        mov bx, 0x001E
        mov cx, 4
        mov dx, 0x0103
        mov bp, text
        int 0x10
        mov ax, 0x1303
        mov bx, 0
        mov cx, 2
        mov dx, 0x0203
        mov bp, cells
        int 0x10
        mov ax, 0x0301
        mov bl, 8
        call rows
        mov ah, 3
        mov bh, 0
        ASK 0x10, 'after a string', D
        mov ax, 0x0502
        int 0x10
        call mark16
        db 10, 'page 2', 0
        GROUP 0x3D4, 0x0C, 0x10
        DUMP 'page 2', 0x44E, 2
        mov ax, 0x0500
        int 0x10
        mov ax, 0x1112
        mov bl, 0
        int 0x10
        call mark16
        db 10, '50 lines', 0
        GROUP 0x3D4, 0x07, 0x13
        DUMP '50 lines', 0x484, 3
        mov ax, 0x1114
        mov bl, 0
        int 0x10
        DUMP '25 lines', 0x484, 3
        mov ax, 0x1130
        mov bh, 6
        ASK 0x10, 'font', C | D
        push word 0
        pop es
        mov ax, 0x1A00
        ASK 0x10, 'display', A | B
        mov ah, 0x12
        mov bl, 0x10
        ASK 0x10, 'EGA', B | C
        mov ax, 0x1003
        mov bl, 0
        int 0x10
        mov ax, 0x1007
        mov bl, 0x10
        ASK 0x10, 'no blinking', B
        mov ax, 0x1000
        mov bx, 0x2A05
        int 0x10
        mov ax, 0x1007
        mov bl, 5
        ASK 0x10, 'palette', B
        mov ax, 0x1010
        mov bx, 5
        mov cx, 0x1122
        mov dx, 0x3300
        int 0x10
        mov ax, 0x1015
        mov bx, 5
        mov cx, 0
        mov dx, 0
        ASK 0x10, 'DAC', C | D
        mov ax, 0x101A
        ASK 0x10, 'DAC page', B
        mov ax, 0x7700
        ASK 0x10, 'function 77', A

        ; -- graphics
        mov byte [number], 4
.graphics:
        mov ah, 0
        mov al, [number]
        int 0x10
        call mark16
        db 10, 'graphics ', 0
        mov al, [number]
        call hex2_16
        mov ax, 0x0C03                  ; pixels
        mov bx, 0
        mov cx, 13
        mov dx, 21
        int 0x10
        mov ax, 0x0C82
        mov bx, 0
        mov cx, 13
        mov dx, 21
        int 0x10
        mov ah, 0x0D
        mov bx, 0
        mov cx, 13
        mov dx, 21
        int 0x10
        call hex2_16
        mov ah, 2                       ; a full block, and a second one over it
        mov bh, 0
        mov dx, 0x0305
        int 0x10
        mov ax, 0x09DB
        mov bx, 0x0002
        mov cx, 2
        int 0x10
        call corner
        mov ah, 8
        mov bh, 0
        ASK 0x10, ' character', A
        mov ax, 0x0EDB
        mov bx, 0x0001
        int 0x10
        mov ah, 3
        mov bh, 0
        ASK 0x10, ' cursor', D
        mov ax, 0x0601
        mov bh, 0
        mov cx, 0x0000
        mov dx, 0x1020
        int 0x10
        mov ah, 2
        mov bh, 0
        mov dx, 0x0206
        int 0x10
        call corner
.more:  inc byte [number]
        cmp byte [number], 7
        jne .not_7
        mov byte [number], 0x0D
.not_7: cmp byte [number], 0x0F
        je .more
        cmp byte [number], 0x11
        je .more
        cmp byte [number], 0x14
        jne .graphics

        ; -- VBE
        mov dword [buffer], 'VBE2'
        mov ax, 0x4F00
        mov di, buffer
        ASK 0x10, 'VBE', A
        DUMP 'VBE', buffer, 6
        DUMP 'VBE can', buffer + 10, 4
        mov si, vbe_modes
.vbe:   lodsw
        test ax, ax
        jz .vbe_end
        push si
        push ax
        mov cx, ax
        mov di, buffer
        mov ax, 0x4F01
        ASK 0x10, 'VBE mode', A | C
        DUMP ' attributes', buffer, 1
        DUMP ' window', buffer + 2, 8
        DUMP ' lines', buffer + 16, 6
        DUMP ' pixels', buffer + 24, 2
        DUMP ' model', buffer + 27, 1
        DUMP ' masks', buffer + 31, 8
        pop bx
        push bx
        or bx, 0x4000
        mov ax, 0x4F02
        ASK 0x10, 'VBE set', A
        mov ax, 0x4F03
        ASK 0x10, 'VBE current', A | B
        mov ax, 0x4F06
        mov bl, 1
        ASK 0x10, 'VBE line', A | B | C
        mov ax, 0x4F06
        mov bl, 0
        mov cx, 1024
        ASK 0x10, 'VBE longer line', A | B | C
        mov ax, 0x4F07
        mov bx, 0
        mov cx, 8
        mov dx, 16
        ASK 0x10, 'VBE start', A
        mov ax, 0x4F07
        mov bx, 1
        ASK 0x10, 'VBE start', A | B | C | D
        mov ax, 0x4F05
        mov bx, 0
        mov dx, 3
        ASK 0x10, 'VBE window', A
        mov ax, 0x4F05
        mov bx, 0x0100
        ASK 0x10, 'VBE window', A | D
        mov ax, 0x4F08
        mov bx, 1
        ASK 0x10, 'VBE DAC', A
        pop bx
        pop si
        jmp .vbe
.vbe_end:
        mov ax, 0x4F02
        mov bx, 0x0103
        ASK 0x10, 'VBE set banked', A
        mov ax, 0x4F05
        mov bx, 0
        mov dx, 3
        ASK 0x10, 'VBE window', A
        mov ax, 0x4F05
        mov bx, 0x0100
        ASK 0x10, 'VBE window', A | D
        mov ax, 0x4F03
        ASK 0x10, 'VBE current', A | B
        mov ax, 0x4F02
        mov bx, 0x0177
        ASK 0x10, 'VBE set 177', A
        mov ax, 0x4F02
        mov bx, 3
        ASK 0x10, 'VBE set 3', A
        mov ax, 0x4F03
        ASK 0x10, 'VBE current', A | B
        mov ax, 0x4F77
        ASK 0x10, 'VBE function 77', 0
        mov al, 0
        jmp finish16

; Print the colours of the pixels at the edges of the character at column 5, row 2 or 3.
corner: call mark16
        db ' ', 0
        mov di, corners
.next:  mov cx, [di]
        mov dx, [di + 2]
        test cx, cx
        jz .end
        add di, 4
        mov ah, 0x0D
        mov bh, 0
        push di
        int 0x10
        call hex2_16
        pop di
        jmp .next
.end:   ret
corners:
        dw 39, 24, 40, 24, 47, 31, 55, 31, 56, 31, 40, 16, 47, 23, 40, 42, 40, 48, 47, 63, 56, 63, 40, 32, 0

type:   lodsb
        test al, al
        jz .end
        mov ah, 0x0E
        mov bx, 0x0007
        int 0x10
        jmp type
.end:   ret
text:   db 'abcd', 13, 10, 'ef', 8, 'g', 7, 10, 'h', 0
cells:  db 'p', 0x1F, 'q', 0x2F
number: db 0
vbe_modes:
        dw 0x101, 0x103, 0x111, 0x112, 0x115, 0x118, 0x142, 0
        times 512 * (SECTORS + 1) - ($ - $$) db 0
