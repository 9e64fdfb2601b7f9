; The 8259 pair asked by a guest: initialisation, masks, edge sense, poll, EOI of every kind, rotation, special
; mask, special fully nested and automatic EOI modes. Requests come from the 8254 (IRQ 0: OUT of mode 0 stays high),
; COM1 (IRQ 4: an empty transmitter), the 8042 (IRQ 1 and 12: bytes that D2h and D3h put into its buffer) and the clock
; (IRQ 8: its periodic flag), all by level, so each line is raised and lowered at will. Acknowledged by polls, or by
; the CPU into a log of vectors.
%include "probe.inc"

LOG     equ 0x600
LOGGED  equ 0x5F0                       ; bytes in the log

; ICW1 %1, base vectors 20h and 28h, ICW4 %2 of the master and %3 of the slave; all masked
%macro INIT_PICS 3
        OUTB 0x20, 0x11 | (%1)
        OUTB 0x21, 0x20
        OUTB 0x21, 4
        OUTB 0x21, %2
        OUTB 0xA0, 0x11 | (%1)
        OUTB 0xA1, 0x28
        OUTB 0xA1, 2
        OUTB 0xA1, %3
        OUTB 0x21, 0xFF
        OUTB 0xA1, 0xFF
%endmacro
%macro FRESH 0                          ; all lines low, the pair anew
        call lower_all
        INIT_PICS 0, 1, 1
%endmacro
%macro RAISE 1-*
%rep %0
        call raise_%1
%rotate 1
%endrep
%endmacro
%macro LOWER 1
        call lower_%1
%endmacro
%macro MASKS 2
        OUTB 0x21, %1
        OUTB 0xA1, %2
%endmacro
%macro SHOW_IRR 1                       ; 20h or A0h
        OUTB %1, 0x0A
        SHOWB %1
%endmacro
%macro SHOW_ISR 1
        OUTB %1, 0x0B
        SHOWB %1
%endmacro
%macro POLL 1
        OUTB %1, 0x0C
        SHOWB %1
%endmacro
%macro INTERRUPTS 0                     ; let them come, then show the vectors
        mov word [LOGGED], 0
        sti
        nop
        nop
        nop
        nop
        cli
        call show_log
