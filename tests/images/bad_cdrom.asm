; A CD whose host fails, as the guest sees it: packets to the second channel's device 0. Prints status and error, and
; the sense key with its code and qualifier.
%define BASE 0x170
%define CONTROL 0x376
%include "probe.inc"
%include "ata.inc"

%macro PACKET 1-*                       ; twelve bytes; blocks of up to 2 KiB
        OUTB BASE + 6, 0xA0
        OUTB BASE + 1, 0
        OUTB BASE + 4, 0
        OUTB BASE + 5, 8
        COMMAND 0xA0
        mov si, %%bytes
        call packet
        jmp %%end
%%bytes: db %1
%%end:
%endmacro
%macro SENSE 0
        PACKET {3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0}
        call sense
%endmacro

        OUTB CONTROL, 2
        CHECK 'attention'                       ; since power-on
        PACKET {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
        RESULT
        SENSE
        CHECK 'ready'
        PACKET {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
        RESULT
        CHECK 'read'                            ; frames 3 and 4
        PACKET {0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0}
        call frame
        call frame
        RESULT
        SENSE
        CHECK 'beyond-end'
        PACKET {0x28, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0}
        RESULT
        SENSE
        CHECK 'reads-on'
        PACKET {0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}
        call frame
        RESULT

        PROBE_DONE

packet: mov cx, 6
        mov dx, BASE
.next:  mov ax, [cs:si]
        add si, 2
        out dx, ax
        loop .next
        jmp not_busy
frame:                                  ; a block of 2 KiB; its first byte
        call drq
        jz .end
        mov di, BUFFER
        mov cx, 1024
        mov dx, BASE
        rep insw
        mov al, [BUFFER]
        call hex2_16
        jmp not_busy
.end:   ret
sense:
        mov di, BUFFER
        mov cx, 9
        mov dx, BASE
        rep insw
        mov al, '/'
        out 0xE9, al
        mov al, [BUFFER + 2]
        call hex2_16
        mov al, [BUFFER + 12]
        call hex2_16
        mov al, [BUFFER + 13]
        call hex2_16
        jmp not_busy

        ATA_ROUTINES
        RESET_VECTOR start
