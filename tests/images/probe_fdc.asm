; The 82077 asked by a guest: reset, registers, invalid commands, seeks, reads and writes through the 8237, errors,
; format.
%include "probe.inc"
%include "probe_fdc.inc"

        FDC_SETUP
        CHECK 'reset'                           ; four polls, then an invalid command
        FDC_RESET
        COMMAND 0x08
        RESULTS
        CHECK 'registers'                       ; DOR
        SHOWB 0x3F2
        CHECK 'version'
        COMMAND 0x10
        RESULTS
        CHECK 'invalid'
        COMMAND 0x1F
        RESULTS
        CHECK 'status-in-phases'                ; command, in the middle of one, result
        SHOWB 0x3F4
        COMMAND 0x04
        SHOWB 0x3F4
        COMMAND 0x00
        WAIT_BITS 0x3F4, 0xC0, 0xC0
        SHOWB 0x3F4
        INB 0x3F5
        SHOWB 0x3F4
        CHECK 'dumpreg'                         ; behind SPECIFY, CONFIGURE
        COMMAND 0x03, 0xAF, 0x04
        COMMAND 0x13, 0, 0x17, 0
        COMMAND 0x0E
        RESULTS
        CHECK 'lock'
        COMMAND 0x94
        RESULTS
        COMMAND 0x0E
        RESULTS
        COMMAND 0x14
        RESULTS
        CHECK 'perpendicular'                   ; OW alone changes the drives' bits
        COMMAND 0x12, 0x84
        COMMAND 0x12, 0x08
        COMMAND 0x0E
        RESULTS
        COMMAND 0x12, 0x80

        CHECK 'change-line'                     ; set until the head steps
        SHOW_MASKED 0x3F7, 0x80
        COMMAND 0x07, 0
        INTERRUPT
        SEEK 1
        SHOW_MASKED 0x3F7, 0x80
        CHECK 'recalibrate'
        COMMAND 0x07, 0
        INTERRUPT
        CHECK 'sense-drive'
        COMMAND 0x04, 0
        RESULTS
        COMMAND 0x04, 4
        RESULTS
        CHECK 'seek'
        SEEK 5
        COMMAND 0x04, 0
        RESULTS
        CHECK 'sense-interrupt-again'
        COMMAND 0x08
        RESULTS

        CHECK 'read-id'
        COMMAND 0x07, 0
        INTERRUPT
        COMMAND 0x4A, 0
        call await_irq
        WAIT_BITS 0x3F4, 0xC0, 0xC0
        call skip_results
        CHECK 'read'                            ; one sector by its EOT
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 3, 2, 3, 0x1B, 0xFF
        SHOW_SECTOR 0
        CHECK 'read-terminal-count'             ; three of eighteen, by TC
        DMA 0x46, 1536
        TRANSFER READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF
        SHOW_SECTOR 0
        SHOW_SECTOR 1024
        CHECK 'read-past-eot'                   ; more wanted than there is: EN
        DMA 0x46, 1024
        TRANSFER READ, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF
        SHOW_SECTOR 0
        CHECK 'read-multi-track'                ; head 0's last, head 1's first
        DMA 0x46, 1024
        TRANSFER 0xC6, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF
        SHOW_SECTOR 0
        SHOW_SECTOR 512
        CHECK 'read-no-sector'                  ; ND
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 19, 2, 19, 0x1B, 0xFF
        CHECK 'read-wrong-cylinder'             ; ND and WC
        DMA 0x46, 512
        TRANSFER READ, 0, 7, 0, 1, 2, 1, 0x1B, 0xFF
        CHECK 'read-wrong-rate'                 ; nothing is found at 250 kbit/s
        OUTB 0x3F7, 2
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 1, 2, 1, 0x1B, 0xFF
        OUTB 0x3F7, 0
        CHECK 'write'
        mov word [BUFFER], 0x3412
        DMA 0x4A, 512
        TRANSFER 0x45, 0, 0, 0, 4, 2, 4, 0x1B, 0xFF
        mov word [BUFFER], 0
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 4, 2, 4, 0x1B, 0xFF
        SHOW_SECTOR 0
        CHECK 'implied-seek'                    ; by CONFIGURE
        COMMAND 0x13, 0, 0x57, 0
        DMA 0x46, 512
        TRANSFER READ, 0, 9, 0, 1, 2, 1, 0x1B, 0xFF
        SHOW_SECTOR 0
        COMMAND 0x13, 0, 0x17, 0
        CHECK 'format'                          ; track 9 head 1: 18 sectors filled with E5h
        mov di, BUFFER
        mov cx, 18
        mov ah, 1
.ids:   mov byte [di], 9
        mov byte [di + 1], 1
        mov [di + 2], ah
        mov byte [di + 3], 2
        inc ah
        add di, 4
        loop .ids
        DMA 0x4A, 72
        TRANSFER 0x4D, 4, 2, 18, 0x54, 0xE5
        DMA 0x46, 512
        TRANSFER READ, 4, 9, 1, 18, 2, 18, 0x1B, 0xFF
        SHOW_SECTOR 0
        CHECK 'no-drive'                        ; drive 1 is not there: RECALIBRATE finds no track 0
        OUTB 0x3F2, 0x2D
        COMMAND 0x07, 1
        INTERRUPT
        OUTB 0x3F2, 0x1C
        CHECK 'data-rate-reset'                 ; by DSR, which clears itself
        OUTB 0x3F4, 0x80
        call await_irq
        COMMAND 0x08
        RESULTS
        CHECK 'dor-in-reset'
        OUTB 0x3F2, 0x00
        SHOWB 0x3F2
        SHOW_MASKED 0x3F4, 0x80

        PROBE_DONE

        FDC_ROUTINES
        RESET_VECTOR start