%endmacro

        call handlers
        CHECK 'mask-readback'
        FRESH
        SHOWB 0x21
        SHOWB 0xA1
        MASKS 0x5A, 0xA5
        SHOWB 0x21
        SHOWB 0xA1
        CHECK 'icw1-clears-mask'
        OUTB 0x20, 0x11
        OUTB 0x21, 0x20
        OUTB 0x21, 4
        OUTB 0x21, 1
        SHOWB 0x21
        CHECK 'request-masked'
        FRESH
        RAISE 0, 4
        SHOW_IRR 0x20
        SHOW_ISR 0x20
        CHECK 'status-after-icw1'               ; IRR, whatever was selected before
        OUTB 0x20, 0x0B
        INIT_PICS 0, 1, 1
        LOWER 4
        RAISE 4
        SHOWB 0x20
        CHECK 'edge-reset-by-icw1'              ; a line that is high needs a new edge
        FRESH
        RAISE 0
        INIT_PICS 0, 1, 1
        SHOW_IRR 0x20
        LOWER 0
        RAISE 0
        SHOW_IRR 0x20
        CHECK 'request-withdrawn'               ; edge sense: the input must stay high until the acknowledge
        FRESH
        RAISE 0, 4
        LOWER 0
        SHOW_IRR 0x20
        CHECK 'slave-cascade'                   ; IR2 follows the slave's INT
        FRESH
        RAISE 8
        MASKS 0xFF, 0xFE
        SHOW_IRR 0x20
        SHOW_IRR 0xA0
        MASKS 0xFF, 0xFF
        SHOW_IRR 0x20

        CHECK 'poll-none'
        FRESH
        OUTB 0x20, 0x0C
        SHOW_MASKED 0x20, 0x80
        CHECK 'poll'
        FRESH
        RAISE 4
        MASKS 0, 0xFF
        POLL 0x20
        SHOW_ISR 0x20
        SHOW_IRR 0x20
        POLL 0x20                               ; nothing below what is in service
        CHECK 'poll-higher'
        RAISE 0
        POLL 0x20
        SHOW_ISR 0x20
        CHECK 'poll-masked'
        FRESH
        RAISE 0
        OUTB 0x20, 0x0C
        SHOW_MASKED 0x20, 0x80
        CHECK 'poll-by-odd-port'
        FRESH
        RAISE 4
        MASKS 0, 0xFF
        OUTB 0x20, 0x0C
        SHOWB 0x21
        SHOWB 0x21
        CHECK 'poll-with-read-select'           ; OCW3 with P and RR: the poll wins, once
        FRESH
        RAISE 4
        MASKS 0, 0xFF
        OUTB 0x20, 0x0F
        SHOWB 0x20
        SHOWB 0x20
        CHECK 'poll-slave'
        FRESH
        RAISE 8
        MASKS 0xFB, 0xFE
        POLL 0x20
        POLL 0xA0
        SHOW_ISR 0xA0
        SHOW_IRR 0x20

        CHECK 'eoi-non-specific'                ; the highest in service
        FRESH
        RAISE 4
        MASKS 0, 0xFF
        POLL 0x20
        RAISE 0
        POLL 0x20
        OUTB 0x20, 0x20
        SHOW_ISR 0x20
        OUTB 0x20, 0x20
        SHOW_ISR 0x20
        CHECK 'eoi-specific'
        LOWER 4
        LOWER 0
        RAISE 4
        POLL 0x20
        RAISE 0
        POLL 0x20
        OUTB 0x20, 0x64
        SHOW_ISR 0x20
        OUTB 0x20, 0x61                         ; not in service: nothing
        SHOW_ISR 0x20
        CHECK 'edge-once'                       ; no new request while the line stays high
        OUTB 0x20, 0x60
        SHOW_ISR 0x20
        SHOW_IRR 0x20
        POLL 0x20

        CHECK 'rotate-non-specific'             ; IR0 becomes the lowest: IR4 is before it
        FRESH
        RAISE 0
        MASKS 0, 0xFF
        POLL 0x20
        OUTB 0x20, 0xA0
        LOWER 0
        RAISE 0, 4
        POLL 0x20
        CHECK 'rotate-specific'
        FRESH
        RAISE 4
        MASKS 0, 0xFF
        POLL 0x20
        OUTB 0x20, 0xE4                         ; IR4 lowest: IR0, IR1 before it
        SHOW_ISR 0x20
        LOWER 4
        RAISE 4, 1
        POLL 0x20
        CHECK 'set-priority'
        FRESH
        OUTB 0x20, 0xC0                         ; IR0 lowest, IR1 highest
        RAISE 0, 1, 4
        MASKS 0, 0xFF
        POLL 0x20
        OUTB 0x20, 0x20
        POLL 0x20
        OUTB 0x20, 0x20
        POLL 0x20
        CHECK 'set-priority-nested'             ; IR4 in service holds IR0 back now
        FRESH
        OUTB 0x20, 0xC3
        RAISE 4
        MASKS 0, 0xFF
        POLL 0x20
        RAISE 0
        POLL 0x20
        CHECK 'priority-reset-by-icw1'
        INIT_PICS 0, 1, 1
        call lower_all
        RAISE 0, 4
        MASKS 0, 0xFF
        POLL 0x20
        CHECK 'no-operation'                    ; OCW2 010
        FRESH
        RAISE 0
        MASKS 0, 0xFF
        POLL 0x20
        OUTB 0x20, 0x40
        SHOW_ISR 0x20

        CHECK 'special-mask'                    ; IR0 in service and masked lets IR4 through
        FRESH
        RAISE 0
        MASKS 0, 0xFF
        POLL 0x20
        RAISE 4
        MASKS 1, 0xFF
        POLL 0x20
        OUTB 0x20, 0x68
        POLL 0x20
        SHOW_ISR 0x20
        CHECK 'special-mask-eoi'                ; non-specific EOI passes the masked one over
        OUTB 0x20, 0x20
        SHOW_ISR 0x20
        CHECK 'special-mask-off'
        LOWER 4
        RAISE 4
        OUTB 0x20, 0x48
        POLL 0x20
        OUTB 0x20, 0x28                         ; SMM without ESMM: nothing
        POLL 0x20

        CHECK 'automatic-eoi'
        call lower_all
        INIT_PICS 0, 3, 1
        RAISE 0, 4
        MASKS 0, 0xFF
        POLL 0x20
        SHOW_ISR 0x20
        POLL 0x20
        CHECK 'rotate-in-automatic-eoi'
        call lower_all
        INIT_PICS 0, 3, 1
        OUTB 0x20, 0x80
        RAISE 0
        MASKS 0, 0xFF
        POLL 0x20
        LOWER 0
        RAISE 0, 4
        POLL 0x20
        CHECK 'rotate-cleared'
        OUTB 0x20, 0x00
        POLL 0x20
        LOWER 4
        LOWER 0
        RAISE 0, 4
        POLL 0x20
        LOWER 4
        RAISE 4
        POLL 0x20
        POLL 0x20

        CHECK 'without-icw4'                    ; IC4 clear: its functions are zero
        call lower_all
        OUTB 0x20, 0x10
        OUTB 0x21, 0x20
        OUTB 0x21, 4
        OUTB 0x21, 0xEF
        SHOWB 0x21
        RAISE 4
        POLL 0x20
        SHOW_ISR 0x20

        CHECK 'nested'                          ; the slave's IR4 in service locks out its IR0 at the master
        FRESH
        RAISE 12
        MASKS 0xFB, 0xEE
        POLL 0x20
        POLL 0xA0
        RAISE 8
        SHOW_IRR 0x20
        OUTB 0x20, 0x0C
        SHOW_MASKED 0x20, 0x80
        CHECK 'special-fully-nested'
        call lower_all
        INIT_PICS 0, 0x11, 1
        RAISE 12
        MASKS 0xFB, 0xEE
        POLL 0x20
        POLL 0xA0
        RAISE 8
        SHOW_IRR 0x20
        POLL 0x20
        POLL 0xA0
        SHOW_ISR 0xA0

        CHECK 'vectors'                         ; by priority; each handler ends without EOI
        FRESH
        RAISE 0, 4, 12, 8
        MASKS 0xEA, 0xEE
        INTERRUPTS
        SHOW_ISR 0x20
        CHECK 'vectors-by-eoi'
        OUTB 0x20, 0x20
        INTERRUPTS
        SHOW_ISR 0x20
        SHOW_ISR 0xA0
        CHECK 'vectors-of-slave'                ; both EOIs for the next of the slave
        OUTB 0xA0, 0x20
        OUTB 0x20, 0x20
        INTERRUPTS
        OUTB 0xA0, 0x20
        OUTB 0x20, 0x20
        INTERRUPTS
        CHECK 'vectors-automatic'               ; all at once in automatic EOI
        call lower_all
        INIT_PICS 0, 3, 3
        RAISE 0, 4, 12, 8
        MASKS 0xEA, 0xEE
        INTERRUPTS
        CHECK 'vectors-rotated'
        FRESH
        OUTB 0x20, 0xC0
        RAISE 0, 4
        MASKS 0xEE, 0xFF
        INTERRUPTS
        CHECK 'vector-base'                     ; its low three bits are the level
        call lower_all
        OUTB 0x20, 0x11
        OUTB 0x21, 0x27
        OUTB 0x21, 4
        OUTB 0x21, 1
        OUTB 0x21, 0xEF
        RAISE 4
        INTERRUPTS
        call lower_all

        PROBE_DONE

