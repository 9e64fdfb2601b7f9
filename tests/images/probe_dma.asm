; The 8237 pair and its page registers asked by a guest: register pairs and their flip-flop, status, master clear, and
; memory to memory by a software request, which needs no device.
%include "probe.inc"

%macro WORD_OUT 2                       ; port, value: low byte first
        OUTB %1, (%2) & 0xFF
        OUTB %1, (%2) >> 8
%endmacro
%macro SHOW_WORD 1                      ; as it comes
        SHOWB %1
        SHOWB %1
%endmacro

        OUTB 0x0D, 0
        OUTB 0xDA, 0
        CHECK 'address-count'                   ; of each channel, in both controllers
%assign port 0
%rep 8
        WORD_OUT port, 0x1234 + 0x1111 * port
%assign port port + 1
%endrep
        OUTB 0x0C, 0
%assign port 0
%rep 8
        SHOW_WORD port
%assign port port + 1
%endrep
        CHECK 'address-count-16'
        OUTB 0xD8, 0
%assign port 0xC0
%rep 8
        WORD_OUT port, 0x1234 + 0x101 * port
%assign port port + 2
%endrep
        OUTB 0xD8, 0
%assign port 0xC0
%rep 8
        SHOW_WORD port
%assign port port + 2
%endrep
        CHECK 'flip-flop'                       ; cleared by its command, toggled by each access of any channel
        OUTB 0x0C, 0
        WORD_OUT 2, 0xABCD
        SHOWB 2
        OUTB 0x0C, 0
        SHOWB 2
        OUTB 4, 0x77
        SHOWB 2
        CHECK 'master-clear'                    ; clears the flip-flop, leaves addresses
        SHOWB 2
        OUTB 0x0D, 0
        SHOW_WORD 2
        SHOWB 0x08
        CHECK 'pages'
        OUTB 0x87, 0x11
        OUTB 0x83, 0x22
        OUTB 0x81, 0x33
        OUTB 0x82, 0x44
        OUTB 0x8B, 0x55
        OUTB 0x89, 0x66
        OUTB 0x8A, 0x77
        OUTB 0x8F, 0x88
        SHOWB 0x87
        SHOWB 0x83
        SHOWB 0x81
        SHOWB 0x82
        SHOWB 0x8B
        SHOWB 0x89
        SHOWB 0x8A
        SHOWB 0x8F
        CHECK 'request-shown'                   ; a software request of a masked controller
        OUTB 0x0D, 0
        OUTB 0x08, 4                            ; disabled
        OUTB 0x0B, 0x45
        OUTB 0x09, 5
        SHOWB 0x08
        OUTB 0x09, 1
        SHOWB 0x08
        CHECK 'mask-all'                        ; 0Fh, 0Eh, 0Ah; read as 82C37 and PIIX do
        OUTB 0x0D, 0
        SHOW_MASKED 0x0F, 0x0F
        OUTB 0x0E, 0
        SHOW_MASKED 0x0F, 0x0F
        OUTB 0x0A, 6
        SHOW_MASKED 0x0F, 0x0F
        OUTB 0x0F, 0x05
        SHOW_MASKED 0x0F, 0x0F

        CHECK 'memory-to-memory'
        mov di, 0x2000
        mov cx, 64
        mov al, 0xA0
.fill:  stosb
        inc al
        loop .fill
        call transfer
        mov al, [0x3000]
        call hex2_16
        mov al, [0x3010]
        call hex2_16
        mov al, [0x3011]
        call hex2_16
        CHECK 'memory-to-memory-status'         ; terminal count of channel 1, cleared by reading
        SHOWB 0x08
        SHOWB 0x08
        CHECK 'temporary'                       ; the last byte moved
        SHOWB 0x0D
        CHECK 'after-transfer'                  ; address behind, count FFFFh
        OUTB 0x0C, 0
        SHOW_WORD 2
        SHOW_WORD 3

        PROBE_DONE

transfer:                                       ; 17 bytes from 2000h to 3000h
        OUTB 0xDA, 0
        OUTB 0xD6, 0xC0                         ; channel 4 passes the first controller on
        OUTB 0xD4, 0
        OUTB 0x87, 0
        OUTB 0x83, 0
        OUTB 0x0D, 0
        OUTB 0x08, 1
        OUTB 0x0B, 0x88
        OUTB 0x0B, 0x85
        WORD_OUT 0, 0x2000
        WORD_OUT 1, 16
        WORD_OUT 2, 0x3000
        WORD_OUT 3, 16
        mov byte [0x3011], 0
        OUTB 0x09, 4
        PAUSE_US 100
        ret

        RESET_VECTOR start