raise_0:                                ; OUT of counter 0 high
        OUTB 0x43, 0x30
        OUTB 0x40, 2
        OUTB 0x40, 0
.runs:  OUTB 0x43, 0xE2
        in al, 0x40
        test al, 0x80
        jz .runs
        ret
lower_0:
        OUTB 0x43, 0x30
        ret
raise_4:                                ; OUT2, and the interrupt for an empty transmitter
        OUTB 0x3FC, 8
        OUTB 0x3F9, 2
        ret
lower_4:
        OUTB 0x3F9, 0
        ret
raise_1:
        mov bl, 0xD2
        jmp put_byte
raise_12:
        mov bl, 0xD3
put_byte:                               ; by command BL of the 8042, both interrupts enabled, both interfaces off
        call kbc_ready
        OUTB 0x64, 0x60
        call kbc_ready
        OUTB 0x60, 0x33
        call kbc_ready
        OUTB 0x64, bl
        call kbc_ready
        OUTB 0x60, 0x55
        AWAIT 0x64, 1, 1
        ret
kbc_ready:
        AWAIT 0x64, 2, 0
        ret
lower_1:
lower_12:
        in al, 0x60
        ret
raise_8:                                ; periodic interrupts, the first within 122 us; the line stays until C is read
        INDEXED 0x70, 0x0A, 0x23
        INDEXED 0x70, 0x0B, 0x42
.wait:  OUTB 0xA0, 0x0A                 ; IRR, whose bit 0 comes
        mov ecx, 400000
.next:  in al, 0xA0
        test al, 1
        loopz .next, ecx
        ret
lower_8:
        INDEXED 0x70, 0x0B, 0x02
        OUTB 0x70, 0x0C
        in al, 0x71
        ret
lower_all:
        call lower_0
        call lower_4
        call lower_1
        jmp lower_8

handlers:                               ; vectors 20h to 2Fh log themselves
        mov di, 0x80
        mov ax, vectors
        mov cx, 16
.next:  stosw
        mov word [di], ROM >> 4
        add di, 2
        add ax, vector_1 - vector_0
        loop .next
        ret
%assign v 0
%rep 16
vector_ %+ v:
        push byte 0x20 + v
        jmp strict near taken
%assign v v + 1
%endrep
vectors equ vector_0
taken:
        push bp
        mov bp, sp
        push bx
        push ax
        mov bx, [LOGGED]
        mov al, [bp + 2]
        mov [LOG + bx], al
        inc word [LOGGED]
        pop ax
        pop bx
        pop bp
        add sp, 2
        iret
show_log:
        mov al, '/'
        out 0xE9, al
        mov si, LOG
        mov cx, [LOGGED]
        jcxz .end
.next:  lodsb
        call hex2_16
        loop .next
.end:   ret

        RESET_VECTOR start
